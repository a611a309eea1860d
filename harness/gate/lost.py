"""Queries that a retriever can no longer answer: their scores fell to 0, in numbers that chance does not explain.

A mean hides a few broken queries. If a change is harmless, a query falls to 0 as often as one rises from it, so that of
n queries that do either, the number that fell is binomial with probability 1/2 (McNemar's exact test, one-sided). An
evaluation with n such queries has no p-value below 2 ** -n: those that cannot become significant take no part in the
correction for several evaluations (Tarone 1990, "A modified Bonferroni method for discrete data"), so that the other
evaluations of a large sweep do not hide a broken one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.gate.findings import LOST_QUERIES, Finding, Status
from harness.gate.matching import Matched, Pair
from harness.gate.policy import Policy
from harness.gate.scores import PartScores, part_scores
from harness.leaderboard import Scores

_MAX_NAMED = 5


class ZeroCounts(NamedTuple):
    """Queries of one evaluation whose scores fell to 0 or rose from 0 in all metrics."""

    pair: Pair
    metrics: Sequence[str]
    lost: list[str]
    """Ids of the queries that fell to 0."""
    risen: int
    queries: int


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
    family = tarone_family([len(each.lost) + each.risen for each in counts], policy.alpha)
    return [_finding(each, family, policy.lost_queries, policy.alpha) for each in counts if each.lost]


def binomial_p(lost: int, risen: int) -> float:
    """Return the probability that at least `lost` of `lost + risen` queries fall, if falling and rising are as likely.

    Args:
        lost: Number of queries that fell to 0.
        risen: Number of queries that rose from 0.
    """
    n = lost + risen
    ways, total, orders = 1, 0, 1 << n
    for fallen in range(n, lost - 1, -1):
        total += ways
        ways = ways * fallen // (n - fallen + 1)
    return total / orders


def tarone_family(changed: Sequence[int], alpha: float) -> int:
    """Return the factor that multiplies p-values so that the family-wise error rate is at most `alpha`.

    Args:
        changed: For each test the number of queries that fell to 0 or rose from 0.
        alpha: Level of the tests.
    """
    for factor in range(1, len(changed) + 1):
        if sum(n > 0 and 0.5**n <= alpha / factor for n in changed) <= factor:
            return factor
    return max(1, len(changed))


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


def _finding(counts: ZeroCounts, family: int, limit: int, alpha: float) -> Finding:
    n = len(counts.lost)
    p = min(1.0, family * binomial_p(n, counts.risen))
    named = ", ".join(counts.lost[:_MAX_NAMED]) + (f" and {n - _MAX_NAMED} more" if n > _MAX_NAMED else "")
    message = (
        f"{n} of {counts.queries} queries fell to 0 in {' and '.join(counts.metrics)}, {counts.risen} rose from 0 "
        f"(p={p:.4f} adjusted, limit {limit}): {named}"
    )
    status: Status = "fail" if n > limit and p <= alpha else "pass"
    return Finding(status, *counts.pair.key, LOST_QUERIES, message=message, command=counts.pair.command)
