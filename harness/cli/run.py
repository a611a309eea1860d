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
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.cli import table
from harness.cli.job import FAILED, USAGE, folder_options, folders, run_job
from harness.config import build
from harness.config.naming import Composition, dataset_info, retriever_info
from harness.config.schema import EvaluationConfig, validated
from harness.console import say
from harness.environment import THREAD_VARIABLES
from harness.errors import ConfigError, HarnessError
from harness.evaluation.evaluate import Evaluation
from harness.instrument import listening
from harness.progress import listener
from harness.signals import STARTED_BY, end_with_parent
from harness.store import Store, read_record
from harness.types import Dataset, Record, Retriever

ISOLATED = "HARNESS_ISOLATED"
"""Set for a process that does one evaluation and nothing else: the file where it notes its record's path."""


class CellError(HarnessError):
    """An evaluation failed in a process of its own, which has printed why."""


def main(arguments: Sequence[str]) -> int:
    """Measure what the arguments say; return the exit code of `run_job`."""
    end_with_parent()
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
        table.show_sweep()
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
    path = store.root / record.files["record"]
    if ISOLATED in os.environ:
        Path(os.environ[ISOLATED]).write_text(str(path.resolve()))
    elif sweep:
        table.leave_for_table(sweep, path)
    else:
        table.show([record])
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
