"""`harness run`: one Hydra job is one evaluation; a sweep is many jobs.

A failed evaluation leaves a record with its error and the sweep goes on; a stored one is reused.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.cli.job import FAILED, USAGE, folder_options, folders, run_job
from harness.config import build
from harness.config.evaluation import Composition, EvaluationConfig, dataset_info, retriever_info, validated
from harness.console import listener, say, show_tables
from harness.environment import THREAD_VARIABLES
from harness.errors import ConfigError, HarnessError
from harness.evaluation.evaluate import Evaluation
from harness.instrument import listening
from harness.leaderboard import Scores
from harness.leaderboard import build as build_board
from harness.leaderboard.tables.leaderboard import main_table
from harness.signals import STARTED_BY, end_with
from harness.store import Store, read_record
from harness.types import Dataset, Record, Retriever

ISOLATED = "HARNESS_ISOLATED"
"""Set for a process that does one evaluation and nothing else: the file where it notes its record's path."""
_SUFFIX = ".cell"
_begun: list[Path] = []
"""Folders of the sweeps in progress."""


class CellError(HarnessError):
    """An evaluation failed in a process of its own, which has printed why."""


def main(arguments: Sequence[str]) -> int:
    """Measure what the arguments say; return the exit code of `run_job`."""
    if (parent := os.environ.pop(STARTED_BY, None)) is not None:
        end_with(int(parent))
    if moved := _moved(arguments):
        say(f"error: {moved}")
        return USAGE
    if {"--help", "-h"} & {*arguments} and not any(
        word.startswith(("retriever=", "experiment=")) for word in arguments
    ):
        return measure([*arguments, "retriever=bm25"])  # the help shows a whole config
    return measure(arguments)


def measure(arguments: Sequence[str]) -> int:
    """Run the evaluations that Hydra composes from the arguments; return the exit code."""
    code = run_job("run", job, arguments)
    if code in (FAILED, USAGE):
        show_sweep()
    return code


def _moved(arguments: Sequence[str]) -> str | None:
    """Return what to type in place of an experiment that needs more than its config; None for any other words."""
    alone = not any(argument.startswith(("dataset.task=", "--config-dir", "-cd")) for argument in arguments)
    if alone and "experiment=mteb" in arguments:
        return "experiment=mteb needs the tasks of a benchmark; type: harness mteb BEIR; see: harness list benchmarks"
    if alone and "experiment=finetune" in arguments:
        return "experiment=finetune needs the folder of a training; type: harness finetuned models/tuned"
    return None


def job(config: DictConfig) -> float:
    """Evaluate what a config says, or reuse its record; return its first metric, for Hydra's optimising sweepers."""
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir) / str(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else None
    checked = validated(config)
    composition = composition_of(hydra, config)
    store = Store(checked.results_dir)
    arguments = _arguments(composition, hydra)
    if checked.timing.isolate and ISOLATED not in os.environ:
        record = _in_own_process(composition.title, store, checked, arguments)
    else:
        record = _evaluated(composition, checked, store, arguments)
    path = store.root / (record.files.record or "")
    if ISOLATED in os.environ:
        Path(os.environ[ISOLATED]).write_text(str(path.resolve()))
    elif sweep:
        leave_for_table(sweep, path)
    else:
        show_leaderboard([record])
    return next(iter(record.metrics.values()))


def composition_of(hydra: Any, config: DictConfig) -> Composition:
    """Return what Hydra composed for the job that is running."""
    options = {
        key: option
        for key, option in hydra.runtime.choices.items()
        if key in ("retriever", "dataset", "prompts") or "@retriever." in key
    }
    overrides = [override for override in hydra.overrides.task if not override.startswith("hydra.mode=")]
    return Composition(config, build.public(config), options, overrides, folders(hydra))


def _arguments(composition: Composition, hydra: Any) -> list[str]:
    """Return what follows `harness` to repeat this evaluation, and no other."""
    sweeps = any(override.startswith("experiment=") for override in composition.overrides)
    return [*folder_options(hydra), *composition.overrides, *(["hydra.mode=RUN"] if sweeps else [])]


def _evaluated(composition: Composition, config: EvaluationConfig, store: Store, arguments: Sequence[str]) -> Record:
    """Evaluate in this process, with its progress on stderr."""
    evaluation = Evaluation(
        retriever_info(composition, config.name),
        dataset_info(composition),
        config.settings,
        store,
        config.resume,
        command=shlex.join(["harness", *map(build.without_secret, arguments)]),
        whole_process=ISOLATED in os.environ,
        notify=lambda line: say(f"{composition.title}: {line}"),
    )
    with listening(listener()):
        evaluated = evaluation.run(
            lambda: cast("Retriever", build.construct(config.retriever, "retriever")),
            lambda: cast("Dataset", build.construct(config.dataset, "dataset")),
        )
    record = evaluated.record
    if evaluated.reused:
        say(f"{composition.title}: measured {record.started:%Y-%m-%d %H:%M} UTC; again with resume=false")
    return record


def _environment(config: EvaluationConfig) -> dict[str, str]:
    """Return this process's variables, without a launcher's threads where the timing plan has its own."""
    dropped = () if config.timing.threads is None else THREAD_VARIABLES
    return {name: value for name, value in os.environ.items() if name not in dropped}


def _in_own_process(title: str, store: Store, config: EvaluationConfig, arguments: Sequence[str]) -> Record:
    """Evaluate in a new process, so that its peak memory and its death are the evaluation's alone."""
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "record"
        command = [sys.executable, "-P", "-m", "harness", "run", *arguments]
        variables = {**_environment(config), ISOLATED: str(written), STARTED_BY: str(os.getpid())}
        with subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL) as process:
            try:
                process.wait()
            except KeyboardInterrupt:
                process.kill()
                process.wait()
                store.discard(process.pid)
                raise
        if written.exists():
            return read_record(Path(written.read_text()))
    if process.returncode < 0:
        error = CellError(f"{title}: its process was ended by signal {-process.returncode}, perhaps for lack of memory")
        store.recover(f"CellError: {error}", process.pid)
        raise error
    error_type = ConfigError if process.returncode == USAGE else CellError
    raise error_type(f"{title}: failed in its own process, as said above")


def leave_for_table(job: Path, record: Path) -> None:
    """Note for the sweep's table, also from another process, where the record of a job lies."""
    job.parent.mkdir(parents=True, exist_ok=True)
    job.with_suffix(_SUFFIX).write_text(str(record.resolve()))


def show_leaderboard(records: list[Record], scores: Scores | None = None) -> None:
    """Print the board of some records on stdout, tested where their per-query scores are given."""
    metric = next((name for record in records for name in record.metrics), "ndcg@10")
    show_tables([main_table(build_board(records, metric, scores))])


def show_sweep() -> None:
    """Print the board of the sweep that began last, if it was not printed yet."""
    while _begun:
        noted = sorted(_begun.pop().glob(f"*{_SUFFIX}"), key=lambda path: int(path.stem))
        paths = [Path(path.read_text()) for path in noted]
        if paths:
            records = [read_record(path) for path in paths]
            root = next(folder.parent for folder in paths[0].parents if folder.name == "records")
            show_leaderboard(records, Store(root).scores(records) if len(records) > 1 else None)


class SweepTable(Callback):
    """Remembers a sweep's folder when it begins and prints its table when it ends."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep begins."""
        _begun.append(Path(str(config.hydra.sweep.dir)))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Every job of the sweep has ended well; after a failure the command line prints the table."""
        show_sweep()
