"""The regression gate for a project's test suite: `assert_no_regression("retriever=bm25", "dataset=stdlib")`.

It applies the rules of `harness gate` and raises an AssertionError with the gate's lines. pytest and unittest show it
without the frames of this package.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import gate
from harness.cli.record_options import BASELINE
from harness.cli.remeasure import import_path
from harness.errors import HarnessError
from harness.gate.ci import text
from harness.gate.matching import Key, key_of
from harness.store import read_record

if TYPE_CHECKING:
    from harness.types import Record

__unittest = True  # unittest hides the frames of such a module


def assert_no_regression(
    *overrides: str,
    results: str | Path = "results",
    baseline: str | Path | None = None,
    policy: str | Path | None = None,
    lenient: bool = False,
) -> None:
    """Measure as `harness -m` does, and fail if a result is worse than the baseline.

    The p-values are adjusted over these results and the others in `results` that can be compared with the baseline; the
    message states the number of tests.

    Args:
        *overrides: Hydra overrides; without them the newest records in `results` are gated as they are.
        results: Results folder.
        baseline: Folder of the baseline, by default `results/baseline`.
        policy: A file like conf/gate.yaml.
        lenient: Pass where a check is undecided.

    Raises:
        AssertionError: There is a regression, an evaluation cannot be measured, or, unless `lenient`, a check is
            undecided.
        HarnessError: There is no baseline, or no evaluation to compare with it.
    """
    __tracebackhide__ = True
    root = Path(results)
    message, error = "", None
    try:
        message = _failure_message(overrides, root, Path(baseline or root / BASELINE), policy, lenient)
    except HarnessError as raised:
        error = raised
    if error is not None:
        raise error.with_traceback(None)
    if message:
        raise AssertionError(message)


def _failure_message(
    overrides: Sequence[str], root: Path, baseline: Path, policy: str | Path | None, lenient: bool
) -> str:
    """Measure and gate; return the gate's lines, or "" if nothing failed."""
    keys = None
    if overrides:
        measured = _measure(overrides, root)
        if isinstance(measured, str):
            return measured
        keys = measured

    def is_gated(record: "Record") -> bool:
        return keys is None or key_of(record) in keys

    rules = gate.load_policy(None if policy is None else Path(policy))
    verdict = gate.decide(root, baseline, rules, is_gated, lenient)
    if not verdict.exit_code:
        return ""
    return "\n".join([text.summary(verdict), *map(text.line, verdict.with_status("fail", "undecided", "warn"))])


def _measure(overrides: Sequence[str], root: Path) -> set[Key] | str:
    """Measure in a new process that can import the same modules; return the evaluations, or the failure's message."""
    environment = {**os.environ, "PYTHONPATH": import_path()}
    with tempfile.TemporaryDirectory() as sweep:
        resume = [] if any(override.startswith("resume=") for override in overrides) else ["resume=same_code"]
        settings = [*resume, f"results_dir={root}", f"hydra.sweep.dir={sweep}"]
        command = [sys.executable, "-P", "-m", "harness", "run", "-m", *overrides, *settings]
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if process.returncode:
            return f"harness -m {' '.join(overrides)} failed:\n{process.stderr}"
        return {key_of(read_record(Path(path.read_text()))) for path in Path(sweep).glob("*.record")}
