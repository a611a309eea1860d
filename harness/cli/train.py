"""`harness train`: one Hydra job fine-tunes the model of one retriever.

Under torchrun several processes train together, each on its device; only the main process prints and writes.
"""

import hashlib
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field

import harness
from harness import environment
from harness.cli.job import config_dir_options, run_job
from harness.cli.tuned import configs, locate_encoder
from harness.config import build
from harness.config.build import validate_config
from harness.console import listener, say, show_tables
from harness.errors import ConfigError
from harness.files import exclusive
from harness.instrument import listening
from harness.leaderboard.tables.training import training
from harness.metrics import parse
from harness.train import dev, examples, families, fit, leaks, outcome, trainers
from harness.train.plan import DevPlan, LeakPlan, LossPlan, TrainingPlan
from harness.types import Dataset, Retriever

_IGNORED_SETTINGS = {"output", "resume", "data_dir", "k"}
"""Settings that do not change the model."""
_DATASET_SETTINGS = {"split", "positives", "positives_per_query", "negatives"}
"""Settings that are ignored when training on a file of triplets."""


class TrainConfig(BaseModel):
    """The resolved config of a training run; a key that is not here is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retriever: dict[str, Any]
    dataset: dict[str, Any] | None = None
    negatives: dict[str, Any]
    output: Path
    triplets: Path | None
    split: str
    positives: Literal["random", "nearest"]
    positives_per_query: int = Field(ge=1)
    dev: DevPlan
    leaks: LeakPlan
    training: TrainingPlan
    loss: LossPlan
    k: int = Field(ge=1)
    seed: int = Field(ge=0)
    resume: bool
    data_dir: str | None


@dataclass(frozen=True)
class Data:
    """Training examples, the dev split that chooses checkpoints, and leaks of the test split into the examples."""

    examples: examples.Examples
    dev: dev.DevSplit
    leaks: list[leaks.Leak]


def main(arguments: Sequence[str]) -> int:
    """Fine-tune a model; return the exit code of `run_job`."""
    return run_job("train", job, arguments)


def job(config: DictConfig) -> None:
    """Fine-tune the model, or show the manifest if this training run is finished."""
    run = HydraConfig.get()
    settings = validate_config(TrainConfig, config, "harness train")
    trainers.check_packages()
    metric = parse(settings.dev.metric)
    located = locate_encoder(settings.retriever)
    encoder = build.construct({**located.encoder, "dtype": "float32", "backend": "torch"}, "retriever.encoder")
    family = families.family_of(encoder)
    base = encoder.resolve_weights()
    family.check(settings.loss, base.path)
    first_stage = build.construct(located.first_stage, "retriever.first_stage") if located.first_stage else None
    notify = say if fit.is_main_process() else _ignore
    with listening(listener() if fit.is_main_process() else None), _lock(settings.output):
        data, plan, finished = trainers.run_main_first(settings.training, lambda: _prepare(settings, base.identity))
        if finished:
            notify(f"{settings.output} is already trained; to train again, add resume=false")
            if fit.is_main_process():
                _show(finished, settings.output)
            return
        device = trainers.device(settings.training)
        notify(f"training on {device}: {len(data.examples.rows):,} rows of {data.examples.source}")
        started, training, work = time.perf_counter(), settings.training, outcome.work_folder(settings.output)
        retriever = family.retriever(first_stage)
        evaluator = dev.Evaluator(data.dev, retriever, encoder, metric, trainers.uses_bfloat16(training))
        fitted = fit.fit(
            family, base.path, data.examples, evaluator, training, settings.loss, settings.seed, work, notify
        )
        if not fit.is_main_process():
            return
        arguments = [*config_dir_options(run), *run.overrides.task]
        manifest = {
            "plan": plan,
            "command": shlex.join(["harness", "train", *map(build.mask_override, arguments)]),
            "config": build.public_config(config),
            "base": {"model": located.encoder["model"], "source": base.source, "identity": base.identity},
            **_describe(data, fitted),
            "seconds": time.perf_counter() - started,
        }
        outcome.save(
            settings.output, fitted.model, manifest, configs(config, located, family.config_changes, settings.output)
        )
    _show(manifest, settings.output)


def _prepare(settings: TrainConfig, base: str) -> tuple[Data, str, dict[str, Any] | None]:
    """Return the data, the hash of the plan, and the manifest if this training run is finished."""
    data = _data(settings)
    plan = _plan(settings, data, base)
    return data, plan, _claim(settings, plan)


def _lock(output: Path) -> AbstractContextManager[None]:
    """Lock the output folder in the main process, so that only one training at a time uses it."""
    return (
        exclusive(output.with_name(f".{output.name}.lock"), f"training {output}")
        if fit.is_main_process()
        else nullcontext()
    )


def _claim(settings: TrainConfig, plan: str) -> dict[str, Any] | None:
    """Return the manifest of this training run if it is finished; the main process also claims the folder."""
    if fit.is_main_process():
        return outcome.claim(settings.output, plan, restart=not settings.resume)
    return outcome.load_finished(settings.output, plan) if settings.resume else None


def _ignore(_: str) -> None:
    """Discard the messages of a process that is not the main one."""


def _data(settings: TrainConfig) -> Data:
    """Return the training data and the dev split. Raises `ConfigError` for missing or leaking data."""
    if settings.triplets is not None:
        training_examples = examples.from_file(settings.triplets)
    elif settings.dataset is not None:
        negatives = build.construct(settings.negatives, "negatives")
        ranker = _positive_ranker(settings) if settings.positives == "nearest" else None
        labelled = _split(settings, settings.split)
        training_examples = examples.from_dataset(
            labelled, negatives, settings.positives_per_query, settings.seed, ranker
        )
    else:
        raise ConfigError("nothing to train on; give dataset=NAME with a training split, or triplets=FILE")
    found_leaks: list[leaks.Leak] = []
    if settings.dataset is not None and settings.leaks.split is not None:
        training_examples, found_leaks = leaks.check_leaks(
            training_examples, _split(settings, settings.leaks.split), settings.leaks
        )
    elif settings.dataset is None:
        say("no dataset is given, so no test split is checked for leaks; add: dataset=NAME")
    dev_plan = settings.dev
    if dev_plan.split is not None and dev_plan.split in (
        settings.leaks.split,
        None if settings.triplets else settings.split,
    ):
        raise ConfigError(
            f"dev.split={dev_plan.split!r} is the training or test split, and cannot choose the checkpoint; choose "
            "another split, or dev.split=null to hold out training queries"
        )
    if dev_plan.split is None:
        dev_split, training_examples = dev.hold_out(
            training_examples, dev_plan.queries, dev_plan.documents, settings.seed
        )
    else:
        dev_split = dev.from_split(
            _split(settings, dev_plan.split), dev_plan.queries, dev_plan.documents, settings.seed
        )
    return Data(training_examples, dev_split, found_leaks)


def _positive_ranker(settings: TrainConfig) -> Retriever:
    """Return the retriever that ranks a query's relevant documents.

    It is the model before training, configured as for the dev split; for a reranker, the first stage.
    """
    located, training = locate_encoder(settings.retriever), settings.training
    if located.first_stage is not None:
        first: Retriever = build.construct(located.first_stage, "retriever.first_stage")
        return first
    dtype = "bfloat16" if trainers.uses_bfloat16(training) else "float32"
    encoder = build.construct({**located.encoder, "dtype": dtype, "backend": "torch"}, "retriever.encoder")
    encoder.limit_length(training.max_length)
    return families.family_of(encoder).retriever(None)


def _split(settings: TrainConfig, split: str) -> Dataset:
    """Load a split of the dataset. A dataset without splits has the test split only."""
    config = settings.dataset
    if config is None:
        raise ConfigError(f"no dataset is given for the split {split!r}; add: dataset=NAME")
    if "split" not in config and split != "test":
        raise ConfigError(f"this dataset has no split {split!r} to train on; make triplets from it: harness synthesize")
    dataset: Dataset = build.construct({**config, "split": split} if "split" in config else config, "dataset")
    return dataset


def _plan(settings: TrainConfig, data: Data, base: str) -> str:
    """Return a hash of everything that the trained model depends on."""
    ignored = _IGNORED_SETTINGS | (set() if settings.triplets is None else _DATASET_SETTINGS)
    settings_json = settings.model_dump(mode="json", exclude=ignored)
    settings_json["data"], settings_json["base"] = data.examples.fingerprint, base
    settings_json["processes"] = os.environ.get("WORLD_SIZE", "1")
    return hashlib.blake2b(json.dumps(settings_json, sort_keys=True).encode(), digest_size=8).hexdigest()


def _describe(data: Data, fitted: fit.FitResult) -> dict[str, Any]:
    """Return the manifest's entries on the data, the training and the machine."""
    return {
        "data": {
            "source": data.examples.source,
            "fingerprint": data.examples.fingerprint,
            "rows": len(data.examples.rows),
            "negatives": data.examples.rows.shape[1] - 2,
            "leaks": [str(leak) for leak in data.leaks],
        },
        "dev": {"queries": len(data.dev.queries), "documents": len(data.dev.corpus)},
        "before": fitted.before,
        "curve": fitted.curve,
        "best_step": fitted.best_step,
        "steps": fitted.steps,
        "resumed_at": fitted.resumed_at,
        "harness": harness.__version__,
        "revision": environment.revision(),
        "environment": environment.manifest(),
    }


def _show(manifest: Mapping[str, Any], output: Path) -> None:
    show_tables([training(manifest, output)])
    print(f"harness finetuned {output}      # with BM25 and hybrids, on several datasets")
    print(f"harness --config-dir={output}/conf retriever=tuned dataset=NAME", flush=True)
