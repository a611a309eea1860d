"""Scores of an evaluation's queries, and scores that others published, which are never taken for measurements."""

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
    """Its name there, which is its hub id where it has one."""
    revision: str
    family: str = ""
    """Of our retrievers, the one that its kind of model belongs to: dense, splade, colbert; empty where unknown."""
    datasets: list[str]
    """Names that the dataset may have on a leaderboard."""
    dataset_revision: str
    metrics: dict[str, float]
    """Means by our names of the metrics."""
    source: str
    """Where the figures come from, for the reader."""
