"""Several retrievers as one: each ranks, a fusion makes one ranking of theirs."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.clock import part, stage
from harness.errors import ConfigError
from harness.types import Corpus, Queries, Retriever, Run

log = logging.getLogger(__name__)

Fusion = Callable[[Sequence[Run]], Run]


class Hybrid:
    """Named retrievers, each asked for its `depth` best; the k best of the fused list are kept."""

    def __init__(self, retrievers: Mapping[str, Retriever], fusion: Fusion, depth: int = 100) -> None:
        if not retrievers:
            raise ConfigError(
                "a hybrid needs at least one retriever, such as retriever@retriever.retrievers.lexical=bm25"
            )
        if depth < 1:
            raise ConfigError(f"retriever.depth={depth} must be at least 1")
        self._retrievers, self._fusion, self._depth = dict(retrievers), fusion, depth
        self._warned = False

    def index(self, corpus: Corpus) -> None:
        """Index with every part."""
        for name, retriever in self._retrievers.items():
            with part(name):
                retriever.index(corpus)

    def search(self, queries: Queries, k: int) -> Run:
        """The k best of the fused rankings; they hold no more than depth documents of each part."""
        if k > self._depth + 1 and not self._warned:  # one more is searched where a query's own document is dropped
            self._warned = True
            log.warning("retriever.depth=%d is less than k=%d: recall beyond it is not measured", self._depth, k)
        runs = []
        for name, retriever in self._retrievers.items():
            with part(name):
                runs.append(retriever.search(queries, self._depth))
        with stage("fuse"):
            return self._fusion(runs).top(k)

    def nbytes(self) -> int:
        """Bytes of all parts together."""
        return sum(retriever.nbytes() for retriever in self._retrievers.values())


def rrf(runs: Sequence[Run], constant: float = 60) -> Run:
    """Reciprocal rank fusion: the sum over runs of 1 / (constant + rank), rank from 1 (Cormack et al., SIGIR 2009).

    The runs must be over the same queries and documents, in the same order.
    """
    if constant < 0:
        raise ConfigError(f"retriever.fusion.constant={constant} is below 0; 60 is usual")
    shares = [np.broadcast_to(1.0 / (constant + np.arange(1, run.depth + 1)), run.docs.shape) for run in runs]
    docs, scores = np.concatenate([run.docs for run in runs], axis=1), np.concatenate(shares, axis=1)
    order = np.argsort(docs, axis=1, kind="stable")
    docs, scores = np.take_along_axis(docs, order, axis=1), np.take_along_axis(scores, order, axis=1)
    first = np.ones(docs.shape, bool)
    first[:, 1:] = docs[:, 1:] != docs[:, :-1]
    if docs.size:
        total = np.add.reduceat(scores.ravel(), np.flatnonzero(first))
        docs, scores = np.where(first, docs, -1), np.zeros(docs.shape)
        scores[first] = total
    return Run(runs[0].query_ids, runs[0].doc_ids, docs, scores)
