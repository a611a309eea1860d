"""`harness run`: one Hydra job measures one cell; a sweep is many jobs.

A failed cell leaves a record with its error and the sweep goes on; a cell that was measured is not measured again.
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

from harness import weights
from harness.cli import benchmark, table
from harness.cli.job import folder_options, folders, run_job
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
        process = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL)
        if written.exists():
            return read_record(Path(written.read_text()))
    if process.returncode < 0:
        error = CellError(f"{title}: its process was ended by signal {-process.returncode}, perhaps for lack of memory")
        store.recover(f"CellError: {error}")
        raise error
    raise CellError(f"{title}: failed in its own process, as said above")
