"""`harness gate` and `harness accept`: what got worse than the baseline, and what the baseline is."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import chosen, remeasure
from harness.cli.chosen import BASELINE
from harness.config.conf import CONF
from harness.console import say
from harness.errors import ConfigError, StoreError, UndecidedError

if TYPE_CHECKING:
    from harness.gate import Baseline, Policy, Verdict
    from harness.gate.baseline import Change
    from harness.types import Record


def add(commands: Any) -> list[argparse.ArgumentParser]:
    """Add both commands' parsers."""
    gate = commands.add_parser("gate", help="exit code 1 when a retriever got worse than the baseline")
    gate.add_argument("--policy", type=Path, metavar="F", help="rules; those it lacks are conf/gate.yaml's")
    gate.add_argument("--baseline", type=Path, metavar="DIR", help="default: results/baseline")
    gate.add_argument("--junit", type=Path, metavar="F", help="write JUnit XML")
    gate.add_argument("--summary", type=Path, metavar="F", help="append markdown; in Actions: $GITHUB_STEP_SUMMARY")
    gate.add_argument("--annotations", action="store_true", help="GitHub annotations on stdout, ten at most")
    gate.add_argument("--lenient", action="store_true", help="what cannot be decided is a warning, not exit code 3")
    gate.add_argument("--ab", metavar="REV", help="time this revision and the working tree in turn, for GPUs")
    gate.set_defaults(command=_gate)

    accept = commands.add_parser("accept", help="make what was measured the baseline")
    accept.add_argument("--reason", required=True, metavar="TEXT", help="why; it is kept in the baseline")
    accept.add_argument("--baseline", type=Path, metavar="DIR", help="default: results/baseline")
    accept.add_argument("--prune", action="store_true", help="forget what was not measured")
    accept.set_defaults(command=_accept)
    for command in (gate, accept):
        chosen.add_cells(command)
    return [gate, accept]


def policy_of(path: Path | None) -> "Policy":
    """The rules of conf/gate.yaml with those of another file in their place."""
    from harness.gate import policy

    return policy.read([CONF / "gate.yaml", *([path] if path else [])])


def decided(
    root: Path, baseline: Path, rules: "Policy", wanted: "Callable[[Record], bool]", lenient: bool = False
) -> "Verdict":
    """The verdict over the newest of the wanted records in a results folder.

    Cells whose CPU seconds or memory are above the limit are measured again first, where this machine and code
    measured them. Raises `UndecidedError` when there is nothing to decide from.
    """
    from harness.gate import baseline as accepted
    from harness.gate import gate, match_records
    from harness.gate.cost import VARYING
    from harness.store import Store

    whole = accepted.read(baseline)
    _check_rules(rules, whole)
    held, store = whole.filter(wanted), Store(root)
    if not held.records:
        raise UndecidedError(f"nothing of the baseline is left; it has {', '.join(whole.names)}")
    try:
        cells = match_records(held.records, [record for record in store.records() if wanted(record)])
        scores = store.scores(cells.candidates)
    except StoreError as error:
        raise UndecidedError(str(error)) from None
    _say_stale(cells.candidates)
    again: list[Record] = []
    found = gate(held, cells, scores, rules, lenient)
    for _ in range(rules.remeasure):
        dear = {own.command for own in found.with_status("fail") if own.check in VARYING}
        over = [record for pair in cells.pairs for record in pair.cost_records if record.command in dear]
        more = [one for record in over if (one := remeasure.measured(record)) is not None]
        if not more:
            break
        again += more
        found = gate(held, cells, scores, rules, lenient, again)
    return found


def _say_stale(candidates: "Sequence[Record]") -> None:
    """Records of other code than this checkout's; of a retriever of the user's own that cannot be told from here."""
    from harness.environment import code_hash, user_modules

    ours = [record for record in candidates if not user_modules(record.retriever.config)]
    if stale := sum(record.code != code_hash() for record in ours):
        say(f"{stale} of {len(candidates)} records were measured by other code than is here now; measure again first")


def _check_rules(rules: "Policy", baseline: "Baseline") -> None:
    names = {name for record in baseline.records for name in (record.dataset.name, record.dataset.label)}
    names |= {record.dataset.group for record in baseline.records if record.dataset.group}
    if unknown := rules.unknown_datasets(names):
        raise ConfigError(
            f"the policy has rules for {', '.join(map(repr, unknown))}, which the baseline lacks; it has "
            f"{', '.join(sorted(names))}"
        )


