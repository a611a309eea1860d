"""Per-query scores of an evaluation, and published scores, which are never treated as measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class PerQuery:
    """Query ids and, by metric name, their scores [queries]."""

    query_ids: Sequence[str]
    values: Mapping[str, NDArray[np.float64]]


class PublishedFigures(BaseModel):
    """Published scores of a model on one dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Name of the model in the publication: its hub id if it has one."""
    revision: str
    family: str = ""
    """Retriever family of the model: `dense`, `splade` or `colbert`; empty if unknown."""
    datasets: list[str]
    """Names that the dataset may have on a leaderboard."""
    dataset_revision: str
    metrics: dict[str, float]
    """Means by metric name, as `harness.metrics.parse` reads it."""
    source: str
    """Source of the figures, shown to readers."""
