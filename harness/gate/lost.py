"""Queries that a retriever can no longer answer: their scores fell to 0, in numbers that chance does not explain.

A mean hides a few broken queries. If a change is harmless, a query falls to 0 as often as one rises from it, so that of
n queries that do either, the number that fell is binomial with probability 1/2 (McNemar's exact test, one-sided). The
evaluations of a sweep are tested together. The statistic of one in which L queries fell and R rose, L > R, is its
log-likelihood ratio, `L * log(2 * L / n) + R * log(2 * R / n)`. The p-value of a statistic is the sum, over the
evaluations, of the probabilities that theirs is as large by chance: Bonferroni's method for discrete statistics
(Westfall & Wolfinger 1997), which holds however the evaluations are correlated. Those with too few changes to reach the
statistic add nothing (as in Tarone 1990), and those with many add little, so that they do not hide a broken one. It is
step-down: an evaluation with a larger statistic takes no part in the test of one with a smaller statistic.
"""

from collections.abc import Sequence
from functools import cache
from math import lgamma, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.gate.findings import LOST_QUERIES, Finding, Status
from harness.gate.matching import Matched, Pair
from harness.gate.policy import Policy
from harness.gate.scores import PartScores, part_scores
from harness.leaderboard import Scores

_MAX_NAMED = 5
_SLACK = 1e-9
"""Difference below which two statistics are equal."""


class ZeroCounts(NamedTuple):
    """Queries of one evaluation whose scores fell to 0 or rose from 0 in all metrics."""

    pair: Pair
    metrics: Sequence[str]
    lost: list[str]
    """Ids of the queries that fell to 0."""
    risen: int
    queries: int


class _NullDistribution(NamedTuple):
    """The distribution of the statistic of n changed queries, if falling and rising are as likely."""

    statistics: NDArray[np.float64]
    """By the number of queries that fell, in ascending order: 0 for those up to n / 2 [n + 1]."""
    tails: NDArray[np.float64]
    """Probability that at least as many fall [n + 1]."""

    def share_reaching(self, statistic: float) -> float:
        """Return the probability of a statistic that is at least as large as one above 0."""
        first = int(np.searchsorted(self.statistics, statistic - _SLACK))
        return float(self.tails[first]) if first < len(self.tails) else 0.0


def check_lost_queries(matched: Matched, before: Scores, after: Scores, policy: Policy) -> list[Finding]:
    """Test every pair for queries that fell to 0; return a finding for each evaluation that has some.

    Args:
        matched: The baseline's evaluations with their newest records.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
        policy: Metrics, level, and the number of lost queries that never fails.
    """
    if policy.lost_queries is None:
        return []
    counts = [each for pair in matched.pairs if (each := _count(pair, before, after, policy.metrics))]
    p_values = adjusted_p([(len(each.lost), each.risen) for each in counts])
    return [
        _finding(each, p, policy.lost_queries, policy.alpha)
        for each, p in zip(counts, p_values, strict=True)
        if each.lost
    ]


def adjusted_p(counts: Sequence[tuple[int, int]]) -> list[float]:
    """Return the p-value of each evaluation, adjusted over all of them by the method at the top of this module.

    Args:
        counts: For each evaluation the numbers of queries that fell to 0 and that rose from 0.
    """
    distributions = [_null_distribution(lost + risen) for lost, risen in counts]
    statistics = [each.statistics[lost] for each, (lost, _) in zip(distributions, counts, strict=True)]
    p_values, largest = [1.0] * len(counts), 0.0
    remaining = sorted((number for number, each in enumerate(statistics) if each > 0), key=lambda n: -statistics[n])
    not_worse = [number for number, each in enumerate(statistics) if each <= 0]
    for position, number in enumerate(remaining):
        tested = [*remaining[position:], *not_worse]
        p = sum(distributions[each].share_reaching(statistics[number]) for each in tested)
        p_values[number] = largest = max(largest, min(1.0, p))
    return p_values


@cache
def _null_distribution(n: int) -> _NullDistribution:
    lost = np.arange(n + 1, dtype=np.float64)
    shares = [side / n if n else side for side in (lost, n - lost)]
    logs = [np.log(2 * share, out=np.zeros(n + 1), where=share > 0) for share in shares]
    statistics = np.where(2 * lost > n, lost * logs[0] + (n - lost) * logs[1], 0.0)
    factorials = np.array([lgamma(number + 1) for number in range(n + 1)])
    probabilities = np.exp(factorials[n] - factorials - factorials[::-1] - n * log(2))
    return _NullDistribution(statistics, np.cumsum(probabilities[::-1])[::-1])


def _count(pair: Pair, before: Scores, after: Scores, metrics: Sequence[str]) -> ZeroCounts | None:
    """Count the queries whose scores of all the metrics fell to 0 or rose from 0; None if no metric is comparable."""
    common: dict[str, list[PartScores]] = {}
    for metric in metrics:
        scores = part_scores(pair, metric, before, after)
        if not isinstance(scores, str):
            common[metric] = scores
    if not common:
        return None
    lost: list[str] = []
    risen = queries = 0
    for parts in zip(*common.values(), strict=True):
        was, now = (np.any([getattr(part, side) > 0 for part in parts], axis=0) for side in ("before", "after"))
        lost += [parts[0].query_ids[row] for row in np.flatnonzero(was & ~now)]
        risen += int((now & ~was).sum())
        queries += len(was)
    return ZeroCounts(pair, list(common), lost, risen, queries)


def _finding(counts: ZeroCounts, p: float, limit: int, alpha: float) -> Finding:
    n = len(counts.lost)
    named = ", ".join(counts.lost[:_MAX_NAMED]) + (f" and {n - _MAX_NAMED} more" if n > _MAX_NAMED else "")
    message = (
        f"{n} of {counts.queries} queries fell to 0 in {' and '.join(counts.metrics)}, {counts.risen} rose from 0 "
        f"(p={p:.4f} adjusted, limit {limit}): {named}"
    )
    status: Status = "fail" if n > limit and p < alpha else "pass"
    return Finding(status, *counts.pair.key, LOST_QUERIES, message=message, command=counts.pair.command)
