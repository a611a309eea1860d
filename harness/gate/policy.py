"""Policy of the gate: `conf/gate.yaml`, or a file of the same keys given by `--policy`."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import ConfigError
from harness.metrics import is_coverage, parse

DEFAULT_METRICS = ["ndcg@10", "recall@100"]
"""Metrics of the default policy: the head and the tail of the rankings."""


class _StrictPolicyModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Limits(_StrictPolicyModel):
    """Largest allowed drops of a score."""

    tolerance: float = Field(0.005, ge=0)
    """A drop up to this never fails; a larger one fails where it is significant and warns where it is not."""
    limit: float = Field(0.03, gt=0)
    """A drop above this fails whatever its p-value."""


class Override(_StrictPolicyModel):
    """Limits of one dataset; None keeps the general limit."""

    tolerance: float | None = Field(None, ge=0)
    limit: float | None = Field(None, gt=0)


class Policy(Limits):
    """All rules. Shares are relative to the baseline's figure: 0.2 is 20 %."""

    metrics: list[str] = Field(DEFAULT_METRICS, min_length=1)
    """Metrics that are checked on every dataset."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Level of the tests, adjusted over all of them."""
    macro_tolerance: float = Field(0.003, ge=0)
    """As `tolerance`, for a retriever's mean over all its datasets."""
    datasets: dict[str, Override] = {}
    """Limits of single datasets, by name."""
    lost_queries: int | None = Field(3, ge=0)
    """More queries than this whose scores all fell to 0 fail if they are significantly more than rose from 0; None: no
    check."""
    cpu: float | None = Field(0.2, gt=0)
    """Allowed increase of CPU seconds per query and per document, relative to the reference kernels; None: no check."""
    wall: float | None = Field(2.0, gt=0)
    """Allowed increase of wall seconds per query and per document and of the latency's 95th percentile, relative to the
    reference kernels; None: no check."""
    resolution: float = Field(0.05, ge=0)
    """Seconds by which the time of a phase may rise by chance: a phase shorter than this divided by the allowed
    increase, 0.25 s of CPU time, has no verdict."""
    remeasure: int = Field(2, ge=0)
    """Number of times that an evaluation above a cost limit is measured again before it fails."""
    memory: float | None = Field(0.2, gt=0)
    """Allowed increase of peak memory; None: no check."""
    index_bytes: float | None = Field(0.05, gt=0)
    """Allowed increase of the index size; None: no check."""
    ab: float = Field(0.25, gt=0)
    """With `--ab`, allowed increase of wall-clock seconds per query and per document."""
    rounds: int = Field(2, ge=1)
    """With `--ab`, number of measurements of each revision."""

    def limits_for(self, names: Sequence[str]) -> Limits:
        """Return the limits of the first of a dataset's `names` that the policy has limits for, or the general ones."""
        name = next((name for name in names if name in self.datasets), None)
        if name is None:
            return Limits(tolerance=self.tolerance, limit=self.limit)
        override = self.datasets[name]
        return Limits(
            tolerance=self.tolerance if override.tolerance is None else override.tolerance,
            limit=self.limit if override.limit is None else override.limit,
        )

    def unknown_datasets(self, names: Collection[str]) -> list[str]:
        """Return the datasets with limits that are not among `names`."""
        return sorted(self.datasets.keys() - set(names))


def read(paths: Sequence[Path]) -> Policy:
    """Read a policy from YAML files; later files override earlier ones.

    Raises:
        ConfigError: A file cannot be read, or has an unknown key or an invalid value.
    """
    rules: dict[str, Any] = {}
    for path in paths:
        new = _load(path)
        limits = [each for each in (rules.get("datasets"), new.get("datasets")) if isinstance(each, Mapping)]
        rules = {**rules, **new, **({"datasets": {**limits[0], **limits[1]}} if len(limits) > 1 else {})}
    return validate(rules, str(paths[-1]))


def _load(path: Path) -> dict[str, Any]:
    try:
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; write one like conf/gate.yaml") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if rules is not None and not isinstance(rules, Mapping):
        raise ConfigError(f"{path} must hold KEY: VALUE lines; keys: {', '.join(Policy.model_fields)}")
    return dict(rules or {})


def validate(rules: Mapping[str, Any], source: str) -> Policy:
    """Return the policy of a mapping of rules.

    Args:
        rules: Rules by key.
        source: Path for error messages.

    Raises:
        ConfigError: A key is unknown or a value is invalid; the message names the choices.
    """
    try:
        policy = Policy.model_validate(rules)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = list((Policy if len(first["loc"]) == 1 else Override).model_fields)
            near = get_close_matches(str(first["loc"][-1]), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{source} has no rule {key!r}; choices: {', '.join(known)}{hint}") from None
        raise ConfigError(f"{source}: {key}={first['input']!r}: {first['msg']}") from None
    for name in (None, *policy.datasets):
        limits = policy.limits_for([] if name is None else [name])
        if limits.tolerance > limits.limit or policy.macro_tolerance > policy.limit:
            of_dataset = f" of {name}" if name else ""
            raise ConfigError(
                f"{source}: a tolerance{of_dataset} is above its limit, {limits.limit:g}; raise the limit too"
            )
    metrics = list(dict.fromkeys(str(parse(name)) for name in policy.metrics))
    if coverage := next((name for name in metrics if is_coverage(name)), None):
        raise ConfigError(
            f"{source}: {coverage} is the share of the documents that are judged, which does not measure quality; gate "
            f"another metric, such as {DEFAULT_METRICS[0]}"
        )
    return policy.model_copy(update={"metrics": metrics})
