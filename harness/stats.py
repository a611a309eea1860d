"""What per-query scores can tell: intervals of means, paired tests, Holm's correction, detectable differences.

A mean is a sum over strata (the parts of a dataset, the datasets of an average), each a weight and a matrix
[queries, columns] of per-query values: `sum(weight * values.mean(axis=0))`. Queries are drawn within their stratum.
Every function has its own generator, seeded alike: the same values give the same answer, and columns of one call
share their draws.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Strata = Sequence[tuple[float, Array]]

DRAWS = 10_000
LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
EXACT = 16
"""Up to this many differing queries every assignment of signs is counted, 2 to the 16th at most."""
_DIGITS = 12
"""Decimals of what is given: processors add in other orders, and the same records give the same bytes on all."""
_BLOCK = 2_000_000
"""Numbers drawn at a time: 16 MB."""
_CACHED = 64_000
"""Weights converted to float64 at a time: 512 kB, which stay in a core's cache until they are multiplied."""
_KEPT = 12_000_000
"""Weights of up to so many numbers, 24 MB, are kept: draws times queries."""
_COLUMNS = 64
"""Columns whose quantiles one thread finds at a time."""
_BOOTSTRAP, _SIGNS = 1, 2


def mean(strata: Strata) -> Array:
    """[columns] The stratified mean of each column."""
    return np.asarray(np.round(sum(weight * values.mean(axis=0) for weight, values in strata), _DIGITS))


def intervals(strata: Strata, draws: int = DRAWS, level: float = LEVEL) -> tuple[Array, Array]:
    """Lower and upper ends [columns] of each mean's bootstrap percentile interval (Efron & Tibshirani 1993, ch. 13)."""
    means = _sums(strata, draws, "resampled")
    tail = (1 - level) / 2
    with ThreadPoolExecutor() as pool:  # NumPy selects without Python's lock
        parts = pool.map(
            lambda part: np.quantile(part, [tail, 1 - tail], axis=1, overwrite_input=True),
            [means[begin : begin + _COLUMNS] for begin in range(0, len(means), _COLUMNS)],
        )
        low, high = np.hstack(list(parts))
    return np.round(low, _DIGITS), np.round(high, _DIGITS)


def p_values(differences: Strata, draws: int = DRAWS, side: str = "two") -> Array:
    """[columns] Paired randomisation test of mean zero, signs flipped (Fisher 1935; Smucker, Allan, Carterette 2007).

    With at most 16 queries whose difference is not zero, the exact share of all sign assignments that are as extreme as
    the one observed; else `(b + 1) / (draws + 1)` of a sample. `side`: `two`, `greater` or `less`.
    """
    observed = mean(differences)
    differing = np.asarray(sum(np.count_nonzero(values, axis=0) for _, values in differences))
    p = np.ones(len(observed))
    few = np.flatnonzero((differing <= EXACT) & (differing > 0))
    for column in few:
        weighted = np.concatenate([w * values[:, column] / len(values) for w, values in differences])
        p[column] = np.mean(_extreme(_every_sign(weighted[weighted != 0])[None], observed[[column]], side))
    many = np.flatnonzero(differing > EXACT)
    if len(many):
        sums = _sums([(w, values[:, many]) for w, values in differences], draws, "signs")
        p[many] = (np.count_nonzero(_extreme(sums, observed[many], side), axis=1) + 1) / (draws + 1)
    return p


def holm(p: Sequence[float]) -> list[float]:
    """The p-values adjusted for being several (Holm 1979): the family-wise error stays below the level."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = so_far
    return adjusted


def effect(differences: Array) -> float | None:
    """Cohen's d of paired differences [queries]: their mean over their standard deviation; None where none varies."""
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return round(float(differences.mean()) / deviation, _DIGITS) if deviation > 1e-12 else None


