"""`harness gate` and `harness accept`: fail on regressions against the baseline, and update the baseline."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.cli import record_options, remeasure
from harness.cli.record_options import BASELINE
from harness.config.conf import CONF
from harness.console import say
from harness.errors import ConfigError, StoreError, UndecidedError

if TYPE_CHECKING:
    from harness.gate import Baseline, Matched, Policy, Verdict
    from harness.gate.baseline import Change
    from harness.store import Store
    from harness.types import PerQuery, Record


def add(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the parsers of both commands."""
    gate = commands.add_parser("gate", help="compare with the baseline; exit code 1 for a regression")
    gate.add_argument(
        "--policy", type=Path, metavar="F", help="policy file; missing rules are taken from conf/gate.yaml"
    )
    gate.add_argument("--baseline", type=Path, metavar="DIR", help="folder of the baseline; default: results/baseline")
    gate.add_argument("--junit", type=Path, metavar="F", help="write JUnit XML")
    gate.add_argument("--summary", type=Path, metavar="F", help="append markdown to F; default: $GITHUB_STEP_SUMMARY")
    gate.add_argument("--annotations", action="store_true", help="print at most ten GitHub annotations")
    gate.add_argument(
        "--lenient",
        action="store_true",
        help="report undecided checks, such as records of other code, as warnings instead of exit code 3",
    )
    gate.add_argument(
        "--ab", metavar="REV", help="compare the working tree with this revision, timed alternately; for GPUs"
    )
    gate.set_defaults(command=_gate)

    accept = commands.add_parser("accept", help="make the measured records the baseline")
    accept.add_argument(
        "--reason", required=True, metavar="TEXT", help="why the figures changed; stored in the baseline"
    )
    accept.add_argument(
        "--baseline", type=Path, metavar="DIR", help="folder of the baseline; default: results/baseline"
    )
    accept.add_argument(
        "--prune", action="store_true", help="remove evaluations from the baseline that were not measured now"
    )
    accept.set_defaults(command=_accept)
    for command in (gate, accept):
        record_options.add_filters(command)
    return [gate, accept]


def load_policy(path: Path | None) -> "Policy":
    """Return the policy of conf/gate.yaml, overridden by the policy in another file."""
    from harness.gate import policy

    return policy.read([CONF / "gate.yaml", *([path] if path else [])])


def decide(
    root: Path, baseline: Path, policy: "Policy", is_selected: "Callable[[Record], bool]", lenient: bool = False
) -> "Verdict":
    """Return the verdict over the newest of the selected records in a results folder.

    Evaluations whose time or memory is above the limit are measured again first, if they were measured on this machine
    with the present code. Evaluations that other code measured are undecided.

    Args:
        root: The results folder.
        baseline: The baseline's folder.
        policy: Tolerances and limits.
        is_selected: Selects the records whose evaluations are reported. The tests are adjusted over all evaluations
            of the baseline that can be compared, so that a selection changes no finding.
        lenient: Report undecided checks as warnings, and compare records of other code.

    Raises:
        UndecidedError: Nothing can be compared.
    """
    from harness.gate import baseline as accepted
    from harness.gate import gate, match_records
    from harness.gate.matching import key_of
    from harness.gate.stale import stale_reason
    from harness.store import Store

    before, store = accepted.read(baseline), Store(root)
    _check_policy(policy, before)
    if not any(is_selected(record) for record in before.records):
        raise UndecidedError(f"the baseline has none of these evaluations; it has {', '.join(before.names)}")
    try:
        records = list(store.records())
        selected = frozenset(key_of(record) for record in [*before.records, *records] if is_selected(record))
        matches = replace(match_records(before.records, records, stale_reason, lenient), selected=selected)
        scores = _read_scores(store, matches)
    except StoreError as error:
        raise UndecidedError(str(error)) from None

    def judge(repeats: "Sequence[Record]") -> "Verdict":
        return gate(before, matches, scores, policy, lenient, repeats, _turnover(before, root))

    return _remeasured(matches, policy, judge)


def _read_scores(store: "Store", matches: "Matched") -> "dict[str, PerQuery]":
    """Return the scores of the newest records; those of evaluations not selected only if they can be read."""
    scores = store.scores(record for pair in matches.pairs if matches.is_selected(pair.key) for record in pair.after)
    for pair in matches.pairs:
        if not matches.is_selected(pair.key):
            with suppress(StoreError):
                scores |= store.scores(pair.after)
    return scores


def _turnover(baseline: "Baseline", root: Path) -> "Callable[[Record], str | None]":
    """Return a function that describes document ids that turned over since the baseline."""
    from harness.gate.turnover import describe_turnover

    def describe(record: "Record") -> str | None:
        sample = baseline.ranked_ids.get((record.retriever.label, record.dataset.label), ())
        return describe_turnover(sample, root / record.files.run) if record.files.run else None

    return describe


def _remeasured(matches: "Matched", policy: "Policy", judge: "Callable[[Sequence[Record]], Verdict]") -> "Verdict":
    """Return the verdict after evaluations whose time or memory is above its limit were measured again."""
    from harness.gate.cost import VARYING

    repeats: list[Record] = []
    verdict = judge(repeats)
    for _ in range(policy.remeasure):
        failed = {finding.command for finding in verdict.with_status("fail") if finding.check in VARYING}
        over = [record for pair in matches.pairs for record in pair.cost_records if record.command in failed]
        repeated_records = [repeated for record in over if (repeated := remeasure.repeat(record)) is not None]
        if not repeated_records:
            break
        repeats += repeated_records
        verdict = judge(repeats)
    return verdict


