"""Quality checks: a test for each evaluation and one for each retriever's mean, adjusted as one family.

With drop = baseline - candidate: identical where every query keeps its score; fail where the drop is above the
tolerance and significant, or above the limit; warn where it is above the tolerance only; improved mirrors fail.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from harness import stats
from harness.gate.findings import MACRO, Finding, Status
from harness.gate.matching import Matched, PairScores, pair_scores
from harness.gate.policy import Limits, Policy
from harness.leaderboard import Difference, Scores
from harness.simultaneous import compare_all


@dataclass(frozen=True)
class _Test:
    retriever: str
    dataset: str
    metric: str
    scores: PairScores
    parts: Sequence[str]
    """Names of the datasets, or parts of them, of the strata."""
    limits: Limits
    command: str = ""
    message: str = ""


def check_quality(matched: Matched, before: Scores, after: Scores, policy: Policy) -> list[Finding]:
    """Test every metric of the policy on every pair.

    Args:
        matched: The baseline's evaluations with their newest records.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
        policy: Metrics, tolerances, limits and the level of the tests.
    """
    tests: list[_Test] = []
    undecided: list[Finding] = []
    for pair in matched.pairs:
        for metric in policy.metrics:
            scores = pair_scores(pair, metric, before, after)
            if isinstance(scores, str):
                undecided.append(Finding("undecided", *pair.key, metric, message=scores, command=pair.command))
            else:
                parts = [record.dataset.name for record in pair.before]
                tests.append(_Test(*pair.key, metric, scores, parts, policy.limits_for(pair.names), pair.command))
    incomplete = {finding.retriever for finding in undecided} | {each.retriever for each in matched.undecided}
    tests += _macro_tests(tests, incomplete, policy)
    return [*undecided, *_run_tests(tests, policy)]


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
            *(retriever, MACRO, metric, _average([test.scores for test in group])),
            [part for test in group for part in test.parts],
            limits,
            message=f"over {', '.join(test.dataset for test in group)} alone" if retriever in incomplete else "",
        )
        for (retriever, metric), group in groups.items()
        if len(group) > 1
    ]


def _average(group: Sequence[PairScores]) -> PairScores:
    strata = [(weight / len(group), values) for scores in group for weight, values in scores.strata]
    sides = zip(*((scores.before, scores.after) for scores in group), strict=True)
    before, after = (sum(values) / len(group) for values in sides)
    return PairScores(strata, before, after)


def _run_tests(tests: Sequence[_Test], policy: Policy) -> list[Finding]:
    """Return the finding of each test; identical scores are not part of the family of comparisons."""
    findings = [_finding(test, "identical", None) for test in tests if test.scores.identical]
    changed = [test for test in tests if not test.scores.identical]
    for test, difference in zip(changed, _differences(changed, policy.alpha), strict=True):
        findings.append(_finding(test, _status(difference, test.limits, policy.alpha), difference))
    return findings


def _differences(tests: Sequence[_Test], alpha: float) -> list[Difference]:
    """Return the candidate minus the baseline of each test; all tests are one family."""
    numbers: dict[str, int] = {}
    seeds = [[numbers.setdefault(part, len(numbers)) for part in test.parts] for test in tests]
    columns = [
        [(weight, np.hstack([np.zeros_like(values), values])) for weight, values in test.scores.strata]
        for test in tests
    ]
    differences = []
    for test, result in zip(tests, compare_all(columns, seeds, alpha=alpha), strict=True):
        parts = [values[:, 0] for _, values in test.scores.strata]
        effect = stats.effect_size(parts[0]) if len(parts) == 1 else None
        figures = result.delta(0, 1), *result.interval(0, 1), float(result.p[0, 1])
        differences.append(Difference(*figures, *stats.count_wins(np.concatenate(parts)), effect))
    return differences


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
