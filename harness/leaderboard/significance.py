"""Confidence intervals, the best of each column, and the one family of comparisons that all verdicts are read from.

Every pair of rows is tested in every column, and in the column of means over several datasets. Leaderboard, comparison,
recommendation and page read the differences of `ComparisonFamily.columns`; none of them tests anything itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import stats
from harness.leaderboard.model import MEANS, Difference, EvaluationSummary, Scores
from harness.simultaneous import MAX_COMPARISONS, PairwiseTests, compare_all

Evaluations = Mapping[str, Mapping[str, EvaluationSummary]]
"""Evaluations by row label and dataset."""


class PairedScores(NamedTuple):
    """Per-query scores of one record."""

    weight: float
    """Weight of the record in the mean."""
    part: str
    """Name of the dataset, or of the part of one."""
    query_ids: list[str]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class ScoreColumn:
    """The rows of a column that have scores of the same queries."""

    labels: list[str]
    parts: list[str]
    """Names of the datasets, or parts of them, of each stratum."""
    query_ids: list[list[str]]
    """Of each stratum."""
    strata: stats.Strata
    """For each part its weight and scores [queries, rows]."""


@dataclass(frozen=True)
class ColumnTests:
    """The differences between all pairs of rows of a column."""

    scores: ScoreColumn
    tests: PairwiseTests

    def difference(self, a: str, b: str) -> Difference | None:
        """Return row b minus row a; None where one of them was not tested.

        Args:
            a: Label of the row to compare with.
            b: Label of the other row.
        """
        labels = self.scores.labels
        if a == b or a not in labels or b not in labels:
            return None
        first, second = labels.index(a), labels.index(b)
        parts = [values[:, second] - values[:, first] for _, values in self.scores.strata]
        return describe(self.tests, first, second, parts)

    @property
    def best(self) -> str:
        """Label of the row of highest mean, whose comparisons are those with the best."""
        return self.scores.labels[self.tests.best]

    def is_worse(self, label: str, best: str) -> bool | None:
        """Return True if a row is significantly worse than the best; None where one of them was not tested.

        Args:
            label: Label of the row.
            best: Label of the best row of the column.
        """
        labels = self.scores.labels
        if label not in labels or best not in labels:
            return None
        return bool(self.tests.p[labels.index(best), labels.index(label)] < stats.ALPHA)

    def minimum_detectable_effect(self, best: str) -> float | None:
        """Return the MDE of one test, from the median standard error of the differences to the best row."""
        if best not in self.scores.labels:
            return None
        index = self.scores.labels.index(best)
        differences = [(weight, values - values[:, [index]]) for weight, values in self.scores.strata]
        errors = [float(error) for error in stats.standard_errors(differences) if error > 0]
        return stats.minimum_detectable_effect(median(errors)) if errors else None


@dataclass(frozen=True)
class ComparisonFamily:
    """Comparisons that are adjusted together."""

    columns: Mapping[str, ColumnTests] = field(default_factory=dict)
    """By dataset; MEANS for the mean over several."""
    rows: int = 0
    size: int = 0
    """Number of comparisons."""

    @property
    def method(self) -> str:
        """Name of the tests and their adjustment."""
        return (
            "paired randomisation"
            if self.size <= MAX_COMPARISONS
            else "Student's paired t-tests with Holm's correction"
        )

    def __str__(self) -> str:
        datasets = len(self.columns) - (MEANS in self.columns)
        count = f"{self.size:,} comparison{'s' if self.size > 1 else ''}"
        columns = f"{datasets} dataset{'s' if datasets > 1 else ''}" if datasets else ""
        means = ("and their mean" if datasets else "the mean over datasets") if MEANS in self.columns else ""
        return f"{count}: all pairs of {self.rows} rows on {' '.join(filter(None, (columns, means)))}"


def test_family(
    evaluations: Evaluations, datasets: Mapping[str, Sequence[str]], metric: str, scores: Scores
) -> ComparisonFamily:
    """Test all pairs of rows in all columns as one family.

    Args:
        evaluations: Evaluations by row and dataset.
        datasets: By column, the datasets that its mean covers.
        metric: The metric's name.
        scores: Per-query scores by the path that a record names.
    """
    columns = {
        name: column
        for name, covered in datasets.items()
        if (column := score_column(evaluations, covered, metric, scores)) is not None and len(column.labels) > 1
    }
    numbers: dict[str, int] = {}
    seeds = [[numbers.setdefault(part, len(numbers)) for part in column.parts] for column in columns.values()]
    results = compare_all([column.strata for column in columns.values()], seeds)
    tests = {name: ColumnTests(column, result) for (name, column), result in zip(columns.items(), results, strict=True)}
    rows = {label for column in columns.values() for label in column.labels}
    size = sum(len(column.labels) * (len(column.labels) - 1) // 2 for column in columns.values())
    return ComparisonFamily(tests, len(rows), size)


def score_column(evaluations: Evaluations, datasets: Sequence[str], metric: str, scores: Scores) -> ScoreColumn | None:
    """Return the paired scores of the largest group of rows that have the same queries; None where no row has scores.

    Args:
        evaluations: Evaluations by row and dataset.
        datasets: Datasets that the column covers: one, or several of a mean.
        metric: The metric's name.
        scores: Per-query scores by the path that a record names.
    """
    groups: dict[int, dict[str, list[PairedScores]]] = {}  # by the hash of the queries, then by label
    for label, by_dataset in evaluations.items():
        parts = paired_scores([by_dataset.get(name) for name in datasets], metric, scores)
        if parts is not None:
            groups.setdefault(hash(tuple(tuple(part.query_ids) for part in parts)), {})[label] = parts
    if not groups:
        return None
    rows = max(groups.values(), key=len)
    first = next(iter(rows.values()))
    matrices = [np.column_stack([part.values for part in parts]) for parts in zip(*rows.values(), strict=True)]
    strata = [(part.weight, matrix) for part, matrix in zip(first, matrices, strict=True)]
    return ScoreColumn([*rows], [part.part for part in first], [part.query_ids for part in first], strata)


def paired_scores(
    evaluations: Sequence[EvaluationSummary | None], metric: str, scores: Scores
) -> list[PairedScores] | None:
    """Return the per-query scores of every record of a row.

    Args:
        evaluations: The row's evaluations, one for each dataset of a mean.
        metric: The metric's name.
        scores: Per-query scores by the path that a record names.

    Returns:
        Scores and weight of each record; None where an evaluation or its scores are missing, or not finite.
    """
    parts = []
    for evaluation in evaluations:
        for record in evaluation.records if evaluation is not None else ():
            per_query = scores.get(record.files.per_query or "")
            if per_query is None or metric not in per_query.values:
                return None
            weight = 1.0 / len(evaluations) / record.dataset.parts
            values = per_query.values[metric]
            if not len(values) or not np.isfinite(values).all():
                return None
            parts.append(PairedScores(weight, record.dataset.name, list(per_query.query_ids), values))
    return parts if parts and all(evaluation is not None for evaluation in evaluations) else None


def describe(tests: PairwiseTests, a: int, b: int, parts: Sequence[NDArray[np.float64]]) -> Difference:
    """Return the difference of a pair of rows: row b minus row a.

    Args:
        tests: The tests of the column.
        a: Index of the row to compare with.
        b: Index of the other row.
        parts: For each part the difference of each query's scores [queries].
    """
    won, tied, lost = stats.count_wins(np.concatenate(parts))
    low, high = tests.interval(a, b)
    return Difference(
        delta=tests.delta(a, b),
        low=low,
        high=high,
        p=float(tests.p[a, b]),
        won=won,
        tied=tied,
        lost=lost,
        effect=stats.effect_size(parts[0]) if len(parts) == 1 else None,
    )
