"""Costs of an evaluation: counters, phases and the timing that tables show."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, computed_field, model_serializer
from pydantic import model_validator as validator

from harness.types import load, record_v1
from harness.types.intervals import Interval, median_interval, quantile_interval, total_interval

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""Percentiles of latency, by name."""

FROZEN = ConfigDict(frozen=True, extra="ignore")
"""Pydantic config of a record's parts. Unknown keys are ignored, so that a field may be added without a new version."""


class FrozenModel(BaseModel):
    """A part of a record."""

    model_config = FROZEN


class SparseModel(FrozenModel):
    """A part of a record that is written without the fields that have their default, and without missing figures."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {key: field.default for key, field in type(self).model_fields.items()}
        defaults |= dict.fromkeys(type(self).model_computed_fields)
        return {key: n for key, n in serialise(self).items() if key not in defaults or n != defaults[key]}


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


class ShardTime(NamedTuple):
    """Amount of work of one shard of texts, and the seconds that it took."""

    work: int
    """Tokens with padding, or texts if the encoder counts no tokens."""
    wall_s: float


class Phase(SparseModel):
    """One timed pass: indexing a corpus, or searching all queries once."""

    wall_s: float
    cpu_s: float
    stages: dict[str, float] = {}
    """Wall seconds by stage (load, encode, build, search), each without the stages inside it."""
    counters: dict[str, Counters] = {}
    """By component, such as `dense` or `first_stage/sparse` of a composed retriever; "" is the retriever itself."""
    cached_s: float = 0.0
    """Part of `wall_s`: cached time, the seconds in which this machine computed embeddings that were cache hits."""
    cached_since: datetime | None = None
    """When the oldest of those embeddings were computed; None without any, or if the date of some is unknown."""
    foreign_machine: bool = False
    """True if another machine computed some of the embeddings: `wall_s` does not include their cost."""
    run_delay_s: float | None = None
    """Seconds in which the work was ready to run but waited for a processor, cached time included; None if unknown."""
    shards: dict[str, list[ShardTime]] = {}
    """Times of the shards of texts that were encoded, by component."""

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
    latency_run_delay_s: float | None = None
    """Seconds of `latencies_s` in which the search was ready to run but waited for a processor; None if unknown."""
    documents: int
    queries: int
    index_bytes: int
    externally_indexed: bool = False
    """True if the retriever searches an index that existed before: indexing was not measured."""
    peak_memory_bytes: int | None = None
    """Peak resident memory of the process; measured only with `timing.isolate=true`, in a process of its own."""
    threads: int
    references: list[dict[str, float]] = []
    """CPU seconds of the reference kernels in the same process: before and after the index, after each search.

    Several short searches share one sample. Each figure is the minimum of five runs.
    """
    reference_walls: list[dict[str, float]] = []
    """Wall seconds of the same kernels, each the median of the five runs; empty in old records."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def docs_per_s(self) -> float | None:
        """Indexing throughput: documents per second of wall time, encoding included; None if it was not measured."""
        return self.documents / self.index.wall_s if self._is_index_timed and self.documents else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens_per_s(self) -> float | None:
        """Indexing throughput in tokens per second of wall time; None if the retriever counts no tokens."""
        tokens = self.index.counters.get("", Counters()).tokens
        return tokens / self.index.wall_s if tokens and self._is_index_timed else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def queries_per_s(self) -> float | None:
        """Search throughput: queries/s in one batch, the median of the repeats; None if it was not measured."""
        wall_s = float(np.median(self._search_walls)) if self.searches else 0.0
        return self.queries / wall_s if self.queries and wall_s > 0 else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def latency_ms(self) -> dict[str, float | None]:
        """Latency percentiles of a query searched alone, in milliseconds: p50, p95, p99.

        A percentile is None if the sample is too small for its interval: below 6, 59 and 299 queries.
        """
        if not self.latencies_s:
            return {}
        intervals = self.intervals
        values = {name: float(np.percentile(self.latencies_s, 100 * share)) for name, share in PERCENTILES.items()}
        return {name: s * 1e3 if intervals[f"latency_{name}"] else None for name, s in values.items()}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def intervals(self) -> dict[str, Interval | None]:
        """95 % intervals of queries_per_s, docs_per_s, latency_p50, latency_p95 and latency_p99 (in milliseconds).

        None for a figure that rests on one sample, or whose sample is too small.
        """
        percentiles = {f"latency_{name}": quantile_interval(self.latencies_s, p) for name, p in PERCENTILES.items()}
        index = total_interval(self.index.shards, self.index.wall_s) if self.docs_per_s is not None else None
        searches = median_interval(self._search_walls) if self.queries_per_s is not None else None
        return {
            "queries_per_s": _rates(self.queries, searches),
            "docs_per_s": _rates(self.documents, index),
            **{name: ends and Interval(ends.low * 1e3, ends.high * 1e3) for name, ends in percentiles.items()},
        }

    @property
    def samples(self) -> dict[str, int]:
        """Number of samples that queries_per_s, docs_per_s and the latencies rest on."""
        shards = sum(map(len, self.index.shards.values())) if self.intervals["docs_per_s"] else 1
        return {"queries_per_s": len(self.searches), "docs_per_s": shards, "latency_ms": len(self.latencies_s)}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def busy(self) -> dict[str, str]:
        """Reasons why queries_per_s, docs_per_s and latency_ms were measured while the machine was busy; else empty."""
        lost = {
            "queries_per_s": load.lost_share(self.searches, self.threads),
            "docs_per_s": load.lost_share([self.index], self.threads),
            "latency_ms": load.delayed_share(self.latency_run_delay_s, sum(self.latencies_s)),
        }
        reasons = {name: load.describe_lost(share) for name, share in lost.items()}
        if kernels := load.describe_slow_kernels(self.references, self.reference_walls):
            is_cached = self.index.cached_s > self.index.wall_s / 2  # the kernels ran later than most of the encoding
            reasons |= {
                name: kernels for name in lost if not reasons[name] and not (name == "docs_per_s" and is_cached)
            }
        return {name: reason for name, reason in reasons.items() if reason}

    @property
    def _is_index_timed(self) -> bool:
        return not self.index.foreign_machine and not self.externally_indexed and self.index.wall_s > 0

    @property
    def _search_walls(self) -> list[float]:
        return [search.wall_s for search in self.searches]


def _rates(amount: int, seconds: Interval | None) -> Interval | None:
    return Interval(amount / seconds.high, amount / seconds.low) if seconds else None
