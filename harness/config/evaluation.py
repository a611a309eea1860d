"""The config of one evaluation: every key and value checked, and the names of its retriever and its dataset.

A name is the option's, followed by what differs from the option's config.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field

from harness.config import build
from harness.errors import ConfigError
from harness.evaluation.evaluate import Settings
from harness.evaluation.timing import TimingPlan, parse_metrics
from harness.types import DatasetInfo, RetrieverInfo

_APART = {"dataset", "timing", "k", "metrics", "seed", "name", "resume", "results_dir", "data_dir", "hydra"}
"""Keys and groups that leave a retriever as its option's config has it."""


class EvaluationConfig(BaseModel):
    """The resolved config of one evaluation; a key that is not here is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retriever: dict[str, Any]
    dataset: dict[str, Any]
    timing: TimingPlan
    k: int = Field(ge=1)
    metrics: list[str]
    seed: int = Field(ge=0)
    name: str | None
    """Name of the row; None for that of the retriever's config and what differs from it."""
    resume: bool
    results_dir: Path
    data_dir: str | None

    @property
    def settings(self) -> Settings:
        """Settings of the evaluation, apart from the retriever and the dataset."""
        return Settings(k=self.k, metrics=tuple(self.metrics), timing=self.timing, seed=self.seed)


def checked_config(config: DictConfig) -> EvaluationConfig:
    """Return a config whose keys and values are checked. Raises `ConfigError`."""
    checked = build.checked(EvaluationConfig, config, "harness")
    parse_metrics(checked.metrics, checked.k)
    return checked


def validated(config: DictConfig) -> EvaluationConfig:
    """Return a checked config whose results folder can be written to. Raises `ConfigError`."""
    checked = checked_config(config)
    try:
        checked.results_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=checked.results_dir):
            pass
    except OSError as error:
        folder = str(checked.results_dir)
        raise ConfigError(f"results_dir={folder!r}: {error.strerror}; name a folder to write to") from None
    return checked


@dataclass(frozen=True)
class Composition:
    """One evaluation's config as Hydra composed it."""

    config: DictConfig
    public: Mapping[str, Any]
    """The config as it may be kept: resolved, without secrets."""
    options: Mapping[str, str]
    """The option chosen in each group, those inside the retriever included."""
    overrides: Sequence[str]
    folders: Sequence[str]
    """Folders of configs beside the harness's own."""

    @property
    def title(self) -> str:
        """For messages: `bm25 on scifact`, `bm25 on mteb SciFact`."""
        dataset = self.public["dataset"]
        named = [self.options["dataset"], *(str(dataset[key]) for key in ("task", "id") if dataset.get(key))]
        return f"{self.options['retriever']} on {' '.join(named)}"


def retriever_info(composition: Composition, name: str | None = None) -> RetrieverInfo:
    """Return the retriever's name and what differs from that config: parts swapped or added, values changed.

    Args:
        composition: The evaluation's config.
        name: The row's name where the user gave one; the differences are then not shown.
    """
    option, config = composition.options["retriever"], composition.public["retriever"]
    prompts = {"prompts": chosen} if (chosen := composition.options.get("prompts")) else {}
    swapped: dict[str, str] = {}
    differences: dict[str, Any] = {}
    if _changed(composition.overrides, f"retriever={option}"):
        named = [f"retriever={option}", f"k={composition.public['k']}", *(f"prompts={p}" for p in prompts.values())]
        default, usual = _composed(tuple(named), tuple(composition.folders))
        swapped = {
            place: part
            for place, part in composition.options.items()
            if "@retriever." in place and usual.get(place) != part
        }
        if swapped:
            named += [f"{'' if place in usual else '+'}{place}={part}" for place, part in swapped.items()]
            default, _ = _composed(tuple(named), tuple(composition.folders))
        default = default.copy()
        default["dataset"] = composition.public["dataset"]  # an instruction in the prompt comes from the dataset
        differences = build.differences(config, build.public(default)["retriever"])
    parts = {place.partition("@retriever.")[2]: part for place, part in swapped.items()}
    return RetrieverInfo(name=option, differences={**parts, **prompts, **differences}, config=config, row=name)


def dataset_info(composition: Composition) -> DatasetInfo:
    """Return what is known of the dataset before it is loaded."""
    option, config = composition.options["dataset"], composition.public["dataset"]
    differences: dict[str, Any] = {}
    overrides = composition.overrides
    if any(_key(override).startswith("dataset.") or _group(override) == "experiment" for override in overrides):
        named = ["retriever=bm25", f"dataset={option}"]
        named += [f"dataset.{key}='{config[key]}'" for key in ("task", "id") if config.get(key)]  # others follow these
        default, _ = _composed(tuple(named), tuple(composition.folders))
        differences = build.differences(config, build.public(default)["dataset"])
    name = config.get("name") or config.get("task") or config.get("id") or Path(config.get("path") or option).name
    return DatasetInfo(
        name=str(name),
        split=config.get("split"),
        group=config.get("group"),
        parts=config.get("parts", 1),
        differences=differences,
        config=config,
    )


def _changed(overrides: Sequence[str], option: str) -> bool:
    """Return whether an override may have made the retriever another than its option's config."""
    return any(override != option and _group(override) not in _APART for override in overrides)


def _group(override: str) -> str:
    return re.split(r"[.@/]", _key(override))[0]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


@cache
def _composed(overrides: tuple[str, ...], folders: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Compose once for each option in a process; a sweep repeats them."""
    return build.chosen(overrides, folders)
