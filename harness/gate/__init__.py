"""The regression gate: a pure function of a baseline, the newest records and a policy.

`gate(baseline, match_records(baseline.records, records), scores, policy)` returns a `Verdict`, which has an
`exit_code` for CI.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.gate.baseline import Baseline
from harness.gate.cost import check_costs
from harness.gate.findings import EVALUATION, MACRO, Finding, Provenance, Verdict, make_verdict
from harness.gate.lost import check_lost_queries
from harness.gate.matching import Key, Matched, Uncompared, match_records
from harness.gate.policy import Policy
from harness.gate.quality import check_quality
from harness.gate.ungated import warn_of_ungated
from harness.leaderboard import Scores
from harness.types import Record

__all__ = ["MACRO", "Baseline", "Finding", "Matched", "Policy", "Verdict", "gate", "make_verdict", "match_records"]

Turnover = Callable[[Record], str | None]
"""Returns the message for a newest record whose document ids turned over, or None."""


class _CheckedScores(NamedTuple):
    """The result of all checks of scores."""

    matched: Matched
    """Without the evaluations whose document ids turned over, which are among the uncompared ones."""
    findings: list[Finding]
    """Findings of the selected evaluations."""
    notes: list[str]
    tests: int
    """Number of tests of gated metrics."""


def gate(
    baseline: Baseline,
    matched: Matched,
    scores: Scores,
    policy: Policy,
    lenient: bool = False,
    repeats: Sequence[Record] = (),
    turnover: Turnover | None = None,
) -> Verdict:
    """Check every evaluation against the baseline, and report the selected ones.

    Args:
        baseline: The accepted records and scores.
        matched: The baseline's evaluations with their newest records. Scores are tested as one family over all of them;
            only findings of its selected evaluations are in the verdict.
        scores: Per-query scores of `matched.candidates`.
        policy: Tolerances and limits.
        lenient: Treat undecided findings as warnings.
        repeats: Repeated measurements of some evaluations; the lowest cost of each evaluation is checked.
        turnover: Called for evaluations whose scores failed, see `harness.gate.turnover`.
    """
    checked = _check_scores(baseline, matched, scores, policy, turnover)
    findings = _uncompared(checked.matched, turnover)
    findings += [
        Finding("new", *key, EVALUATION, message="not in the baseline")
        for key in matched.new
        if matched.is_selected(key)
    ]
    findings += checked.findings
    pairs = [pair for pair in matched.pairs if matched.is_selected(pair.key)]
    costs, cost_notes = check_costs(pairs, repeats, policy)
    origins = _origins(matched)
    traced = [replace(each, measured=origins.get((each.retriever, each.dataset))) for each in [*findings, *costs]]
    return make_verdict(traced, [*checked.notes, *cost_notes], lenient, checked.tests)


def _uncompared(matched: Matched, turnover: Turnover | None) -> list[Finding]:
    """Return the findings of the selected evaluations that are not compared."""
    findings = []
    for each in matched.uncompared:
        if not matched.is_selected((each.retriever, each.dataset)):
            continue
        messages = [each.reason]
        if turnover and each.dataset_differs:
            messages += [message for record in each.records if (message := turnover(record))][:1]
        findings.append(
            Finding(
                *(each.status, each.retriever, each.dataset, EVALUATION),
                message="; ".join(messages),
                command=each.command,
            )
        )
    return findings


def _check_scores(
    baseline: Baseline, matched: Matched, scores: Scores, policy: Policy, turnover: Turnover | None
) -> _CheckedScores:
    """Check the scores of all evaluations, without those that failed because their document ids turned over.

    Such an evaluation has no part in the means over datasets and in the family of tests, which are computed anew.
    """
    while True:
        findings, notes, tests = check_quality(matched, baseline.scores, scores, policy)
        findings += check_lost_queries(matched, baseline.scores, scores, policy)
        turned_over = _turned_over(findings, matched, turnover)
        if not turned_over:
            break
        keys = {(each.retriever, each.dataset) for each in turned_over}
        pairs = [pair for pair in matched.pairs if pair.key not in keys]
        matched = replace(matched, pairs=pairs, uncompared=[*matched.uncompared, *turned_over])
    selected = [each for each in findings if matched.is_selected((each.retriever, each.dataset))]
    selected += warn_of_ungated(matched, baseline.scores, scores, policy)
    return _CheckedScores(matched, selected, notes, tests)


def _turned_over(findings: Sequence[Finding], matched: Matched, turnover: Turnover | None) -> list[Uncompared]:
    """Return the evaluations that failed because their document ids turned over."""
    if turnover is None:
        return []
    failed = {(each.retriever, each.dataset) for each in findings if each.status == "fail"}
    turned_over = []
    for pair in matched.pairs:
        messages = [message for record in pair.after if pair.key in failed and (message := turnover(record))]
        if messages:
            turned_over.append(Uncompared("fail", *pair.key, messages[0], pair.command, pair.after))
    return turned_over


def _origins(matched: Matched) -> dict[Key, Provenance]:
    """Return the measurement of each evaluation, and of each part of a dataset in parts."""
    origins = {(each.retriever, each.dataset): provenance(each.records) for each in matched.uncompared if each.records}
    for pair in matched.pairs:
        origins |= {
            (pair.retriever, record.dataset.label): replace(provenance([record]), part_of=pair.dataset)
            for record in pair.after
        }
        origins[pair.key] = provenance(pair.after)
    return origins


def provenance(records: Sequence[Record]) -> Provenance:
    """Return the measurement of an evaluation's records: its first start, its revisions and its seconds."""
    revisions = sorted({record.revision for record in records if record.revision})
    seconds = [_seconds(record) for record in records]
    timed = [each for each in seconds if each is not None]
    return Provenance(
        min(record.started for record in records).isoformat(timespec="seconds"),
        ", ".join(revisions) or None,
        sum(timed) if len(timed) == len(seconds) else None,
    )


def _seconds(record: Record) -> float | None:
    """Return the wall seconds of a record's warm-up, index and searches, without cached time; None if not timed."""
    if (timing := record.timing) is None:
        return None
    phases = [timing.warmup, timing.index, *timing.searches]
    return sum(phase.wall_s - phase.cached_s for phase in phases) + sum(timing.latencies_s)
