"""Data for the page's script: every metric's figures, pairs of rows, configs, commands. Plain JSON values.

Rows and columns are referred to by index: rows in the order of the first leaderboard, columns as `PageLayout.columns`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from harness.leaderboard import AXES, EvaluationSummary, Leaderboard, Row
from harness.leaderboard.model import MEANS, Scores
from harness.leaderboard.significance import ColumnTests, score_column
from harness.leaderboard.table import HEADINGS
from harness.stats import Strata
from harness.types import Record

MAX_ROWS = 20
"""Largest number of rows for which the page has every pair; with more, each row is compared with one row only."""


@dataclass(frozen=True)
class PageLayout:
    """The leaderboards of the page, by metric, and their common rows and columns."""

    leaderboards: Mapping[str, Leaderboard]

    @cached_property
    def first(self) -> Leaderboard:
        """Leaderboard that is shown when the page opens."""
        return next(iter(self.leaderboards.values()))

    @cached_property
    def labels(self) -> list[str]:
        """Labels of the first leaderboard in its order, then those that only other metrics have."""
        return list(dict.fromkeys(row.label for leaderboard in self.leaderboards.values() for row in leaderboard.rows))

    @cached_property
    def row_index(self) -> dict[str, int]:
        """Index of each label."""
        return {label: index for index, label in enumerate(self.labels)}

    @cached_property
    def datasets(self) -> list[str]:
        """Datasets of any leaderboard."""
        return sorted({name for leaderboard in self.leaderboards.values() for name in leaderboard.datasets})

    @property
    def has_means(self) -> bool:
        """True if the last column is the mean over datasets."""
        return len(self.datasets) > 1

    @property
    def column_names(self) -> list[str]:
        """The datasets, and MEANS where there are means."""
        return [*self.datasets, *([MEANS] if self.has_means else [])]

    def rows(self, leaderboard: Leaderboard) -> list[Row]:
        """Return a leaderboard's rows in the page's order, with an empty row for each label that it lacks."""
        rows = {row.label: row for row in leaderboard.rows}
        return [rows.get(label) or Row(label, {}, frozenset()) for label in self.labels]

    @cached_property
    def records(self) -> dict[tuple[str, str], tuple[Record, ...]]:
        """Records by label and dataset, of the first metric that has them."""
        records: dict[tuple[str, str], tuple[Record, ...]] = {}
        for leaderboard in self.leaderboards.values():
            for row in leaderboard.rows:
                for name, evaluation in row.evaluations.items():
                    records.setdefault((row.label, name), evaluation.records)
        return records

    @cached_property
    def families(self) -> list[str]:
        """Family of each row, from the first leaderboard in which it has an evaluation."""
        families: dict[str, str] = {}
        for row in (row for leaderboard in self.leaderboards.values() for row in leaderboard.rows):
            if row.evaluations:
                families.setdefault(row.label, row.family)
        return [families.get(label, "other") for label in self.labels]

    @property
    def anchor(self) -> int | None:
        """Index of the only row that others are compared with; None where every pair is compared."""
        if len(self.labels) <= MAX_ROWS:
            return None
        return self.row_index[self.first.baseline] if self.first.baseline else 0


@dataclass(frozen=True)
class PairedRows:
    """The rows of a dataset that have scores of the same queries."""

    rows: list[int]
    query_ids: list[list[str]]
    """Of each part."""
    strata: Strata
    """For each part its weight and scores [queries, rows]."""


def page_data(layout: PageLayout) -> dict[str, Any]:
    """Return the data for the page's script, except for the queries and slices."""
    return {
        "metrics": list(layout.leaderboards),
        "datasets": [_dataset(layout, name) for name in layout.datasets],
        "means": layout.has_means,
        "axes": [{"key": key, "name": HEADINGS[key], "more": more} for key, more in AXES.items()],
        "baseline": layout.first.baseline,
        "anchor": layout.anchor,
        "rows": [
            {"label": label, "family": family, "config": _config(layout, label)}
            for label, family in zip(layout.labels, layout.families, strict=True)
        ],
        "leaderboards": {
            metric: _leaderboard(layout, leaderboard) for metric, leaderboard in layout.leaderboards.items()
        },
        "pairs": _pairs(layout),
        "commands": [
            [[record.command for record in layout.records.get((label, name), ())] for name in layout.datasets]
            for label in layout.labels
        ],
    }


def round_value(value: float | None, digits: int = 4) -> float | int | None:
    """Round `value` to `digits` decimals, as the page shows it; whole numbers become integers, None stays None."""
    if value is None:
        return None
    rounded = round(float(value), digits)
    return int(rounded) if rounded == int(rounded) else rounded


