"""Use retrievers in BEIR's evaluator and BEIR's searches as retrievers; convert datasets in both directions.

    from beir.datasets.data_loader import GenericDataLoader
    from beir.retrieval.evaluation import EvaluateRetrieval
    from harness.interop import beir

    corpus, queries, qrels = GenericDataLoader("scifact").load(split="test")
    evaluator = EvaluateRetrieval(beir.Search(retriever))
    ndcg, *_ = evaluator.evaluate(qrels, evaluator.retrieve(corpus, queries), evaluator.k_values)

    dataset = beir.to_dataset(corpus, queries, qrels, name="scifact")
    retriever = beir.BeirRetriever(DenseRetrievalExactSearch(SentenceBERT("all-MiniLM-L6-v2")))

In a config, the search is given by its `_target_`:

    _target_: harness.interop.beir.BeirRetriever
    model:
      _target_: beir.retrieval.search.dense.DenseRetrievalExactSearch
      show_progress_bar: false
      model: {_target_: beir.retrieval.models.SentenceBERT, model_path: all-MiniLM-L6-v2}
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from beir.retrieval.search import BaseSearch

from harness.errors import ConfigError, DataError
from harness.evaluation.timing import drop_self_hits as remove_self_hits
from harness.instrument import stage
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Dataset, Queries, Run, StringColumn
from harness.types import Retriever as RetrieverProtocol
from harness.types.protocols import Component

_NO_FILES = (
    "a retriever of the harness writes no embedding files for BEIR; call EvaluateRetrieval.retrieve in place of "
    "encode_and_retrieve"
)


class Search(BaseSearch):  # type: ignore[misc]  # beir has no types
    """A retriever as BEIR's `BaseSearch`, for `EvaluateRetrieval`.

    Args:
        retriever: Any retriever. It ranks by its own similarity; BEIR's `score_function` has no effect.
        ignore_identical_ids: Drop the document whose id equals the query's, as BEIR's searches do; `top_k` others are
            returned. If queries and documents have equal ids by coincidence, set it to False here and in
            `EvaluateRetrieval.evaluate`.
    """

    def __init__(self, retriever: RetrieverProtocol, ignore_identical_ids: bool = True) -> None:
        self.retriever, self._ignore_identical_ids = retriever, ignore_identical_ids

    def search(
        self,
        corpus: Mapping[str, Mapping[str, str | None]],
        queries: Mapping[str, str],
        top_k: int,
        score_function: str | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Index the corpus, and return the scores of each query's best documents.

        Args:
            corpus: `{document id: {"title": ..., "text": ...}}`.
            queries: `{query id: text}`.
            top_k: Number of documents.
            score_function: Has no effect.

        Returns:
            `{query id: {document id: score}}`, with an entry for every query.
        """
        self.retriever.index(Corpus.from_dict(corpus))
        run = self.retriever.search(Queries.from_dict(queries), top_k + self._ignore_identical_ids)
        if self._ignore_identical_ids:
            run = remove_self_hits(run)
        return run.top(top_k).to_dict()

    def encode(self, *_: Any, **__: Any) -> None:
        """Refuse to write embeddings to files. Raises `ConfigError`."""
        raise ConfigError(_NO_FILES)

    def search_from_files(self, *_: Any, **__: Any) -> dict[str, dict[str, float]]:
        """Refuse to search embeddings from files. Raises `ConfigError`."""
        raise ConfigError(_NO_FILES)


