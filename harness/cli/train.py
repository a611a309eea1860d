"""`harness train`: one Hydra job fine-tunes the model of one retriever.

Several processes that torchrun started do the same, each on its device; the first one speaks and writes.
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
from harness.cli.job import folder_options, run_job
from harness.cli.tuned import configs, place_of
from harness.config import build
from harness.config.build import checked
from harness.console import listener, say, show_tables
from harness.errors import ConfigError
from harness.files import exclusive
from harness.instrument import listening
from harness.leaderboard.tables.training import training
from harness.metrics import parse
from harness.train import dev, examples, families, fit, leaks, outcome, trainers
from harness.train.plan import DevPlan, LeakPlan, LossPlan, TrainingPlan
from harness.types import Dataset, Retriever

_NOT_THE_MODEL = {"output", "resume", "data_dir", "k"}
"""Settings on which the model does not depend."""


_OF_A_DATASET = {"split", "positives", "positives_per_query", "negatives"}
"""Settings that a file of triplets leaves unread."""


class TrainConfig(BaseModel):
    """The resolved config of a training; a key that is not here is an error."""

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
    """What is trained on, what checkpoints are chosen by, and what of the test split was found in it."""

    examples: examples.Examples
    dev: dev.Dev
    leaks: list[leaks.Leak]


def main(arguments: Sequence[str]) -> int:
    """Train as the arguments say; the exit code of `run_job`."""
    return run_job("train", job, arguments)


def job(config: DictConfig) -> None:
    """Train, or find that it is trained."""
    run = HydraConfig.get()
    settings = checked(TrainConfig, config, "harness train")
    trainers.check_packages()
    metric = parse(settings.dev.metric)
    place = place_of(settings.retriever)
    encoder = build.construct({**place.encoder, "dtype": "float32", "backend": "torch"}, "retriever.encoder")
    family = families.family_of(encoder)
    base = encoder.resolve_weights()
    family.check(settings.loss, base.path)
    first_stage = build.construct(place.first_stage, "retriever.first_stage") if place.first_stage else None
    tell = say if fit.on_main() else _silent
    with listening(listener() if fit.on_main() else None), _alone(settings.output):
        data, plan, found = trainers.in_turn(settings.training, lambda: _begun(settings, base.identity))
        if found:
            tell(f"{settings.output} is trained; again with resume=false")
            if fit.on_main():
                _show(found, settings.output)
            return
        where = trainers.device(settings.training)
        tell(f"training on {where}: {len(data.examples.rows):,} rows of {data.examples.said}")
        started, training, work = time.perf_counter(), settings.training, outcome.work_folder(settings.output)
        retriever = family.retriever(first_stage)
        evaluator = dev.Evaluator(data.dev, retriever, encoder, metric, trainers.in_bfloat16(training))
        fitted = fit.fit(
            family, base.path, data.examples, evaluator, training, settings.loss, settings.seed, work, tell
        )
        if not fit.on_main():
            return
        words = [*folder_options(run), *run.overrides.task]
        manifest = {
            "plan": plan,
            "command": shlex.join(["harness", "train", *map(build.without_secret, words)]),
            "config": build.public(config),
            "base": {"model": place.encoder["model"], "source": base.source, "identity": base.identity},
            **_told(data, fitted),
            "seconds": time.perf_counter() - started,
        }
        outcome.save(settings.output, fitted.model, manifest, configs(config, place, family.after, settings.output))
    _show(manifest, settings.output)


def _begun(settings: TrainConfig, base: str) -> tuple[Data, str, dict[str, Any] | None]:
    """The data, the hash of the whole plan, and the manifest where it was carried out."""
    data = _data(settings)
    plan = _plan(settings, data, base)
    return data, plan, _claimed(settings, plan)


def _alone(output: Path) -> AbstractContextManager[None]:
    """One training at a time in a folder, the processes of one aside."""
    return exclusive(output.with_name(f".{output.name}.lock"), f"training {output}") if fit.on_main() else nullcontext()


def _claimed(settings: TrainConfig, plan: str) -> dict[str, Any] | None:
    """The manifest of this very training where it is finished; of several processes only the first one writes."""
    if fit.on_main():
        return outcome.claim(settings.output, plan, anew=not settings.resume)
    return outcome.finished(settings.output, plan) if settings.resume else None


def _silent(_: str) -> None:
    """What another process says."""


def _data(settings: TrainConfig) -> Data:
    """Raises `ConfigError` for data that are not there or that leak."""
    if settings.triplets is not None:
        whole = examples.of_file(settings.triplets)
    elif settings.dataset is not None:
        negatives = build.construct(settings.negatives, "negatives")
        nearest = _nearest(settings) if settings.positives == "nearest" else None
        judged = _split(settings, settings.split)
        whole = examples.of_dataset(judged, negatives, settings.positives_per_query, settings.seed, nearest)
    else:
        raise ConfigError("nothing to train on; give dataset=NAME with a training split, or triplets=FILE")
    found: list[leaks.Leak] = []
    if settings.dataset is not None and settings.leaks.split is not None:
        whole, found = leaks.guarded(whole, _split(settings, settings.leaks.split), settings.leaks)
    elif settings.dataset is None:
        say("no dataset is given, so no test split is guarded against leaks; add: dataset=NAME")
    plan = settings.dev
    if plan.split is not None and plan.split in (settings.leaks.split, None if settings.triplets else settings.split):
        raise ConfigError(
            f"dev.split={plan.split!r} is tested on or trained on, and may not choose the checkpoint; choose another "
            "split, or dev.split=null to hold training queries out"
        )
    if plan.split is None:
        chosen_by, whole = dev.held_out(whole, plan.queries, plan.documents, settings.seed)
    else:
        chosen_by = dev.of_split(_split(settings, plan.split), plan.queries, plan.documents, settings.seed)
    return Data(whole, chosen_by, found)


def _nearest(settings: TrainConfig) -> Retriever:
    """What ranks a query's relevant documents: the model before it is trained, as dev asks it; of a reranker the first
    stage.
    """
    place, training = place_of(settings.retriever), settings.training
    if place.first_stage is not None:
        first: Retriever = build.construct(place.first_stage, "retriever.first_stage")
        return first
    dtype = "bfloat16" if trainers.in_bfloat16(training) else "float32"
    encoder = build.construct({**place.encoder, "dtype": dtype, "backend": "torch"}, "retriever.encoder")
    encoder.limit_length(training.max_length)
    return families.family_of(encoder).retriever(None)


def _split(settings: TrainConfig, split: str) -> Dataset:
    """A split of the dataset; one that knows no splits is all test."""
    config = settings.dataset
    if config is None:
        raise ConfigError(f"no dataset is given to take the split {split!r} from; add: dataset=NAME")
    if "split" not in config and split != "test":
        raise ConfigError(f"this dataset has no split {split!r} to train on; make triplets of it: harness synthesize")
    own = {**config, "split": split} if "split" in config else config
    dataset: Dataset = build.construct(own, "dataset")
    return dataset


def _plan(settings: TrainConfig, data: Data, base: str) -> str:
    """Hash of all that the model depends on."""
    unread = _NOT_THE_MODEL | (set() if settings.triplets is None else _OF_A_DATASET)
    said = settings.model_dump(mode="json", exclude=unread)
    said["data"], said["base"] = data.examples.fingerprint, base
    said["processes"] = os.environ.get("WORLD_SIZE", "1")
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()


def _told(data: Data, fitted: fit.Fitted) -> dict[str, Any]:
    """What the manifest says of the data, the training and the machine."""
    return {
        "data": {
            "source": data.examples.said,
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
    print(f"harness finetuned {output}      # with BM25 and hybrids, on several collections")
    print(f"harness --config-dir={output}/conf retriever=tuned dataset=NAME", flush=True)
