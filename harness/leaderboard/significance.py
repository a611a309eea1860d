"""Intervals, the best of each column, what cannot be told from it, and differences to a baseline.

Two families of tests, each adjusted by Holm: every cell against the best of its column, and every cell against the
baseline's; the column of means counts as one more dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from harness import stats
from harness.leaderboard.model import Board, Cell, Difference, Row, Scores

_OVERALL = ""
"""The column of means, beside the datasets' names."""


@dataclass(frozen=True)
class Column:
    """The rows of one column whose queries can be paired, and their scores."""

    name: str
    labels: list[str]
    strata: list[tuple[float, NDArray[np.float64]]]


def mark(board: Board, scores: Scores | None) -> Board:
    """The board with its marks; without scores only the best is marked, and nothing counts as untested."""
    names = [*board.datasets, *([_OVERALL] if board.common and len(board.datasets) > 1 else [])]
    rows = {row.label: row for row in board.rows}
    columns = [column for name in names if (column := _column(board, name, scores or {})) is not None]
    best = {name: _best(board, name) for name in names}
    new: dict[tuple[str, str], Cell] = {
        (row.label, name): replace(cell, best=cell.value == best[name])
        for row in board.rows
        for name in names
        if (cell := _cell(row, name)) is not None
    }
    detectable = {}
    for column in columns:
        for label, low, high in zip(column.labels, *stats.confidence_intervals(column.strata), strict=True):
            new[label, column.name] = replace(new[label, column.name], interval=(float(low), float(high)))
        if (found := _detectable(column, new)) is not None and column.name:
            detectable[column.name] = found
    tests = _below_best(columns, new)
    if board.baseline is not None:
        _against(columns, board.baseline, new)
    marked = [_marked(rows[row.label], new, names) for row in board.rows]
    untested = {} if scores is None else _untested(board.datasets, marked)
    return replace(board, rows=marked, detectable=detectable, tests=tests, untested=untested)


def _untested(datasets: Sequence[str], rows: Sequence[Row]) -> dict[str, list[str]]:
    """Rows that are not the best of a column with one, and that no test has told of."""
    found = {}
    for name in datasets:
        cells = {row.label: row.cells[name] for row in rows if name in row.cells}
        if own := [label for label, cell in cells.items() if not cell.best and cell.close is None and len(cells) > 1]:
            found[name] = own
    return found


def _marked(row: Row, new: dict[tuple[str, str], Cell], names: Sequence[str]) -> Row:
    overall = new.get((row.label, _OVERALL), row.overall)
    return replace(row, cells={name: new[row.label, name] for name in names if name in row.cells}, overall=overall)


def _cell(row: Row, name: str) -> Cell | None:
    return row.overall if name == _OVERALL else row.cells.get(name)


def _best(board: Board, name: str) -> float | None:
    """The highest value of a column; None where fewer than two rows can be compared."""
    values = [cell.value for row in board.rows if (cell := _cell(row, name)) is not None]
    return max(values) if len(values) > 1 else None


def _column(board: Board, name: str, scores: Scores) -> Column | None:
    """The column's strata: for each dataset and part a weight and the scores [queries, rows] of paired rows."""
    datasets = board.common if name == _OVERALL else [name]
    first: list[list[str]] | None = None
    labels, values = [], []
    for row in board.rows:
        cells = [row.cells.get(dataset) for dataset in datasets]
        if (parts := paired_parts(cells, board.metric, scores)) is None:
            continue
        ids = [ids for _, ids, _ in parts]
        if first is None:
            first, weights = ids, [weight for weight, _, _ in parts]
        if ids == first:
            labels.append(row.label)
            values.append([own for _, _, own in parts])
    if first is None:
        return None
    strata = [(weight, np.column_stack(own)) for weight, own in zip(weights, zip(*values, strict=True), strict=True)]
    return Column(name, labels, strata)


def paired_parts(
    cells: Sequence[Cell | None], metric: str, scores: Scores
) -> list[tuple[float, list[str], NDArray[np.float64]]] | None:
    """For every record of some cells its weight in their mean, its query ids and scores; None where any is missing."""
    parts = []
    for cell in cells:
        for record in cell.records if cell is not None else ():
            held = scores.get(record.files.per_query or "")
            if held is None or metric not in held.values:
                return None
            parts.append((1.0 / len(cells) / record.dataset.parts, list(held.query_ids), held.values[metric]))
    return parts if all(cell is not None for cell in cells) else None


def _against_one(column: Column, label: str) -> list[tuple[float, NDArray[np.float64]]]:
    """The column's differences to one of its rows."""
    place = column.labels.index(label)
    return [(weight, values - values[:, [place]]) for weight, values in column.strata]


def _leader(column: Column, new: dict[tuple[str, str], Cell]) -> str | None:
    """A row of the column that is its best; None when the best has no scores to compare."""
    return next((label for label in column.labels if new[label, column.name].best), None)


def _below_best(columns: Sequence[Column], new: dict[tuple[str, str], Cell]) -> int:
    """Mark what is not significantly below the best; gives the number of tests."""
    family: list[tuple[tuple[str, str], float]] = []
    for column in columns:
        if (leader := _leader(column, new)) is None:
            continue
        p = stats.p_values(_against_one(column, leader))
        family += [
            ((label, column.name), float(own))
            for label, own in zip(column.labels, p, strict=True)
            if not new[label, column.name].best
        ]
    for (key, _), adjusted in zip(family, stats.holm([own for _, own in family]), strict=True):
        new[key] = replace(new[key], close=adjusted >= stats.ALPHA)
    return len(family)


def _against(columns: Sequence[Column], baseline: str, new: dict[tuple[str, str], Cell]) -> None:
    family: list[tuple[tuple[str, str], Difference]] = []
    for column in columns:
        if baseline not in column.labels:
            continue
        differences = _against_one(column, baseline)
        found = described(differences)
        family += [
            ((label, column.name), one) for label, one in zip(column.labels, found, strict=True) if label != baseline
        ]
    for (key, one), p in zip(family, stats.holm([one.p for _, one in family]), strict=True):
        new[key] = replace(new[key], versus=replace(one, p=p))


def described(differences: stats.Strata) -> list[Difference]:
    """What each column of paired differences tells; p is not adjusted yet."""
    low, high = stats.confidence_intervals(differences)
    p, delta = stats.p_values(differences), stats.mean(differences)
    told = []
    for place in range(len(delta)):
        own = [values[:, place] for _, values in differences]
        won, tied, lost = stats.count_wins(np.concatenate(own))
        told.append(
            Difference(
                delta=float(delta[place]),
                low=float(low[place]),
                high=float(high[place]),
                p=float(p[place]),
                won=won,
                tied=tied,
                lost=lost,
                effect=stats.effect_size(own[0]) if len(own) == 1 else None,
            )
        )
    return told


def _detectable(column: Column, new: dict[tuple[str, str], Cell]) -> float | None:
    """From the median standard error of the differences between the best row and the others."""
    if (leader := _leader(column, new)) is None:
        return None
    errors = stats.standard_errors(_against_one(column, leader))
    varying = [float(error) for error in errors if error > 0]
    return stats.minimum_detectable_effect(median(varying)) if varying else None
