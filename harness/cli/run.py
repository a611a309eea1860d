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

from harness.cli.job import FAILED, USAGE, config_dir_options, config_folders, run_job
from harness.config import build
from harness.config.evaluation import Composition, EvaluationConfig, check_writable, dataset_info, retriever_info
from harness.console import listener, say, show_tables
from harness.environment import THREAD_VARIABLES
from harness.errors import ConfigError, HarnessError
from harness.evaluation.evaluate import Evaluation
from harness.instrument import listening
from harness.leaderboard import Scores
from harness.leaderboard import build as build_leaderboard
from harness.leaderboard.tables.leaderboard import main_table
from harness.signals import STARTED_BY, end_with
from harness.store import Store, read_record
from harness.types import Dataset, Record, Retriever

REFRESH = "--refresh"
ISOLATED = "HARNESS_ISOLATED"
"""Environment variable of a process that runs one evaluation: the file to which it writes its record's path."""
_NOTE_SUFFIX = ".record"
_sweeps_in_progress: list[Path] = []
"""Log folders of the sweeps in progress."""


class EvaluationError(HarnessError):
    """An evaluation failed in a separate process, which has printed the reason."""


def main(arguments: Sequence[str]) -> int:
    """Run the evaluations that the arguments describe; return the exit code of `run_job`."""
    if (parent := os.environ.pop(STARTED_BY, None)) is not None:
        end_with(int(parent))
    if replacement := _replacement(arguments):
        say(f"error: {replacement}")
        return USAGE
    if {"--help", "-h"} & {*arguments} and not any(
        word.startswith(("retriever=", "experiment=")) for word in arguments
    ):
        return measure([*arguments, "retriever=bm25"])  # the help shows a whole config
    return measure(arguments)


def measure(arguments: Sequence[str]) -> int:
    """Run the evaluations that Hydra composes from the arguments; return the exit code.

    `--refresh` among the arguments measures again and encodes again: it stands for `resume=false`.
    """
    if REFRESH in arguments:
        overrides = [word for word in arguments if word != REFRESH and not word.startswith("resume=")]
        arguments = [*overrides, "resume=false"]
    code = run_job("run", job, arguments)
    if code in (FAILED, USAGE):
        _show_sweep()
    return code


def _replacement(arguments: Sequence[str]) -> str | None:
    """Return the command to type instead of an experiment that needs more than its config; None for other arguments."""
    is_incomplete = not any(argument.startswith(("dataset.task=", "--config-dir", "-cd")) for argument in arguments)
    if is_incomplete and "experiment=mteb" in arguments:
        return "experiment=mteb needs the tasks of a benchmark; type: harness mteb BEIR; see: harness list benchmarks"
    if is_incomplete and "experiment=finetune" in arguments:
        return "experiment=finetune needs the folder of a training run; type: harness finetuned models/tuned"
    return None


