"""The config of one evaluation: validation, and the names of its retriever and dataset.

A retriever or dataset is named by its config file, followed by the values that differ from that file.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from harness.config import build
from harness.errors import ConfigError
from harness.evaluation.evaluate import Resume, Settings
from harness.evaluation.plan import TimingPlan
from harness.evaluation.timing import parse_metrics
from harness.types import DatasetInfo, RetrieverInfo

_IGNORED_GROUPS = {"dataset", "timing", "k", "metrics", "seed", "name", "resume", "results_dir", "data_dir", "hydra"}
"""Keys and groups that do not change the retriever's config."""


def _check_resume(value: Any) -> Any:
    if isinstance(value, str) and value != "same_code":
        raise ValueError("choose true, false or same_code")
    return value


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
    """Name of the row; None names it after the retriever's config and the values that differ from it."""
    resume: Annotated[Resume, BeforeValidator(_check_resume)]
    results_dir: Path
    data_dir: str | None

    @property
    def settings(self) -> Settings:
        """Settings of the evaluation, apart from the retriever and the dataset."""
        return Settings(k=self.k, metrics=tuple(self.metrics), timing=self.timing, seed=self.seed)


def validate_evaluation_config(config: DictConfig) -> EvaluationConfig:
    """Return the config with keys and values checked. Raises `ConfigError`."""
    validated = build.validate_config(EvaluationConfig, config, "harness")
    parse_metrics(validated.metrics, validated.k)
    return validated


def check_writable(config: DictConfig) -> EvaluationConfig:
    """Validate a config and check that its results folder can be written to. Raises `ConfigError`."""
    validated = validate_evaluation_config(config)
    try:
        validated.results_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=validated.results_dir):
            pass
    except OSError as error:
        folder = str(validated.results_dir)
        raise ConfigError(f"results_dir={folder!r}: {error.strerror}; name a folder that can be written to") from None
    return validated


@dataclass(frozen=True)
class Composition:
    """One evaluation's config as Hydra composed it."""

    config: DictConfig
    public: Mapping[str, Any]
    """The config that is stored: resolved, without secrets."""
    options: Mapping[str, str]
    """The option chosen in each group, including groups inside the retriever."""
    overrides: Sequence[str]
    folders: Sequence[str]
    """Additional config folders."""

    @property
    def title(self) -> str:
        """Title for messages: `bm25 on scifact`, `bm25 on mteb SciFact`."""
        dataset = self.public["dataset"]
        dataset_name = [self.options["dataset"], *(str(dataset[key]) for key in ("task", "id") if dataset.get(key))]
        return f"{self.options['retriever']} on {' '.join(dataset_name)}"


def retriever_info(composition: Composition, name: str | None = None) -> RetrieverInfo:
    """Return the name of the retriever's config, and the differences: options swapped or added, values changed.

    Args:
        composition: The evaluation's config.
        name: The row's name if the user gave one; the differences are then not shown.
    """
    option, config = composition.options["retriever"], composition.public["retriever"]
    prompts = {"prompts": chosen} if (chosen := composition.options.get("prompts")) else {}
    swapped: dict[str, str] = {}
    differences: dict[str, Any] = {}
    if _may_differ(composition.overrides, f"retriever={option}"):
        overrides = [f"retriever={option}", f"k={composition.public['k']}", *(f"prompts={p}" for p in prompts.values())]
        default, default_options = _composed(tuple(overrides), tuple(composition.folders))
        swapped = {
            group: option_name
            for group, option_name in composition.options.items()
            if "@retriever." in group and default_options.get(group) != option_name
        }
        if swapped:
            overrides += [
                f"{'' if group in default_options else '+'}{group}={option_name}"
                for group, option_name in swapped.items()
            ]
            default, _ = _composed(tuple(overrides), tuple(composition.folders))
        default = default.copy()
        default["dataset"] = composition.public["dataset"]  # prompts may contain its instruction
        differences = _differences(config, build.public_config(default)["retriever"])
    parts = {group.partition("@retriever.")[2]: option_name for group, option_name in swapped.items()}
    return RetrieverInfo(name=option, differences={**parts, **prompts, **differences}, config=config, row=name)


def dataset_info(composition: Composition) -> DatasetInfo:
    """Return the description of a dataset that is not loaded yet."""
    option, config = composition.options["dataset"], composition.public["dataset"]
    differences: dict[str, Any] = {}
    overrides = composition.overrides
    if any(_key(override).startswith("dataset.") or _group(override) == "experiment" for override in overrides):
        default_overrides = ["retriever=bm25", f"dataset={option}"]
        default_overrides += [
            f"dataset.{key}='{config[key]}'" for key in ("task", "id") if config.get(key)
        ]  # the defaults of other keys depend on these
        default, _ = _composed(tuple(default_overrides), tuple(composition.folders))
        differences = _differences(config, build.public_config(default)["dataset"])
    name = config.get("name") or config.get("task") or config.get("id") or Path(config.get("path") or option).name
    if "data_dir" in config and "data_dir" not in differences:
        config = {**config, "data_dir": None}  # a folder of this machine, which is no part of the dataset
    return DatasetInfo(
        name=str(name),
        split=config.get("split"),
        group=config.get("group"),
        parts=config.get("parts", 1),
        differences=differences,
        config=config,
    )


def _may_differ(overrides: Sequence[str], option: str) -> bool:
    """Return True if an override may change the retriever's config."""
    return any(override != option and _group(override) not in _IGNORED_GROUPS for override in overrides)


def _group(override: str) -> str:
    return re.split(r"[.@/]", _key(override))[0]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


@cache
def _composed(overrides: tuple[str, ...], folders: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Compose each set of overrides once per process; sweeps repeat them."""
    return build.compose_with_choices(overrides, folders)


def _differences(config: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `config`, by dotted key, that differ from the default's or that only one of them has."""
    values, defaults = dict(build.leaves(config)), dict(build.leaves(default))
    return {key: values.get(key) for key in sorted({*values, *defaults}) if values.get(key) != defaults.get(key)}
