"""The rules of the gate: `conf/gate.yaml`, or a file of the same keys with `--policy`."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import ConfigError
from harness.metrics import parse


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Limits(_Strict):
    """How far a score may fall."""

    tolerance: float = Field(0.005, ge=0)
    """A drop up to this never fails; a larger one that is significant does, one that is not is a warning."""
    limit: float = Field(0.03, gt=0)
    """A drop above this fails whatever its p."""


class Override(_Strict):
    """What is different for one dataset; None keeps the rule."""

    tolerance: float | None = Field(None, ge=0)
    limit: float | None = Field(None, gt=0)


class Policy(Limits):
    """All rules. Shares are of the baseline's figure: 0.2 is 20 %."""

    metrics: list[str] = Field(["ndcg@10"], min_length=1)
    """Each is gated on every dataset."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Level of the tests, after Holm's correction over every gated cell."""
    macro_tolerance: float = Field(0.003, ge=0)
    """As `tolerance`, for a retriever's mean over all its datasets."""
    datasets: dict[str, Override] = {}
    """Other limits for some datasets, by name."""
    cpu: float | None = Field(0.2, gt=0)
    """CPU seconds per query, and per document, over the reference kernels' may rise by this share; None: not gated."""
    remeasure: int = Field(2, ge=0)
    """How often a cell that costs too much is measured again before it fails."""
    memory: float | None = Field(0.2, gt=0)
    """Peak memory may rise by this share; None: not gated."""
    index_bytes: float | None = Field(0.05, gt=0)
    """The index may grow by this share; None: not gated."""
    ab: float = Field(0.25, gt=0)
    """With `--ab`, wall seconds per query and per document may rise by this share."""
    rounds: int = Field(2, ge=1)
    """With `--ab`, how often each revision is measured."""

    def on(self, names: Sequence[str]) -> Limits:
        """The limits for a dataset that may be called by any of some names, the first that has its own rule first."""
        named = next((name for name in names if name in self.datasets), None)
        if named is None:
            return Limits(tolerance=self.tolerance, limit=self.limit)
        own = self.datasets[named]
        return Limits(
            tolerance=self.tolerance if own.tolerance is None else own.tolerance,
            limit=self.limit if own.limit is None else own.limit,
        )

    def unknown(self, names: Collection[str]) -> list[str]:
        """Datasets with rules of their own that are not among some names."""
        return sorted(self.datasets.keys() - set(names))


def read(paths: Sequence[Path]) -> Policy:
    """The policy of some yaml files, later ones before earlier. Raises `ConfigError`."""
    told: dict[str, Any] = {}
    for path in paths:
        own = _keys(path)
        both = [rules for rules in (told.get("datasets"), own.get("datasets")) if isinstance(rules, Mapping)]
        told = {**told, **own, **({"datasets": {**both[0], **both[1]}} if len(both) > 1 else {})}
    return checked(told, str(paths[-1]))


def _keys(path: Path) -> dict[str, Any]:
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; write one like conf/gate.yaml") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if told is not None and not isinstance(told, Mapping):
        raise ConfigError(f"{path} must hold KEY: VALUE lines; keys: {', '.join(Policy.model_fields)}")
    return dict(told or {})


def checked(told: Mapping[str, Any], where: str) -> Policy:
    """A policy of these keys. Raises `ConfigError` naming the key and the choices."""
    try:
        policy = Policy.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = list((Policy if len(first["loc"]) == 1 else Override).model_fields)
            near = get_close_matches(str(first["loc"][-1]), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where} has no rule {key!r}; choices: {', '.join(known)}{hint}") from None
        raise ConfigError(f"{where}: {key}={first['input']!r}: {first['msg']}") from None
    for name in (None, *policy.datasets):
        limits = policy.on([] if name is None else [name])
        if limits.tolerance > limits.limit or policy.macro_tolerance > policy.limit:
            of = f" of {name}" if name else ""
            raise ConfigError(f"{where}: a tolerance{of} is above its limit, {limits.limit:g}; raise the limit too")
    metrics = list(dict.fromkeys(str(parse(name)) for name in policy.metrics))
    return policy.model_copy(update={"metrics": metrics})
