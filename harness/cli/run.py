"""`harness run`: one Hydra job measures one cell; a sweep is many jobs.

A failed cell leaves a record with its error and the sweep goes on; a cell that was measured is not measured again.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.cli import build, say, table
from harness.cli.cell import Cell, validated
from harness.environment import THREAD_VARIABLES
from harness.errors import HarnessError
from harness.signals import STARTED_BY, Terminated, end_with_parent, terminable
from harness.store import read_record
from harness.types import Record

ISOLATED = "HARNESS_ISOLATED"
"""Set for a process that measures one cell and nothing else: the file where it says which record it wrote."""
_CHOOSES = {"retriever", "dataset", "experiment"}
_HYDRAS_OWN = {"--shell-completion", "-sc", "--hydra-help", "--version"}


class CellError(HarnessError):
    """A cell failed in a process of its own, which has said why."""


def main(arguments: Sequence[str]) -> int:
    """Run Hydra over the arguments; 0 when every cell is measured, 1 otherwise, 130 and 143 when interrupted."""
    end_with_parent()
    sys.argv = ["harness", *_with_quickstart(arguments)]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on; what the user sees is written below
    try:
        with terminable(), contextlib.redirect_stderr(_WithoutHydrasLine(sys.stderr)):
            hydra.main(version_base="1.3", config_path=str(build.CONF), config_name="run")(job)()
    except KeyboardInterrupt as error:
        say("interrupted; what was measured is kept, the same command goes on")
        return 143 if isinstance(error, Terminated) else 130
    except (HarnessError, HydraException, OmegaConfBaseException, ValueError) as error:
        if not getattr(error, "said", False):
            say(f"error: {build.refused(error, arguments)}")
    except Exception as error:  # a retriever's own failure: its traceback helps who writes it
        if not getattr(error, "said", False):
            traceback.print_exc()
    else:
        return 0
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
    table.show_sweep()
    return 1


class _WithoutHydrasLine:
    """Standard error without the line that Hydra adds to a job's error, which has been said by then."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if text.startswith("Error executing job with overrides"):
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _with_quickstart(arguments: Sequence[str]) -> list[str]:
    """Bare `harness` is the quickstart; settings may stand beside it."""
    chosen = {argument.lstrip("+").partition("=")[0].partition("@")[0] for argument in arguments}
    if chosen & _CHOOSES or _HYDRAS_OWN & set(arguments):
        return list(arguments)
    return [*arguments, "experiment=quickstart"]


def job(config: DictConfig) -> float:
    """Measure one cell, or find that it is measured; gives its first metric, for Hydra's optimising sweepers."""
    run = HydraConfig.get()
    # read now: the config of another composition is Hydra's own while the record's differences are found
    sweep = Path(run.sweep.dir) / str(run.job.num) if run.mode == RunMode.MULTIRUN else None
    try:
        cell = Cell(validated(config), build.public(config), run)
        isolated = cell.config.timing.isolate and ISOLATED not in os.environ
        record = _in_own_process(cell) if isolated else cell.measured(whole_process=ISOLATED in os.environ)
    except Exception as error:
        if isinstance(error, HarnessError):
            say(f"error: {error}")
        else:
            traceback.print_exc()
        error.said = True  # type: ignore[attr-defined]
        raise
    path = cell.config.results_dir / record.files["record"]
    if ISOLATED in os.environ:
        Path(os.environ[ISOLATED]).write_text(str(path.resolve()))
    elif sweep:
        table.leave_for_table(sweep, path)
    else:
        table.show([record])
    return next(iter(record.metrics.values()))


def _surroundings(cell: Cell) -> dict[str, str]:
    """This process' variables; where the plan says how many threads, no launcher says otherwise."""
    theirs = () if cell.config.timing.threads is None else THREAD_VARIABLES
    return {name: value for name, value in os.environ.items() if name not in theirs}


def _in_own_process(cell: Cell) -> Record:
    """Measure in a new process, so that its peak memory is the cell's alone and its death is only the cell's."""
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch) / "record"
        command = [sys.executable, "-P", "-m", "harness", "run", *cell.arguments]
        surroundings = {**_surroundings(cell), ISOLATED: str(said), STARTED_BY: str(os.getpid())}
        done = subprocess.run(command, env=surroundings, stdin=subprocess.DEVNULL)
        if said.exists():
            return read_record(Path(said.read_text()))
    if done.returncode < 0:
        error = CellError(
            f"{cell.title}: its process was ended by signal {-done.returncode}, perhaps for lack of memory"
        )
        cell.failed(started, None, error)
        raise error
    raise CellError(f"{cell.title}: failed in its own process, as said above")
