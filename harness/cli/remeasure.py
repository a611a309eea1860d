"""Repeat a record's evaluation in a separate process, with a temporary results folder."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.console import say

if TYPE_CHECKING:
    from harness.types import Record

_FOLDER_VARIABLES = ("HARNESS_DATA", "HARNESS_CACHE")
_OVERRIDDEN = ("resume=", "results_dir=", "hydra.mode=")


def repeat(record: "Record") -> "Record | None":
    """Repeat an evaluation to confirm its cost; print a message and return None if costs would not be comparable."""
    from harness import environment

    # an isolated process may have been started without this one's thread variables
    environments = {environment.fingerprint(without) for without in ((), environment.THREAD_VARIABLES)}
    if record.environment not in environments:
        say(
            "above its limit, but not measured again: it was measured on another machine or with other packages: "
            f"{record.command}"
        )
        return None
    say(f"above its limit, measured again to be sure: {record.command}")
    repeated = run(shlex.split(record.command)[1:], Path.cwd(), import_path())
    if repeated is None or repeated.code != record.code:
        why = "it could not be measured again" if repeated is None else "the code has changed since"
        say(f"{why}: {record.command}")
        return None
    return repeated


def import_path() -> str:
    """Return the PYTHONPATH with which a process can import the same modules as this one."""
    return os.pathsep.join(path for path in sys.path if path)


def run(arguments: Sequence[str], folder: Path, python_path: str) -> "Record | None":
    """Measure one evaluation in a new process and return its record, or None if it fails.

    Args:
        arguments: The arguments of its command, without `harness`.
        folder: The working folder.
        python_path: PYTHONPATH of the process.
    """
    from harness.store import Store

    settings = [argument for argument in arguments if not argument.startswith(_OVERRIDDEN)]
    with tempfile.TemporaryDirectory() as results:
        overrides = ["resume=false", "hydra.mode=RUN", f"results_dir={results}"]
        command = [sys.executable, "-P", "-m", "harness", "run", *settings, *overrides]
        folders = {name: str(Path(os.environ[name]).absolute()) for name in _FOLDER_VARIABLES if os.environ.get(name)}
        variables = {**os.environ, **folders, "PYTHONPATH": python_path}
        process = subprocess.run(command, cwd=folder, env=variables, stdout=2)
        records = [record for record in Store(Path(results)).records() if record.status == "ok"]
        return records[0] if process.returncode == 0 and records else None
