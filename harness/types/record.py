"""Record: one evaluation, versioned and written once. Leaderboard, comparison and gate read only records."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.types import record_v1
from harness.types.phases import FROZEN, FrozenModel, SparseModel, Timing

DEFAULT_K = 100
"""Documents returned for each query, unless a command or a call has `k`; `k` in conf/run.yaml is the same."""

# Config keys that the dataset's name already shows, or that change the location of its files and not its content.
_SHOWN_BY_NAME = {
    *("name", "path", "data_dir", "url", "md5", "corpus", "queries", "qrels"),
    *("task", "subset", "language", "folder", "benchmark", "id"),
}


class RetrieverInfo(BaseModel):
    """The retriever that was evaluated."""

    model_config = FROZEN

    name: str
    """The config's name, such as `bm25`."""
    differences: dict[str, Any] = {}
    """Dotted keys whose values differ from those of the config: `{"k1": 1.2}`."""
    config: dict[str, Any] = {}
    """The resolved config, enough to build the retriever again."""
    identity: str | None = None
    """Hash of class, arguments, weights and user code, 16 hex digits; None in old records and failed ones."""
    row: str | None = None
    """Name of the leaderboard row, if the user gave one."""

    @property
    def label(self) -> str:
        """Name of the leaderboard row: the user's, else the config's with its differences, `bm25 [k1=1.2]`."""
        if self.row:
            return self.row
        return _labelled(self.name, {key: self.differences[key] for key in self.differences if key not in self.hidden})

    @property
    def hidden(self) -> frozenset[str]:
        """Config keys ignored when deciding whether two retrievers are the same: the path of a named run file."""
        return frozenset({"path"} if "name" in self.differences else ())

    @property
    def weights(self) -> frozenset[tuple[str, str]]:
        """Name and revision (empty if none is given) of all models in the config."""
        return frozenset(_weights(self.config))


class DatasetMetadata(SparseModel):
    """Metadata from a dataset's source. Other keys of the source are stored unchanged."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)

    source: str | None = None
    """`mteb` or `ir_datasets`; None for files."""
    task: str | None = None
    """Name of the mteb task."""
    subset: str | None = None
    """Name of the mteb subset; `default` if the task has only one."""
    split: str | None = None
    revision: str | None = None
    main_score: str | None = None
    """The metric that is usually published for the dataset."""
    queries_without_relevant: int = 0
    """Number of judged queries without a relevant document, which are left out here and scored 0 by mteb."""
    quotes_ids: bool = False
    """True if ids have white space in the source and are percent-encoded here."""
    languages: list[str] | None = None
    licence: str | None = None
    reference: str | None = None
    citation: str | None = None


class DatasetInfo(BaseModel):
    """The dataset that was evaluated."""

    model_config = FROZEN

    name: str
    split: str | None = None
    fingerprint: str | None = None
    """Hash of corpus, queries and judgements; None if the dataset could not be read."""
    group: str | None = None
    """Name of the dataset that this one is a part of, such as CQADupStack."""
    parts: int = 1
    """Number of parts of `group`."""
    documents: int | None = None
    queries: int | None = None
    """Number of queries with a relevant document, over which means are computed."""
    differences: dict[str, Any] = {}
    """Keys whose values differ from the named config's, such as `split`."""
    config: dict[str, Any] = {}
    metadata: DatasetMetadata = DatasetMetadata()

    @property
    def label(self) -> str:
        """The name, followed by settings that make it differ from the named config: `nfcorpus [split=dev]`."""
        shown = {key: value for key, value in self.differences.items() if key not in _SHOWN_BY_NAME}
        if self.metadata.source == "mteb":  # the name contains the split if the task has several
            shown.pop("split", None)
        return _labelled(self.name, shown)


class EncoderWeights(FrozenModel):
    """Weights of an encoder."""

    model: str
    """Name on the hub, or path."""
    source: str
    """Source of the files: a folder, a package, the hub or mteb."""
    identity: str | None = None
    """Hash of their content, or the revision."""


