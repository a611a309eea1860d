"""Metrics that the records have and the policy does not gate: a significant drop of one is a warning.

The tests of all these metrics on all evaluations are one family of their own, which takes nothing from the power of the
gated ones.
"""

from collections import defaultdict
from collections.abc import Sequence

from harness.gate.findings import Finding
from harness.gate.matching import Matched, Pair
from harness.gate.policy import Policy
from harness.gate.scores import PairScores, common_metrics, compare_scores, pair_scores
from harness.leaderboard import Difference, Scores
from harness.metrics import is_coverage

_MAX_NAMED = 3


def warn_of_ungated(matched: Matched, before: Scores, after: Scores, policy: Policy) -> list[Finding]:
    """Return a warning for each metric that is not gated and fell significantly, by more than the tolerance.

    The share of judged documents (`judged@k`) is left out, because it does not measure quality. Only selected
    evaluations are reported; the tests are adjusted over all of them.

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
        if metric not in policy.metrics and not is_coverage(metric)
        if not isinstance(scores := pair_scores(pair, metric, before, after), str) and not scores.identical
    ]
    fallen: defaultdict[str, list[tuple[Difference, Pair, PairScores]]] = defaultdict(list)
    differences = compare_scores([scores for _, _, scores in tests], policy.alpha)
    for (pair, metric, scores), difference in zip(tests, differences, strict=True):
        exceeds = -difference.delta > policy.limits_for(pair.names).tolerance
        if matched.is_selected(pair.key) and difference.p < policy.alpha and exceeds:
            fallen[metric].append((difference, pair, scores))
    evaluations = sum(matched.is_selected(pair.key) for pair in matched.pairs)
    return [_finding(metric, drops, evaluations, policy) for metric, drops in fallen.items()]


def _finding(
    metric: str, drops: Sequence[tuple[Difference, Pair, PairScores]], evaluations: int, policy: Policy
) -> Finding:
    """Return one warning for a metric: the figures of its largest drop, and the names of the other evaluations."""
    difference, pair, scores = max(drops, key=lambda drop: -drop[0].delta)
    remaining = ["/".join(each.key) for _, each, _ in drops if each is not pair]
    message = "not gated"
    if remaining:
        named = ", ".join(remaining[:_MAX_NAMED])
        more = f" and {len(remaining) - _MAX_NAMED} more" if len(remaining) > _MAX_NAMED else ""
        message = f"{message}; fell on {len(drops)} of {evaluations} evaluations: also {named}{more}"
    return Finding(
        "warn",
        *pair.key,
        metric,
        before=scores.before,
        after=scores.after,
        difference=difference,
        limit=policy.limits_for(pair.names).tolerance,
        message=message,
        command=pair.command,
    )
