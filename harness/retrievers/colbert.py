"""Late interaction (ColBERT): one vector per token, documents scored by MaxSim, exhaustively or for candidates only.

With `candidates`, documents are first scored by their tokens' nearest centroids, as in PLAID (Santhanam et al., 2022);
the best of them are then scored exactly. The recall against exhaustive search is measured on a sample of the queries.
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

_RECALL_SAMPLE = 50


class ColBERT(Component):
    """A late-interaction retriever.

    Args:
        encoder: The encoder, or the name or folder of a late-interaction model.
        candidates: Documents of each query that are scored exactly, at least k; None for all documents.
        seed: Draws the sample of tokens that the centroids are computed from.
    """

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
        """True without candidates: which candidates a shard chooses depends on its other documents."""
        return self._candidates is None

    def index(self, corpus: Corpus) -> None:
        """Encode every token of every document and, with candidates, compute the centroids."""
        self._tokens = self._encoder.encode(corpus.texts, "document")
        with stage("build"):
            self._doc_ids, self._ranks, self._texts = corpus.ids, corpus.ranks, corpus.texts
            if self._candidates is not None:
                self._centroids = Centroids(self._tokens, self._seed)

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` documents of highest MaxSim with each of the `queries`."""
        k = min(k, len(self._doc_ids))
        vectors = self._encoder.encode(queries.texts, "query")
        with stage("search"):
            docs, scores = self._two_stages(self._centroids, vectors, k) if self._centroids else self._exact(vectors, k)
            run = Run(queries.ids, self._doc_ids, docs, scores, self._ranks).top(k)
        if self._centroids:
            sample = vectors.span(0, min(_RECALL_SAMPLE, len(queries)))
            defer_recall(k, lambda: recall(run.docs[: len(sample)], self._exact(sample, k)[0]))
        return run

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return MaxSim of `queries` with `docs` [queries, candidates]; -inf where `docs` is -1."""
        vectors = self._encoder.encode(queries.texts, "query")
        with stage("score"):
            return maxsim.score(self._tokens, vectors, docs, threads())

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Explain each of `docs` by its nearest token to each token of `query`."""
        query_vectors = self._encoder.encode(query.texts, "query").vectors_of(0).cpu()
        query_tokens = self._encoder.token_names(query.texts[0], "query")
        explanations = []
        for doc in docs:
            tokens = self._encoder.token_names(self._texts[doc], "document")
            best, positions = (query_vectors @ self._tokens.vectors_of(doc).cpu().T).max(dim=1)
            rows = [
                (query_token, tokens[position], position + 1, value)
                for query_token, position, value in zip(query_tokens, positions.tolist(), best.tolist(), strict=True)
            ]
            summary = (
                f"{len(rows)} query tokens, each with the nearest of {len(tokens)} in the document: {best.sum():.4f}"
            )
            explanations.append(Explanation(summary, ("query token", "document token", "at", "adds"), list(rows)))
        return explanations

    def _exact(self, vectors: maxsim.TokenEmbeddings, k: int) -> Hits:
        return maxsim.search(self._tokens, vectors, k, self._ranks, threads())

    def _two_stages(self, centroids: Centroids, vectors: maxsim.TokenEmbeddings, k: int) -> Hits:
        n = max(k, self._candidates or 0)
        describe("candidates", n)
        docs, _ = centroids.search(vectors, n, self._ranks, threads())
        return docs, maxsim.score(self._tokens, vectors, docs, threads())

    def nbytes(self) -> int:
        """Return the bytes of the token vectors and of the centroids, if any."""
        return self._tokens.nbytes + (self._centroids.nbytes if self._centroids else 0)