class EncoderInfo(SparseModel):
    """Settings of one encoder of the retriever; None for fields that its kind does not have."""

    weights: EncoderWeights | None = None
    task: str | None = None
    """The mteb task whose prompts an mteb model used."""
    device: str | None = None
    dtype: str | None = None
    max_length: int | dict[str, int | None] | None = None
    """Maximum number of tokens read from a text, by side if queries and documents differ."""
    prompts: dict[str, str | None] | None = None
    batch_tokens: int | None = None
    """Maximum number of tokens in a batch, padding included."""
    max_batch_tokens: int | None = None
    """Tokens of the largest batch allowed after one was split on out-of-memory; None if none was."""
    backend: str | None = None
    attention: str | None = None
    optimize_cpu: bool | None = None
    linear_layers: str | None = None
    remark: str | None = None
    """Remark shown below the leaderboard, such as a missing projection."""
    provider: str | None = None
    model: str | None = None
    """The model's name at the provider."""
    base_url: str | None = None
    dimensions: int | None = None
    price_per_million_tokens: float | None = None
    """Price in US dollars per million input tokens."""


class RecallOfExact(FrozenModel):
    """Recall@k of approximate search: the mean share of the exact top k that it returns, over a sample of queries."""

    k: int
    recall: float


Excerpt = Literal["rankings", "queries", "qrels"]
"""Kinds of tables stored with a record, so that it can be shown and scored without its dataset."""


class RecordFiles(SparseModel):
    """Paths of a record's files, relative to the results folder; None for a file that is not stored."""

    record: str | None = None
    environment: str | None = None
    run: str | None = None
    """The ranking in TREC's format, compressed."""
    per_query: str | None = None
    """Scores of each query."""
    rankings: str | None = None
    """Excerpt of the first hits, shown on the leaderboard page."""
    queries: str | None = None
    """The queries' texts and properties, shared by the records of a dataset."""
    qrels: str | None = None
    """The judgements, shared by the records of a dataset: metrics are computed later from them and the run."""

    def paths(self) -> dict[str, str]:
        """Return the paths of the stored files, by field."""
        return {kind: path for kind in type(self).model_fields if (path := getattr(self, kind)) is not None}

    @field_validator("*")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        if path is not None and _leads_out(path):
            raise ValueError("a file's path leads out of the results folder")
        return path


class Record(BaseModel):
    """One evaluation: one retriever on one dataset."""

    model_config = FROZEN

    version: Literal[2] = 2
    id: str
    """Hash of the retriever's identity, the dataset's fingerprint, k, metrics, timing plan, seed and versions."""
    scores_id: str | None = None
    """Hash of the same evaluation without timing: equal if the scores must be equal; None in old records."""
    started: datetime
    status: Literal["ok", "failed"]
    error: str | None = None
    retriever: RetrieverInfo
    dataset: DatasetInfo
    k: int
    seed: int
    metric_version: int
    metrics: dict[str, float] = {}
    """Means over the queries with a relevant document; a query without hits counts as 0."""
    timing: Timing | None = None
    encoders: dict[str, EncoderInfo] = {}
    """Encoders by component, such as `dense` or `scorer` of a composed retriever; "" is the retriever itself."""
    recall_of_exact: dict[str, RecallOfExact] = {}
    """Recall of approximate search, by component."""
    metadata: dict[str, Any] = {}
    """Other values that the retriever recorded, shown to readers only: `depth`, `dense/shards`."""
    environment: str
    """Fingerprint of the machine and packages; the manifest is stored in results/environments/."""
    harness: str
    code: str
    """Hash of the package's sources and configs and of the user's modules in the config; not part of the identity."""
    revision: str | None = None
    """Git revision of the package's checkout, followed by `+` if files were changed; None if installed."""
    command: str
    """Command line that repeats the evaluation."""
    files: RecordFiles = RecordFiles()

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, data: Any) -> Any:
        return record_v1.upgrade(data) if isinstance(data, Mapping) and data.get("version") == 1 else data


def _labelled(name: str, differences: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{key}={value}" for key, value in differences.items())
    return f"{name} [{shown}]" if shown else name


def _leads_out(path: str) -> bool:
    """Return True if a path leads out of its folder."""
    plain = ".." not in path and ":" not in path and not path.startswith(("/", "\\"))
    return not plain and (PurePath(path).is_absolute() or ".." in PurePath(path).parts)


def _weights(config: Any) -> Iterator[tuple[str, str]]:
    if isinstance(config, Mapping):
        model = config.get("model")
        if isinstance(model, str):
            yield model.partition("@")[0], model.partition("@")[2]
        config = list(config.values())
    if isinstance(config, list | tuple):
        for inner in config:
            yield from _weights(inner)
