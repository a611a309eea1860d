"""Metrics that the records have and the policy does not gate: a significant drop of one is a warning.

The tests of all these metrics on all evaluations are one family of their own for Holm's correction, which takes nothing
from the power of the gated ones.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from harness import stats
from harness.gate.findings import Finding
from harness.gate.matching import Matched, Pair
from harness.gate.policy import COVERAGE, Policy
from harness.gate.quality import draws_for
from harness.gate.scores import PairScores, common_metrics, pair_scores
from harness.leaderboard import Difference, Scores

_MAX_NAMED = 3


def warn_of_ungated(matched: Matched, before: Scores, after: Scores, policy: Policy) -> list[Finding]:
    """Return a warning for each metric that is not gated and fell significantly, by more than the tolerance.

    The share of judged documents (`judged@k`) is left out: it is no quality.

    Args:
        matched: The baseline's evaluations with their newest records.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
        policy: The gated metrics, the tolerances, and the level of the tests.
    """
    tests = [
        (pair, metric, scores)
        for pair in matched.pairs
        for metric in common_metrics(pair, before, after)
        if metric not in policy.metrics and not metric.startswith(COVERAGE)
        if not isinstance(scores := pair_scores(pair, metric, before, after), str) and not scores.identical
    ]
    # only drops above the tolerance need a p-value; 1 for the rest can only raise the adjusted values
    p_values = [
        float(stats.p_values(scores.strata, draws_for(len(tests), policy), "less")[0])
        if scores.before - scores.after > policy.limits_for(pair.names).tolerance
        else 1.0
        for pair, _, scores in tests
    ]
    fallen: defaultdict[str, list[tuple[float, Pair, PairScores]]] = defaultdict(list)
    for (pair, metric, scores), p in zip(tests, stats.holm(p_values), strict=True):
        if p < policy.alpha:
            fallen[metric].append((p, pair, scores))
    return [_finding(metric, drops, len(matched.pairs), policy) for metric, drops in fallen.items()]


def _finding(metric: str, drops: Sequence[tuple[float, Pair, PairScores]], evaluations: int, policy: Policy) -> Finding:
    """Return one warning for a metric: the figures of its largest drop, and the names of the other evaluations."""
    p, pair, scores = max(drops, key=lambda drop: drop[2].before - drop[2].after)
    remaining = ["/".join(each.key) for _, each, _ in drops if each is not pair]
    message = "not gated"
    if remaining:
        named = ", ".join(remaining[:_MAX_NAMED])
        more = f" and {len(remaining) - _MAX_NAMED} more" if len(remaining) > _MAX_NAMED else ""
        message = f"{message}; fell on {len(drops)} of {evaluations} evaluations: also {named}{more}"
    low, high = (float(ends[0]) for ends in stats.confidence_intervals(scores.strata))
    counts = stats.count_wins(np.concatenate([values[:, 0] for _, values in scores.strata]))
    return Finding(
        "warn",
        *pair.key,
        metric,
        before=scores.before,
        after=scores.after,
        difference=Difference(float(stats.mean(scores.strata)[0]), low, high, p, *counts, None),
        limit=policy.limits_for(pair.names).tolerance,
        message=message,
        command=pair.command,
    )
