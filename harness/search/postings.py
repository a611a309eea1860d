"""Exact search over impact-scored postings: one engine for BM25 and learned sparse vectors.

Weights lie by term; a query adds the lists of its terms, each times the query's own weight, into one accumulator and
keeps the k best. Only documents that share a term with the query are found.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.errors import RunError
from harness.search.topk import Hits, best_first, in_blocks, key_of, no_keys, offer, score_of, scores_of

_STRIDE = 16


@dataclass(frozen=True)
class Sparse:
    """Rows of sparse vectors: row i has `terms[starts[i]:starts[i + 1]]` with those `weights`, each term once."""

    starts: NDArray[np.int64]
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.starts) - 1


class Postings:
    """Documents by term: the transpose of a Sparse of documents over `n_terms` terms. Weights must be positive."""

    def __init__(self, documents: Sparse, n_terms: int) -> None:
        self.n_docs = len(documents)
        self.starts = np.zeros(n_terms + 1, np.int64)
        np.cumsum(np.bincount(documents.terms, minlength=n_terms), out=self.starts[1:])
        self.docs = np.empty(len(documents.terms), np.int32)
        self.weights = np.empty(len(documents.terms), np.float32)
        _transpose(
            documents.starts, documents.terms, documents.weights, self.starts[:-1].copy(), self.docs, self.weights
        )

    @property
    def nbytes(self) -> int:
        """Bytes held to be searched."""
        return self.starts.nbytes + self.docs.nbytes + self.weights.nbytes

    def weight(self, term: int, doc: int) -> float:
        """The weight of a term in a document; 0 where it is not there."""
        own = self.docs[self.starts[term] : self.starts[term + 1]]
        place = int(np.searchsorted(own, doc))
        return float(self.weights[self.starts[term] + place]) if place < len(own) and own[place] == doc else 0.0

    def df(self, term: int) -> int:
        """How many documents have a term."""
        return int(self.starts[term + 1] - self.starts[term])

    def search(self, queries: Sparse, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """Documents [queries, k] (-1: no hit) and their scores, the sum of weight products, best first."""
        if len(queries.terms) and queries.terms.max() >= len(self.starts) - 1:
            raise RunError(
                f"a query has term {queries.terms.max()}, and the documents' vocabulary has {len(self.starts) - 1}: "
                "queries and documents must be encoded over one vocabulary"
            )
        keys, docs = no_keys(len(queries), k)

        def block(start: int, stop: int) -> None:
            own = (queries.starts, queries.terms, queries.weights)
            held = (self.starts, self.docs, self.weights)
            _search(*own, *held, self.n_docs, ranks, start, stop, keys, docs)

        if docs.size:
            in_blocks(block, len(queries), threads)
        return docs, scores_of(keys)


@njit(nogil=True, cache=True)
def _transpose(starts, terms, weights, free, docs, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for doc in range(len(starts) - 1):
        for entry in range(starts[doc], starts[doc + 1]):
            place = free[terms[entry]]
            docs[place] = doc
            out[place] = weights[entry]
            free[terms[entry]] = place + 1


@njit(nogil=True, cache=True)
def _search(q_starts, q_terms, q_weights, starts, docs, weights, n_docs, ranks, first, last, out_keys, out_docs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.zeros(n_docs, np.float32)
    for query in range(first, last):
        for entry in range(q_starts[query], q_starts[query + 1]):
            term, weight = q_terms[entry], q_weights[entry]
            for place in range(starts[term], starts[term + 1]):
                total[np.uint32(docs[place])] += weight * weights[place]  # unsigned: no check for a negative index
        best_first(out_keys[query], out_docs[query], _select(total, ranks, out_keys[query], out_docs[query]))
        total[:] = 0.0


@njit(nogil=True, cache=True)
def _select(total, ranks, keys, docs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Keep the best positive totals, stepping over blocks without one; returns how many are kept."""
    size = 0
    least = np.float32(1e-45)  # the smallest above 0
    whole = len(total) - len(total) % _STRIDE
    for start in range(0, len(total), _STRIDE):
        stop = len(total)
        if start < whole:
            stop = start + _STRIDE
            highest = total[start]
            for step in range(1, _STRIDE):
                highest = max(highest, total[start + step])
            if highest < least:
                continue
        for doc in range(start, stop):
            if total[doc] >= least:
                size = offer(keys, docs, size, key_of(total[doc], ranks[doc]), doc)
                if size == len(keys):
                    least = score_of(keys[0])
    return size
