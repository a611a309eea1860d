"""Slice a dataset's scores by properties of its queries, to show where one retriever is better than another.

Queries are binned by their number of words, by the share of their words that relevant documents contain, by their
number of relevant documents, and by the share of unjudged documents among the first ten (the mean over the rows).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.leaderboard.model import EvaluationSummary, Leaderboard, Scores
from harness.types import Excerpt, Record

Tables = Callable[[Record, Excerpt], pa.Table | None]
"""Reads a record's `queries` or `rankings` table, as `Store.table` does."""

_PROPERTIES = {
    "words": "words in the query",
    "overlap": "share of the query's words in relevant documents",
    "relevant": "relevant documents",
    "unjudged": "unjudged share of the first ten",
}

_QueryKey = tuple[str, str]
"""Dataset part and query id."""


@dataclass(frozen=True)
class Bin:
    """Queries with similar values of a property."""

    name: str
    queries: int
    means: dict[str, float]
    """By row label."""


@dataclass(frozen=True)
class Slice:
    """One dataset, binned by one property of its queries."""

    dataset: str
    by: str
    bins: list[Bin]


def compute_slices(
    leaderboard: Leaderboard, scores: Scores, tables: Tables, labels: Sequence[str] | None = None
) -> list[Slice]:
    """Return the slices of every dataset whose records have per-query scores and stored queries or rankings.

    Args:
        leaderboard: The leaderboard.
        scores: Per-query scores by the path that a record names.
        tables: Function that reads a record's table.
        labels: Labels of the rows; all by default.
    """
    rows = [row for row in leaderboard.rows if labels is None or row.label in labels]
    slices = []
    for dataset in leaderboard.datasets:
        evaluations = {row.label: row.evaluations[dataset] for row in rows if dataset in row.evaluations}
        if evaluations:
            slices += _slice_dataset(dataset, evaluations, leaderboard.metric, scores, tables)
    return slices


def _slice_dataset(
    dataset: str, evaluations: dict[str, EvaluationSummary], metric: str, scores: Scores, tables: Tables
) -> list[Slice]:
    values = {
        label: by_query
        for label, evaluation in evaluations.items()
        if (by_query := _scores_by_query(evaluation, metric, scores)) is not None
    }
    if not values:
        return []
    properties = _properties([evaluations[label] for label in values], tables)
    return [
        Slice(dataset, title, bins)
        for name, title in _PROPERTIES.items()
        if (bins := _bins(name, properties.get(name, {}), values))
    ]


def _scores_by_query(evaluation: EvaluationSummary, metric: str, scores: Scores) -> dict[_QueryKey, float] | None:
    by_query: dict[_QueryKey, float] = {}
    for record in evaluation.records:
        per_query = scores.get(record.files.per_query or "")
        if per_query is None or metric not in per_query.values:
            return None
        keys = [(record.dataset.name, query) for query in per_query.query_ids]
        by_query |= dict(zip(keys, per_query.values[metric].tolist(), strict=True))
    return by_query


def _properties(evaluations: Sequence[EvaluationSummary], tables: Tables) -> dict[str, dict[_QueryKey, float]]:
    """Return each property's values by query."""
    properties: dict[str, dict[_QueryKey, float]] = {name: {} for name in _PROPERTIES}
    unjudged: dict[_QueryKey, list[float]] = {}
    for record in evaluations[0].records:
        if (queries := tables(record, "queries")) is not None:
            for row in queries.to_pylist():
                for name in ("words", "overlap", "relevant"):
                    if row[name] is not None:
                        properties[name][record.dataset.name, row["query_id"]] = float(row[name])
    for record in (record for evaluation in evaluations for record in evaluation.records):
        if (rankings := tables(record, "rankings")) is not None:
            for query, grades in zip(rankings["query_id"].to_pylist(), rankings["grades"].to_pylist(), strict=True):
                share = sum(grade is None for grade in grades) / len(grades) if grades else 0.0
                unjudged.setdefault((record.dataset.name, query), []).append(share)
    properties["unjudged"] = {key: sum(shares) / len(shares) for key, shares in unjudged.items()}
    return properties


def _bins(name: str, by_query: dict[_QueryKey, float], values: dict[str, dict[_QueryKey, float]]) -> list[Bin]:
    """Return the bins of one property; none where all queries are in one.

    Args:
        name: The property.
        by_query: The property's values.
        values: Scores by row label and query.
    """
    keys = [key for key in by_query if all(key in scores for scores in values.values())]
    if not keys:
        return []
    measured = np.array([by_query[key] for key in keys])
    edges = _edges(name, measured)
    if len(edges) < 3:
        return []
    bin_of_query = np.searchsorted(edges[1:-1], measured, side="left")
    bins = []
    for number in range(len(edges) - 1):
        inside = np.flatnonzero(bin_of_query == number)
        if len(inside):
            means = {
                label: float(np.mean([scores[keys[index]] for index in inside.tolist()]))
                for label, scores in values.items()
            }
            title = _bin_name(name, float(measured[inside].min()), float(measured[inside].max()))
            bins.append(Bin(title, len(inside), means))
    return bins if len(bins) > 1 else []


def _edges(name: str, values: NDArray[np.float64]) -> list[float]:
    """Return fixed edges for the unjudged share, otherwise thirds of the queries; a bin is `(edge, next edge]`."""
    if name == "unjudged":
        return [-1.0, 0.0, 0.5, 1.0]
    return [-1.0, *np.unique(np.quantile(values, [1 / 3, 2 / 3], method="lower")).tolist(), float("inf")]


def _bin_name(name: str, low: float, high: float) -> str:
    if name in ("overlap", "unjudged"):
        return f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