def job(config: DictConfig) -> float:
    """Evaluate a config, or reuse its record; return the first metric's mean, for Hydra's optimising sweepers."""
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir) / str(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else None
    checked = check_writable(config)
    composition = _composition(hydra, config)
    store = Store(checked.results_dir)
    arguments = _arguments(composition, hydra)
    if checked.timing.isolate and ISOLATED not in os.environ:
        record = _evaluate_isolated(composition.title, store, checked, arguments)
    else:
        record = _evaluate(composition, checked, store, arguments)
    path = store.root / (record.files.record or "")
    if ISOLATED in os.environ:
        Path(os.environ[ISOLATED]).write_text(str(path.resolve()))
    elif sweep:
        _note_record(sweep, path)
    else:
        _show_leaderboard([record])
    return next(iter(record.metrics.values()))


def _composition(hydra: Any, config: DictConfig) -> Composition:
    """Return the composition of the running Hydra job."""
    options = {
        key: option
        for key, option in hydra.runtime.choices.items()
        if key in ("retriever", "dataset", "prompts") or "@retriever." in key
    }
    overrides = [override for override in hydra.overrides.task if not override.startswith("hydra.mode=")]
    return Composition(config, build.public_config(config), options, overrides, config_folders(hydra))


def _arguments(composition: Composition, hydra: Any) -> list[str]:
    """Return the arguments of `harness` that repeat this evaluation only."""
    sweeps = any(override.startswith("experiment=") for override in composition.overrides)
    return [*config_dir_options(hydra), *composition.overrides, *(["hydra.mode=RUN"] if sweeps else [])]


def _evaluate(composition: Composition, config: EvaluationConfig, store: Store, arguments: Sequence[str]) -> Record:
    """Evaluate in this process, with its progress on stderr."""
    evaluation = Evaluation(
        retriever_info(composition, config.name),
        dataset_info(composition),
        config.settings,
        store,
        config.resume,
        command=shlex.join(["harness", *map(build.mask_override, arguments)]),
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
        say(f"{composition.title}: measured {record.started:%Y-%m-%d %H:%M} UTC; to measure again, add --refresh")
    return record


def _environment(config: EvaluationConfig) -> dict[str, str]:
    """Return the environment variables, without a launcher's thread counts if the timing plan sets its own."""
    removed = () if config.timing.threads is None else THREAD_VARIABLES
    return {name: value for name, value in os.environ.items() if name not in removed}


def _evaluate_isolated(title: str, store: Store, config: EvaluationConfig, arguments: Sequence[str]) -> Record:
    """Evaluate in a new process, so that peak memory is measured for it alone and a crash ends only this evaluation."""
    with tempfile.TemporaryDirectory() as scratch:
        note = Path(scratch) / "record"
        command = [sys.executable, "-P", "-m", "harness", "run", *arguments]
        variables = {**_environment(config), ISOLATED: str(note), STARTED_BY: str(os.getpid())}
        with subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL) as process:
            try:
                process.wait()
            except KeyboardInterrupt:
                process.kill()
                process.wait()
                store.discard(process.pid)
                raise
        if note.exists():
            return read_record(Path(note.read_text()))
    if process.returncode < 0:
        error = EvaluationError(
            f"{title}: its process was killed by signal {-process.returncode}, perhaps because it ran out of memory"
        )
        store.recover(f"EvaluationError: {error}", process.pid)
        raise error
    error_type = ConfigError if process.returncode == USAGE else EvaluationError
    raise error_type(f"{title}: failed in a separate process; see the error above")


def _note_record(job: Path, record: Path) -> None:
    """Write the path of a job's record to a file beside the job's log folder; the sweep's table is made from these."""
    job.parent.mkdir(parents=True, exist_ok=True)
    job.with_suffix(_NOTE_SUFFIX).write_text(str(record.resolve()))


def _show_leaderboard(records: list[Record], scores: Scores | None = None) -> None:
    """Print the leaderboard of records on stdout, with significance tests if per-query scores are given."""
    metric = next((name for record in records for name in record.metrics), "ndcg@10")
    show_tables([main_table(build_leaderboard(records, metric, scores))])


def _show_sweep() -> None:
    """Print the leaderboard of each sweep that was not printed yet."""
    while _sweeps_in_progress:
        notes = sorted(_sweeps_in_progress.pop().glob(f"*{_NOTE_SUFFIX}"), key=lambda path: int(path.stem))
        paths = [Path(path.read_text()) for path in notes]
        if paths:
            records = [read_record(path) for path in paths]
            root = next(folder.parent for folder in paths[0].parents if folder.name == "records")
            _show_leaderboard(records, Store(root).scores(records) if len(records) > 1 else None)


class SweepTable(Callback):
    """A Hydra callback that prints the table of a sweep when it ends."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Remember the log folder of the sweep."""
        _sweeps_in_progress.append(Path(str(config.hydra.sweep.dir)))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the table after a sweep without failures; after a failure `measure` prints it."""
        _show_sweep()
