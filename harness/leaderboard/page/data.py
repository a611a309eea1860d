"""What the page's script reads: every metric's figures, pairs of rows, configs, commands. Plain JSON values.

Rows and columns are named by their places: rows as the first board has them, columns as `Layout.columns`.
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
from harness.leaderboard import AXES, Board, Cell, Row
from harness.leaderboard.model import Scores
from harness.leaderboard.significance import paired_parts
from harness.leaderboard.table import HEADINGS
from harness.types import Record

FEW = 20
"""Up to so many rows the page has every pair of them; above, each against one row alone."""


@dataclass(frozen=True)
class Layout:
    """The boards of the page, by metric, and what all of them have in common."""

    boards: Mapping[str, Board]

    @cached_property
    def first(self) -> Board:
        """The board that is shown when the page opens."""
        return next(iter(self.boards.values()))

    @cached_property
    def labels(self) -> list[str]:
        """Those of the first board in its order, then those that only other metrics have."""
        return list(dict.fromkeys(row.label for board in self.boards.values() for row in board.rows))

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each label stands."""
        return {label: place for place, label in enumerate(self.labels)}

    @cached_property
    def datasets(self) -> list[str]:
        """Of any board."""
        return sorted({name for board in self.boards.values() for name in board.datasets})

    @property
    def means(self) -> bool:
        """Whether there is a column of means: the last one."""
        return len(self.datasets) > 1

    def columns(self, board: Board) -> Iterator[list[str]]:
        """The datasets that each column covers."""
        yield from ([name] for name in self.datasets)
        if self.means:
            yield board.common if len(board.common) > 1 else []

    def rows(self, board: Board) -> list[Row]:
        """The board's rows in the page's order; one that it lacks is empty."""
        held = {row.label: row for row in board.rows}
        return [held.get(label) or Row(label, {}, frozenset()) for label in self.labels]

    @cached_property
    def cells(self) -> dict[tuple[str, str], tuple[Record, ...]]:
        """The records behind each row and dataset, those of the first metric that has them."""
        found: dict[tuple[str, str], tuple[Record, ...]] = {}
        for board in self.boards.values():
            for row in board.rows:
                for name, cell in row.cells.items():
                    found.setdefault((row.label, name), cell.records)
        return found

    @cached_property
    def families(self) -> list[str]:
        """Of each row: that of the first board in which it has a cell."""
        found: dict[str, str] = {}
        for row in (row for board in self.boards.values() for row in board.rows):
            if row.cells:
                found.setdefault(row.label, row.family)
        return [found.get(label, "other") for label in self.labels]

    @property
    def anchor(self) -> int | None:
        """The only row that others are compared with; None where every pair is compared."""
        if len(self.labels) <= FEW:
            return None
        return self.places[self.first.baseline] if self.first.baseline else 0


@dataclass(frozen=True)
class Paired:
    """The rows of one column whose queries can be paired: a matrix [queries, rows] for each part."""

    rows: list[int]
    ids: list[list[str]]
    strata: list[tuple[float, NDArray[np.float64]]]


def embedded(layout: Layout, scores: Scores) -> dict[str, Any]:
    """All but the queries and slices."""
    return {
        "metrics": list(layout.boards),
        "datasets": [_dataset(layout, name) for name in layout.datasets],
        "means": layout.means,
        "axes": [{"key": key, "name": HEADINGS[key], "more": more} for key, more in AXES.items()],
        "baseline": layout.first.baseline,
        "anchor": layout.anchor,
        "rows": [
            {"label": label, "family": family, "config": _config(layout, label)}
            for label, family in zip(layout.labels, layout.families, strict=True)
        ],
        "boards": {metric: _board(layout, board) for metric, board in layout.boards.items()},
        "pairs": _pairs(layout, scores),
        "commands": [
            [[record.command for record in layout.cells.get((label, name), ())] for name in layout.datasets]
            for label in layout.labels
        ],
    }


def rounded(value: float | None, digits: int = 4) -> float | int | None:
    """As many digits as the page shows; whole numbers without a point."""
    if value is None:
        return None
    short = round(float(value), digits)
    return int(short) if short == int(short) else short


