"""Confidence intervals, the best of each column, ties with it, and differences to a baseline.

Two families of tests, each Holm-adjusted: every evaluation against the best of its column, and every evaluation against
the baseline's; the column of means counts as one more dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import stats
from harness.leaderboard.model import Difference, EvaluationSummary, Leaderboard, Row, Scores

_OVERALL = ""
"""Name of the column of means among the datasets' names."""

_Summaries = dict[tuple[str, str], EvaluationSummary]
"""Evaluations by row label and column name."""


class PairedScores(NamedTuple):
    """Per-query scores of one record."""

    weight: float
    """Weight of the record in the mean."""
    query_ids: list[str]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class _Column:
    """The rows of a column that have the same queries, and their scores."""

    name: str
    labels: list[str]
    strata: list[tuple[float, NDArray[np.float64]]]
    """For each dataset and part its weight and scores [queries, rows]."""


def mark_significance(leaderboard: Leaderboard, scores: Scores | None) -> Leaderboard:
    """Return the leaderboard with intervals, marks and differences.

    Args:
        leaderboard: A leaderboard without marks.
        scores: Per-query scores; without them only the best is marked, and nothing counts as untested.
    """
    has_means = leaderboard.common and len(leaderboard.datasets) > 1
    names = [*leaderboard.datasets, *([_OVERALL] if has_means else [])]
    columns = [column for name in names if (column := _column(leaderboard, name, scores or {})) is not None]
    best = {name: _best(leaderboard, name) for name in names}
    summaries: _Summaries = {
        (row.label, name): replace(evaluation, best=evaluation.value == best[name])
        for row in leaderboard.rows
        for name in names
        if (evaluation := _evaluation(row, name)) is not None
    }
    detectable = {}
    for column in columns:
        for label, low, high in zip(column.labels, *stats.confidence_intervals(column.strata), strict=True):
            key = (label, column.name)
            summaries[key] = replace(summaries[key], interval=(float(low), float(high)))
        if (effect := _detectable(column, summaries)) is not None and column.name:
            detectable[column.name] = effect
    tests = _test_against_best(columns, summaries)
    if leaderboard.baseline is not None:
        _test_against_baseline(columns, leaderboard.baseline, summaries)
    rows = [_with_summaries(row, summaries, names) for row in leaderboard.rows]
    untested = {} if scores is None else _untested(leaderboard.datasets, rows)
    return replace(leaderboard, rows=rows, detectable=detectable, tests=tests, untested=untested)


