"""Data for the page's script: every metric's figures, pairs of rows, configs, commands. Plain JSON values.

Rows and columns are referred to by index: rows in the order of the first leaderboard, columns as `PageLayout.columns`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import stats
from harness.leaderboard import AXES, EvaluationSummary, Leaderboard, Row
from harness.leaderboard.model import Scores
from harness.leaderboard.significance import paired_scores
from harness.leaderboard.table import HEADINGS
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

    def columns(self, leaderboard: Leaderboard) -> Iterator[list[str]]:
        """Yield the datasets that each column covers."""
        yield from ([name] for name in self.datasets)
        if self.has_means:
            yield leaderboard.common if len(leaderboard.common) > 1 else []

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
    """The rows of a column that have the same queries."""

    rows: list[int]
    query_ids: list[list[str]]
    """Of each part."""
    strata: list[tuple[float, NDArray[np.float64]]]
    """For each part its weight and scores [queries, rows]."""


def page_data(layout: PageLayout, scores: Scores) -> dict[str, Any]:
    """Return the data for the page's script, except for the queries and slices.

    Args:
        layout: The page's layout.
        scores: Per-query scores by the path that a record names.
    """
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
        "pairs": _pairs(layout, scores),
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


def pair_rows(
    layout: PageLayout, leaderboard: Leaderboard, datasets: Sequence[str], scores: Scores
) -> PairedRows | None:
    """Return the rows that have the same queries as the first one with scores on all datasets; None where none has.

    Args:
        layout: The page's layout.
        leaderboard: The leaderboard of one metric.
        datasets: Datasets that a column covers.
        scores: Per-query scores by the path that a record names.
    """
    values: dict[int, list[NDArray[np.float64]]] = {}
    query_ids: list[list[str]] = []
    weights: list[float] = []
    for row in leaderboard.rows if datasets else ():
        parts = paired_scores([row.evaluations.get(name) for name in datasets], leaderboard.metric, scores)
        if parts is None:
            continue
        row_ids = [part.query_ids for part in parts]
        if not values:
            query_ids, weights = row_ids, [part.weight for part in parts]
        if row_ids == query_ids:
            values[layout.row_index[row.label]] = [part.values for part in parts]
    rows = sorted(values)
    matrices = [np.column_stack(part) for part in zip(*(values[row] for row in rows), strict=True)]
    return PairedRows(rows, query_ids, list(zip(weights, matrices, strict=True))) if rows else None


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
    """Return the value, its mark (1: best, 2: tied with the best), and the ends of the interval."""
    if evaluation is None:
        return None
    mark = 1 if evaluation.best else (2 if evaluation.tied_with_best else 0)
    ends = [round_value(end, 3) for end in evaluation.interval] if evaluation.interval else []
    return [round_value(evaluation.value), mark, *ends]


def _pairs(layout: PageLayout, scores: Scores) -> dict[str, list[Any]]:
    """Return by metric and column the differences of the first row of each pair to the second; p is not adjusted."""
    columns = {metric: list(layout.columns(leaderboard)) for metric, leaderboard in layout.leaderboards.items()}
    tests: dict[str, list[Any]] = {metric: [None] * len(datasets) for metric, datasets in columns.items()}
    for column in range(len(layout.datasets) + layout.has_means):
        # metrics with the same numbers of queries share their draws of signs
        groups: dict[tuple[Any, ...], dict[str, PairedRows]] = {}
        for metric, leaderboard in layout.leaderboards.items():
            if (paired := pair_rows(layout, leaderboard, columns[metric][column], scores)) is not None:
                shape = tuple((weight, len(values)) for weight, values in paired.strata)
                groups.setdefault(shape, {})[metric] = paired
        for group in groups.values():
            for metric, result in zip(group, _test_pairs(list(group.values()), layout.anchor), strict=True):
                tests[metric][column] = result
    return tests


def _test_pairs(columns: Sequence[PairedRows], anchor: int | None) -> list[dict[str, Any]]:
    """Test the pairs of rows of several metrics' columns."""
    pairs = [_pair_indices(column.rows, anchor) for column in columns]
    differences = [
        (
            weight,
            np.hstack([_subtract(column.strata[part][1], order) for column, order in zip(columns, pairs, strict=True)]),
        )
        for part, (weight, _) in enumerate(columns[0].strata)
    ]
    p, delta = stats.p_values(differences), stats.mean(differences)
    won, lost = (sum(np.count_nonzero(sign * values > 0, axis=0) for _, values in differences) for sign in (1, -1))
    n_queries, begin, results = sum(len(values) for _, values in differences), 0, []
    for column, order in zip(columns, pairs, strict=True):
        part = slice(begin, begin := begin + len(order))
        results.append(
            {
                "n": n_queries,
                "rows": column.rows,
                "won": np.asarray(won)[part].tolist(),
                "lost": np.asarray(lost)[part].tolist(),
                "delta": [round_value(value) for value in delta[part]],
                "p": [float(f"{value:.4g}") for value in p[part]],
            }
        )
    return results


def _pair_indices(rows: Sequence[int], anchor: int | None) -> list[tuple[int, int]]:
    """Return indices into `rows`: every pair, or the anchor with each other row; the script uses the same order."""
    if anchor is None:
        return list(combinations(range(len(rows)), 2))
    if anchor not in rows:
        return []
    return [(rows.index(anchor), index) for index, row in enumerate(rows) if row != anchor]


def _subtract(values: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    return values[:, [first for first, _ in pairs]] - values[:, [second for _, second in pairs]]
