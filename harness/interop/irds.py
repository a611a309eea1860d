"""A dataset of ir_datasets by its id: `dataset=irds dataset.id=beir/scifact/test`.

ir_datasets downloads the files that it does not have yet into its own folder (IR_DATASETS_HOME).
"""

from collections.abc import Callable
from typing import Any, TypeVar

from harness.datasets.texts import from_stream
from harness.errors import ConfigError, DataError, did_you_mean
from harness.instrument import stage
from harness.types import Corpus, Dataset, DatasetMetadata, Qrels, Queries

_SELF_HITS = ("beir/arguana", "beir/quora")
"""Datasets whose corpus holds the queries' own documents."""
_FORUMS = "beir/cqadupstack/"
_REQUIRED = ("docs", "queries", "qrels")
T = TypeVar("T")


def load(
    id: str, drop_self_hits: bool | None = None, candidates: bool = False, instruction: str | None = None
) -> Dataset:
    """Load a dataset of ir_datasets.

    Args:
        id: Its id in ir_datasets.
        drop_self_hits: Drop the document whose id equals the query's; None: only for ArguAna and Quora, as BEIR does.
        candidates: Rerank the dataset's scoreddocs instead of searching the corpus.
        instruction: Instruction for models that take one.

    Raises:
        ConfigError: The id is unknown, or the dataset has no documents, queries, qrels or scoreddocs.
        DataError: The dataset cannot be read.
    """
    source = _source(id)
    required = (*_REQUIRED, *(["scoreddocs"] if candidates else []))
    if missing := [part for part in required if not getattr(source, f"has_{part}")()]:
        raise ConfigError(f"dataset.id={id!r} has no {' and no '.join(missing)}{_complete_below(id)}")
    with stage(f"load {id}"):
        corpus = _read(id, lambda: from_stream(Corpus, ((doc.doc_id, _text(doc)) for doc in source.docs_iter())))
        queries = _read(id, lambda: from_stream(Queries, ((row.query_id, _text(row)) for row in source.queries_iter())))
        grades = _read(id, lambda: _by_query((row, int(row.relevance)) for row in source.qrels_iter()))
    dataset = Dataset(
        id,
        id.rpartition("/")[2],
        corpus,
        queries,
        Qrels(grades),
        id.startswith(_SELF_HITS) if drop_self_hits is None else drop_self_hits,
        group=_FORUMS.strip("/") if id.startswith(_FORUMS) else None,
        parts=12 if id.startswith(_FORUMS) else 1,
        instruction=instruction,
        metadata=DatasetMetadata(**_metadata(id, source)),
    ).validated(f"the judgements of {id}")
    if not candidates:
        return dataset
    scored = _read(id, lambda: _by_query((row, None) for row in source.scoreddocs_iter()))
    return dataset.with_candidates({query: list(docs) for query, docs in scored.items()})


def _library() -> Any:
    try:
        import ir_datasets
    except ModuleNotFoundError:
        raise ConfigError("dataset=irds needs a package: pip install 'retrieval-harness[irds]'") from None
    return ir_datasets


def _source(id: str) -> Any:
    """Return a dataset of ir_datasets. Raises `ConfigError` for an unknown id."""
    library = _library()
    try:
        return library.load(id)
    except KeyError:
        hint = did_you_mean(id, list(library.registry))
        raise ConfigError(f"ir_datasets has no dataset.id={id!r}{hint}; see: ir_datasets list") from None


def _complete_below(id: str) -> str:
    """Name the datasets under this id that have all required parts, for a message."""
    library = _library()
    inner = [name for name in library.registry if name.startswith(f"{id}/")]
    complete = [name for name in inner if all(getattr(library.load(name), f"has_{part}")() for part in _REQUIRED)]
    return f"; choices: {', '.join(complete[:8])}" if complete else "; see: ir_datasets list"


def _read(id: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except Exception as error:  # the readers of 700 datasets raise many types
        message = " ".join(str(error).split())[:300]
        raise DataError(
            f"{id} cannot be loaded by ir_datasets: {type(error).__name__}: {message}; its downloads are kept in "
            "$IR_DATASETS_HOME, by default ~/.ir_datasets"
        ) from error


def _text(row: Any) -> str:
    return str(row.default_text()).strip()


def _by_query(rows: Any) -> dict[str, dict[str, Any]]:
    """Return `{query id: {document id: value}}` of pairs of a row and its value."""
    values: dict[str, dict[str, Any]] = {}
    for row, value in rows:
        values.setdefault(row.query_id, {})[row.doc_id] = value
    return values


def _metadata(id: str, source: Any) -> dict[str, Any]:
    """Return the metadata that ir_datasets has of a dataset."""
    documentation = source.documentation() if hasattr(source, "documentation") else {}
    return {
        "source": "ir_datasets",
        "id": id,
        "version": _library().__version__,
        "languages": [code for code in (source.docs_lang(),) if code],
        **({"citation": ", ".join(ids)} if (ids := documentation.get("bibtex_ids")) else {}),
    }