def errors(differences: Strata) -> Array:
    """[columns] The standard error of each mean difference."""
    several = [(weight, values) for weight, values in differences if len(values) > 1]
    variances = [weight**2 * values.var(axis=0, ddof=1) / len(values) for weight, values in several]
    return np.round(np.sqrt(sum(variances, np.zeros(differences[0][1].shape[1]))), _DIGITS)


def detectable(error: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """Smallest true difference that a two-sided paired test finds with that power (Cohen 1988, ch. 2).

    `error` is the standard error of the mean difference; the normal approximation.
    """
    normal = NormalDist()
    return float((normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * error)


def wins(differences: Array) -> tuple[int, int, int]:
    """How many queries are won, tied and lost."""
    won, lost = int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0))
    return won, len(differences) - won - lost, lost


def _sums(strata: Strata, draws: int, kind: str) -> Array:
    """[columns, draws] The stratified mean under each draw of weights over the queries."""
    totals: Array = np.empty((strata[0][1].shape[1], draws))
    for place, (weight, values) in enumerate(strata):
        begin, scaled = 0, np.ascontiguousarray(values.T) * (weight / len(values))
        rows = max(1, _CACHED // len(values))
        weights: Array = np.empty((rows, len(values)))
        for block in _blocks(kind, draws, len(values), place):
            for first in range(0, len(block), rows):
                part = block[first : first + rows]
                end, drawn = begin + len(part), weights[: len(part)]
                np.copyto(drawn, part)
                if place:
                    totals[:, begin:end] += scaled @ drawn.T
                else:
                    np.matmul(scaled, drawn.T, out=totals[:, begin:end])
                begin = end
    return totals


def _blocks(kind: str, draws: int, n: int, place: int) -> Iterable[NDArray[np.int16]]:
    """Blocks [some draws, n] of the weights of queries; those of small collections are kept for the next call."""
    return _kept(kind, draws, n, place) if draws * n <= _KEPT else _drawn(kind, draws, n, place)


@lru_cache(maxsize=16)
def _kept(kind: str, draws: int, n: int, place: int) -> list[NDArray[np.int16]]:
    return list(_drawn(kind, draws, n, place))


def _drawn(kind: str, draws: int, n: int, place: int) -> Iterator[NDArray[np.int16]]:
    purpose, weights = {"resampled": (_BOOTSTRAP, _resampled), "signs": (_SIGNS, _signs)}[kind]
    for rows, bits in _bits(draws, n, purpose + 16 * place):
        yield weights(bits, rows, n)


def _resampled(bits: NDArray[np.uint64], rows: int, n: int) -> NDArray[np.int16]:
    """How often each query is drawn when n are drawn with replacement."""
    drawn = (bits >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)
    flat = drawn.reshape(rows, n).astype(np.int64) + np.arange(rows)[:, None] * n
    return np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(np.int16)


def _signs(bits: NDArray[np.uint64], rows: int, n: int) -> NDArray[np.int16]:
    """-1 or 1 for each query."""
    return ((bits >> np.uint64(63)).astype(np.int16) * 2 - 1).reshape(rows, n)


def _bits(draws: int, n: int, seed: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Raw words of a bit generator, whose stream NumPy keeps from version to version, unlike that of `integers`."""
    generator = np.random.PCG64(seed)
    block = max(1, _BLOCK // n)
    for begin in range(0, draws, block):
        rows = min(block, draws - begin)
        yield rows, np.asarray(generator.random_raw(rows * n))


def _every_sign(values: Array) -> Array:
    """[2 ** len(values)] The sums under every assignment of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _extreme(sums: Array, observed: Array, side: str) -> NDArray[np.bool_]:
    """Which sums [columns, draws] are at least as extreme as the observed; those equal but for rounding count."""
    observed = observed[:, None]
    slack = 1e-12 + 1e-9 * np.abs(observed)
    if side == "greater":
        return np.asarray(sums >= observed - slack)
    if side == "less":
        return np.asarray(sums <= observed + slack)
    return np.asarray(np.abs(sums) >= np.abs(observed) - slack)
