"""`harness run`: one Hydra job measures one cell; a sweep is many jobs.

A failed cell leaves a record with its error and the sweep goes on; a cell that was measured is not measured again.
"""

import contextlib
import difflib
import os
import re
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
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.cli import COMMANDS, build, say, table
from harness.cli.cell import Cell, validated
from harness.errors import HarnessError
from harness.store import read_record
from harness.types import Record

ISOLATED = "HARNESS_ISOLATED"
"""Set for a process that measures one cell and nothing else: the file where it says which record it wrote."""
_CHOOSES = {"retriever", "dataset", "experiment"}
_NONE = "You must specify 'retriever'"  # as Hydra says it
_HYDRAS_OWN = {"--shell-completion", "-sc", "--hydra-help", "--version"}


class CellError(HarnessError):
    """A cell failed in a process of its own, which has said why."""


def main(arguments: Sequence[str]) -> int:
    """Run Hydra over the arguments; 0 when every cell is measured, 1 otherwise."""
    sys.argv = ["harness", *_with_quickstart(arguments)]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on; what the user sees is written below
    try:
        with contextlib.redirect_stderr(_WithoutHydrasLine(sys.stderr)):
            hydra.main(version_base="1.3", config_path=str(build.CONF), config_name="run")(job)()
    except KeyboardInterrupt:
        say("interrupted; what was measured is kept, the same command goes on")
        return 130
    except (HarnessError, HydraException, OmegaConfBaseException, ValueError) as error:
        if not getattr(error, "said", False):
            say(f"error: {_explained(error, arguments)}")
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


def _explained(error: BaseException, arguments: Sequence[str]) -> str:
    """What to say of an error in the command line itself."""
    if isinstance(error, OverrideParseException):
        word = error.override
        key, _, value = word.partition("=")
        if value:
            return f"{word!r} cannot be read: quote its value, \"{key}='...'\", or see: harness --help"
        near = difflib.get_close_matches(word.split()[0] if word.split() else "", COMMANDS, n=1)
        hint = f"did you mean the command {near[0]!r}?" if near else "write KEY=VALUE, such as retriever=bm25"
        return f"{word!r} is neither a command nor a setting; {hint}; see: harness --help"
    if "Config group override must be a string" in str(error):
        return f"a group was set to null: {build.explained(ValueError(_NONE))}"
    if match := re.search(r"Could not override '([^']+)'", str(error)):
        where, _, key = match[1].rpartition(".")
        others = [argument for argument in arguments if not argument.startswith((f"{match[1]}=", "-"))]
        with contextlib.suppress(HarnessError, AttributeError, KeyError, TypeError):
            config: Any = build.composed([argument for argument in others if "," not in argument])
            for part in where.split(".") if where else []:
                config = config[part]
            return build.unknown_key(where, key, [name for name in config if not name.startswith("_")])
        return f"the config has no key {match[1]!r}; see: harness --cfg job"
    return build.explained(error)


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


def _in_own_process(cell: Cell) -> Record:
    """Measure in a new process, so that its peak memory is the cell's alone and its death is only the cell's."""
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch) / "record"
        command = [sys.executable, "-P", "-m", "harness", "run", *cell.arguments]
        done = subprocess.run(command, env={**os.environ, ISOLATED: str(said)}, stdin=subprocess.DEVNULL)
        if said.exists():
            return read_record(Path(said.read_text()))
    if done.returncode < 0:
        error = CellError(
            f"{cell.title}: its process was ended by signal {-done.returncode}, perhaps for lack of memory"
        )
        cell.failed(started, None, error)
        raise error
    raise CellError(f"{cell.title}: failed in its own process, as said above")
