"""Simultaneous comparisons: one family of tests of all pairs of rows, in all columns of a table.

Each pair is tested by paired randomisation: under the null hypothesis the sign of every query's difference is arbitrary
(Fisher 1935). All pairs of rows share the random signs of a dataset's queries, also in the mean over several datasets,
so that the largest statistic of a draw has the pairs' joint distribution, however they are correlated (max-T; Westfall
& Young 1993, Carterette 2012). The step-down procedure of Romano & Wolf (2005) controls the probability of at least one
false difference in the family.

The statistic of a pair is `|mean difference| / root of the sum of squared, weighted differences`: on one dataset a
monotone function of Student's t, so that pairs of different variance are on one scale. Random signs do not change its
denominator.

A comparison with the best row of a column is a multiple comparison with the best (Hsu 1996): a row that was found worse
than the best can no longer be the best, so its differences to the remaining rows leave the family. There are thus two
error rates, each at most `alpha`: of a false difference to the best of any column, and of one between other rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import NamedTuple

import numpy as np

from harness import stats
from harness.distributions import t_p_values, t_quantile
from harness.stats import ALPHA, DRAWS, Array, Strata

_SLACK = 1e-9
"""Difference below which two statistics, which are of the order of 1, are equal: processors sum in different orders."""
MAX_COMPARISONS = 50_000
"""Largest family that is tested by randomisation, which takes a few seconds; larger ones by `compare_many`."""


@dataclass(frozen=True)
class PairwiseTests:
    """The tests of one column. For a pair of rows (a, b), the difference is row b minus row a."""

    means: Array
    """Of each row, not rounded [rows]."""
    p: Array
    """Adjusted over the family [rows, rows]; 1 on the diagonal and for rows with equal scores on every query."""
    best: int
    """Index of the row of highest mean, whose comparisons are those with the best."""
    unclipped: Callable[[int, int], tuple[float, float]]
    """Returns the simultaneous interval of the difference of a pair."""
    alpha: float

    def delta(self, a: int, b: int) -> float:
        """Return the difference of the means.

        Args:
            a: Index of the row to compare with.
            b: Index of the other row.
        """
        return round(float(self.means[b] - self.means[a]), stats.DIGITS)

    def interval(self, a: int, b: int) -> tuple[float, float]:
        """Return the ends of the simultaneous interval of the difference.

        All of them together contain the true differences with probability 1 - alpha. An interval ends at 0 where the
        step-down test, which is sharper, shows the difference's sign and the interval would not. It is all possible
        differences where a column has too few queries for any difference to be significant.

        Args:
            a: Index of the row to compare with.
            b: Index of the other row.
        """
        low, high = self.unclipped(a, b)
        if self.p[a, b] >= self.alpha:  # where statistic and critical value are equal, an end is 0 up to rounding
            return min(low, 0.0), max(high, 0.0)
        return (max(low, 0.0), high) if self.delta(a, b) > 0 else (low, min(high, 0.0))


class _TestedColumn(NamedTuple):
    """The quantities of a column that its tests are computed from."""

    means: Array
    """Of each row, not rounded [rows]."""
    n_queries: int
    sums: Array
    """Means under each draw of signs [rows, draws]."""
    scale: Array
    """Root of the sum of squared, weighted differences of each pair [rows, rows]; 0 for rows with equal scores."""
    squares: float
    """Sum over strata of weight ** 2 / queries."""
    slope: Array
    """Sum over strata of weight ** 2 / queries * mean of each row [rows]."""
    largest_difference: float
    """Largest possible difference of two means, of scores between 0 and 1 or the lowest and the highest score."""

    def statistic(self, a: int, b: int) -> float:
        """Return the observed statistic of a pair; 0 for rows with equal scores."""
        return float(abs(self.means[b] - self.means[a]) / self.scale[a, b]) if self.scale[a, b] else 0.0

    def drawn(self, a: int, b: int) -> Array:
        """Return the statistic of a pair under each draw of signs [draws]."""
        differences: Array = np.abs(self.sums[b] - self.sums[a])
        differences /= self.scale[a, b]
        return differences


class _Pair(NamedTuple):
    statistic: float
    column: int
    a: int
    b: int


def compare_all(
    columns: Sequence[Strata], datasets: Sequence[Sequence[int]], draws: int = DRAWS, alpha: float = ALPHA
) -> list[PairwiseTests]:
    """Test all pairs of rows in all columns as one family.

    Args:
        columns: For each column its strata: weights, which sum to 1, and per-query scores [queries, rows].
        datasets: For each column and stratum the number of its dataset; equal numbers share their random signs.
        draws: Number of random sign assignments.
        alpha: Probability of at least one false difference to the best of a column, and of at least one between other
            rows.

    Returns:
        For each column the tests of its pairs.
    """
    if sum(comb(strata[0][1].shape[1], 2) for strata in columns) > MAX_COMPARISONS:
        return compare_many(columns, alpha)
    prepared = [_prepare(strata, numbers, draws) for strata, numbers in zip(columns, datasets, strict=True)]
    pairs = sorted(_pairs(prepared))
    p_values = [np.ones_like(column.scale) for column in prepared]
    largest = _test_pairs(prepared, pairs, p_values, draws)
    _test_against_best(prepared, p_values, draws)
    rank = int(alpha * (draws + 1))  # a difference is significant if fewer than `rank` draws reach its statistic
    critical = float(np.partition(largest, draws - rank)[draws - rank]) if rank else np.inf
    return [
        PairwiseTests(column.means, p, int(column.means.argmax()), partial(_interval, column, critical, alpha), alpha)
        for column, p in zip(prepared, p_values, strict=True)
    ]


def _prepare(strata: Strata, datasets: Sequence[int], draws: int) -> _TestedColumn:
    n_rows = strata[0][1].shape[1]
    squared, slope, squares = np.zeros((n_rows, n_rows)), np.zeros(n_rows), 0.0
    differs = np.zeros((n_rows, n_rows), np.bool_)
    for weight, values in strata:
        products = values.T @ values
        diagonal = np.diag(products)
        squared += (weight / len(values)) ** 2 * (diagonal[:, None] + diagonal[None, :] - 2 * products)
        squares += weight**2 / len(values)
        slope += weight**2 / len(values) * values.mean(axis=0)
        differs |= np.array([(values != values[:, [row]]).any(axis=0) for row in range(n_rows)])
    scale = np.sqrt(np.maximum(squared, 0.0)) * differs
    means = stats.mean(strata)
    n_queries = sum(len(values) for _, values in strata)
    sums = stats.flipped_means(strata, datasets, draws)
    largest = max(1.0, *(float(np.ptp(values)) for _, values in strata))
    return _TestedColumn(means, n_queries, sums, scale, squares, slope, largest)


def _pairs(columns: Sequence[_TestedColumn]) -> Iterator[_Pair]:
    """Yield the pairs of rows whose scores differ, with their statistic."""
    for number, column in enumerate(columns):
        for b in range(len(column.means)):
            for a in range(b):
                if column.scale[a, b] > 0:
                    yield _Pair(column.statistic(a, b), number, a, b)


def _test_pairs(
    columns: Sequence[_TestedColumn], pairs: Sequence[_Pair], p_values: Sequence[Array], draws: int
) -> Array:
    """Set the adjusted p-values of pairs that are in ascending order of their statistic.

    Returns:
        The largest statistic of each draw over all pairs [draws].
    """
    largest, p = np.zeros(draws), np.ones(len(pairs))
    for number, (statistic, column, a, b) in enumerate(pairs):
        np.maximum(largest, columns[column].drawn(a, b), out=largest)
        p[number] = _share_reaching(largest, statistic)
    p = np.maximum.accumulate(p[::-1])[::-1]  # no pair is more significant than one with a larger statistic
    for (_, column, a, b), p_value in zip(pairs, p, strict=True):
        p_values[column][a, b] = p_values[column][b, a] = p_value
    return largest


def _test_against_best(columns: Sequence[_TestedColumn], p_values: Sequence[Array], draws: int) -> None:
    """Set the adjusted p-values of the comparisons of rows with the best row of their column.

    The rows are added in ascending order of their statistic; each is tested with the pairs of the rows added so far.
    """
    best = [int(column.means.argmax()) for column in columns]
    added = [[row] for row in best]
    against_best = sorted(
        _Pair(column.statistic(best[number], row), number, best[number], row)
        for number, column in enumerate(columns)
        for row in range(len(column.means))
        if row != best[number]
    )
    largest, p = np.zeros(draws), np.ones(len(against_best))
    for index, (statistic, number, _, row) in enumerate(against_best):
        for other in added[number]:
            if columns[number].scale[other, row] > 0:
                np.maximum(largest, columns[number].drawn(other, row), out=largest)
        added[number].append(row)
        p[index] = _share_reaching(largest, statistic)
    p = np.maximum.accumulate(p[::-1])[::-1]
    for (_, number, a, b), p_value in zip(against_best, p, strict=True):
        p_values[number][a, b] = p_values[number][b, a] = p_value


def _share_reaching(largest: Array, statistic: float) -> float:
    """Return the p-value `(b + 1) / (draws + 1)` of a statistic that b draws reach."""
    return (int(np.count_nonzero(largest >= statistic * (1 - _SLACK) - _SLACK)) + 1) / (len(largest) + 1)


def _interval(column: _TestedColumn, critical: float, alpha: float, a: int, b: int) -> tuple[float, float]:
    """Return the differences that the test of a pair does not reject at a critical value.

    Subtracting d from the differences of all queries changes the statistic to
    `|delta - d| / sqrt(scale ** 2 - 2 * slope * d + squares * d ** 2)`; the ends solve a quadratic equation in d.
    """
    if not column.scale[a, b]:
        return 0.0, 0.0
    delta, slope = column.means[b] - column.means[a], column.slope[b] - column.slope[a]
    leading = 1 - critical**2 * column.squares
    if leading <= 0 or 2.0 ** (1 - column.n_queries) >= alpha:
        return -column.largest_difference, column.largest_difference
    middle = delta - critical**2 * slope
    constant = delta**2 - (critical * column.scale[a, b]) ** 2
    root = np.sqrt(max(middle**2 - leading * constant, 0.0))
    ends = np.array([middle - root, middle + root]) / leading
    low, high = np.clip(ends, -column.largest_difference, column.largest_difference).round(stats.DIGITS)
    return float(low), float(high)


def compare_many(columns: Sequence[Strata], alpha: float = ALPHA) -> list[PairwiseTests]:
    """Test all pairs of rows in all columns as one family that is too large for randomisation.

    Each pair is tested by Student's paired t-test, adjusted by Holm's method (1979) over all pairs, which makes no
    use of their correlation: it finds fewer differences than `compare_all`, and no more false ones.

    Args:
        columns: As for `compare_all`.
        alpha: Probability of at least one false difference in the family.
    """
    tests = [_student(strata) for strata in columns]
    upper = [np.triu_indices(len(p), 1) for _, _, p, _ in tests]
    p = np.concatenate([p[indices] for (_, _, p, _), indices in zip(tests, upper, strict=True)])
    adjusted = stats.holm(p)
    begin, results = 0, []
    for (means, errors, p_values, degrees), indices in zip(tests, upper, strict=True):
        part = adjusted[begin : (begin := begin + len(indices[0]))]
        p_values[indices] = part
        p_values.T[indices] = part
        critical = t_quantile(1 - alpha / (2 * len(p)), degrees)
        interval = partial(_t_interval, means, errors, critical)
        results.append(PairwiseTests(means, p_values, int(means.argmax()), interval, alpha))
    return results


def _student(strata: Strata) -> tuple[Array, Array, Array, int]:
    """Return means, standard errors and p-values of all differences, and the degrees of freedom."""
    means = stats.mean(strata)
    variances = np.zeros((len(means), len(means)))
    degrees = min(len(values) for _, values in strata) - 1
    if degrees < 1:  # the spread of a single query is unknown
        return means, np.full_like(variances, np.inf), np.ones_like(variances), 1
    for weight, values in strata:
        covariances = np.cov(values, rowvar=False, ddof=1)
        diagonal = np.diag(covariances)
        variances += weight**2 / len(values) * (diagonal[:, None] + diagonal[None, :] - 2 * covariances)
    errors = np.sqrt(np.maximum(variances, 0.0))
    deltas = np.abs(means[:, None] - means[None, :])
    is_constant = errors <= _SLACK
    p_values = t_p_values(deltas / np.where(is_constant, np.inf, errors), degrees)
    p_values[is_constant & (deltas > _SLACK)] = 2.0**-degrees  # the same difference on all queries
    return means, errors, p_values, degrees


def _t_interval(means: Array, errors: Array, critical: float, a: int, b: int) -> tuple[float, float]:
    delta, half = means[b] - means[a], critical * errors[a, b]
    low, high = (round(float(np.clip(end, -1.0, 1.0)), stats.DIGITS) for end in (delta - half, delta + half))
    return low, high
