"""A retriever without a model, and settings of `evaluate`, for tests of evaluations."""

import numpy as np

from harness.evaluation.evaluate import Settings
from harness.types import Corpus, Queries, Run

UNTIMED = Settings(k=10, metrics=("ndcg@10",), timing=None)
"""Settings of `harness.evaluation.evaluate.evaluate` for scores alone."""


class CorpusOrder:
    """Ranks the documents in the order of the corpus, for every query, and counts the calls of `index`.

    Args:
        error: An exception that `search` raises instead.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.n_indexed = error, 0

    def index(self, corpus: Corpus) -> None:
        self.n_indexed += 1
        self.corpus = corpus

    def search(self, queries: Queries, k: int) -> Run:
        if self.error:
            raise self.error
        docs = np.tile(np.arange(min(k, len(self.corpus)), dtype=np.int32), (len(queries), 1))
        return Run(queries.ids, self.corpus.ids, docs, -docs.astype(np.float32))

    def nbytes(self) -> int:
        return 0