def _gate(options: argparse.Namespace) -> int:
    from harness.gate import Finding, make_verdict
    from harness.gate.ci import text

    rules = policy_of(options.policy)
    baseline = options.baseline or options.results / BASELINE
    try:
        if options.ab is not None:
            from harness.cli.ab import compared

            found = compared(options.ab, options, rules)
        else:
            _check_names(options, baseline)
            found = decided(
                options.results, baseline, rules, lambda record: chosen.is_chosen(record, options), options.lenient
            )
    except UndecidedError as error:
        say(f"error: {error}")
        finding = Finding("undecided", "baseline", "all", "evaluation", message=str(error))
        found = make_verdict([finding], lenient=options.lenient)
    if options.json:
        print(json.dumps(text.to_dict(found), indent=2, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(text.lines(found)))
    _write(found, options)
    return found.exit_code


def _check_names(options: argparse.Namespace, baseline: Path) -> None:
    """Names must be of the baseline's cells or of records that are there."""
    from harness.gate import baseline as accepted
    from harness.store import Store

    if options.retriever or options.dataset:
        with suppress(StoreError):  # said where it is read for its cells
            chosen.check_names(options, [*accepted.read(baseline).records, *Store(options.results).records()])


def _write(found: "Verdict", options: argparse.Namespace) -> None:
    from harness.gate.ci import github, junit
    from harness.store import write_atomic

    if options.junit is not None:
        write_atomic(options.junit, junit.render(found).encode())
    if (summary := options.summary or _step_summary()) is not None:
        try:
            summary.parent.mkdir(parents=True, exist_ok=True)
            room = github.SUMMARY_BYTES - (summary.stat().st_size if summary.exists() else 0)
            with summary.open("a", encoding="utf-8") as file:
                file.write(github.summary(found, room))
        except OSError as error:
            raise StoreError(f"{summary} cannot be written: {error.strerror}") from None
    if options.annotations and (said := github.annotations(found)):
        # Actions reads both streams; JSON has stdout for itself
        print("\n".join(said), file=sys.stderr if options.json else sys.stdout)


def _step_summary() -> Path | None:
    named = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(named) if named else None


def _accept(options: argparse.Namespace) -> int:
    import harness
    from harness.environment import revision
    from harness.gate import baseline
    from harness.store import Store

    if not options.reason.strip():
        raise ConfigError('the reason is empty; say why the figures changed: harness accept --reason "..."')
    store = Store(options.results)
    there = list(store.records())
    if not there:
        raise UndecidedError(f"nothing to accept in {options.results}/; measure first: harness experiment=ci")
    chosen.check_names(options, there)
    records = [record for record in there if chosen.is_chosen(record, options)]
    if not records:
        raise UndecidedError("no record of these retrievers on these datasets; see: harness list records")
    about = {
        "accepted": datetime.now(UTC),
        "reason": options.reason.strip(),
        "harness": harness.__version__,
        "revision": revision(),
    }
    root = options.baseline or options.results / BASELINE
    changes = baseline.accept(root, store, records, about, options.prune)
    if options.json:
        print(json.dumps([change.to_dict() for change in changes], indent=2, sort_keys=True))
    else:
        print("\n".join(_said(changes)))
    say(f"wrote {root}/; commit it")
    return 0


def _said(changes: "Sequence[Change]") -> list[str]:
    """One line for each figure that changes; those that do not are counted."""
    lines = []
    for one in changes:
        where = f"{one.retriever}/{one.dataset} {one.metric}"
        if one.after is None:
            lines.append(f"gone    {where} {one.before:.4f}")
        elif one.before is None:
            lines.append(f"new     {where} {one.after:.4f}")
        elif one.before != one.after:
            lines.append(f"changed {where} {one.before:.4f} -> {one.after:.4f} ({one.after - one.before:+.4f})")
    for place in dict.fromkeys((one.retriever, one.dataset) for one in changes if one.dataset_changed):
        lines.append(f"changed {'/'.join(place)}: it is another collection, its figures do not compare")
    same = sum(one.before == one.after and not one.carried_over for one in changes)
    kept = sum(one.carried_over for one in changes)
    lines += [f"as it was: {same} figure{'s' if same != 1 else ''}"] if same else []
    return lines + ([f"not measured and kept: {kept} figure{'s' if kept != 1 else ''}"] if kept else [])
