"""The paired randomisation test of one difference, which the tests of many are compared with."""

import numpy as np
from numpy.typing import NDArray

from harness import stats

EXACT = 16
"""Largest number of differing queries for an exact test over all 2 ** 16 sign assignments."""


def p_values(differences: stats.Strata, draws: int = stats.DRAWS, side: str = "two") -> stats.Array:
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
    observed = np.round(stats.mean(differences), stats.DIGITS)
    differing = np.asarray(sum(np.count_nonzero(values, axis=0) for _, values in differences))
    p = np.ones(len(observed))
    few = np.flatnonzero((differing <= EXACT) & (differing > 0))
    for column in few:
        weighted = np.concatenate([w * values[:, column] / len(values) for w, values in differences])
        p[column] = np.mean(_is_extreme(_sums_of_all_signs(weighted[weighted != 0])[None], observed[[column]], side))
    many = np.flatnonzero(differing > EXACT)
    if len(many):
        strata = [(w, values[:, many]) for w, values in differences]
        sums = stats.flipped_means(strata, range(len(strata)), draws)
        p[many] = (np.count_nonzero(_is_extreme(sums, observed[many], side), axis=1) + 1) / (draws + 1)
    return p


def _sums_of_all_signs(values: stats.Array) -> stats.Array:
    """Return the sums under every assignment of signs [2 ** len(values)]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _is_extreme(sums: stats.Array, observed: stats.Array, side: str) -> NDArray[np.bool_]:
    """Mark the sums [columns, draws] that are at least as extreme as the observed; equal up to rounding counts."""
    observed = observed[:, None]
    slack = 1e-12 + 1e-9 * np.abs(observed)
    if side == "greater":
        return np.asarray(sums >= observed - slack)
    if side == "less":
        return np.asarray(sums <= observed + slack)
    return np.asarray(np.abs(sums) >= np.abs(observed) - slack)
