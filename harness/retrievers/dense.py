"""Dense retrieval: one vector a text, exact inner-product search. Cosine where the model normalises its vectors."""

import torch

from harness.clock import stage
from harness.encoders.dense import DenseEncoder
from harness.environment import threads
from harness.search import dense
from harness.types import Corpus, Queries, Run


class Dense:
    """Any encoder with `encode(texts, side)`; vectors are float32 and held where the encoder left them."""

    def __init__(self, encoder: DenseEncoder) -> None:
        self._encoder = encoder
        self._vectors = torch.empty((0, 0))

    def index(self, corpus: Corpus) -> None:
        """Encode every document."""
        self._vectors = self._encoder.encode(corpus.texts, "document")
        with stage("build"):
            self._doc_ids, self._ranks = corpus.ids, corpus.ranks

    def search(self, queries: Queries, k: int) -> Run:
        """The k documents of highest inner product with each query."""
        vectors = self._encoder.encode(queries.texts, "query")
        with stage("search"):
            docs, scores = dense.search(self._vectors, vectors, min(k, len(self._doc_ids)), self._ranks, threads())
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return self._vectors.nbytes
