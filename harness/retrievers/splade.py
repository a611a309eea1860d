"""Learned sparse retrieval (SPLADE): weighted terms of a vocabulary, exact inner product over postings."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.encoders.sparse import SparseEncoder
from harness.encoders.transformer import Side
from harness.environment import threads
from harness.instrument import describe, stage
from harness.retrievers.state import SetByIndex
from harness.search.postings import Postings, SparseRows
from harness.types import Corpus, Explanation, Queries, Run, StringColumn
from harness.types.protocols import Component


class QueryEncoder(Protocol):
    """Protocol for encoders of queries: the documents' encoder, or another over the same vocabulary."""

    def encode(self, texts: StringColumn, side: Side) -> SparseRows:
        """Return a row of terms and weights for each of `texts`; `side` is `query` or `document`."""
        ...

    def decode_terms(self, terms: NDArray[np.int32]) -> list[str]:
        """Return the terms [n] as spelled in the vocabulary."""
        ...


class Splade(Component):
    """A learned sparse retriever.

    Args:
        encoder: Encodes documents; a string is the name or folder of a model.
        query_encoder: Encodes queries; None for the documents' encoder.
    """

    is_shardable = True
    """Scores of shards are comparable."""
    _doc_ids = SetByIndex[StringColumn]()
    _postings = SetByIndex[Postings]()

    def __init__(self, encoder: SparseEncoder | str, query_encoder: QueryEncoder | None = None) -> None:
        if isinstance(encoder, str):
            encoder = SparseEncoder(encoder)
            self.complete(encoder=encoder)
        self._encoder = encoder
        self._query_encoder: QueryEncoder = encoder if query_encoder is None else query_encoder

    def index(self, corpus: Corpus) -> None:
        """Encode every document and build the postings."""
        vectors = self._encoder.encode(corpus.texts, "document")
        with stage("build"):
            self._doc_ids, self._ranks = corpus.ids, corpus.ranks
            self._postings = Postings(vectors, self._encoder.n_terms)
            describe("terms_per_document", len(vectors.terms) / max(1, len(corpus)))

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` best documents for each of the `queries`, among those that share a term with it."""
        k = min(k, len(self._doc_ids))
        vectors = self._query_encoder.encode(queries.texts, "query")
        with stage("search"):
            docs, scores = self._postings.search(vectors, k, self._ranks, threads())
            describe("terms_per_query", len(vectors.terms) / max(1, len(queries)))
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return inner products of `queries` and `docs` [queries, candidates]; -inf where `docs` is -1."""
        vectors = self._query_encoder.encode(queries.texts, "query")
        with stage("score"):
            return self._postings.score(vectors, docs)

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Explain each of `docs` by the terms that it shares with `query`, terms of the expansion included."""
        vectors = self._query_encoder.encode(query.texts, "query")
        query_terms = list(
            zip(
                vectors.terms.tolist(),
                self._query_encoder.decode_terms(vectors.terms),
                vectors.weights.tolist(),
                strict=True,
            )
        )
        explanations = []
        for doc in docs:
            weights = [(name, weight, self._postings.weight(term, doc)) for term, name, weight in query_terms]
            rows = [(name, in_query, in_doc, in_query * in_doc) for name, in_query, in_doc in weights if in_doc > 0]
            rows.sort(key=lambda row: -row[3])
            summary = (
                f"{len(rows)} of the {len(query_terms)} terms that the query expands to are among the document's; "
                f"they add up to {sum(row[3] for row in rows):.4f}"
            )
            columns = ("term", "query weight", "document weight", "adds")
            explanations.append(Explanation(summary, columns, list(rows)))
        return explanations

    def nbytes(self) -> int:
        """Return the bytes of the postings."""
        return self._postings.nbytes
