"""Costs of an evaluation: counters, phases and the timing that tables show."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, computed_field, model_serializer
from pydantic import model_validator as validator

from harness.types import record_v1

FROZEN = ConfigDict(frozen=True, extra="ignore")
"""Pydantic config of a record's parts. Unknown keys are ignored, so that a field may be added without a new version."""


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
    """Amounts of work of one component of a retriever during one phase; None for what it does not count.

    A user's retriever may add other counters with `instrument.count`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, int] = Field(init=False)

    texts: int | None = None
    tokens: int | None = None
    """Tokens without padding, special tokens included; for BM25 the number of terms."""
    truncated: int | None = None
    """Texts that were truncated to the encoder's maximum length."""
    padding: int | None = None
    """Padding tokens."""
    terms: int | None = None
    """Non-zero entries of sparse embeddings."""
    vectors: int | None = None
    """Token embeddings of late interaction."""
    pairs: int | None = None
    """Pairs of query and document that a cross-encoder scored."""
    flops: int | None = None
    """Floating-point operations of a model, padding excluded."""
    gemm_flops: int | None = None
    """Floating-point operations of a large matrix product (GEMM) in the same time: the peak for the MFU."""
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
    """Part of `wall_s`: cached time, the seconds in which this machine computed embeddings that were cache hits."""
    foreign_machine: bool = False
    """True if another machine computed some of the embeddings: `wall_s` does not include their cost."""

    @validator(mode="before")
    @classmethod
    def _upgraded(cls, data: Any) -> Any:
        return record_v1.upgrade_phase(data) if isinstance(data, Mapping) and "counts" in data else data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def truncated_share(self) -> float | None:
        """Share of the texts that were truncated; None where no encoder counts them."""
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
        """Model FLOPs utilisation (MFU): the model's FLOPs relative to those of a large GEMM in the same time.

        Padding is excluded. The GEMM is timed after every shard, in the model's precision; None if it was not.
        """
        possible = sum(counters.gemm_flops or 0 for counters in self.counters.values())
        return sum(counters.flops or 0 for counters in self.counters.values()) / possible if possible else None


class Timing(FrozenModel):
    """All timing samples of an evaluation, and the throughput and latency that tables show."""

    warmup: Phase
    """Warm-up: a small index and search before anything is timed, which loads weights and compiles kernels."""
    index: Phase
    searches: list[Phase]
    """One phase for each repeat: all queries in one batch."""
    latencies_s: list[float]
    """Latency in seconds of each query that was searched alone."""
    latency_counters: dict[str, Counters] = {}
    """Price of the queries searched alone, by component, for hosted APIs."""
    documents: int
    queries: int
    index_bytes: int
    peak_memory_bytes: int | None = None
    """Peak resident memory of the process; measured only with `timing.isolate=true`, in a process of its own."""
    threads: int
    references: list[dict[str, float]] = []
    """CPU seconds of the reference kernels in the same process: before and after the index, after each search."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def docs_per_s(self) -> float | None:
        """Indexing throughput: documents per second of wall time, encoding included; None for a foreign machine."""
        return None if self.index.foreign_machine else self.documents / self.index.wall_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens_per_s(self) -> float | None:
        """Indexing throughput in tokens per second of wall time; None if the retriever counts no tokens."""
        tokens = self.index.counters.get("", Counters()).tokens
        return tokens / self.index.wall_s if tokens and not self.index.foreign_machine else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def queries_per_s(self) -> float:
        """Search throughput: queries per second in one batch, the median of the repeats."""
        return self.queries / float(np.median([search.wall_s for search in self.searches]))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def latency_ms(self) -> dict[str, float]:
        """Latency percentiles of a query searched alone, in milliseconds: p50, p95, p99."""
        if not self.latencies_s:
            return {}
        p50, p95, p99 = np.percentile(self.latencies_s, [50, 95, 99])
        return {"p50": float(p50 * 1e3), "p95": float(p95 * 1e3), "p99": float(p99 * 1e3)}
