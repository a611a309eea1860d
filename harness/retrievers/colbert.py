"""Late interaction (ColBERT): a vector a token, documents scored by MaxSim, exactly or for candidates only.

With `candidates` documents are first scored by the centroids that their tokens lie nearest to (as PLAID does, Santhanam
et al., 2022); the best of them are then scored exactly. What that loses is measured on a sample of the queries.
"""

import numpy as np
from numpy.typing import NDArray

from harness.encoders.multi_vector import MultiVectorEncoder
from harness.environment import threads
from harness.errors import ConfigError
from harness.instrument import defer_recall, describe, stage
from harness.retrievers.state import SetByIndex
from harness.search import maxsim
from harness.search.centroids import Centroids
from harness.search.topk import Hits, recall
from harness.types import Corpus, Explanation, Queries, Run, StringColumn
from harness.types.protocols import Component

_CHECKED = 50


class ColBERT(Component):
    """`candidates` null scores every document; a number, k at least, so many of each query's likeliest."""

    _doc_ids = SetByIndex[StringColumn]()
    _tokens = SetByIndex[maxsim.TokenEmbeddings]()

    def __init__(self, encoder: MultiVectorEncoder | str, candidates: int | None = None, seed: int = 0) -> None:
        if candidates is not None and candidates < 1:
            raise ConfigError(f"retriever.candidates={candidates} must be at least 1, or null for all documents")
        if isinstance(encoder, str):
            encoder = MultiVectorEncoder(encoder)
            self.complete(encoder=encoder)
        self._encoder, self._candidates, self._seed = encoder, candidates, seed
        self._centroids: Centroids | None = None

    @property
    def is_shardable(self) -> bool:
        """Whether rankings of parts of a collection make that of the whole: not where candidates are chosen first."""
        return self._candidates is None

    def index(self, corpus: Corpus) -> None:
        """Encode every document, token by token."""
        self._tokens = self._encoder.encode(corpus.texts, "document")
        with stage("build"):
            self._doc_ids, self._ranks, self._texts = corpus.ids, corpus.ranks, corpus.texts
            if self._candidates is not None:
                self._centroids = Centroids(self._tokens, self._seed)

    def search(self, queries: Queries, k: int) -> Run:
        """The k documents of highest MaxSim with each query."""
        k = min(k, len(self._doc_ids))
        vectors = self._encoder.encode(queries.texts, "query")
        with stage("search"):
            docs, scores = self._two_stages(self._centroids, vectors, k) if self._centroids else self._exact(vectors, k)
            run = Run(queries.ids, self._doc_ids, docs, scores, self._ranks).top(k)
        if self._centroids:
            sample = vectors.span(0, min(_CHECKED, len(queries)))
            defer_recall(k, lambda: recall(run.docs[: len(sample)], self._exact(sample, k)[0]))
        return run

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """MaxSim [queries, candidates] of the documents `docs` [queries, candidates]; -inf where there is none (-1)."""
        vectors = self._encoder.encode(queries.texts, "query")
        with stage("score"):
            return maxsim.score(self._tokens, vectors, docs, threads())

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """The document's token that each token of the query lies nearest to."""
        asked = self._encoder.encode(query.texts, "query").vectors_of(0).cpu()
        names = self._encoder.token_names(query.texts[0], "query")
        found = []
        for doc in docs:
            own = self._encoder.token_names(self._texts[doc], "document")
            best, places = (asked @ self._tokens.vectors_of(doc).cpu().T).max(dim=1)
            rows = [
                (name, own[place], place + 1, value)
                for name, place, value in zip(names, places.tolist(), best.tolist(), strict=True)
            ]
            said = f"{len(rows)} query tokens, each with the nearest of {len(own)} in the document: {best.sum():.4f}"
            found.append(Explanation(said, ("query token", "document token", "at", "adds"), list(rows)))
        return found

    def _exact(self, vectors: maxsim.TokenEmbeddings, k: int) -> Hits:
        return maxsim.search(self._tokens, vectors, k, self._ranks, threads())

    def _two_stages(self, centroids: Centroids, vectors: maxsim.TokenEmbeddings, k: int) -> Hits:
        n = max(k, self._candidates or 0)
        describe("candidates", n)
        likely, _ = centroids.search(vectors, n, self._ranks, threads())
        return likely, maxsim.score(self._tokens, vectors, likely, threads())

    def nbytes(self) -> int:
        """Bytes of the token vectors and, where there are some, of the centroids and their lists."""
        return self._tokens.nbytes + (self._centroids.nbytes if self._centroids else 0)