def paired(layout: Layout, board: Board, datasets: Sequence[str], scores: Scores) -> Paired | None:
    """The rows that have the same queries as the first that has scores on all of the datasets."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    ids: list[list[str]] = []
    weights: list[float] = []
    for row in board.rows if datasets else ():
        parts = paired_parts([row.cells.get(name) for name in datasets], board.metric, scores)
        if parts is None:
            continue
        if not found:
            ids, weights = [own for _, own, _ in parts], [weight for weight, _, _ in parts]
        if [own for _, own, _ in parts] == ids:
            found[layout.places[row.label]] = [own for _, _, own in parts]
    rows = sorted(found)
    matrices = [np.column_stack(own) for own in zip(*(found[row] for row in rows), strict=True)]
    return Paired(rows, ids, list(zip(weights, matrices, strict=True))) if rows else None


def _dataset(layout: Layout, name: str) -> dict[str, Any]:
    records = next((records for (_, own), records in sorted(layout.cells.items()) if own == name), ())
    sizes = [(record.dataset.documents, record.dataset.queries) for record in records]
    documents, queries = zip(*sizes, strict=True) if sizes else ((None,), (None,))
    return {
        "name": name,
        "parts": len(records),
        "split": next((record.dataset.split for record in records), None),
        "documents": None if None in documents else sum(documents),
        "queries": None if None in queries else sum(queries),
    }


def _config(layout: Layout, label: str) -> dict[str, str]:
    """Dotted keys of the config that the row's first cell was measured with."""
    records = next((layout.cells[label, name] for name in layout.datasets if (label, name) in layout.cells), ())
    return dict(_flat(records[0].retriever.config)) if records else {}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name in sorted(value):
            yield from _flat(value[name], f"{key}.{name}" if key else str(name))
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _board(layout: Layout, board: Board) -> dict[str, Any]:
    rows, found = layout.rows(board), list(board.environments)
    return {
        "common": [layout.datasets.index(name) for name in board.common],
        "tests": board.tests,
        "environments": [name[:8] for name in found],
        "cells": [_cells(layout, row) for row in rows],
        "means": [rounded(row.mean) for row in rows],
        "costs": [[rounded(getattr(row, axis)) for axis in AXES] for row in rows],
        "front": [[int(axis in row.front) for axis in AXES] for row in rows],
        "environment": [found.index(row.environment) if row.environment in found else None for row in rows],
    }


def _cells(layout: Layout, row: Row) -> list[Any]:
    cells = [_cell(row.cells.get(name)) or ("failed" if name in row.failed else None) for name in layout.datasets]
    return [*cells, *([_cell(row.overall)] if layout.means else [])]


def _cell(cell: Cell | None) -> list[Any] | None:
    """Value, mark (1: best, 2: not significantly below it), ends of the interval."""
    if cell is None:
        return None
    mark = 1 if cell.best else (2 if cell.close else 0)
    return [rounded(cell.value), mark, *([rounded(end, 3) for end in cell.interval] if cell.interval else [])]


def _pairs(layout: Layout, scores: Scores) -> dict[str, list[Any]]:
    """By metric and column: how the first row of each pair does against the second, p not adjusted."""
    columns = {metric: list(layout.columns(board)) for metric, board in layout.boards.items()}
    written: dict[str, list[Any]] = {metric: [None] * len(own) for metric, own in columns.items()}
    for place in range(len(layout.datasets) + layout.means):
        # metrics whose queries are as many share one draw of signs
        alike: dict[tuple[Any, ...], dict[str, Paired]] = {}
        for metric, board in layout.boards.items():
            if (found := paired(layout, board, columns[metric][place], scores)) is not None:
                shape = tuple((weight, len(values)) for weight, values in found.strata)
                alike.setdefault(shape, {})[metric] = found
        for together in alike.values():
            for metric, told in zip(together, _told(list(together.values()), layout.anchor), strict=True):
                written[metric][place] = told
    return written


def _told(several: Sequence[Paired], anchor: int | None) -> list[dict[str, Any]]:
    pairs = [_order(own.rows, anchor) for own in several]
    differences = [
        (weight, np.hstack([_minus(own.strata[part][1], order) for own, order in zip(several, pairs, strict=True)]))
        for part, (weight, _) in enumerate(several[0].strata)
    ]
    p, delta = stats.p_values(differences), stats.mean(differences)
    won, lost = (sum(np.count_nonzero(sign * own > 0, axis=0) for _, own in differences) for sign in (1, -1))
    n, begin, told = sum(len(own) for _, own in differences), 0, []
    for own, order in zip(several, pairs, strict=True):
        mine = slice(begin, begin := begin + len(order))
        told.append(
            {
                "n": n,
                "rows": own.rows,
                "won": np.asarray(won)[mine].tolist(),
                "lost": np.asarray(lost)[mine].tolist(),
                "delta": [rounded(one) for one in delta[mine]],
                "p": [float(f"{one:.4g}") for one in p[mine]],
            }
        )
    return told


def _order(rows: Sequence[int], anchor: int | None) -> list[tuple[int, int]]:
    """Places in `rows`: every pair, or the anchor against each other; the script counts in the same order."""
    if anchor is None:
        return list(combinations(range(len(rows)), 2))
    return [(rows.index(anchor), place) for place, row in enumerate(rows) if row != anchor] if anchor in rows else []


def _minus(values: NDArray[np.float64], order: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    return values[:, [one for one, _ in order]] - values[:, [other for _, other in order]]
