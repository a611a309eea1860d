"""Did a score fall? One test for each cell and one for each retriever's mean, one family for Holm's correction.

With drop = baseline - candidate: identical where every query has its old score; fail where the drop is above the
tolerance and significant, or above the limit; warn where it is above the tolerance only; improved mirrors fail.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from harness import stats
from harness.gate.cells import Matched, Scored, scored
from harness.gate.findings import MACRO, Finding, Status
from harness.gate.policy import Limits, Policy
from harness.leaderboard import Difference, Scores


@dataclass(frozen=True)
class _Test:
    retriever: str
    dataset: str
    metric: str
    scored: Scored
    limits: Limits
    command: str = ""
    said: str = ""


def quality(cells: Matched, before: Scores, after: Scores, policy: Policy) -> list[Finding]:
    """The findings of every metric of the policy on every pair."""
    tests: list[_Test] = []
    undecided: list[Finding] = []
    for pair in cells.pairs:
        for metric in policy.metrics:
            found = scored(pair, metric, before, after)
            if isinstance(found, str):
                undecided.append(Finding("undecided", *pair.key, metric, said=found, command=pair.command))
            else:
                tests.append(_Test(*pair.key, metric, found, policy.on(pair.names), pair.command))
    lacking = {one.retriever for one in undecided} | {one.retriever for one in cells.undecided}
    tests += _macros(tests, lacking, policy)
    return [*undecided, *_judged(tests, policy)]


def _macros(tests: Sequence[_Test], lacking: Collection[str], policy: Policy) -> list[_Test]:
    """A test of each retriever's mean over its datasets, where it has several; `lacking` has one that is not among."""
    groups: dict[tuple[str, str], list[_Test]] = {}
    for test in tests:
        groups.setdefault((test.retriever, test.metric), []).append(test)
    limits = Limits(tolerance=policy.macro_tolerance, limit=policy.limit)
    return [
        _Test(
            *(retriever, MACRO, metric, _mean([own.scored for own in several]), limits),
            said=f"over {', '.join(own.dataset for own in several)} alone" if retriever in lacking else "",
        )
        for (retriever, metric), several in groups.items()
        if len(several) > 1
    ]


def _mean(several: Sequence[Scored]) -> Scored:
    strata = [(weight / len(several), values) for own in several for weight, values in own.strata]
    means = [sum(values) / len(several) for values in zip(*((own.before, own.after) for own in several), strict=True)]
    return Scored(strata, means[0], means[1])


def _judged(tests: Sequence[_Test], policy: Policy) -> list[Finding]:
    """Scores that are all equal are no test: what cannot be rejected does not weigh on the others."""
    found = [_finding(test, "identical", None) for test in tests if test.scored.identical]
    open_ = [test for test in tests if not test.scored.identical]
    # so many draws that the least possible p survives Holm's correction at this level
    draws = max(stats.DRAWS, ceil(2 * len(open_) / policy.alpha))
    told = _tested([test.scored.strata for test in open_], draws)
    worse, better = (stats.holm([getattr(one, side) for one in told]) for side in ("less", "greater"))
    for test, one, p_less, p_greater in zip(open_, told, worse, better, strict=True):
        difference = _difference(test.scored, one, p_less, p_greater)
        status = _status(difference.delta, p_less, p_greater, test.limits, policy.alpha)
        found.append(_finding(test, status, difference))
    return found


@dataclass(frozen=True)
class _Told:
    """What the differences of one test say, p not adjusted."""

    delta: float
    low: float
    high: float
    less: float
    greater: float


def _tested(several: Sequence[stats.Strata], draws: int) -> list[_Told]:
    """Tests whose parts have as many queries share their draws."""
    alike: dict[tuple[tuple[float, int], ...], list[int]] = {}
    for place, strata in enumerate(several):
        alike.setdefault(tuple((weight, len(values)) for weight, values in strata), []).append(place)
    told: dict[int, _Told] = {}
    for places in alike.values():
        parts = zip(*(several[place] for place in places), strict=True)
        stacked = [(own[0][0], np.hstack([values for _, values in own])) for own in parts]
        low, high = stats.intervals(stacked)
        mirrored = [(weight, np.hstack([values, -values])) for weight, values in stacked]  # both sides of one drawing
        sides = np.split(stats.p_values(mirrored, draws, "less"), 2)
        for place, *figures in zip(places, stats.mean(stacked), low, high, *sides, strict=True):
            told[place] = _Told(*map(float, figures))
    return [told[place] for place in range(len(several))]


def _status(delta: float, worse: float, better: float, limits: Limits, alpha: float) -> Status:
    drop = -delta
    if drop > limits.limit or (drop > limits.tolerance and worse < alpha):
        return "fail"
    if drop > limits.tolerance:
        return "warn"
    if delta > limits.limit or (delta > limits.tolerance and better < alpha):
        return "improved"
    return "pass"


def _difference(own: Scored, told: _Told, worse: float, better: float) -> Difference:
    won, tied, lost = stats.wins(np.concatenate([values[:, 0] for _, values in own.strata]))
    effect = stats.effect(own.strata[0][1][:, 0]) if len(own.strata) == 1 else None
    p = worse if told.delta <= 0 else better
    return Difference(told.delta, told.low, told.high, p, won, tied, lost, effect)


def _finding(test: _Test, status: Status, difference: Difference | None) -> Finding:
    certain = difference is not None and -difference.delta > test.limits.limit
    return Finding(
        status,
        test.retriever,
        test.dataset,
        test.metric,
        before=test.scored.before,
        after=test.scored.after,
        difference=difference,
        limit=test.limits.limit if certain else test.limits.tolerance,
        said=test.said,
        command=test.command,
    )
