"""Where does one retriever beat another? A dataset's scores by what its queries are like.

Queries are cut by their number of words, by the share of their words that relevant documents have, by how many
documents are relevant, and by the share of unjudged documents among the first ten (the mean over the rows shown).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.leaderboard.model import Board, Cell, Scores
from harness.types import Excerpt, Record

Tables = Callable[[Record, Excerpt], pa.Table | None]
"""Gives a record's `asked` or `ranked` table, as `Store.table` does."""

_KINDS = {
    "words": "words in the query",
    "overlap": "share of the query's words in relevant documents",
    "relevant": "relevant documents",
    "unjudged": "unjudged share of the first ten",
}


@dataclass(frozen=True)
class Bin:
    """Queries alike in one respect."""

    name: str
    queries: int
    means: dict[str, float]
    """By row label."""


@dataclass(frozen=True)
class Slice:
    """One dataset cut by one property of its queries."""

    dataset: str
    by: str
    bins: list[Bin]


def slices(board: Board, scores: Scores, tables: Tables, labels: Sequence[str] | None = None) -> list[Slice]:
    """The slices of every dataset whose records keep what is needed; `labels` names the rows, all by default."""
    rows = [row for row in board.rows if labels is None or row.label in labels]
    found = []
    for dataset in board.datasets:
        cells = {row.label: row.cells[dataset] for row in rows if dataset in row.cells}
        if cells:
            found += _of(dataset, cells, board.metric, scores, tables)
    return found


def _of(dataset: str, cells: dict[str, Cell], metric: str, scores: Scores, tables: Tables) -> list[Slice]:
    values = {label: own for label, cell in cells.items() if (own := _by_query(cell, metric, scores)) is not None}
    if not values:
        return []
    properties = _properties([cells[label] for label in values], tables)
    return [
        Slice(dataset, by, bins)
        for kind, by in _KINDS.items()
        if (bins := _bins(kind, properties.get(kind, {}), values))
    ]


def _by_query(cell: Cell, metric: str, scores: Scores) -> dict[tuple[str, str], float] | None:
    """Scores by part and query id."""
    found: dict[tuple[str, str], float] = {}
    for record in cell.records:
        held = scores.get(record.files.per_query or "")
        if held is None or metric not in held.values:
            return None
        keys = [(record.dataset.name, query) for query in held.query_ids]
        found |= dict(zip(keys, held.values[metric].tolist(), strict=True))
    return found


def _properties(cells: Sequence[Cell], tables: Tables) -> dict[str, dict[tuple[str, str], float]]:
    """By kind, part and query id."""
    found: dict[str, dict[tuple[str, str], float]] = {kind: {} for kind in _KINDS}
    unjudged: dict[tuple[str, str], list[float]] = {}
    for record in cells[0].records:
        if (queries := tables(record, "queries")) is not None:
            for row in queries.to_pylist():
                for kind in ("words", "overlap", "relevant"):
                    if row[kind] is not None:
                        found[kind][record.dataset.name, row["query_id"]] = float(row[kind])
    for record in (record for cell in cells for record in cell.records):
        if (rankings := tables(record, "rankings")) is not None:
            for query, grades in zip(rankings["query_id"].to_pylist(), rankings["grades"].to_pylist(), strict=True):
                share = sum(grade is None for grade in grades) / len(grades) if grades else 0.0
                unjudged.setdefault((record.dataset.name, query), []).append(share)
    found["unjudged"] = {key: sum(shares) / len(shares) for key, shares in unjudged.items()}
    return found


def _bins(
    kind: str, properties: dict[tuple[str, str], float], values: dict[str, dict[tuple[str, str], float]]
) -> list[Bin]:
    keys = [key for key in properties if all(key in own for own in values.values())]
    if not keys:
        return []
    of = np.array([properties[key] for key in keys])
    edges = _edges(kind, of)
    if len(edges) < 3:
        return []
    place = np.searchsorted(edges[1:-1], of, side="left")
    bins = []
    for number in range(len(edges) - 1):
        inside = np.flatnonzero(place == number)
        if len(inside):
            means = {
                label: float(np.mean([own[keys[one]] for one in inside.tolist()])) for label, own in values.items()
            }
            bins.append(Bin(_name(kind, float(of[inside].min()), float(of[inside].max())), len(inside), means))
    return bins if len(bins) > 1 else []


def _edges(kind: str, of: NDArray[np.float64]) -> list[float]:
    """Fixed for the unjudged share, else thirds of the queries; a bin is `(edge, next edge]`."""
    if kind == "unjudged":
        return [-1.0, 0.0, 0.5, 1.0]
    return [-1.0, *np.unique(np.quantile(of, [1 / 3, 2 / 3], method="lower")).tolist(), float("inf")]


def _name(kind: str, low: float, high: float) -> str:
    if kind in ("overlap", "unjudged"):
        return f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
