"""Record: one measured cell. Versioned, written once, never edited; tables, board and gate read only this."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field, field_validator

# differences that the dataset's own name says, or that change where it lies and not what it is
_SAID_BY_NAME = {
    *("name", "path", "data_dir", "url", "md5", "corpus", "queries", "qrels"),
    *("task", "subset", "language", "folder", "benchmark", "id"),
}


def _leads_out(path: str) -> bool:
    """Whether a path leaves the folder that it is in."""
    plain = ".." not in path and ":" not in path and not path.startswith(("/", "\\"))
    return not plain and (PurePath(path).is_absolute() or ".." in PurePath(path).parts)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _weights(config: Any) -> Iterator[tuple[str, str]]:
    if isinstance(config, Mapping):
        own = config.get("model")
        if isinstance(own, str):
            yield own.partition("@")[0], own.partition("@")[2]
        config = list(config.values())
    if isinstance(config, list | tuple):
        for inner in config:
            yield from _weights(inner)


class RetrieverInfo(_Frozen):
    """Which retriever was measured."""

    name: str
    """The config's name, such as `bm25`."""
    differences: dict[str, Any] = {}
    """Dotted keys whose values differ from that config's own: `{"k1": 1.2}`."""
    config: dict[str, Any] = {}
    """The resolved config, enough to build the retriever again."""
    identity: str | None = None
    """Hash of class, arguments, weights and user code, 16 hex digits; None in old records and failed ones."""
    row: str | None = None
    """The row's name where the user gave one."""

    @property
    def label(self) -> str:
        """The row's name, else the config's name with its differences: `bm25 [k1=1.2]`."""
        if self.row:
            return self.row
        said = {key: value for key, value in self.differences.items() if key not in self.hidden}
        return f"{self.name} [{', '.join(f'{key}={value}' for key, value in said.items())}]" if said else self.name

    @property
    def hidden(self) -> frozenset[str]:
        """Keys that make no other retriever: the path of a run that is named, which differs by dataset."""
        return frozenset({"path"} if "name" in self.differences else ())

    @property
    def weights(self) -> frozenset[tuple[str, str]]:
        """Name and revision, empty where none is given, of all weights that the config names."""
        return frozenset(_weights(self.config))


class DatasetInfo(_Frozen):
    """Which collection it was measured on."""

    name: str
    split: str | None = None
    fingerprint: str | None = None
    """Hash of corpus, queries and judgements; None when the collection could not be read."""
    group: str | None = None
    parts: int = 1
    documents: int | None = None
    queries: int | None = None
    """Queries that the means are taken over: those with a relevant document."""
    differences: dict[str, Any] = {}
    """Keys whose values differ from the named config's own, such as `split`."""
    config: dict[str, Any] = {}
    about: dict[str, Any] = {}
    """What the source says of the collection: citation, licence, languages, main score, revision."""

    @property
    def label(self) -> str:
        """The name with what makes it another collection than its config's own: `nfcorpus [split=dev]`."""
        said = {key: value for key, value in self.differences.items() if key not in _SAID_BY_NAME}
        if self.about.get("source") == "mteb":  # whose name has the split where the task has others
            said.pop("split", None)
        return f"{self.name} [{', '.join(f'{key}={value}' for key, value in said.items())}]" if said else self.name


class Phase(_Frozen):
    """One timed pass: indexing a corpus, or searching all queries once."""

    wall_s: float
    cpu_s: float
    stages: dict[str, float] = {}
    """Wall seconds by stage (load, encode, build, search), each without the stages inside it."""
    counts: dict[str, int] = {}
    """What was worked on: texts, tokens, truncated; those of a hybrid's parts with the part's name before."""
    earlier_s: float = 0.0
    """Of wall_s, seconds that were spent when the cached vectors were first encoded, on this machine."""
    elsewhere: bool = False
    """Some vectors were encoded on another machine: the seconds do not hold their cost."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def truncated_share(self) -> float | None:
        """Share of the texts that were longer than the encoder reads; None where none counts them."""
        encoded = [key.removesuffix("truncated") for key in self.counts if key.rpartition("/")[2] == "truncated"]
        texts = sum(self.counts.get(f"{part}texts", 0) for part in encoded)
        return sum(self.counts[f"{part}truncated"] for part in encoded) / texts if texts else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def padding_share(self) -> float | None:
        """Share of the tokens that a model computed which only filled rows up; None where none counts them."""
        padded = [key.removesuffix("padding") for key in self.counts if key.rpartition("/")[2] == "padding"]
        padding = sum(self.counts[f"{part}padding"] for part in padded)
        whole = padding + sum(self.counts.get(f"{part}tokens", 0) for part in padded)
        return padding / whole if whole else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gemm_share(self) -> float | None:
        """Floating-point operations of the model for each one that a large matrix product took in the same seconds.

        Padding is no work; the product is timed beside every shard, in the model's precision. None where none was.
        """
        made, possible = (
            sum(n for key, n in self.counts.items() if key.rpartition("/")[2] == name)
            for name in ("flops", "gemm_flops")
        )
        return made / possible if possible else None


class Timing(_Frozen):
    """Every sample of what the cell cost, and the figures that tables show."""

    warmup: Phase
    """A small index and search before the clock counts: loads the weights, compiles kernels."""
    index: Phase
    searches: list[Phase]
    latencies_s: list[float]
    """Seconds of each query searched alone."""
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
        """Documents indexed per second of wall time, encoding included; None where it was done on another machine."""
        return None if self.index.elsewhere else self.documents / self.index.wall_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens_per_s(self) -> float | None:
        """Document tokens indexed per second of wall time; None where the retriever counts none."""
        tokens = self.index.counts.get("tokens")
        return tokens / self.index.wall_s if tokens and not self.index.elsewhere else None

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


class Record(_Frozen):
    """One measured cell: one retriever on one dataset."""

    version: Literal[1] = 1
    cell: str
    """Hash of the resolved retriever and timing config, the dataset's fingerprint, k, seed and the metric version."""
    scores_id: str | None = None
    """Hash of the same evaluation without timing: equal where the scores are the same; None in old records."""
    started: datetime
    status: Literal["ok", "failed"]
    error: str | None = None
    retriever: RetrieverInfo
    dataset: DatasetInfo
    k: int
    seed: int
    metric_version: int
    metrics: dict[str, float] = {}
    """Means over the dataset's answerable queries; a query without an answer counts as 0."""
    timing: Timing | None = None
    facts: dict[str, Any] = {}
    """What the retriever said of itself: device, dtype, weights, lengths, share of truncated texts."""
    environment: str
    """Fingerprint of the machine and packages; the whole manifest lies in results/environments/."""
    harness: str
    code: str
    """Hash of the harness' own sources and of those modules that the retriever's config names."""
    revision: str | None = None
    """Git revision of the harness' own checkout, `+` behind it when files were changed; None when installed."""
    command: str
    """The command that measures this cell again."""
    files: dict[str, str] = {}
    """Paths of the record, the run, the per-query scores and the environment, relative to the results folder."""

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        if any(_leads_out(path) for path in files.values()):
            raise ValueError("a file's path leads out of the results folder")
        return files
