"""What got worse? A pure function of a baseline, the newest records and a policy.

gate(baseline, matched(baseline.records, records), scores, policy) -> Verdict, whose `exit_code` is a CI job's answer.
"""

from collections.abc import Sequence

from harness.gate.baseline import Baseline
from harness.gate.cells import Matched, matched
from harness.gate.cost import cost
from harness.gate.findings import MACRO, Finding, Verdict, verdict
from harness.gate.policy import Policy
from harness.gate.quality import quality
from harness.leaderboard import Scores
from harness.types import Record

__all__ = ["MACRO", "Baseline", "Finding", "Matched", "Policy", "Verdict", "gate", "matched", "verdict"]


def gate(
    baseline: Baseline,
    cells: Matched,
    scores: Scores,
    policy: Policy,
    lenient: bool = False,
    again: Sequence[Record] = (),
) -> Verdict:
    """Every finding, worst first.

    `scores` are the per-query scores of `cells.candidates`; `again` are further measurements of cells, whose costs
    count where they are less.
    """
    found = [
        Finding("undecided", *(one.retriever, one.dataset), "cell", said=one.why, command=one.command)
        for one in cells.undecided
    ]
    found += [Finding("new", *key, "cell", said="not in the baseline") for key in cells.new]
    found += [
        Finding(
            "warn", one.retriever, one.dataset, "cell", said=f"not in the baseline, and {one.why}", command=one.command
        )
        for one in cells.failed
    ]
    found += quality(cells, baseline.scores, scores, policy)
    costs, notes = cost(cells.pairs, again, policy)
    return verdict([*found, *costs], notes, lenient)
