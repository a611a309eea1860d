"""The config of one evaluation as a typed object, every key and value checked."""

import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field

from harness.config import settings
from harness.errors import ConfigError
from harness.evaluation.evaluate import Settings
from harness.evaluation.timing import TimingPlan, parse_metrics


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
    checked = settings.checked(EvaluationConfig, config, "harness")
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
