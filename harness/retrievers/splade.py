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


class Encodes(Protocol):
    """What turns queries into sparse vectors: the documents' own encoder, or another over the same vocabulary."""

    def encode(self, texts: StringColumn, side: Side) -> SparseRows:
        """One row of terms and weights for each text."""
        ...

    def decode_terms(self, terms: NDArray[np.int32]) -> list[str]:
        """The terms [n] as the vocabulary writes them."""
        ...


class Splade(Component):
    """`encoder` for documents and, where no `query_encoder` is given, for queries too."""

    is_shardable = True
    """Scores compare across parts of a collection."""
    _doc_ids = SetByIndex[StringColumn]()
    _postings = SetByIndex[Postings]()

    def __init__(self, encoder: SparseEncoder | str, query_encoder: Encodes | None = None) -> None:
        if isinstance(encoder, str):
            encoder = SparseEncoder(encoder)
            self.complete(encoder=encoder)
        self._encoder = encoder
        self._query_encoder: Encodes = encoder if query_encoder is None else query_encoder

    def index(self, corpus: Corpus) -> None:
        """Encode every document and lay its terms into postings."""
        vectors = self._encoder.encode(corpus.texts, "document")
        with stage("build"):
            self._doc_ids, self._ranks = corpus.ids, corpus.ranks
            self._postings = Postings(vectors, self._encoder.n_terms)
            describe("terms_per_document", len(vectors.terms) / max(1, len(corpus)))

    def search(self, queries: Queries, k: int) -> Run:
        """Documents that share a term of the vocabulary with the query, best first."""
        k = min(k, len(self._doc_ids))
        vectors = self._query_encoder.encode(queries.texts, "query")
        with stage("search"):
            docs, scores = self._postings.search(vectors, k, self._ranks, threads())
            describe("terms_per_query", len(vectors.terms) / max(1, len(queries)))
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Inner products [queries, candidates] of the documents `docs`; -inf where there is none (-1)."""
        vectors = self._query_encoder.encode(queries.texts, "query")
        with stage("score"):
            return self._postings.score(vectors, docs)

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """The terms that query and document share, most of which neither text may hold as a word."""
        vectors = self._query_encoder.encode(query.texts, "query")
        asked = list(
            zip(
                vectors.terms.tolist(),
                self._query_encoder.decode_terms(vectors.terms),
                vectors.weights.tolist(),
                strict=True,
            )
        )
        found = []
        for doc in docs:
            held = [(name, weight, self._postings.weight(term, doc)) for term, name, weight in asked]
            rows = [(name, own, other, own * other) for name, own, other in held if other > 0]
            rows.sort(key=lambda row: -row[3])
            said = (
                f"{len(rows)} of the {len(asked)} terms that the query expands to are among the document's; "
                f"they add up to {sum(row[3] for row in rows):.4f}"
            )
            found.append(Explanation(said, ("term", "query weight", "document weight", "adds"), list(rows)))
        return found

    def nbytes(self) -> int:
        """Bytes of the postings."""
        return self._postings.nbytes
