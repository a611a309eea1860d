"""The regression gate for a project's test suite: `assert_no_regression("retriever=bm25", "dataset=stdlib")`.

It applies the rules of `harness gate` and raises an AssertionError with the gate's lines.
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
from harness.gate.ci import text
from harness.gate.matching import Key, key_of
from harness.store import read_record

if TYPE_CHECKING:
    from harness.types import Record


def assert_no_regression(
    *overrides: str,
    results: str | Path = "results",
    baseline: str | Path | None = None,
    policy: str | Path | None = None,
    lenient: bool = False,
) -> None:
    """Measure as `harness -m` does, and fail if a result is worse than the baseline.

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
    root = Path(results)
    keys = _measure(overrides, root) if overrides else None

    def is_gated(record: "Record") -> bool:
        return keys is None or key_of(record) in keys

    rules = gate.load_policy(None if policy is None else Path(policy))
    verdict = gate.decide(root, Path(baseline or root / BASELINE), rules, is_gated, lenient)
    if verdict.exit_code:
        lines = map(text.line, verdict.with_status("fail", "undecided", "warn"))
        raise AssertionError("\n".join([text.summary(verdict), *lines]))


def _measure(overrides: Sequence[str], root: Path) -> set[Key]:
    """Measure the evaluations of the overrides in a new process that can import the same modules."""
    environment = {**os.environ, "PYTHONPATH": import_path()}
    with tempfile.TemporaryDirectory() as sweep:
        folders = [f"results_dir={root}", f"hydra.sweep.dir={sweep}"]
        command = [sys.executable, "-P", "-m", "harness", "run", "-m", *overrides, *folders]
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if process.returncode:
            raise AssertionError(f"harness -m {' '.join(overrides)} failed:\n{process.stderr}")
        return {key_of(read_record(Path(path.read_text()))) for path in Path(sweep).glob("*.record")}