def _check_policy(policy: "Policy", baseline: "Baseline") -> None:
    names = {name for record in baseline.records for name in (record.dataset.name, record.dataset.label)}
    names |= {record.dataset.group for record in baseline.records if record.dataset.group}
    if unknown := policy.unknown_datasets(names):
        raise ConfigError(
            f"the policy has rules for {', '.join(map(repr, unknown))}, which the baseline lacks; it has "
            f"{', '.join(sorted(names))}"
        )


def _gate(options: argparse.Namespace) -> int:
    from harness.gate import Finding, make_verdict
    from harness.gate.ci import text

    policy = load_policy(options.policy)
    baseline = options.baseline or options.results / BASELINE
    try:
        if options.ab is not None:
            from harness.cli.ab import compare_revisions

            decision = compare_revisions(options.ab, options, policy)
        else:
            _check_names(options, baseline)
            decision = decide(
                options.results,
                baseline,
                policy,
                lambda record: record_options.is_selected(record, options),
                options.lenient,
            )
    except UndecidedError as error:
        say(f"error: {error}")
        finding = Finding("undecided", "baseline", "all", "evaluation", message=str(error))
        decision = make_verdict([finding], lenient=options.lenient)
    _write(decision, options)
    if options.json:
        print(json.dumps(text.to_dict(decision), indent=2, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(text.lines(decision)))
    if options.annotations:
        _annotate(decision, sys.stderr if options.json else sys.stdout)
    return decision.exit_code


def _check_names(options: argparse.Namespace, baseline: Path) -> None:
    """Raise `ConfigError` for a name that neither the baseline nor any record has."""
    from harness.gate import baseline as accepted
    from harness.store import Store

    if options.retriever or options.dataset:
        with suppress(StoreError):  # reported where the baseline is read for the verdict
            record_options.check_names(options, [*accepted.read(baseline).records, *Store(options.results).records()])


def _write(verdict: "Verdict", options: argparse.Namespace) -> None:
    from harness.gate.ci import github, junit
    from harness.store import write_atomic

    if options.junit is not None:
        write_atomic(options.junit, junit.render(verdict).encode())
    if (summary := options.summary or _step_summary()) is not None:
        try:
            summary.parent.mkdir(parents=True, exist_ok=True)
            free_bytes = github.SUMMARY_BYTES - (summary.stat().st_size if summary.exists() else 0)
            with summary.open("a", encoding="utf-8") as file:
                file.write(github.summary(verdict, free_bytes))
        except OSError as error:
            raise StoreError(f"{summary} cannot be written: {error.strerror}") from None


def _annotate(verdict: "Verdict", stream: TextIO) -> None:
    """Print annotations; Actions reads both streams, and with --json nothing else may be on stdout."""
    from harness.gate.ci import github

    if lines := github.annotations(verdict):
        print("\n".join(lines), file=stream)


def _step_summary() -> Path | None:
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(path) if path else None


def _accept(options: argparse.Namespace) -> int:
    import harness
    from harness.environment import revision
    from harness.gate import baseline
    from harness.store import Store

    if not options.reason.strip():
        raise ConfigError('the reason is empty; say why the figures changed: harness accept --reason "..."')
    store = Store(options.results)
    available = list(store.records())
    if not available:
        raise UndecidedError(f"nothing to accept in {options.results}/; measure first: harness experiment=ci")
    record_options.check_names(options, available)
    records = [record for record in available if record_options.is_selected(record, options)]
    if not records:
        raise UndecidedError("no record of these retrievers on these datasets; see: harness list records")
    metadata = {
        "accepted": datetime.now(UTC),
        "reason": options.reason.strip(),
        "harness": harness.__version__,
        "revision": revision(),
    }
    root = options.baseline or options.results / BASELINE
    changes = baseline.accept(root, store, records, metadata, options.prune)
    if options.json:
        print(json.dumps([asdict(change) for change in changes], indent=2, sort_keys=True))
    else:
        print("\n".join(_change_lines(changes)))
    say(f"wrote {root}/; commit it")
    return 0


def _change_lines(changes: "Sequence[Change]") -> list[str]:
    """Return a line for each figure that changes, and the counts of those that do not."""
    lines = []
    for change in changes:
        figure = f"{change.retriever}/{change.dataset} {change.metric}"
        if change.after is None:
            lines.append(f"removed {figure} {change.before:.4f}")
        elif change.before is None:
            lines.append(f"new     {figure} {change.after:.4f}")
        elif change.before != change.after:
            difference = change.after - change.before
            lines.append(f"changed {figure} {change.before:.4f} -> {change.after:.4f} ({difference:+.4f})")
    for labels in dict.fromkeys((change.retriever, change.dataset) for change in changes if change.dataset_changed):
        lines.append(f"changed {'/'.join(labels)}: the dataset has changed, its figures cannot be compared")
    n_same = sum(change.before == change.after and not change.carried_over for change in changes)
    n_kept = sum(change.carried_over for change in changes)
    lines += [f"unchanged: {n_same} figure{'s' if n_same != 1 else ''}"] if n_same else []
    return lines + ([f"not measured and kept: {n_kept} figure{'s' if n_kept != 1 else ''}"] if n_kept else [])