def _untested(datasets: Sequence[str], rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return by dataset the rows that are not the best and were not tested."""
    untested = {}
    for name in datasets:
        column = {row.label: row.evaluations[name] for row in rows if name in row.evaluations}
        labels = [label for label, each in column.items() if not each.best and each.tied_with_best is None]
        if labels and len(column) > 1:
            untested[name] = labels
    return untested


def _with_summaries(row: Row, summaries: _Summaries, names: Sequence[str]) -> Row:
    overall = summaries.get((row.label, _OVERALL), row.overall)
    evaluations = {name: summaries[row.label, name] for name in names if name in row.evaluations}
    return replace(row, evaluations=evaluations, overall=overall)


def _evaluation(row: Row, name: str) -> EvaluationSummary | None:
    return row.overall if name == _OVERALL else row.evaluations.get(name)


def _best(leaderboard: Leaderboard, name: str) -> float | None:
    """Return the highest value of a column; None where fewer than two rows can be compared."""
    values = [each.value for row in leaderboard.rows if (each := _evaluation(row, name)) is not None]
    return max(values) if len(values) > 1 else None


def _column(leaderboard: Leaderboard, name: str, scores: Scores) -> _Column | None:
    """Return the paired scores of a column; None where no row has scores."""
    datasets = leaderboard.common if name == _OVERALL else [name]
    query_ids: list[list[str]] | None = None
    labels, values = [], []
    for row in leaderboard.rows:
        parts = paired_scores([row.evaluations.get(dataset) for dataset in datasets], leaderboard.metric, scores)
        if parts is None:
            continue
        row_ids = [part.query_ids for part in parts]
        if query_ids is None:
            query_ids, weights = row_ids, [part.weight for part in parts]
        if row_ids == query_ids:
            labels.append(row.label)
            values.append([part.values for part in parts])
    if query_ids is None:
        return None
    matrices = [np.column_stack(part) for part in zip(*values, strict=True)]
    return _Column(name, labels, list(zip(weights, matrices, strict=True)))


def paired_scores(
    evaluations: Sequence[EvaluationSummary | None], metric: str, scores: Scores
) -> list[PairedScores] | None:
    """Return the per-query scores of every record of a row.

    Args:
        evaluations: The row's evaluations, one for each dataset of a mean.
        metric: The metric's name.
        scores: Per-query scores by the path that a record names.

    Returns:
        Scores and weight of each record; None where an evaluation or its scores are missing.
    """
    parts = []
    for evaluation in evaluations:
        for record in evaluation.records if evaluation is not None else ():
            per_query = scores.get(record.files.per_query or "")
            if per_query is None or metric not in per_query.values:
                return None
            weight = 1.0 / len(evaluations) / record.dataset.parts
            parts.append(PairedScores(weight, list(per_query.query_ids), per_query.values[metric]))
    return parts if all(evaluation is not None for evaluation in evaluations) else None


def _differences_to(column: _Column, label: str) -> list[tuple[float, NDArray[np.float64]]]:
    """Return the differences of every row of a column to one of them."""
    index = column.labels.index(label)
    return [(weight, values - values[:, [index]]) for weight, values in column.strata]


def _best_label(column: _Column, summaries: _Summaries) -> str | None:
    """Return a row that is the best of the column; None where the best has no paired scores."""
    return next((label for label in column.labels if summaries[label, column.name].best), None)


def _test_against_best(columns: Sequence[_Column], summaries: _Summaries) -> int:
    """Mark evaluations that are tied with the best of their column, and return the number of tests."""
    family: list[tuple[tuple[str, str], float]] = []
    for column in columns:
        if (best := _best_label(column, summaries)) is None:
            continue
        p_values = stats.p_values(_differences_to(column, best))
        family += [
            ((label, column.name), float(p))
            for label, p in zip(column.labels, p_values, strict=True)
            if not summaries[label, column.name].best
        ]
    for (key, _), adjusted in zip(family, stats.holm([p for _, p in family]), strict=True):
        summaries[key] = replace(summaries[key], tied_with_best=adjusted >= stats.ALPHA)
    return len(family)


def _test_against_baseline(columns: Sequence[_Column], baseline: str, summaries: _Summaries) -> None:
    """Set the Holm-adjusted differences to the baseline."""
    family: list[tuple[tuple[str, str], Difference]] = []
    for column in columns:
        if baseline not in column.labels:
            continue
        differences = describe_differences(_differences_to(column, baseline))
        family += [
            ((label, column.name), difference)
            for label, difference in zip(column.labels, differences, strict=True)
            if label != baseline
        ]
    adjusted = stats.holm([difference.p for _, difference in family])
    for (key, difference), p in zip(family, adjusted, strict=True):
        summaries[key] = replace(summaries[key], versus=replace(difference, p=p))


def describe_differences(differences: stats.Strata) -> list[Difference]:
    """Return mean, interval and test of each column of paired differences; p is not adjusted yet."""
    low, high = stats.confidence_intervals(differences)
    p, delta = stats.p_values(differences), stats.mean(differences)
    described = []
    for column in range(len(delta)):
        parts = [values[:, column] for _, values in differences]
        won, tied, lost = stats.count_wins(np.concatenate(parts))
        described.append(
            Difference(
                delta=float(delta[column]),
                low=float(low[column]),
                high=float(high[column]),
                p=float(p[column]),
                won=won,
                tied=tied,
                lost=lost,
                effect=stats.effect_size(parts[0]) if len(parts) == 1 else None,
            )
        )
    return described


def _detectable(column: _Column, summaries: _Summaries) -> float | None:
    """Return the minimum detectable effect, from the median standard error of the differences to the best row."""
    if (best := _best_label(column, summaries)) is None:
        return None
    errors = [float(error) for error in stats.standard_errors(_differences_to(column, best)) if error > 0]
    return stats.minimum_detectable_effect(median(errors)) if errors else None