class BeirRetriever(Component):
    """A BEIR search as a retriever.

    Most of BEIR's searches encode the corpus in every call, so their search time includes it: measure them with
    `timing.repeats=1 timing.latency_queries=0`. BEIR's searches also drop the document whose id equals the query's.
    A query with the id of a document is therefore searched under another id, so that only the dataset's
    `drop_self_hits` decides whether the document is dropped.

    Args:
        model: A search of BEIR, or any other `BaseSearch`.
        score_function: "cos_sim" or "dot", as for `EvaluateRetrieval`.
    """

    _corpus = SetByIndex[Corpus]()

    def __init__(self, model: BaseSearch, score_function: str = "cos_sim") -> None:
        self._model, self._score_function = model, score_function

    def index(self, corpus: Corpus) -> None:
        """Convert the corpus to BEIR's dicts; titles stay joined to the texts."""
        with stage("build"):
            self._corpus = corpus
            self._documents = {
                doc: {"title": "", "text": text} for doc, text in zip(corpus.ids, corpus.texts, strict=True)
            }
            self._search = copy(self._model)  # a FAISS search keeps the index of its first corpus

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` documents of highest score for each of the `queries`."""
        names = self._name_queries(queries)
        texts = dict(zip(names, queries.texts, strict=True))
        if len(texts) == 1:  # BEIR's exact search fails on a single query
            texts |= {f"{names[0]} again": queries.texts[0]}
        k = min(k, len(self._corpus))
        with stage("search"):
            scores = self._search.search(self._documents, texts, k, self._score_function)
        by_query = {query: scores.get(name, {}) for query, name in zip(queries.ids, names, strict=True)}
        return Run.from_hits(by_query, queries.ids, self._corpus).top(k)

    def nbytes(self) -> int:
        """Return the bytes of the texts; BEIR does not report the size of an index."""
        return int(self._corpus.texts.arrow.nbytes)

    def _name_queries(self, queries: Queries) -> list[str]:
        """Return the query ids; ids that a document has too get a prefix."""
        prefix, query_ids = "query ", set(queries.ids)
        while any(f"{prefix}{query}" in ids for query in query_ids for ids in (self._documents, query_ids)):
            prefix += "query "
        return [f"{prefix}{query}" if query in self._documents else query for query in queries.ids]


class Triple(NamedTuple):
    """A dataset as BEIR's `GenericDataLoader` returns it."""

    corpus: dict[str, dict[str, str]]
    """`{document id: {"title": ..., "text": ...}}`."""
    queries: dict[str, str]
    """`{query id: text}`."""
    qrels: dict[str, dict[str, int]]
    """`{query id: {document id: grade}}`."""


def to_dataset(
    corpus: Mapping[str, Mapping[str, str | None]],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    name: str = "beir",
    **settings: Any,
) -> Dataset:
    """Return the triple of BEIR's `GenericDataLoader` as a dataset.

    Args:
        corpus: `{document id: {"title": ..., "text": ...}}`; title and text are joined by a space.
        queries: `{query id: text}`; queries without a relevant document are left out.
        qrels: `{query id: {document id: grade}}`.
        name: The dataset's name in results.
        **settings: As for `Dataset.from_dicts`: `split`, `instruction`, and `drop_self_hits`, which drops the document
            whose id equals the query's, as `EvaluateRetrieval.evaluate` does by default.

    Raises:
        DataError: A text is missing, or the parts do not fit together.
    """
    titles = [document.get("title") or "" for document in corpus.values()]
    dataset = Dataset.from_dicts(corpus, queries, qrels, name=name, **settings)
    return replace(dataset, load_titles=partial(StringColumn, titles) if any(titles) else None)


def to_triple(dataset: Dataset) -> Triple:
    """Return a dataset as the triple of BEIR's `GenericDataLoader`, with titles where the dataset has them.

    The qrels are those of the dataset's queries, so that BEIR's means cover the same queries.

    Raises:
        DataError: The dataset has candidates to rerank, which BEIR cannot express.
    """
    if dataset.candidates is not None:
        raise DataError(f"{dataset.name} has candidates to rerank for each query, and BEIR ranks the whole corpus")
    titles = dataset.load_titles() if dataset.load_titles else repeat("", len(dataset.corpus))
    rows = zip(dataset.corpus.ids, titles, dataset.corpus.texts, strict=True)
    return Triple(
        {doc: _split_title(title, text) for doc, title, text in rows},
        dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True)),
        {query: dict(dataset.qrels[query]) for query in dataset.queries.ids},
    )


def _split_title(title: str, text: str) -> dict[str, str]:
    """Split a document's text into its title and its body."""
    if title and text.startswith(f"{title} "):
        return {"title": title, "text": text[len(title) + 1 :]}
    return {"title": "", "text": text}
