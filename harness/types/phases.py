"""Costs of an evaluation: counters, phases and the timing that tables show."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, computed_field, model_serializer
from pydantic import model_validator as validator

from harness.types import record_v1

FROZEN = ConfigDict(frozen=True, extra="ignore")
"""Settings of a record's parts. Unknown keys are ignored: a field may be added without a new version."""


class FrozenModel(BaseModel):
    """A part of a record."""

    model_config = FROZEN


class SparseModel(FrozenModel):
    """A part of a record that is written without the fields that have their default."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {key: n for key, n in serialise(self).items() if key not in fields or n != fields[key].default}


class Counters(SparseModel):
    """Amounts of work of one component of a retriever during one phase; None where the component counts none.

    A retriever of the user's may add counters of its own by `instrument.count`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, int] = Field(init=False)

    texts: int | None = None
    tokens: int | None = None
    """Tokens without padding, special tokens included; of BM25 the terms."""
    truncated: int | None = None
    """Texts that were longer than the encoder reads."""
    padding: int | None = None
    """Padding tokens."""
    terms: int | None = None
    """Non-zero entries of sparse embeddings."""
    vectors: int | None = None
    """Token embeddings of late interaction."""
    pairs: int | None = None
    """Pairs of query and document that a cross-encoder scored."""
    flops: int | None = None
    """Floating-point operations of a model, padding left out."""
    gemm_flops: int | None = None
    """Operations that a large matrix product would have done in the same seconds."""
    requests: int | None = None
    """Requests to a provider, retries included."""
    retries: int | None = None
    micro_usd: int | None = None
    """Price of the requests in millionths of a dollar."""


class Phase(FrozenModel):
    """One timed pass: indexing a corpus, or searching all queries once."""

    wall_s: float
    cpu_s: float
    stages: dict[str, float] = {}
    """Wall seconds by stage (load, encode, build, search), each without the stages inside it."""
    counters: dict[str, Counters] = {}
    """By component, such as `dense` or `first_stage/sparse` of a composed retriever; "" is the retriever itself."""
    cached_s: float = 0.0
    """Of wall_s, seconds that were spent when the cached embeddings were first computed, on this machine."""
    foreign_machine: bool = False
    """Some embeddings were computed on another machine: the seconds do not hold their cost."""

    @validator(mode="before")
    @classmethod
    def _upgraded(cls, data: Any) -> Any:
        return record_v1.upgrade_phase(data) if isinstance(data, Mapping) and "counts" in data else data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def truncated_share(self) -> float | None:
        """Share of the texts that were longer than the encoder reads; None where no encoder counts them."""
        encoders = [counters for counters in self.counters.values() if counters.truncated is not None]
        texts = sum(counters.texts or 0 for counters in encoders)
        return sum(counters.truncated or 0 for counters in encoders) / texts if texts else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def padding_share(self) -> float | None:
        """Share of padding among the tokens that a model computed; None where no encoder counts it."""
        encoders = [counters for counters in self.counters.values() if counters.padding is not None]
        padding = sum(counters.padding or 0 for counters in encoders)
        tokens = padding + sum(counters.tokens or 0 for counters in encoders)
        return padding / tokens if tokens else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: the model's FLOPs relative to those of a large matrix product in the same seconds.

        Padding is no work; the product is timed beside every shard, in the model's precision. None where none was.
        """
        possible = sum(counters.gemm_flops or 0 for counters in self.counters.values())
        return sum(counters.flops or 0 for counters in self.counters.values()) / possible if possible else None


class Timing(FrozenModel):
    """Every sample of what the evaluation cost, and the figures that tables show."""

    warmup: Phase
    """A small index and search before anything is timed: loads the weights, compiles kernels."""
    index: Phase
    searches: list[Phase]
    latencies_s: list[float]
    """Seconds of each query searched alone."""
    latency_counters: dict[str, Counters] = {}
    """Price of the queries searched alone, by component, where a provider was paid."""
    documents: int
    queries: int
    index_bytes: int
    peak_memory_bytes: int | None = None
    """Of the whole process; only measured with `timing.isolate=true`, where the process did nothing else."""
    threads: int
    references: list[dict[str, float]] = []
    """CPU seconds of the reference kernels in the same process: before and after the index, after each search."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def docs_per_s(self) -> float | None:
        """Documents indexed per second of wall time, encoding included; None where another machine encoded."""
        return None if self.index.foreign_machine else self.documents / self.index.wall_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens_per_s(self) -> float | None:
        """Document tokens indexed per second of wall time; None where the retriever counts none."""
        tokens = self.index.counters.get("", Counters()).tokens
        return tokens / self.index.wall_s if tokens and not self.index.foreign_machine else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def queries_per_s(self) -> float:
        """Queries answered per second in one batch: the median of the repeats."""
        return self.queries / float(np.median([search.wall_s for search in self.searches]))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def latency_ms(self) -> dict[str, float]:
        """Milliseconds of a query searched alone: p50, p95, p99."""
        if not self.latencies_s:
            return {}
        p50, p95, p99 = np.percentile(self.latencies_s, [50, 95, 99])
        return {"p50": float(p50 * 1e3), "p95": float(p95 * 1e3), "p99": float(p99 * 1e3)}
