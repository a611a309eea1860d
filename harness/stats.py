"""Statistics of per-query scores: confidence intervals, random signs, Holm's correction, minimum detectable effects.

A mean is a sum over strata (the parts of a dataset, the datasets of an average), each a weight and a matrix
[queries, columns] of per-query values: `sum(weight * values.mean(axis=0))`.
Every function has its own generator with a fixed seed: the same values give the same result, and the columns of one
call share their draws.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from statistics import NormalDist
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from harness.random_weights import blocks

Array = NDArray[np.float64]
Strata = Sequence[tuple[float, Array]]

DRAWS = 10_000
LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
DIGITS = 12
"""Decimals of all results: processors sum in different orders, and the same records must give the same bytes on all."""
_CONVERTED_SIZE = 64_000
"""Weights converted to float64 at a time: 512 kB, which stay in a core's cache until they are multiplied."""
_COLUMNS_PER_TASK = 64
"""Columns whose quantiles one thread computes at a time."""
_EQUAL = 1e-12
"""Difference below which two means are equal."""


class WinCounts(NamedTuple):
    """Numbers of queries that are won, tied and lost."""

    won: int
    tied: int
    lost: int


def mean(strata: Strata) -> Array:
    """Return the stratified mean of each column, not rounded [columns]."""
    return np.asarray(sum(weight * values.mean(axis=0) for weight, values in strata))


class Resampled(NamedTuple):
    """The means of several columns, with the queries weighted at random."""

    low: Array
    high: Array
    """Ends of the confidence interval of each mean [columns]."""
    best_share: Array
    """Share of the draws in which a column has the highest mean [columns]; equal columns share it."""


def resample(strata: Strata, draws: int = DRAWS, level: float = LEVEL) -> Resampled:
    """Return confidence intervals of the means, and how often each column is the best.

    The intervals are Gaffke's (2005; Phan, Thomas & Learned-Miller, 2021): quantiles of weighted means of the n scores
    and one more value, the lowest possible score for the lower end and the highest possible for the upper end, with
    weights drawn uniformly from those that sum to 1. They hold for few queries and for scores near 0 or 1, where
    intervals from the scores alone are too narrow; for scores of 0 and 1 they are the exact ones of Clopper & Pearson
    (1934). Scores are between 0 and 1; if a stratum has scores beyond, its lowest and its highest are the bounds.

    Args:
        strata: Weights and per-query scores [queries, columns].
        draws: Number of random weightings.
        level: Confidence level.
    """
    with single_threaded():
        means, below, above = _weighted_means(strata, draws)
    is_best = means >= means.max(axis=0) - _EQUAL
    best_share = (is_best / is_best.sum(axis=0)).mean(axis=1)
    tail = (1 - level) / 2
    low, high = _quantiles(means + below, tail), _quantiles(means + above, 1 - tail)
    return Resampled(low, high, np.round(best_share, DIGITS))


def single_threaded() -> AbstractContextManager[object]:
    """Return a context of one thread: on these small products, several are far slower where the machine is busy."""
    return cast("AbstractContextManager[object]", _blas().limit(limits=1, user_api="blas"))


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _weighted_means(strata: Strata, draws: int) -> tuple[Array, Array, Array]:
    """Return means under random weights [columns, draws], and what the lowest and highest score add [draws]."""
    means, below, above = np.zeros((strata[0][1].shape[1], draws)), np.zeros(draws), np.zeros(draws)
    for number, (weight, values) in enumerate(strata):
        lowest, highest = min(0.0, float(values.min())), max(1.0, float(values.max()))
        padded: Array = np.zeros(
            (values.shape[1], len(values) + 1)
        )  # the last weight is that of the score that is added
        padded[:, :-1] = values.T
        begin, rows = 0, max(1, _CONVERTED_SIZE // (len(values) + 1))
        buffer: Array = np.empty((rows, len(values) + 1))
        for block in blocks("weights", draws, len(values) + 1, number):
            for first in range(0, len(block), rows):
                drawn = block[first : first + rows]
                weights = buffer[: len(drawn)]
                np.copyto(weights, drawn)
                part = slice(begin, begin := begin + len(drawn))
                share = weight / weights.sum(axis=1)
                sums = padded @ weights.T
                sums *= share
                means[:, part] += sums
                share *= weights[:, -1]
                below[part] += share * lowest
                above[part] += share * highest
    return means, below, above


def _quantiles(means: Array, share: float) -> Array:
    """Return a quantile of each row [rows]."""
    with ThreadPoolExecutor() as pool:  # NumPy releases the GIL in quantile
        parts = pool.map(
            lambda part: np.quantile(part, share, axis=1, overwrite_input=True),
            [means[begin : begin + _COLUMNS_PER_TASK] for begin in range(0, len(means), _COLUMNS_PER_TASK)],
        )
        return np.round(np.concatenate(list(parts)), DIGITS)


def holm(p: Array) -> Array:
    """Return Holm-adjusted p-values [comparisons], which control the family-wise error rate (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def effect_size(differences: Array) -> float | None:
    """Return Cohen's d of paired differences [queries]: mean / standard deviation; None where they do not vary."""
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return round(float(differences.mean()) / deviation, DIGITS) if deviation > 1e-12 else None


def standard_errors(differences: Strata) -> Array:
    """Return the standard error of each mean difference [columns]."""
    varying = [(weight, values) for weight, values in differences if len(values) > 1]
    variances = [weight**2 * values.var(axis=0, ddof=1) / len(values) for weight, values in varying]
    return np.round(np.sqrt(sum(variances, np.zeros(differences[0][1].shape[1]))), DIGITS)


def minimum_detectable_effect(standard_error: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """Return the MDE: the smallest true difference that a two-sided paired test detects (Cohen 1988, ch. 2).

    Uses the normal approximation.

    Args:
        standard_error: Standard error of the mean difference.
        power: Probability of detecting the difference.
        alpha: Level of the test.
    """
    normal = NormalDist()
    return float((normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * standard_error)


def count_wins(differences: Array) -> WinCounts:
    """Count the queries whose difference is positive (won), zero (tied) and negative (lost)."""
    won, lost = int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0))
    return WinCounts(won, len(differences) - won - lost, lost)


def flipped_means(strata: Strata, seeds: Sequence[int], draws: int = DRAWS) -> Array:
    """Return the stratified mean of each column under random signs of the queries [columns, draws].

    Args:
        strata: Weights and per-query values [queries, columns]; the columns share the signs.
        seeds: A number for each stratum; equal numbers and equal numbers of queries give equal signs.
        draws: Number of random sign assignments.
    """
    totals: Array = np.empty((strata[0][1].shape[1], draws))
    with single_threaded():
        _add_sums(strata, seeds, draws, totals)
    return totals


def _add_sums(strata: Strata, seeds: Sequence[int], draws: int, totals: Array) -> None:
    for stratum, (weight, values) in enumerate(strata):
        begin, scaled = 0, np.ascontiguousarray(values.T) * (weight / len(values))
        rows = max(1, _CONVERTED_SIZE // len(values))
        buffer: Array = np.empty((rows, len(values)))
        for block in blocks("signs", draws, len(values), seeds[stratum]):
            for first in range(0, len(block), rows):
                part = block[first : first + rows]
                end, weights = begin + len(part), buffer[: len(part)]
                np.copyto(weights, part)
                if stratum:
                    totals[:, begin:end] += scaled @ weights.T
                else:
                    np.matmul(scaled, weights.T, out=totals[:, begin:end])
                begin = end
