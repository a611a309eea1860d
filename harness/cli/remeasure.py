"""A record's cell measured again in a process of its own, into a folder that is thrown away."""

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

_FOLDERS = ("HARNESS_DATA", "HARNESS_CACHE")
_OURS = ("resume=", "results_dir=", "hydra.mode=")


def measured(record: "Record") -> "Record | None":
    """The cell once more, to be sure of its cost; None, which is said, where that cannot be told from here."""
    from harness import environment

    # a process of its own may have been without this one's variables
    here = {environment.fingerprint(without) for without in ((), environment.THREAD_VARIABLES)}
    if record.environment not in here:
        say(f"above its limit, and not measured again: that was another machine or other packages: {record.command}")
        return None
    say(f"above its limit, measured again to be sure: {record.command}")
    found = run(shlex.split(record.command)[1:], Path.cwd(), importable())
    if found is None or found.code != record.code:
        why = "it could not be measured again" if found is None else "the code is another by now"
        say(f"{why}: {record.command}")
        return None
    return found


def importable() -> str:
    """PYTHONPATH of a process that is to import what this one can."""
    return os.pathsep.join(path for path in sys.path if path)


def run(words: Sequence[str], folder: Path, python_path: str) -> "Record | None":
    """The record of one cell measured anew from a folder; None where that fails."""
    from harness.store import Store

    kept = [word for word in words if not word.startswith(_OURS)]
    with tempfile.TemporaryDirectory() as results:
        ours = ["resume=false", "hydra.mode=RUN", f"results_dir={results}"]
        command = [sys.executable, "-P", "-m", "harness", "run", *kept, *ours]
        whole = {name: str(Path(os.environ[name]).absolute()) for name in _FOLDERS if os.environ.get(name)}
        surroundings = {**os.environ, **whole, "PYTHONPATH": python_path}
        done = subprocess.run(command, cwd=folder, env=surroundings, stdout=2)
        found = [own for own in Store(Path(results)).records() if own.status == "ok"]
        return found[0] if done.returncode == 0 and found else None
