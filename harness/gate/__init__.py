"""The regression gate: a pure function of a baseline, the newest records and a policy.

`gate(baseline, match_records(baseline.records, records), scores, policy)` returns a `Verdict`, which has an
`exit_code` for CI.
"""

from collections.abc import Sequence

from harness.gate.baseline import Baseline
from harness.gate.cost import check_costs
from harness.gate.findings import MACRO, Finding, Verdict, make_verdict
from harness.gate.matching import Matched, match_records
from harness.gate.policy import Policy
from harness.gate.quality import check_quality
from harness.leaderboard import Scores
from harness.types import Record

__all__ = ["MACRO", "Baseline", "Finding", "Matched", "Policy", "Verdict", "gate", "make_verdict", "match_records"]


def gate(
    baseline: Baseline,
    matched: Matched,
    scores: Scores,
    policy: Policy,
    lenient: bool = False,
    repeats: Sequence[Record] = (),
) -> Verdict:
    """Check every evaluation against the baseline.

    Args:
        baseline: The accepted records and scores.
        matched: The baseline's evaluations with their newest records.
        scores: Per-query scores of `matched.candidates`.
        policy: Tolerances and limits.
        lenient: Treat undecided findings as warnings.
        repeats: Repeated measurements of some evaluations; the lowest cost of each evaluation is checked.
    """
    findings = [
        Finding("undecided", each.retriever, each.dataset, "evaluation", message=each.reason, command=each.command)
        for each in matched.undecided
    ]
    findings += [Finding("new", *key, "evaluation", message="not in the baseline") for key in matched.new]
    findings += [
        Finding(
            "warn",
            each.retriever,
            each.dataset,
            "evaluation",
            message=f"not in the baseline, and {each.reason}",
            command=each.command,
        )
        for each in matched.failed
    ]
    findings += check_quality(matched, baseline.scores, scores, policy)
    costs, notes = check_costs(matched.pairs, repeats, policy)
    return make_verdict([*findings, *costs], notes, lenient)
