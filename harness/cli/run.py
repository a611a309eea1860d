"""`harness run`: one Hydra job measures one cell; a sweep is many jobs.

A failed cell leaves a record with its error and the sweep goes on; a cell that was measured is not measured again.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness import weights
from harness.cli import benchmark, say, table
from harness.cli.cell import Cell, validated
from harness.cli.job import run_job
from harness.config import build
from harness.environment import THREAD_VARIABLES
from harness.errors import ConfigError, HarnessError
from harness.signals import STARTED_BY, end_with_parent
from harness.store import Store, read_record
from harness.types import Record

ISOLATED = "HARNESS_ISOLATED"
"""Set for a process that measures one cell and nothing else: the file where it says which record it wrote."""
_CHOOSES = {"retriever", "dataset", "experiment"}
_HYDRAS_OWN = {"--shell-completion", "-sc", "--hydra-help", "--version"}


class CellError(HarnessError):
    """A cell failed in a process of its own, which has said why."""


def main(arguments: Sequence[str]) -> int:
    """Measure what the arguments say; the exit code of `run_job`."""
    end_with_parent()
    try:
        words = benchmark.swept(_with_tuned(_with_quickstart(arguments)))
    except HarnessError as error:
        say(f"error: {error}")
        return 1
    code = run_job("run", job, words)
    if code == 1:
        table.show_sweep()
    if ISOLATED not in os.environ:
        benchmark.show(words, code)
    return code


def _with_quickstart(arguments: Sequence[str]) -> list[str]:
    """Bare `harness` is the quickstart; settings may stand beside it."""
    chosen = {argument.lstrip("+").partition("=")[0].partition("@")[0] for argument in arguments}
    if chosen & _CHOOSES or _HYDRAS_OWN & set(arguments):
        return list(arguments)
    return [*arguments, "experiment=quickstart"]


def _with_tuned(arguments: Sequence[str]) -> list[str]:
    """`experiment=finetune` sweeps the configs that `harness train` left in `tuned=FOLDER`, models/tuned without it.

    Raises `ConfigError` where there are none.
    """
    if "experiment=finetune" not in arguments or any(word.startswith(("--config-dir", "-cd")) for word in arguments):
        return list(arguments)
    others = [word for word in arguments if not word.startswith("tuned=")]
    folder = Path(_given(arguments, "tuned") or "models/tuned").expanduser() / "conf"
    if not (folder / "retriever").is_dir():
        raise ConfigError(
            f"tuned={str(folder.parent)!r} has no conf/retriever; name the output of a training: tuned=FOLDER, or make "
            f"it: harness train dataset=NAME output={folder.parent}"
        )
    if str(folder.parent.resolve()) not in (folder / "retriever" / "tuned.yaml").read_text(encoding="utf-8"):
        raise ConfigError(
            f"tuned={str(folder.parent)!r} was moved or copied: its configs name another folder; put the path of the "
            f"model into {folder / 'retriever' / 'tuned.yaml'}"
        )
    _refuse_other_rows(folder.parent, others)
    return [*others, f"--config-dir={folder.resolve()}"]


def _given(words: Sequence[str], key: str) -> str | None:
    """What the command line says of a key, at last."""
    found = [word for word in words if word.startswith(f"{key}=")]
    return found[-1].removeprefix(f"{key}=") if found else None


def _results(words: Sequence[str]) -> Path:
    """The results folder of a command line."""
    return Path(_given(words, "results_dir") or build.composed(["retriever=bm25"])["results_dir"]).expanduser()


def _refuse_other_rows(tuned: Path, words: Sequence[str]) -> None:
    """Raises `ConfigError` where the results have rows of another training, called base and tuned as well."""
    from harness.cli.tuned import place_of  # not before it is needed: it imports torch

    results = _results(words)
    identity = weights.find(str(tuned)).identity
    for record in Store(results).records():
        if record.retriever.name != "tuned":
            continue
        other = place_of(record.retriever.config).encoder["model"]
        held = record.facts.get("weights", {}).get("identity", identity)
        if other != str(tuned.resolve()) or held != identity:
            raise ConfigError(
                f"{results} has rows called base and tuned of another training, {other} as it was "
                f"{record.started:%Y-%m-%d %H:%M}; keep these apart from them: "
                f"harness experiment=finetune tuned={tuned} results_dir=results/{tuned.name}"
            )


def job(config: DictConfig) -> float:
    """Measure one cell, or find that it is measured; gives its first metric, for Hydra's optimising sweepers."""
    run = HydraConfig.get()
    # read now: the config of another composition is Hydra's own while the record's differences are found
    sweep = Path(run.sweep.dir) / str(run.job.num) if run.mode == RunMode.MULTIRUN else None
    cell = Cell(validated(config), build.public(config), run)
    isolated = cell.config.timing.isolate and ISOLATED not in os.environ
    record = _in_own_process(cell) if isolated else cell.measured(whole_process=ISOLATED in os.environ)
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
