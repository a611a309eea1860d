"""For a project's own test suite: `assert_no_regression("retriever=bm25", "dataset=stdlib")`.

The same rule as `harness gate`, as an AssertionError whose message is the gate's own lines.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import gate
from harness.cli.chosen import BASELINE
from harness.cli.remeasure import import_path
from harness.gate.cells import Key, key_of
from harness.gate.ci import text
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
    """Measure what the overrides say, as `harness -m` does, and fail where it is worse than the baseline.

    Without overrides the newest records in `results` are gated as they are. `baseline` is `results/baseline`, `policy`
    a file like conf/gate.yaml. Raises `AssertionError` for a regression, for a cell that cannot be measured and, unless
    `lenient`, for what cannot be decided; `HarnessError` where there is nothing to decide from.
    """
    root = Path(results)
    cells = _measured(overrides, root) if overrides else None

    def wanted(record: "Record") -> bool:
        return cells is None or key_of(record) in cells

    rules = gate.load_policy(None if policy is None else Path(policy))
    found = gate.decide(root, Path(baseline or root / BASELINE), rules, wanted, lenient)
    if found.exit_code:
        said = [text.sentence(found), *map(text.line, found.of("fail", "undecided", "warn"))]
        raise AssertionError("\n".join(said))


def _measured(overrides: Sequence[str], root: Path) -> set[Key]:
    """The cells that the overrides name, measured in a process of its own, which imports what this one can."""
    environment = {**os.environ, "PYTHONPATH": import_path()}
    with tempfile.TemporaryDirectory() as sweep:
        ours = [f"results_dir={root}", f"hydra.sweep.dir={sweep}"]
        command = [sys.executable, "-P", "-m", "harness", "run", "-m", *overrides, *ours]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"harness -m {' '.join(overrides)} failed:\n{done.stderr}")
        return {key_of(read_record(Path(path.read_text()))) for path in Path(sweep).glob("*.cell")}
