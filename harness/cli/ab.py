"""`harness gate --ab REV`: time another revision and the working tree alternately (A B A B) in one job.

This is for evaluations whose cost is not measured by CPU seconds: on GPUs, or in several processes. Wall seconds of the
two revisions are comparable because both are measured on this machine, alternately.
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

from harness.cli import record_options
from harness.cli.remeasure import run
from harness.config.conf import CONF
from harness.console import say
from harness.errors import ConfigError, UndecidedError

if TYPE_CHECKING:
    from harness.gate import Finding, Policy, Verdict
    from harness.types import Record

_CHECKS = ("wall/query", "wall/document")


def compare_revisions(revision: str, options: argparse.Namespace, policy: "Policy") -> "Verdict":
    """Return the verdict over wall seconds per query and per document.

    Args:
        revision: The git revision to compare the working tree with.
        options: The results folder, and the retrievers and datasets whose evaluations are compared.
        policy: The number of rounds and the tolerance.

    Raises:
        UndecidedError: The results folder has none of these evaluations.
        ConfigError: Git cannot check the revision out.
    """
    from harness.gate import make_verdict
    from harness.gate.matching import group_by_evaluation
    from harness.store import Store

    records = list(Store(options.results).records())
    record_options.check_names(options, records)
    newest = [same[0] for parts in group_by_evaluation(records).values() for same in parts.values()]
    measured = [record for record in newest if record_options.is_selected(record, options) and record.status == "ok"]
    if not measured:
        raise UndecidedError(f"nothing was measured in {options.results}/; measure first: harness experiment=ci")
    findings: list[Finding] = []
    unchanged: list[str] = []
    with _worktree(revision, top := _repository_root()) as base:
        for record in measured:
            evaluation_findings, code_differs = _compare_evaluation(record, top, base, policy)
            findings += evaluation_findings
            unchanged += [] if code_differs else ["/".join(_labels(record))]
    note = f"{', '.join(unchanged)}: both revisions ran the same code, so the difference is the machine's noise"
    return make_verdict(findings, [note] if unchanged else [], options.lenient)


def _labels(record: "Record") -> tuple[str, str]:
    """Return the labels of the retriever and the dataset."""
    return record.retriever.label, record.dataset.label


def _compare_evaluation(record: "Record", top: Path, base: Path, policy: "Policy") -> "tuple[list[Finding], bool]":
    """Return the findings of one evaluation, and whether its code differs between the two trees."""
    from harness.gate import Finding

    records: dict[Path, list[Record]] = {base: [], top: []}
    for number in range(policy.rounds):
        for side, tree in (("before", base), ("after", top)):
            say(f"{side} {number + 1}/{policy.rounds}: {record.command}")
            measured = _measure(record, top, tree)
            if measured is None or not measured.timing or not measured.timing.queries_per_s:
                why = f"it could not be measured {side} the change"
                return [Finding("undecided", *_labels(record), "evaluation", message=why, command=record.command)], True
            records[tree].append(measured)
    code_differs = records[base][0].code != records[top][0].code
    return [_finding(record, check, records[base], records[top], policy.ab) for check in _CHECKS], code_differs


def _finding(
    record: "Record", check: str, before: "list[Record]", after: "list[Record]", tolerance: float
) -> "Finding":
    from harness.gate import Finding

    was, now = (median(_seconds(measured, check) for measured in side) for side in (before, after))
    worse = now > was * (1 + tolerance)
    labels = _labels(record)
    return Finding("fail" if worse else "pass", *labels, check, was, now, limit=1 + tolerance, command=record.command)


def _seconds(record: "Record", check: str) -> float:
    """Return wall seconds per document or per query."""
    assert record.timing is not None  # noqa: S101  (`_compare_evaluation` checks it)
    assert record.timing.queries_per_s is not None  # noqa: S101  (and this)
    if check == "wall/document":
        return record.timing.index.wall_s / record.timing.documents
    return 1 / record.timing.queries_per_s


def _measure(record: "Record", top: Path, tree: Path) -> "Record | None":
    """Repeat an evaluation with the code in `tree`: this working tree or the other revision's."""
    arguments = [_translate_argument(argument, top, tree) for argument in shlex.split(record.command)[1:]]
    paths = [str(_translate_path(Path(path), top, tree)) for path in sys.path if path]
    folder = _translate_path(Path.cwd(), top, tree)
    return run(arguments, folder if folder.is_dir() else tree, os.pathsep.join([str(tree), *paths]))


def _translate_argument(argument: str, top: Path, tree: Path) -> str:
    """Return an argument; a value that is a path in this tree is replaced by the same path in the other tree.

    The name of a config is not replaced, even if a file of the same name exists.
    """
    key, equals, value = argument.partition("=")
    names_config = (CONF / key.lstrip("+").partition("@")[0]).is_dir()
    path = Path.cwd() / value
    is_path = equals and value and not names_config and path.exists()
    return f"{key}={_translate_path(path, top, tree)}" if is_path else argument


def _translate_path(path: Path, top: Path, tree: Path) -> Path:
    """Return the same path in the other tree if it exists there, and the resolved path otherwise."""
    resolved = path.resolve()
    if resolved.is_relative_to(top) and (translated := tree / resolved.relative_to(top)).exists():
        return translated
    return resolved


@contextmanager
def _worktree(revision: str, top: Path) -> Iterator[Path]:
    """Check a revision out into a temporary folder. Raises `ConfigError` when git cannot."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch).resolve() / "base"
        result = _git(top, "worktree", "add", "--detach", str(tree), "--end-of-options", revision)
        if result.returncode:
            message = (result.stderr.strip().splitlines() or ["git failed"])[-1]
            raise ConfigError(f"{revision!r} cannot be checked out: {message}; name a revision of this repository")
        try:
            yield tree
        finally:
            _git(top, "worktree", "remove", "--force", str(tree))


def _repository_root() -> Path:
    """Return the root of the working tree of this folder. Raises `ConfigError` outside of one."""
    result = _git(Path.cwd(), "rev-parse", "--show-toplevel")
    if result.returncode:
        raise ConfigError("--ab compares revisions of a git repository, and this folder is not in one")
    return Path(result.stdout.strip()).resolve()


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
