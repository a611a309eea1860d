"""A collection of ir_datasets by its id: `dataset=irds dataset.id=beir/scifact/test`.

ir_datasets downloads what it has no copy of, into its own folder (IR_DATASETS_HOME).
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from harness.datasets import texts
from harness.errors import ConfigError, DataError
from harness.instrument import stage
from harness.types import Corpus, Dataset, Qrels, Queries

_SELF_HITS = ("beir/arguana", "beir/quora")
"""Where the queries' own documents are in the corpus."""
_NEEDED = ("docs", "queries", "qrels")
T = TypeVar("T")


def load(
    id: str, drop_self_hits: bool | None = None, candidates: bool = False, instruction: str | None = None
) -> Dataset:
    """The collection; with `candidates` its scoreddocs are ranked in place of the corpus, as in reranking.

    `drop_self_hits` None: as BEIR has it. Raises `ConfigError` for an id that is unknown or lacks documents, queries or
    judgements, `DataError` where it cannot be had.
    """
    found = _found(id)
    lacking = [
        part for part in (*_NEEDED, *(["scoreddocs"] if candidates else [])) if not getattr(found, f"has_{part}")()
    ]
    if lacking:
        raise ConfigError(f"dataset.id={id!r} has no {' and no '.join(lacking)}{_below(id)}")
    with stage(f"load {id}"):
        corpus = _had(id, lambda: texts.gathered(Corpus, _documents(found.docs_iter())))
        queries = _had(id, lambda: texts.gathered(Queries, _queries(found.queries_iter())))
        judged = _had(id, lambda: _judged(found.qrels_iter()))
    dataset = Dataset(
        id,
        id.rpartition("/")[2],
        corpus,
        queries,
        Qrels(judged),
        drop_self_hits=id.startswith(_SELF_HITS) if drop_self_hits is None else drop_self_hits,
        group="beir/cqadupstack" if id.startswith("beir/cqadupstack/") else None,
        parts=12 if id.startswith("beir/cqadupstack/") else 1,
        instruction=instruction,
    ).validated(f"the judgements of {id}")
    if candidates:
        dataset = dataset.with_candidates(_had(id, lambda: _candidates(found.scoreddocs_iter())))
    return replace(dataset, metadata=_about(id, found))


def _library() -> Any:
    try:
        import ir_datasets
    except ModuleNotFoundError:
        raise ConfigError("dataset=irds needs a package: pip install 'retrieval-harness[irds]'") from None
    return ir_datasets


def _found(id: str) -> Any:
    library = _library()
    try:
        return library.load(id)
    except KeyError:
        near = difflib.get_close_matches(id, list(library.registry), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"ir_datasets has no dataset.id={id!r}{hint}; see: ir_datasets list") from None


def _below(id: str) -> str:
    """Collections under this id that have everything."""
    library = _library()
    inner = [name for name in library.registry if name.startswith(f"{id}/")]
    whole = [name for name in inner if all(getattr(library.load(name), f"has_{part}")() for part in _NEEDED)]
    return f"; choices: {', '.join(whole[:8])}" if whole else "; see: ir_datasets list"


def _had(id: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except Exception as error:  # the sources of 700 collections fail in many ways
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"{id} cannot be loaded by ir_datasets: {type(error).__name__}: {said}; what it has once fetched lies in "
            "$IR_DATASETS_HOME, by default ~/.ir_datasets"
        ) from error


def _text(one: Any) -> str:
    return str(one.default_text()).strip()


def _documents(docs: Iterable[Any]) -> Iterator[tuple[str, str]]:
    return ((doc.doc_id, _text(doc)) for doc in docs)


def _queries(queries: Iterable[Any]) -> Iterator[tuple[str, str]]:
    return ((query.query_id, _text(query)) for query in queries)


def _judged(qrels: Iterable[Any]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for one in qrels:
        found.setdefault(one.query_id, {})[one.doc_id] = int(one.relevance)
    return found


def _candidates(scored: Iterable[Any]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}  # each document once
    for one in scored:
        found.setdefault(one.query_id, {})[one.doc_id] = None
    return {query: list(docs) for query, docs in found.items()}


def _about(id: str, found: Any) -> dict[str, Any]:
    """What ir_datasets says of a collection."""
    told = found.documentation() if hasattr(found, "documentation") else {}
    return {
        "source": "ir_datasets",
        "id": id,
        "version": _library().__version__,
        "languages": [code for code in (found.docs_lang(),) if code],
        **({"citation": ", ".join(told["bibtex_ids"])} if told.get("bibtex_ids") else {}),
    }
