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

_BLOCK = 1 << 16  # documents whose totals stay in the cache: 256 kB
_FEW = 8  # with fewer postings than one for so many documents, these are looked up and not all totals scanned
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
        _count(documents.terms, self.starts[1:])
        np.cumsum(self.starts, out=self.starts)
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
        self._check(queries)
        keys, docs = no_keys(len(queries), k)

        def block(start: int, stop: int) -> None:
            own = (queries.starts, queries.terms, queries.weights)
            held = (self.starts, self.docs, self.weights)
            _search(*own, *held, self.n_docs, ranks, start, stop, keys, docs)

        if docs.size:
            in_blocks(block, len(queries), threads)
        return docs, scores_of(keys)

    def score(self, queries: Sparse, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores [queries, candidates] of the documents `docs`, as `search` adds them up.

        0 for one that shares no term with the query, -inf where there is none (-1).
        """
        self._check(queries)
        found = np.where(docs >= 0, np.float32(0.0), np.float32(-np.inf))
        _score(queries.starts, queries.terms, queries.weights, self.starts, self.docs, self.weights, docs, found)
        return found

    def _check(self, queries: Sparse) -> None:
        if len(queries.terms) and queries.terms.max() >= len(self.starts) - 1:
            raise RunError(
                f"a query has term {queries.terms.max()}, and the documents' vocabulary has {len(self.starts) - 1}: "
                "queries and documents must be encoded over one vocabulary"
            )


@njit(nogil=True, cache=True)
def _count(terms, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for entry in range(len(terms)):
        out[terms[entry]] += 1


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
    total = np.zeros(min(n_docs, _BLOCK), np.float32)
    longest = np.max(q_starts[first + 1 : last + 1] - q_starts[first:last])
    places, stops = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for query in range(first, last):
        terms, own = q_terms[q_starts[query] : q_starts[query + 1]], q_weights[q_starts[query] : q_starts[query + 1]]
        keys, best = out_keys[query], out_docs[query]
        for entry in range(len(terms)):
            stops[entry] = starts[terms[entry]]
        size = 0
        for offset in range(0, n_docs, _BLOCK):
            after, added = min(offset + _BLOCK, n_docs), 0
            for entry in range(len(terms)):
                place, stop = stops[entry], starts[terms[entry] + 1]
                if after < n_docs:
                    stop = _first_from(docs, place, stop, after)
                _add(total, docs[place:stop], weights[place:stop], own[entry], offset)
                places[entry], stops[entry] = place, stop
                added += stop - place
            if added * _FEW < after - offset:
                for entry in range(len(terms)):
                    size = _take(total, docs[places[entry] : stops[entry]], ranks, offset, keys, best, size)
                continue
            size = _select(total[: after - offset], ranks[offset:after], offset, keys, best, size)
            total[:] = 0.0
        best_first(keys, best, size)


@njit(nogil=True, cache=True)
def _score(q_starts, q_terms, q_weights, starts, docs, weights, asked, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for query in range(len(asked)):
        for entry in range(q_starts[query], q_starts[query + 1]):
            start, stop = starts[q_terms[entry]], starts[q_terms[entry] + 1]
            for column in range(asked.shape[1]):
                place = start + np.searchsorted(docs[start:stop], asked[query, column])
                if place < stop and docs[place] == asked[query, column]:
                    out[query, column] += q_weights[entry] * weights[place]


@njit(nogil=True, cache=True)
def _first_from(docs, place, stop, doc):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The first place of an ascending list at which a document is `doc` or later: steps double, then halve."""
    step = 1
    while place + step < stop and docs[place + step] < doc:
        place += step
        step *= 2
    stop = min(stop, place + step)
    while place < stop:
        middle = (place + stop) // 2
        if docs[middle] < doc:
            place = middle + 1
        else:
            stop = middle
    return place


@njit(nogil=True, cache=True)
def _add(total, docs, weights, weight, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for place in range(len(docs)):
        total[np.uint32(docs[place] - offset)] += weight * weights[place]  # unsigned: no check for a negative index


@njit(nogil=True, cache=True)
def _take(total, listed, ranks, offset, keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Keep the best of the documents that a term lists, and clear their totals, so that each counts once."""
    least = _least(keys, size)
    for place in range(len(listed)):
        doc = np.uint32(listed[place])
        score = total[doc - np.uint32(offset)]
        total[doc - np.uint32(offset)] = 0.0
        if score >= least:
            size = offer(keys, docs, size, key_of(score, ranks[doc]), doc)
            least = _least(keys, size)
    return size


@njit(nogil=True, cache=True)
def _least(keys, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """What a total must reach to be kept: the smallest number above 0 while there is room."""
    return score_of(keys[0]) if size == len(keys) else np.float32(1e-45)


@njit(nogil=True, cache=True)
def _select(total, ranks, offset, keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Keep the best positive totals, stepping over strides without one; returns how many are kept."""
    least = _least(keys, size)
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
        for place in range(start, stop):
            if total[place] >= least:
                size = offer(keys, docs, size, key_of(total[place], ranks[place]), offset + place)
                least = _least(keys, size)
    return size
