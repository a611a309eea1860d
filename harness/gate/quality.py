"""Quality checks: a test for each evaluation and one for each retriever's mean, adjusted as one family.

With drop = baseline - candidate: identical where every query keeps its score; fail where the drop is above the
tolerance and significant, or above the limit; warn where it is above the tolerance only; improved mirrors fail.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.gate.findings import MACRO, Finding, Status
from harness.gate.matching import Matched
from harness.gate.policy import DEFAULT_METRICS, Limits, Policy
from harness.gate.scores import PairScores, compare_scores, is_measured, pair_scores
from harness.leaderboard import Difference, Scores


@dataclass(frozen=True)
class _Test:
    retriever: str
    dataset: str
    metric: str
    scores: PairScores
    limits: Limits
    command: str = ""
    message: str = ""


class CheckedQuality(NamedTuple):
    """The result of the quality checks."""

    findings: list[Finding]
    """Findings of all evaluations, selected or not."""
    notes: list[str]
    """A note for each metric of the default policy that selected evaluations do not have."""
    tests: int
    """Number of tests that are adjusted together."""


def check_quality(matched: Matched, before: Scores, after: Scores, policy: Policy) -> CheckedQuality:
    """Test every metric of the policy on every pair, as one family.

    Args:
        matched: The baseline's evaluations with their newest records.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
        policy: Metrics, tolerances, limits and the level of the tests.
    """
    tests: list[_Test] = []
    undecided: list[Finding] = []
    lacking: dict[str, int] = {}
    for pair in matched.pairs:
        for metric in policy.metrics:
            if _is_optional(metric, policy) and not is_measured(pair, metric, before, after):
                lacking[metric] = lacking.get(metric, 0) + matched.is_selected(pair.key)
                continue
            scores = pair_scores(pair, metric, before, after)
            if isinstance(scores, str):
                undecided.append(Finding("undecided", *pair.key, metric, message=scores, command=pair.command))
            else:
                tests.append(_Test(*pair.key, metric, scores, policy.limits_for(pair.names), pair.command))
    compared = {pair.key for pair in matched.pairs}
    incomplete = {finding.retriever for finding in undecided} | {
        each.retriever for each in matched.uncompared if (each.retriever, each.dataset) not in compared
    }
    tests += _macro_tests(tests, incomplete, policy)
    selected = sum(matched.is_selected(pair.key) for pair in matched.pairs)
    notes = [
        f"{metric}: neither the baseline nor the newest record has it ({n} of {selected} evaluations)"
        for metric, n in lacking.items()
        if n
    ]
    changed = sum(not test.scores.identical for test in tests)
    return CheckedQuality([*undecided, *_run_tests(tests, policy)], notes, changed)


def _is_optional(metric: str, policy: Policy) -> bool:
    """Return True for a metric that the default policy adds to its first; a policy's author requires all of them."""
    return policy.metrics == DEFAULT_METRICS and metric != DEFAULT_METRICS[0]


def _macro_tests(tests: Sequence[_Test], incomplete: Collection[str], policy: Policy) -> list[_Test]:
    """Return a test of the mean over datasets of each retriever that has several.

    Args:
        tests: Tests on single datasets.
        incomplete: Retrievers that have an undecided dataset, whose means name the datasets that they cover.
        policy: Tolerance and limit of the means.
    """
    groups: dict[tuple[str, str], list[_Test]] = {}
    for test in tests:
        groups.setdefault((test.retriever, test.metric), []).append(test)
    limits = Limits(tolerance=policy.macro_tolerance, limit=policy.limit)
    return [
        _Test(
            *(retriever, MACRO, metric, _average([test.scores for test in group]), limits),
            message=f"over {', '.join(test.dataset for test in group)} alone" if retriever in incomplete else "",
        )
        for (retriever, metric), group in groups.items()
        if len(group) > 1
    ]


def _average(group: Sequence[PairScores]) -> PairScores:
    strata = [(weight / len(group), values) for scores in group for weight, values in scores.strata]
    sides = zip(*((scores.before, scores.after) for scores in group), strict=True)
    before, after = (sum(values) / len(group) for values in sides)
    return PairScores(strata, [part for scores in group for part in scores.parts], before, after)


def _run_tests(tests: Sequence[_Test], policy: Policy) -> list[Finding]:
    """Return the finding of each test; identical scores are not part of the family of comparisons."""
    findings = [_finding(test, "identical", None) for test in tests if test.scores.identical]
    changed = [test for test in tests if not test.scores.identical]
    differences = compare_scores([test.scores for test in changed], policy.alpha)
    for test, difference in zip(changed, differences, strict=True):
        findings.append(_finding(test, _status(difference, test.limits, policy.alpha), difference))
    return findings


def _status(difference: Difference, limits: Limits, alpha: float) -> Status:
    change, is_significant = difference.delta, difference.p < alpha
    if -change > limits.limit or (-change > limits.tolerance and is_significant):
        return "fail"
    if -change > limits.tolerance:
        return "warn"
    if change > limits.limit or (change > limits.tolerance and is_significant):
        return "improved"
    return "pass"


def _finding(test: _Test, status: Status, difference: Difference | None) -> Finding:
    exceeds_limit = difference is not None and -difference.delta > test.limits.limit
    return Finding(
        status,
        test.retriever,
        test.dataset,
        test.metric,
        before=test.scores.before,
        after=test.scores.after,
        difference=difference,
        limit=test.limits.limit if exceeds_limit else test.limits.tolerance,
        message=test.message,
        command=test.command,
    )
