"""A retriever as a model of mteb: `mteb.evaluate(SearchModel(retriever), tasks)`."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from harness.datasets.texts import from_stream
from harness.evaluation import identity
from harness.evaluation.values import label_of
from harness.interop.mteb import names, texts
from harness.interop.mteb.registry import library, quiet
from harness.retrievers.scored import score_candidates
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Queries, Retriever, Run


class SearchModel:
    """mteb's `SearchProtocol` over a retriever of the harness.

    Args:
        retriever: Any retriever. It never sees mteb's task, split or subset.
        name: The model's name, org/name, under which mteb stores results; None: harness/<label>.
        revision: The model's revision; None: the retriever's identity, so that mteb never reuses results of other
            settings, and finds exported records of the same retriever.
    """

    _corpus = SetByIndex[Corpus]()

    def __init__(self, retriever: Retriever, name: str | None = None, revision: str | None = None) -> None:
        self.retriever = retriever
        self._name = name or f"harness/{names.slug(label_of(retriever))}"
        self._revision = revision or identity.retriever_identity(retriever)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """mteb's `ModelMeta` with the name and the revision."""
        library()
        from mteb.models import ModelMeta

        with quiet():
            return ModelMeta.create_empty(overwrites={"name": self._name, "revision": self._revision})

    def index(self, corpus: Any, **_: Any) -> None:
        """Index mteb's corpus."""
        self._corpus = from_stream(Corpus, texts.documents(corpus))
        with identity.in_use(self.retriever):
            self.retriever.index(self._corpus)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, Sequence[str]] | None = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """Return the scores of each query's best documents.

        Args:
            queries: mteb's rows of queries.
            top_k: Number of documents.
            top_ranked: Candidates by query, which are scored instead of the whole corpus.

        Returns:
            `{query id: {document id: score}}`. Every query has an entry, because mteb's means are over the entries.

        Raises:
            RunError: A score is NaN or infinite, a document is ranked twice, or a candidate is not in the corpus.
        """
        texts_by_id = from_stream(Queries, texts.queries(queries))
        if top_ranked is None:
            return self.retriever.search(texts_by_id, top_k).to_dict()
        candidates = {query: dict.fromkeys(docs, 0.0) for query, docs in top_ranked.items()}
        docs = Run.from_hits(candidates, texts_by_id.ids, self._corpus).docs
        return score_candidates(self.retriever, texts_by_id, self._corpus.ids, docs).top(top_k).to_dict()