def pair_rows(layout: PageLayout, leaderboard: Leaderboard, dataset: str, scores: Scores) -> PairedRows | None:
    """Return the rows that have scores of the same queries of a dataset; None where there are none.

    Args:
        layout: The page's layout.
        leaderboard: The leaderboard of one metric.
        dataset: The dataset.
        scores: Per-query scores by the path that a record names.
    """
    evaluations = {row.label: row.evaluations for row in leaderboard.rows}
    column = score_column(evaluations, [dataset], leaderboard.metric, scores)
    if column is None:
        return None
    rows = [layout.row_index[label] for label in column.labels]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    strata = [(weight, values[:, order]) for weight, values in column.strata]
    return PairedRows([rows[index] for index in order], column.query_ids, strata)


def _dataset(layout: PageLayout, name: str) -> dict[str, Any]:
    records = next((records for (_, dataset), records in sorted(layout.records.items()) if dataset == name), ())
    sizes = [(record.dataset.documents, record.dataset.queries) for record in records]
    documents, queries = zip(*sizes, strict=True) if sizes else ((None,), (None,))
    return {
        "name": name,
        "parts": len(records),
        "split": next((record.dataset.split for record in records), None),
        "documents": None if None in documents else sum(documents),
        "queries": None if None in queries else sum(queries),
    }


def _config(layout: PageLayout, label: str) -> dict[str, str]:
    """Return the config of the row's first evaluation by dotted key."""
    records = next((layout.records[label, name] for name in layout.datasets if (label, name) in layout.records), ())
    return dict(_flatten(records[0].retriever.config)) if records else {}


def _flatten(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name in sorted(value):
            yield from _flatten(value[name], f"{key}.{name}" if key else str(name))
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _leaderboard(layout: PageLayout, leaderboard: Leaderboard) -> dict[str, Any]:
    rows, environments = layout.rows(leaderboard), list(leaderboard.environments)
    return {
        "common": [layout.datasets.index(name) for name in leaderboard.common],
        "tests": leaderboard.tests,
        "environments": [name[:8] for name in environments],
        "evaluations": [_evaluations(layout, row) for row in rows],
        "means": [round_value(row.mean) for row in rows],
        "costs": [[round_value(getattr(row, axis)) for axis in AXES] for row in rows],
        "front": [[int(axis in row.front) for axis in AXES] for row in rows],
        "busy": [[int(axis in row.busy) for axis in AXES] for row in rows],
        "environment": [
            environments.index(row.environment) if row.environment in environments else None for row in rows
        ],
    }


def _evaluations(layout: PageLayout, row: Row) -> list[Any]:
    by_dataset = [
        _evaluation(row.evaluations.get(name)) or ("failed" if name in row.failed else None) for name in layout.datasets
    ]
    return [*by_dataset, *([_evaluation(row.overall)] if layout.has_means else [])]


def _evaluation(evaluation: EvaluationSummary | None) -> list[Any] | None:
    """Return the value, its mark (1: best, 2: tied with the best), the interval's ends and the share of being best."""
    if evaluation is None:
        return None
    mark = 1 if evaluation.best else (2 if evaluation.tied_with_best else 0)
    ends = [round_value(end, 3) for end in evaluation.interval] if evaluation.interval else []
    share = [] if evaluation.best_share is None else [round_value(evaluation.best_share, 3)]
    return [round_value(evaluation.value), mark, *ends, *(share if ends else [])]


def _pairs(layout: PageLayout) -> dict[str, list[Any]]:
    """Return by metric and column the differences of the first row of each pair to the second."""
    return {
        metric: [
            None if column is None else _column_pairs(layout, column)
            for column in (leaderboard.column_tests(name) for name in layout.column_names)
        ]
        for metric, leaderboard in layout.leaderboards.items()
    }


def _column_pairs(layout: PageLayout, column: ColumnTests) -> dict[str, Any]:
    labels = {layout.row_index[label]: label for label in column.scores.labels if label in layout.row_index}
    rows = sorted(labels)
    pairs = [
        column.difference(labels[rows[second]], labels[rows[first]])
        for first, second in _pair_indices(rows, layout.anchor)
    ]
    differences = [pair for pair in pairs if pair is not None]
    return {
        "n": sum(len(ids) for ids in column.scores.query_ids),
        "rows": rows,
        "won": [pair.won for pair in differences],
        "lost": [pair.lost for pair in differences],
        "delta": [round_value(pair.delta) for pair in differences],
        "p": [float(f"{pair.p:.6g}") for pair in differences],
    }


def _pair_indices(rows: Sequence[int], anchor: int | None) -> list[tuple[int, int]]:
    """Return indices into `rows`: every pair, or the anchor with each other row; the script uses the same order."""
    if anchor is None:
        return list(combinations(range(len(rows)), 2))
    if anchor not in rows:
        return []
    return [(rows.index(anchor), index) for index, row in enumerate(rows) if row != anchor]
