"""A cell: its config checked, its parts built, its record written."""

import json
import shlex
import tempfile
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field

import harness
from harness import environment
from harness.cli import build, job, say, settings
from harness.cli.progress import listener
from harness.clock import listening, peak_memory
from harness.encoders import cache
from harness.errors import ConfigError
from harness.metrics import METRIC_VERSION
from harness.runner import Measured, TimingPlan, cell_key, measure, parse_metrics
from harness.store import Store, asked, ranked
from harness.types import Dataset, DatasetInfo, PerQuery, Record, RetrieverInfo


class RunConfig(BaseModel):
    """The resolved config of one cell; a key that is not here is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retriever: dict[str, Any]
    dataset: dict[str, Any]
    timing: TimingPlan
    k: int = Field(ge=1)
    metrics: list[str]
    seed: int = Field(ge=0)
    resume: bool
    results_dir: Path
    data_dir: str | None


def validated(config: DictConfig) -> RunConfig:
    """The config of one cell, its results folder made. Raises `ConfigError` naming key, value and choices."""
    checked = checked_config(config)
    try:
        checked.results_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=checked.results_dir):
            pass
    except OSError as error:
        where = str(checked.results_dir)
        raise ConfigError(f"results_dir={where!r}: {error.strerror}; name a folder to write to") from None
    return checked


def checked_config(config: DictConfig) -> RunConfig:
    """The config of one cell, its keys and values checked."""
    checked = settings.checked(RunConfig, config, "harness")
    parse_metrics(checked.metrics, checked.k)
    return checked


class Cell:
    """One retriever on one dataset, as a Hydra job names them.

    `public` is the config as it may be kept, without secrets; `run` is the job's HydraConfig.
    """

    def __init__(self, config: RunConfig, public: Mapping[str, Any], run: Any) -> None:
        self.config = config
        self._public = public
        self.store = Store(config.results_dir)
        self._choices: Mapping[str, str] = {
            key: option
            for key, option in run.runtime.choices.items()
            if key in ("retriever", "dataset", "prompts") or "@retriever." in key
        }
        self._folders, self._folder_options = job.folders(run), job.folder_options(run)
        self._overrides = [override for override in run.overrides.task if not override.startswith("hydra.mode=")]

    @property
    def title(self) -> str:
        """For messages: `bm25 on scifact`, `bm25 on mteb SciFact`."""
        dataset = self.config.dataset
        named = [self._choices["dataset"], *(str(dataset[key]) for key in ("task", "id") if dataset.get(key))]
        return f"{self._choices['retriever']} on {' '.join(named)}"

    @property
    def arguments(self) -> list[str]:
        """What follows `harness` to measure this cell again, and no other."""
        sweeps = any(override.startswith("experiment=") for override in self._overrides)
        return [*self._folder_options, *self._overrides, *(["hydra.mode=RUN"] if sweeps else [])]

    def measured(self, whole_process: bool) -> Record:
        """The cell's record: the one in the store where it may be used again, else a new one.

        `whole_process`: this process measures nothing else, so that its peak memory is the cell's.
        """
        config, started = self.config, datetime.now(UTC)
        retriever = build.construct(config.retriever, "retriever")
        _ = self._retriever  # what cannot be named is refused before hours are spent on it
        with listening(listener()), cache.using("reuse" if config.resume else "renew"):
            dataset: Dataset | None = None
            try:
                dataset = build.construct(config.dataset, "dataset")
                if found := self._found(dataset):
                    return found
                if not dataset.extra_metrics:  # known only once they are measured
                    self._check_main_score(dataset, config.metrics)
                say(f"{self.title}: {len(dataset.corpus):,} documents, {len(dataset.queries):,} queries")
                result = measure(
                    retriever, dataset, k=config.k, metrics=config.metrics, plan=config.timing, seed=config.seed
                )
                timing = result.timing
                whole = (
                    whole_process and timing is not None and not timing.index.earlier_s
                )  # cached vectors spared memory too
                record = self._record(started, dataset, result, peak_memory() if whole else None)
                if dataset.extra_metrics:
                    self._check_main_score(dataset, result.means)
                per_query = PerQuery(result.query_ids, result.scores)
                kept = (ranked(result.run, dataset), asked(dataset))
                return self.store.append(record, environment.manifest(), result.run, per_query, *kept)
            except Exception as error:
                if dataset is not None or not isinstance(error, ConfigError):  # a mistyped setting is no cell
                    self.failed(started, dataset, error)
                raise

    def _check_main_score(self, dataset: Dataset, names: Collection[str]) -> None:
        """Say so where what others publish of the dataset is not measured."""
        main = dataset.metadata.get("main_score")
        if main is None or main in names:
            return
        k = main.rpartition("@")[2]
        deep = f" k={k}" if k.isdigit() and int(k) > self.config.k else ""
        say(f"{dataset.name}: its main score is {main}, which is not among the metrics; add:{deep} metrics=[{main}]")

    def failed(self, started: datetime, dataset: Dataset | None, error: Exception) -> None:
        """Keep a record of a failure; `dataset` is None when it could not be read."""
        record = self._record(started, dataset).model_copy(
            update={"status": "failed", "error": f"{type(error).__name__}: {error}"}
        )
        self.store.append(record, environment.manifest())

    def _found(self, dataset: Dataset) -> Record | None:
        if not self.config.resume:
            return None
        found = self.store.find(self._record(datetime.now(UTC), dataset))
        if found:
            say(f"{self.title}: measured {found.started:%Y-%m-%d %H:%M} UTC; again with resume=false")
        return found

    def _key(self, dataset: Dataset | None) -> str:
        config = self.config
        of = dataset.fingerprint if dataset else json.dumps(config.dataset, sort_keys=True)
        return cell_key(config.retriever, config.timing, of, config.k, config.metrics, config.seed)

    def _record(
        self, started: datetime, dataset: Dataset | None, result: Measured | None = None, peak: int | None = None
    ) -> Record:
        return Record(
            cell=self._key(dataset),
            started=started,
            status="ok",
            retriever=self._retriever,
            dataset=self._dataset(dataset),
            k=self.config.k,
            seed=self.config.seed,
            metric_version=METRIC_VERSION,
            metrics=result.means if result else {},
            timing=result.timing.model_copy(update={"peak_memory_bytes": peak}) if result and result.timing else None,
            facts=result.facts if result else {},
            environment=environment.fingerprint(),
            harness=harness.__version__,
            code=environment.code_hash(build.modules(self.config.retriever)),
            revision=environment.revision(),
            command=shlex.join(["harness", *map(build.without_secret, self.arguments)]),
        )

    @cached_property
    def _retriever(self) -> RetrieverInfo:
        """The retriever's name and what differs from that config: parts swapped or added, values changed."""
        name, config = self._choices["retriever"], self._public["retriever"]
        prompts = {"prompts": self._choices["prompts"]} if self._choices.get("prompts") else {}
        named = [f"retriever={name}", f"k={self.config.k}", *(f"prompts={said}" for said in prompts.values())]
        default, usual = build.chosen(named, self._folders)
        swapped = {
            place: option
            for place, option in self._choices.items()
            if "@retriever." in place and usual.get(place) != option
        }
        if swapped:
            named += [f"{'' if place in usual else '+'}{place}={option}" for place, option in swapped.items()]
            default = build.composition(named, self._folders)
        default["dataset"] = self._public[
            "dataset"
        ]  # an instruction that the retriever's prompt takes is no difference
        differences = build.differences(config, build.public(default)["retriever"])
        said = {place.partition("@retriever.")[2]: option for place, option in swapped.items()} | prompts
        return RetrieverInfo(name=name, differences={**said, **differences}, config=config)

    @cached_property
    def _usual_dataset(self) -> dict[str, Any]:
        """The config of the dataset's name as it is without an override."""
        own = self._public["dataset"]
        named = ["retriever=bm25", f"dataset={self._choices['dataset']}"]
        named += [f"dataset.{key}='{own[key]}'" for key in ("task", "id") if own.get(key)]  # which others follow from
        config: dict[str, Any] = build.public(build.composition(named, self._folders))["dataset"]
        return config

    def _dataset(self, dataset: Dataset | None) -> DatasetInfo:
        name, config = self._choices["dataset"], self._public["dataset"]
        return DatasetInfo(
            name=dataset.name if dataset else _called(config, name),
            split=dataset.split if dataset else config.get("split"),
            fingerprint=dataset.fingerprint if dataset else None,
            group=dataset.group if dataset else config.get("group"),
            parts=dataset.parts if dataset else config.get("parts", 1),
            documents=len(dataset.corpus) if dataset else None,
            queries=len(dataset.queries) if dataset else None,
            differences=build.differences(config, self._usual_dataset),
            config=config,
            about=dict(dataset.metadata) if dataset else {},
        )


def _called(config: Mapping[str, Any], name: str) -> str:
    """What a collection that could not be read is called."""
    said = config.get("name") or config.get("task") or config.get("id")
    return str(said or Path(config.get("path") or name).name)
