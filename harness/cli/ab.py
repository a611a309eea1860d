"""`harness gate --ab REV`: another revision and the working tree timed in turn, A B A B, in one job.

For what CPU seconds cannot tell: GPUs, several processes. Wall seconds compare because both are measured here and now.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness.cli import chosen
from harness.cli.remeasure import run
from harness.config.conf import CONF
from harness.console import say
from harness.errors import ConfigError, UndecidedError

if TYPE_CHECKING:
    from harness.gate import Finding, Policy, Verdict
    from harness.types import Record

_CHECKS = ("wall/query", "wall/document")


def compared(revision: str, options: argparse.Namespace, rules: "Policy") -> "Verdict":
    """A verdict over wall seconds per query and per document of every cell that was measured here."""
    from harness.gate import make_verdict
    from harness.gate.cells import group_by_evaluation
    from harness.store import Store

    there = list(Store(options.results).records())
    chosen.check_names(options, there)
    newest = [records[0] for parts in group_by_evaluation(there).values() for records in parts.values()]
    cells = [record for record in newest if chosen.is_chosen(record, options)]
    cells = [record for record in cells if record.status == "ok"]
    if not cells:
        raise UndecidedError(f"nothing was measured in {options.results}/; measure first: harness experiment=ci")
    findings: list[Finding] = []
    same: list[str] = []
    with _worktree(revision, top := _top()) as before:
        for record in cells:
            found, differ = _cell(record, top, before, rules)
            findings += found
            same += [] if differ else ["/".join(_place(record))]
    note = f"{', '.join(same)}: both revisions ran the same code, so this tells the noise of the machine"
    return make_verdict(findings, [note] if same else [], options.lenient)


def _place(record: "Record") -> tuple[str, str]:
    """Retriever and dataset."""
    return record.retriever.label, record.dataset.label


def _cell(record: "Record", top: Path, before: Path, rules: "Policy") -> "tuple[list[Finding], bool]":
    """The findings of one cell, and whether its code differs between the two."""
    from harness.gate import Finding

    found: dict[Path, list[Record]] = {before: [], top: []}
    for number in range(rules.rounds):
        for side, place in (("before", before), ("after", top)):
            say(f"{side} {number + 1}/{rules.rounds}: {record.command}")
            one = _measured(record, top, place)
            if one is None or one.timing is None:
                why = f"it could not be measured {side} the change"
                return [Finding("undecided", *_place(record), "evaluation", message=why, command=record.command)], True
            found[place].append(one)
    differ = found[before][0].code != found[top][0].code
    return [_finding(record, check, found[before], found[top], rules.ab) for check in _CHECKS], differ


def _finding(record: "Record", check: str, before: "list[Record]", after: "list[Record]", share: float) -> "Finding":
    from harness.gate import Finding

    was, now = (median(_figure(own, check) for own in side) for side in (before, after))
    worse = now > was * (1 + share)
    where = _place(record)
    return Finding("fail" if worse else "pass", *where, check, was, now, limit=1 + share, command=record.command)


def _figure(record: "Record", check: str) -> float:
    assert record.timing is not None  # noqa: S101  (`_cell` has seen to it)
    if check == "wall/document":
        return record.timing.index.wall_s / record.timing.documents
    return 1 / record.timing.queries_per_s


def _measured(record: "Record", top: Path, place: Path) -> "Record | None":
    """The cell measured by the code in `place`: this working tree or the other one."""
    words = [_word(word, top, place) for word in shlex.split(record.command)[1:]]
    paths = [str(_moved(Path(path), top, place)) for path in sys.path if path]
    inside = _moved(Path.cwd(), top, place)
    return run(words, inside if inside.is_dir() else place, os.pathsep.join([str(place), *paths]))


def _word(word: str, top: Path, place: Path) -> str:
    """An argument whose value is a path in the tree, as a path in the other one where that has it.

    A config's name stays what it is, whatever lies beside it under the same name.
    """
    key, equals, value = word.partition("=")
    names_config = (CONF / key.lstrip("+").partition("@")[0]).is_dir()
    path = Path.cwd() / value
    return f"{key}={_moved(path, top, place)}" if equals and value and not names_config and path.exists() else word


def _moved(path: Path, top: Path, place: Path) -> Path:
    """The path in the other tree where it lies in this one and the other has it; the same path else."""
    own = path.resolve()
    if own.is_relative_to(top) and (other := place / own.relative_to(top)).exists():
        return other
    return own


@contextmanager
def _worktree(revision: str, top: Path) -> Iterator[Path]:
    """The revision checked out in a folder of its own. Raises `ConfigError` when git cannot."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch).resolve() / "base"
        done = _git(top, "worktree", "add", "--detach", str(place), "--end-of-options", revision)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["git failed"])[-1]
            raise ConfigError(f"{revision!r} cannot be checked out: {said}; name a revision of this repository")
        try:
            yield place
        finally:
            _git(top, "worktree", "remove", "--force", str(place))


def _top() -> Path:
    """The working tree that this folder belongs to. Raises `ConfigError` outside of one."""
    done = _git(Path.cwd(), "rev-parse", "--show-toplevel")
    if done.returncode:
        raise ConfigError("--ab compares revisions of a git repository, and this folder is in none")
    return Path(done.stdout.strip()).resolve()


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
