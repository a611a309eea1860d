"""Dense retrieval: one vector per text, inner-product search, exact or with an approximate or compressed index."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from harness.encoders.dense import DenseEncoder
from harness.encoders.transformer import Side
from harness.environment import threads
from harness.errors import ConfigError
from harness.instrument import defer_recall, stage
from harness.retrievers.state import SetByIndex
from harness.search import dense
from harness.search.topk import Hits, recall
from harness.types import Corpus, Explanation, Queries, Run, StringColumn
from harness.types.protocols import Component, Value


class Encoder(Protocol):
    """Protocol for encoders of one vector per text."""

    def encode(self, texts: StringColumn, side: Side) -> torch.Tensor:
        """Return vectors [texts, dimensions] of `texts` as float32; `side` is `query` or `document`."""
        ...


class Index(Protocol):
    """Protocol for approximate or compressed vector indexes."""

    def build(self, vectors: torch.Tensor) -> None:
        """Index vectors [documents, dimensions]."""
        ...

    def search(self, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """Return approximately the `k` best documents of each query.

        Args:
            queries: Vectors [queries, dimensions].
            k: Number of documents for each query.
            ranks: Order of documents of equal score [documents].
            threads: Number of threads.
        """
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the index."""
        ...


class Dense(Component):
    """A dense retriever: one vector per text, compared by inner product.

    Args:
        encoder: The encoder, or the name or folder of a sentence-transformers model.
        index: An approximate or compressed index; None searches the float32 vectors exactly.
        recall_sample: Queries on which an index's recall against exact search is measured, outside the timed sections.
            The float32 vectors are kept for that and do not count as index; with 0 they are released.
    """

    _doc_ids = SetByIndex[StringColumn]()

    def __init__(self, encoder: Encoder | str, index: Index | None = None, recall_sample: int = 50) -> None:
        if recall_sample < 0:
            raise ConfigError(f"retriever.recall_sample={recall_sample} must be 0 or more")
        if isinstance(encoder, str):
            encoder = DenseEncoder(encoder)
            self.complete(encoder=encoder)
        self._encoder, self._index, self._recall_sample = encoder, index, recall_sample
        self._vectors = torch.empty((0, 0))
        self._scored = False

    @property
    def is_shardable(self) -> bool:
        """True for exact search: an index's scores depend on the other documents of the shard."""
        return self._index is None

    def index(self, corpus: Corpus) -> None:
        """Encode every document, and build the approximate or compressed index if there is one."""
        vectors = self._encoder.encode(corpus.texts, "document")
        with stage("build"):
            self._doc_ids, self._ranks = corpus.ids, corpus.ranks
            if self._index is not None:
                self._index.build(vectors)
            self._vectors = vectors if self._index is None or self._recall_sample else torch.empty_like(vectors[:0])

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` documents of highest inner product with each of the `queries`."""
        k = min(k, len(self._doc_ids))
        vectors = self._encoder.encode(queries.texts, "query")
        with stage("search"):
            search = self._exact if self._index is None else self._index.search
            run = Run(queries.ids, self._doc_ids, *search(vectors, k, self._ranks, threads()), self._ranks)
        if self._index is not None and self._recall_sample:
            sample = vectors[: self._recall_sample]
            defer_recall(
                k,
                lambda: recall(run.docs[: len(sample)], self._exact(sample, k, self._ranks, threads())[0]),
            )
        return run

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return exact inner products of `queries` and `docs` [queries, candidates]; -inf where `docs` is -1."""
        self._check_vectors("scoring")
        self._scored = True
        vectors = self._encoder.encode(queries.texts, "query")
        with stage("score"):
            return dense.score(self._vectors, vectors, docs)

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Explain each of `docs` by its similarity to `query`, relative to the similarities of the whole corpus."""
        self._check_vectors("explaining")
        vector = self._encoder.encode(query.texts, "query")[0]
        values = (self._vectors @ vector.to(self._vectors.device)).cpu().numpy()
        percents = (0, 5, 25, 50, 75, 95, 99, 100)
        percentiles = list(zip(percents, np.percentile(values, percents).tolist(), strict=True))
        explanations = []
        for doc in docs:
            value = float(values[doc])
            above = int((values > value).sum())
            deviations = (value - values.mean()) / max(float(values.std()), 1e-12)
            rows: list[tuple[Value, ...]] = [("this document", value)]
            rows += ((f"corpus, {percent} % below", percentile) for percent, percentile in percentiles)
            summary = (
                f"similarity {value:.4f}, {deviations:+.1f} standard deviations from the mean; "
                f"{above:,} documents are nearer"
            )
            explanations.append(Explanation(summary, ("", "similarity"), rows))
        return explanations

    def _check_vectors(self, purpose: str) -> None:
        if len(self._vectors) < len(self._doc_ids):
            raise ConfigError(
                f"{purpose} needs the float32 vectors, which retriever.recall_sample=0 releases; set it to 1 or more"
            )

    def _exact(self, vectors: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        return dense.search(self._vectors, vectors, k, ranks, threads)

    def nbytes(self) -> int:
        """Return the bytes of the vectors or of the index, or of both if `score` has used the vectors too."""
        vectors = self._vectors.nbytes if self._index is None or self._scored else 0
        return vectors + (self._index.nbytes if self._index is not None else 0)
