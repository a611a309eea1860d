"""Statistics of per-query scores: confidence intervals, paired tests, Holm's correction, minimum detectable effects.

A mean is a sum over strata (the parts of a dataset, the datasets of an average), each a weight and a matrix
[queries, columns] of per-query values: `sum(weight * values.mean(axis=0))`. Queries are resampled within their stratum.
Every function has its own generator with a fixed seed: the same values give the same result, and the columns of one
call share their draws.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Strata = Sequence[tuple[float, Array]]

DRAWS = 10_000
LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
EXACT = 16
"""Largest number of differing queries for an exact test over all 2 ** 16 sign assignments."""
DIGITS = 12
"""Decimals of all results: processors sum in different orders, and the same records must give the same bytes on all."""
_BLOCK_SIZE = 2_000_000
"""Random numbers drawn at a time: 16 MB."""
_CONVERTED_SIZE = 64_000
"""Weights converted to float64 at a time: 512 kB, which stay in a core's cache until they are multiplied."""
_CACHE_LIMIT = 12_000_000
"""Largest number of weights (draws x queries) that is cached between calls: 24 MB."""
_COLUMNS_PER_TASK = 64
"""Columns whose quantiles one thread computes at a time."""
_BOOTSTRAP, _SIGNS = 1, 2


class WinCounts(NamedTuple):
    """Numbers of queries that are won, tied and lost."""

    won: int
    tied: int
    lost: int


def mean(strata: Strata) -> Array:
    """Return the stratified mean of each column [columns]."""
    return np.asarray(np.round(sum(weight * values.mean(axis=0) for weight, values in strata), DIGITS))


def confidence_intervals(strata: Strata, draws: int = DRAWS, level: float = LEVEL) -> tuple[Array, Array]:
    """Return each mean's bootstrap confidence interval, by percentiles (Efron & Tibshirani 1993, ch. 13).

    Args:
        strata: Weights and per-query values [queries, columns].
        draws: Number of bootstrap samples.
        level: Confidence level.

    Returns:
        Lower and upper ends, each [columns].
    """
    means = _sums(strata, draws, "resampled")
    tail = (1 - level) / 2
    with ThreadPoolExecutor() as pool:  # NumPy releases the GIL in quantile
        parts = pool.map(
            lambda part: np.quantile(part, [tail, 1 - tail], axis=1, overwrite_input=True),
            [means[begin : begin + _COLUMNS_PER_TASK] for begin in range(0, len(means), _COLUMNS_PER_TASK)],
        )
        low, high = np.hstack(list(parts))
    return np.round(low, DIGITS), np.round(high, DIGITS)


def p_values(differences: Strata, draws: int = DRAWS, side: str = "two") -> Array:
    """Return p-values of the paired randomisation test of mean zero (Fisher 1935; Smucker, Allan, Carterette 2007).

    With at most 16 queries whose difference is not zero, p is the exact share of all sign assignments that are as
    extreme as the observed one; otherwise `(b + 1) / (draws + 1)` of a random sample.

    Args:
        differences: Weights and per-query differences [queries, columns].
        draws: Number of random sign assignments.
        side: `two`, `greater` or `less`.

    Returns:
        p-values [columns].
    """
    observed = mean(differences)
    differing = np.asarray(sum(np.count_nonzero(values, axis=0) for _, values in differences))
    p = np.ones(len(observed))
    few = np.flatnonzero((differing <= EXACT) & (differing > 0))
    for column in few:
        weighted = np.concatenate([w * values[:, column] / len(values) for w, values in differences])
        p[column] = np.mean(_is_extreme(_sums_of_all_signs(weighted[weighted != 0])[None], observed[[column]], side))
    many = np.flatnonzero(differing > EXACT)
    if len(many):
        sums = _sums([(w, values[:, many]) for w, values in differences], draws, "signs")
        p[many] = (np.count_nonzero(_is_extreme(sums, observed[many], side), axis=1) + 1) / (draws + 1)
    return p


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values, which control the family-wise error rate (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
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
    return _sums(strata, draws, "signs", seeds)


def _sums(strata: Strata, draws: int, kind: str, seeds: Sequence[int] | None = None) -> Array:
    """Return the stratified mean under each draw of query weights [columns, draws]."""
    totals: Array = np.empty((strata[0][1].shape[1], draws))
    for stratum, (weight, values) in enumerate(strata):
        begin, scaled = 0, np.ascontiguousarray(values.T) * (weight / len(values))
        rows = max(1, _CONVERTED_SIZE // len(values))
        buffer: Array = np.empty((rows, len(values)))
        for block in _blocks(kind, draws, len(values), stratum if seeds is None else seeds[stratum]):
            for first in range(0, len(block), rows):
                part = block[first : first + rows]
                end, weights = begin + len(part), buffer[: len(part)]
                np.copyto(weights, part)
                if stratum:
                    totals[:, begin:end] += scaled @ weights.T
                else:
                    np.matmul(scaled, weights.T, out=totals[:, begin:end])
                begin = end
    return totals


def _blocks(kind: str, draws: int, n: int, stratum: int) -> Iterable[NDArray[np.int16]]:
    """Return blocks of query weights, each [draws in the block, n]; those of small datasets are cached."""
    draw = _cached_blocks if draws * n <= _CACHE_LIMIT else _draw_blocks
    return draw(kind, draws, n, stratum)


@lru_cache(maxsize=16)
def _cached_blocks(kind: str, draws: int, n: int, stratum: int) -> list[NDArray[np.int16]]:
    return list(_draw_blocks(kind, draws, n, stratum))


def _draw_blocks(kind: str, draws: int, n: int, stratum: int) -> Iterator[NDArray[np.int16]]:
    purpose, to_weights = {"resampled": (_BOOTSTRAP, _resample), "signs": (_SIGNS, _to_signs)}[kind]
    for rows, bits in _random_bits(draws, n, purpose + 16 * stratum):
        yield to_weights(bits, rows, n)


def _resample(bits: NDArray[np.uint64], rows: int, n: int) -> NDArray[np.int16]:
    """Return the number of times that each query is drawn when n are drawn with replacement."""
    queries = (bits >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)
    flat = queries.reshape(rows, n).astype(np.int64) + np.arange(rows)[:, None] * n
    return np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(np.int16)


def _to_signs(bits: NDArray[np.uint64], rows: int, n: int) -> NDArray[np.int16]:
    """Return -1 or 1 for each query."""
    return ((bits >> np.uint64(63)).astype(np.int16) * 2 - 1).reshape(rows, n)


def _random_bits(draws: int, n: int, seed: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield raw words of a bit generator; unlike `integers`, NumPy keeps their stream from version to version."""
    generator = np.random.PCG64(seed)
    block = max(1, _BLOCK_SIZE // n)
    for begin in range(0, draws, block):
        rows = min(block, draws - begin)
        yield rows, np.asarray(generator.random_raw(rows * n))


def _sums_of_all_signs(values: Array) -> Array:
    """Return the sums under every assignment of signs [2 ** len(values)]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _is_extreme(sums: Array, observed: Array, side: str) -> NDArray[np.bool_]:
    """Mark the sums [columns, draws] that are at least as extreme as the observed; equal up to rounding counts."""
    observed = observed[:, None]
    slack = 1e-12 + 1e-9 * np.abs(observed)
    if side == "greater":
        return np.asarray(sums >= observed - slack)
    if side == "less":
        return np.asarray(sums <= observed + slack)
    return np.asarray(np.abs(sums) >= np.abs(observed) - slack)
