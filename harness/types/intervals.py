"""Confidence intervals of times and throughputs, 95 %, from the samples of one evaluation.

Quantiles have distribution-free intervals: two order statistics that enclose the quantile with a binomial probability
of at least 95 % (Conover, Practical Nonparametric Statistics, section 3.2).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import exp, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.distributions import t_quantile

LEVEL = 0.95
_ROUNDING = 1e-9
_UPPER = 1 - (1 - LEVEL) / 2
"""Share of the quantile at the upper end of a symmetric interval."""


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


class Quantile(NamedTuple):
    """A quantile of samples, with its confidence interval."""

    value: float
    interval: Interval


class _Ranks(NamedTuple):
    low: int
    high: int


def quantile_interval(samples: Sequence[float], share: float) -> Interval | None:
    """Return the order statistics of `samples` that enclose the quantile `share`; None if there are none that do.

    The median needs 6 samples, the 95th percentile 59, the 99th 299.
    """
    if (ranks := _enclosing_ranks(len(samples), share)) is None:
        return None
    ordered = sorted(samples)
    return Interval(ordered[ranks.low], ordered[ranks.high])


def weighted_quantile(groups: Sequence[Sequence[float]], share: float) -> Quantile | None:
    """Return the quantile `share` of groups of samples that count equally, whatever their sizes.

    The interval is that of one sample of the effective size: the size whose share of values below the quantile has the
    variance that this share has in the groups (Woodruff 1952; Korn & Graubard 1998), at most Kish's.

    Args:
        groups: Samples of each group.
        share: Share of values below the quantile.

    Returns:
        The quantile; None if a group is empty or the effective size is too small for an interval.
    """
    if not all(groups):
        return None
    if len(groups) == 1:
        interval = quantile_interval(groups[0], share)
        return Quantile(float(np.percentile(groups[0], 100 * share)), interval) if interval else None
    values = np.concatenate([np.asarray(group, np.float64) for group in groups])
    weights = np.repeat([1 / len(group) / len(groups) for group in groups], [len(group) for group in groups])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    totals = np.cumsum(weights)
    value = float(np.interp(share, (totals - weights) / (1 - weights[-1]), values))
    n = _effective_size(groups, value, share)
    if (ranks := _enclosing_ranks(n, share)) is None:
        return None
    low = int(np.searchsorted(totals, ranks.low / n + _ROUNDING, side="right"))
    high = min(int(np.searchsorted(totals, (ranks.high + 1) / n - _ROUNDING)), len(values) - 1)
    return Quantile(value, Interval(float(values[low]), float(values[high])))


def median_interval(samples: Sequence[float]) -> Interval | None:
    """Return an interval of the median of positive `samples`; None for fewer than two.

    Two to five samples have no order statistics that enclose the median in 95 % of cases; for them the interval is that
    of Student's t test on the logarithms.
    """
    n = len(samples)
    if n < 2 or min(samples) <= 0:
        return None
    if (interval := quantile_interval(samples, 0.5)) is not None:
        return interval
    logs = np.log(samples)
    half = t_quantile(_UPPER, n - 1) * float(logs.std(ddof=1)) / sqrt(n)
    return Interval(exp(float(logs.mean()) - half), exp(float(logs.mean()) + half))


def total_interval(shards: Mapping[str, Sequence[tuple[int, float]]], total: float) -> Interval | None:
    """Return an interval of the `total` seconds of work that was done in shards.

    Each component's seconds are its amount of work times one rate (the ratio estimator, Cochran, Sampling Techniques,
    chapter 6); the residuals of the shards are the noise.

    Args:
        shards: Amount of work and seconds of each shard, by component.
        total: Seconds of the shards and of everything else.

    Returns:
        The interval; None if less than half of the seconds are those of components with two shards or more.
    """
    parts = [np.asarray(values, float) for values in shards.values() if len(values) > 1]
    parts = [part for part in parts if part[:, 0].sum() > 0]
    if not parts or total <= 0 or sum(float(part[:, 1].sum()) for part in parts) < total / 2:
        return None
    variance = sum(_variance(part) for part in parts)
    half = t_quantile(_UPPER, sum(len(part) - 1 for part in parts)) * sqrt(variance) / total
    return Interval(total * exp(-half), total * exp(half))


def sum_interval(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Return an interval of the sum of independent `values`, each with one of the `intervals`."""
    pairs = list(zip(values, intervals, strict=True))
    below = sqrt(sum((value - interval.low) ** 2 for value, interval in pairs))
    above = sqrt(sum((interval.high - value) ** 2 for value, interval in pairs))
    return Interval(sum(values) - below, sum(values) + above)


def _effective_size(groups: Sequence[Sequence[float]], value: float, share: float) -> int:
    """Return the effective size of `groups` that count equally, for their quantile `share`, which is `value`."""
    sizes = np.array([len(group) for group in groups])
    below = np.array([np.mean(np.asarray(group) <= value) for group in groups])
    variance = float((below * (1 - below) / sizes).sum())
    kish = len(groups) ** 2 / float((1 / sizes).sum())
    size = len(groups) ** 2 * share * (1 - share) / variance if variance else kish
    return int(min(size, kish) + _ROUNDING)


def _variance(shards: NDArray[np.float64]) -> float:
    """Return the variance of the total seconds of `shards` [n, 2], rows of an amount of work and its seconds."""
    work, seconds = shards[:, 0], shards[:, 1]
    residuals = seconds - work * (seconds.sum() / work.sum())
    return len(shards) / (len(shards) - 1) * float((residuals**2).sum())


@cache
def _enclosing_ranks(n: int, share: float) -> _Ranks | None:
    """Return the nearest two of `n` order statistics, from 0, that enclose the quantile with 95 % probability.

    The sample has j values below the quantile with the probability of the binomial distribution (n, share). Of several
    equally near pairs it is the one of the highest probability.
    """
    counts = np.arange(n + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choices = log_factorials[n] - log_factorials - log_factorials[::-1]
    below = np.cumsum(np.exp(log_choices + counts * np.log(share) + (n - counts) * np.log1p(-share)))
    lows = np.arange(1, n)
    highs = np.searchsorted(below, below[lows - 1] + LEVEL) + 1  # P(a count from low to high - 1) >= LEVEL
    lows, highs = lows[highs <= n], highs[highs <= n]
    if not lows.size:
        return None
    probability = below[highs - 1] - below[lows - 1]
    best = np.lexsort((-probability, highs - lows))[0]
    return _Ranks(int(lows[best]) - 1, int(highs[best]) - 1)
