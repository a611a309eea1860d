"""Simultaneous comparisons: one family of tests of all pairs of rows, in all columns of a table.

Each pair is tested by paired randomisation: under the null hypothesis the sign of every query's difference is arbitrary
(Fisher 1935). All pairs of rows share the random signs of a dataset's queries, also in the mean over several datasets,
so that the largest statistic of a draw has the pairs' joint distribution, however they are correlated (max-T; Westfall
& Young 1993, Carterette 2012). The step-down procedure of Romano & Wolf (2005) controls the probability of at least one
false difference in the whole family.

The statistic of a pair is `|mean difference| / root of the sum of squared, weighted differences`: on one dataset a
monotone function of Student's t, so that pairs of different variance are on one scale. Random signs do not change its
denominator.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import stats
from harness.stats import ALPHA, DRAWS, Array, Strata

_SLACK = 1e-9
"""Difference below which two statistics, which are of the order of 1, are equal: processors sum in different orders."""


@dataclass(frozen=True)
class PairwiseTests:
    """The tests of one column, each array [rows, rows]; entry [a, b] is row b minus row a."""

    delta: Array
    """Differences of the means."""
    p: Array
    """Adjusted over the family; 1 on the diagonal and for rows with equal scores on every query."""
    low: Array
    high: Array
    """Ends of the intervals that belong to the tests: 0 is outside exactly where p < alpha. Each has the critical value
    of the step in which its pair was decided, so all of them together cover less than simultaneous intervals of level
    1 - alpha. Infinite where a column has too few queries for any difference to be significant."""


class _TestedColumn(NamedTuple):
    """The quantities of a column that its tests are computed from."""

    means: Array
    """Of each row, not rounded [rows]."""
    n_queries: int
    sums: Array
    """Means under each draw of signs [rows, draws]."""
    scale: Array
    """Root of the sum of squared, weighted differences of each pair [rows, rows]."""
    squares: float
    """Sum over strata of weight ** 2 / queries."""
    slope: Array
    """Sum over strata of weight ** 2 / queries * mean of each row [rows]."""
    differing: NDArray[np.int64]
    """Number of queries on which the rows of each pair differ [rows, rows]."""


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
        alpha: Probability of at least one false difference in the family.

    Returns:
        For each column the tests of its pairs.
    """
    prepared = [_prepare(strata, numbers, draws) for strata, numbers in zip(columns, datasets, strict=True)]
    pairs = sorted(_pairs(prepared))
    p, critical = _step_down(prepared, pairs, draws, alpha)
    tests = [_without_tests(column.means) for column in prepared]
    for pair, p_value, limit in zip(pairs, p, critical, strict=True):
        limit = np.inf if 2.0 ** (1 - prepared[pair.column].n_queries) >= alpha else limit
        low, high = _interval(prepared[pair.column], pair.a, pair.b, limit)
        if p_value >= alpha:  # where statistic and critical value are equal, an end is 0 up to rounding
            low, high = min(low, 0.0), max(high, 0.0)
        _set_test(tests[pair.column], pair, p_value, (low, high))
    return tests


def _prepare(strata: Strata, datasets: Sequence[int], draws: int) -> _TestedColumn:
    n_rows = strata[0][1].shape[1]
    squared, slope, squares = np.zeros((n_rows, n_rows)), np.zeros(n_rows), 0.0
    differing = np.zeros((n_rows, n_rows), np.int64)
    for weight, values in strata:
        products = values.T @ values
        diagonal = np.diag(products)
        squared += (weight / len(values)) ** 2 * (diagonal[:, None] + diagonal[None, :] - 2 * products)
        squares += weight**2 / len(values)
        slope += weight**2 / len(values) * values.mean(axis=0)
        differing += [np.count_nonzero(values != values[:, [row]], axis=0) for row in range(n_rows)]
    scale = np.sqrt(np.maximum(squared, 0.0))
    means = np.asarray(sum(weight * values.mean(axis=0) for weight, values in strata))
    n_queries = sum(len(values) for _, values in strata)
    return _TestedColumn(
        means, n_queries, stats.flipped_means(strata, datasets, draws), scale, squares, slope, differing
    )


def _pairs(columns: Sequence[_TestedColumn]) -> Iterator[_Pair]:
    """Yield the pairs of rows whose scores differ, with their statistic."""
    for number, column in enumerate(columns):
        for b in range(len(column.means)):
            for a in range(b):
                if column.differing[a, b] and column.scale[a, b] > 0:
                    statistic = abs(column.means[b] - column.means[a]) / column.scale[a, b]
                    yield _Pair(float(statistic), number, a, b)


def _step_down(
    columns: Sequence[_TestedColumn], pairs: Sequence[_Pair], draws: int, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return adjusted p-values and critical values of pairs that are in ascending order of their statistic."""
    rank = int(alpha * (draws + 1))  # significant if fewer than `rank` draws reach the statistic
    largest = np.zeros(draws)
    p, critical = np.ones(len(pairs)), np.zeros(len(pairs))
    for number, (statistic, column, a, b) in enumerate(pairs):
        drawn = np.abs(columns[column].sums[b] - columns[column].sums[a]) / columns[column].scale[a, b]
        np.maximum(largest, drawn, out=largest)
        p[number] = (np.count_nonzero(largest >= statistic * (1 - _SLACK) - _SLACK) + 1) / (draws + 1)
        critical[number] = np.partition(largest, draws - rank)[draws - rank] if rank else np.inf
    p = np.maximum.accumulate(p[::-1])[::-1]  # no pair is more significant than one with a larger statistic
    if (undecided := np.flatnonzero(p >= alpha)).size:
        critical[: undecided[-1] + 1] = critical[undecided[-1]]
    return p, critical


def _without_tests(means: Array) -> PairwiseTests:
    """Return the tests of a column before any pair is set: no row differs from another."""
    shape = (len(means), len(means))
    delta = np.round(means[None, :] - means[:, None], stats.DIGITS)
    return PairwiseTests(delta, np.ones(shape), np.zeros(shape), np.zeros(shape))


def _set_test(tests: PairwiseTests, pair: _Pair, p: float, interval: tuple[float, float]) -> None:
    """Set p and the interval of a pair, for both of its orders."""
    a, b = pair.a, pair.b
    tests.p[a, b] = tests.p[b, a] = p
    tests.low[a, b], tests.high[a, b] = interval
    tests.low[b, a], tests.high[b, a] = -interval[1], -interval[0]


def _interval(column: _TestedColumn, a: int, b: int, critical: float) -> tuple[float, float]:
    """Return the differences that the test of a pair does not reject at a critical value.

    Subtracting d from the differences of all queries changes the statistic to
    `|delta - d| / sqrt(scale ** 2 - 2 * slope * d + squares * d ** 2)`; the ends solve a quadratic equation in d.
    """
    delta, slope = column.means[b] - column.means[a], column.slope[b] - column.slope[a]
    leading = 1 - critical**2 * column.squares
    if leading <= 0:
        return -np.inf, np.inf
    middle = delta - critical**2 * slope
    constant = delta**2 - (critical * column.scale[a, b]) ** 2
    root = np.sqrt(max(middle**2 - leading * constant, 0.0))
    low, high = (middle - root) / leading, (middle + root) / leading
    return round(float(low), stats.DIGITS), round(float(high), stats.DIGITS)
