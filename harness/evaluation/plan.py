"""The timing plan of an evaluation."""

from pydantic import BaseModel, ConfigDict, Field


class TimingPlan(BaseModel):
    """Timing of an evaluation: the `timing` group of the config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warmup_documents: int = Field(default=64, ge=0)
    """Documents indexed, and a few queries searched, before timing; 0: loading and compiling are timed too."""
    repeats: int = Field(default=5, ge=1)
    """Minimum number of timed searches of all queries."""
    min_search_s: float = Field(default=1.0, ge=0)
    """Seconds of searching before which repeats go on, up to fifty, so that short searches are timed often."""
    max_search_s: float = Field(default=30.0, gt=0)
    """Seconds of searching after which no further repeat begins."""
    latency_queries: int = Field(default=100, ge=0)
    """Minimum number of queries, drawn by the seed, that are searched one at a time; 0: none."""
    latency_s: float = Field(default=2.0, ge=0)
    """Seconds in which further queries are searched one at a time; those of a small dataset again, up to 299 in all."""
    threads: int | None = Field(default=None, ge=1)
    """Threads for BLAS, torch and our kernels; None for every core."""
    isolate: bool = False
    """Measure in a separate process, whose peak memory is stored."""


UNTIMED = TimingPlan(warmup_documents=0, repeats=1, min_search_s=0, latency_queries=0)
"""Plan of an evaluation that is not timed: one search."""
