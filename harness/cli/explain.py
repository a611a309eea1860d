"""`harness explain`: index a dataset, rank one query, and explain the ranks of its documents."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config import build
from harness.config.evaluation import validate_evaluation_config
from harness.console import listener, say
from harness.errors import ConfigError
from harness.instrument import listening
from harness.retrievers.explained import rank_and_score
from harness.types import Corpus, Dataset, Explainer, Explanation, Queries, Retriever

_KEYS = ("query", "doc", "top")


@dataclass(frozen=True)
class ExplainedDocument:
    """A document with its rank and score (None if it is not a hit), and the explanation of its score."""

    doc: str
    text: str
    rank: int | None
    score: float | None
    why: Explanation


@dataclass(frozen=True)
class QueryExplanation:
    """One query and the explanations of its documents' ranks."""

    retriever: str
    dataset: str
    query: str
    looked_at: int
    """Depth of the ranking in which the documents' ranks were looked up."""
    documents: list[ExplainedDocument]


def explain(words: Sequence[str], folders: Sequence[str] = ()) -> QueryExplanation:
    """Explain the ranks of one document, or of the first hits.

    Args:
        words: `query=TEXT_OR_ID`, `doc=ID` or `top=N` (default 3), and config overrides.
        folders: Additional config folders.

    Raises:
        ConfigError: The query is missing, the document is unknown, or the retriever cannot explain.
    """
    options = {key: value for key, _, value in (word.partition("=") for word in words) if key in _KEYS}
    overrides = [word for word in words if word.partition("=")[0] not in _KEYS]
    if not options.get("query"):
        raise ConfigError('no query is given; add: query="some words" or query=ID')
    top = _number(options.get("top", "3"))
    config = validate_evaluation_config(build.compose_config(overrides, folders))
    retriever: Retriever = build.construct(config.retriever, "retriever")
    if not isinstance(retriever, Explainer):
        raise ConfigError(
            f"{type(retriever).__name__} cannot explain its ranking: it has no method explain(query, docs)"
        )
    dataset: Dataset = build.construct(config.dataset, "dataset")
    query = _query(dataset, options["query"])
    doc = None if "doc" not in options else _document(dataset, options["doc"])
    with listening(listener()):
        say(f"indexing {len(dataset.corpus):,} documents of {dataset.name}")
        retriever.index(dataset.corpus)
    return _explained(build.choices(overrides, folders), retriever, dataset, query, doc, top, max(config.k, top))


def _explained(
    chosen: dict[str, str],
    retriever: Explainer,
    dataset: Dataset,
    query: Queries,
    requested: int | None,
    top: int,
    k: int,
) -> QueryExplanation:
    """Return the explanation of one `requested` document or, if that is None, of the first `top` of `k` hits."""
    depth = min(len(dataset.corpus), k)
    run = retriever.search(query, depth)  # type: ignore[attr-defined]  # it is a retriever too
    docs = run.docs[0, :top][run.docs[0, :top] >= 0].tolist() if requested is None else [requested]
    documents = []
    for doc, why in zip(docs, retriever.explain(query, docs), strict=True):
        rank, score = rank_and_score(run, doc)
        documents.append(ExplainedDocument(dataset.corpus.ids[doc], dataset.corpus.texts[doc], rank, score, why))
    return QueryExplanation(chosen["retriever"], dataset.name, query.texts[0], depth, documents)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"top={text!r} must be a whole number of at least 1")
    return int(text)


def _query(dataset: Dataset, text: str) -> Queries:
    """Return the dataset's query with the id `text`, else a new query with this text."""
    ids = list(dataset.queries.ids)
    if text in ids:
        row = ids.index(text)
        return dataset.queries[row : row + 1]
    return Queries(["query"], [text])


def _document(dataset: Dataset, doc_id: str) -> int:
    corpus: Corpus = dataset.corpus
    ids = list(corpus.ids)
    if doc_id not in ids:
        raise ConfigError(
            f"doc={doc_id!r} is not among the {len(ids):,} documents of {dataset.name} (such as {ids[0]!r}); "
            "for the first hits of the query, give top=10 instead"
        )
    return ids.index(doc_id)
