"""Figures that others published, kept beside records and never taken for measurements."""

from pydantic import BaseModel, ConfigDict


class PublishedFigures(BaseModel):
    """What a model was published to score on one collection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Its name there, which is its hub id where it has one."""
    revision: str
    family: str = ""
    """Of our retrievers, the one that its kind of model belongs to: dense, splade, colbert; empty where unknown."""
    datasets: list[str]
    """What our boards may call the collection."""
    dataset_revision: str
    metrics: dict[str, float]
    """Means by our names of the metrics."""
    source: str
    """Where the figures come from, for the reader."""
