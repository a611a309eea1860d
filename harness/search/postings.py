"""Exact search over an impact-scored inverted index: one engine for BM25 and learned sparse vectors.

A query adds the postings of its terms, each times the query's weight, into one accumulator (term at a time) and
selects the k best. Only documents that share a term with the query are hits.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness.errors import RunError
from harness.search.topk import (
    Hits,
    empty_keys,
    pack_key,
    push,
    run_in_blocks,
    sort_best_first,
    unpack_score,
    unpack_scores,
)

_BLOCK = 1 << 16  # documents whose accumulated scores stay in the CPU cache: 256 kB
_SPARSE = 8  # with fewer than one posting per 8 documents, only the documents in the postings are read
_STRIDE = 16


@dataclass(frozen=True)
class SparseRows:
    """Sparse vectors in CSR form: row i has `terms[starts[i]:starts[i + 1]]` with these `weights`, each term once."""

    starts: NDArray[np.int64]
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.starts) - 1


class Postings:
    """An inverted index: the transpose of documents' sparse vectors.

    Args:
        documents: One row for each document; weights must be positive.
        n_terms: Size of the vocabulary.
    """

    def __init__(self, documents: SparseRows, n_terms: int) -> None:
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
        """Bytes of the index."""
        return self.starts.nbytes + self.docs.nbytes + self.weights.nbytes

    def weight(self, term: int, doc: int) -> float:
        """Return the weight of the term `term` in the document `doc`; 0 if the document does not contain it."""
        docs = self.docs[self.starts[term] : self.starts[term + 1]]
        index = int(np.searchsorted(docs, doc))
        return float(self.weights[self.starts[term] + index]) if index < len(docs) and docs[index] == doc else 0.0

    def df(self, term: int) -> int:
        """Return the document frequency of a term."""
        return int(self.starts[term + 1] - self.starts[term])

    def search(self, queries: SparseRows, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """Return the k best documents [queries, k] and their scores, sums of products of weights, best first.

        Args:
            queries: Sparse vectors over the documents' vocabulary.
            k: Number of hits per query; -1 and -inf where fewer documents share a term with the query.
            ranks: Rank of each document, shape [documents]; among equal scores lower ranks come first.
            threads: Number of threads.

        Raises:
            RunError: A query has a term outside the vocabulary.
        """
        self._check(queries)
        keys, docs = empty_keys(len(queries), k)

        def block(start: int, stop: int) -> None:
            query_arrays = (queries.starts, queries.terms, queries.weights)
            index_arrays = (self.starts, self.docs, self.weights)
            _search(*query_arrays, *index_arrays, self.n_docs, ranks, start, stop, keys, docs)

        if docs.size:
            run_in_blocks(block, len(queries), threads)
        return docs, unpack_scores(keys)

    def score(self, queries: SparseRows, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the scores of candidates [queries, candidates], summed in the same order as in `search`.

        Args:
            queries: Sparse vectors over the documents' vocabulary.
            docs: Document indices [queries, candidates], padded with -1, whose score is -inf. A document that shares
                no term with the query scores 0.

        Raises:
            RunError: A query has a term outside the vocabulary.
        """
        self._check(queries)
        scores = np.where(docs >= 0, np.float32(0.0), np.float32(-np.inf))
        _score(queries.starts, queries.terms, queries.weights, self.starts, self.docs, self.weights, docs, scores)
        return scores

    def _check(self, queries: SparseRows) -> None:
        if len(queries.terms) and queries.terms.max() >= len(self.starts) - 1:
            raise RunError(
                f"a query has term {queries.terms.max()}, the documents' vocabulary only {len(self.starts) - 1} terms; "
                "encode queries and documents over the same vocabulary"
            )


@njit(nogil=True, cache=True)
def _count(terms, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for entry in range(len(terms)):
        out[terms[entry]] += 1


@njit(nogil=True, cache=True)
def _transpose(starts, terms, weights, free, docs, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for doc in range(len(starts) - 1):
        for entry in range(starts[doc], starts[doc + 1]):
            index = free[terms[entry]]
            docs[index] = doc
            out[index] = weights[entry]
            free[terms[entry]] = index + 1


@njit(nogil=True, cache=True)
def _search(q_starts, q_terms, q_weights, starts, docs, weights, n_docs, ranks, first, last, out_keys, out_docs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.zeros(min(n_docs, _BLOCK), np.float32)
    longest = np.max(q_starts[first + 1 : last + 1] - q_starts[first:last])
    begins, stops = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for query in range(first, last):
        terms = q_terms[q_starts[query] : q_starts[query + 1]]
        term_weights = q_weights[q_starts[query] : q_starts[query + 1]]
        keys, best = out_keys[query], out_docs[query]
        for entry in range(len(terms)):
            stops[entry] = starts[terms[entry]]
        size = 0
        for offset in range(0, n_docs, _BLOCK):
            after, added = min(offset + _BLOCK, n_docs), 0
            for entry in range(len(terms)):
                begin, stop = stops[entry], starts[terms[entry] + 1]
                if after < n_docs:
                    stop = _lower_bound(docs, begin, stop, after)
                _add(total, docs[begin:stop], weights[begin:stop], term_weights[entry], offset)
                begins[entry], stops[entry] = begin, stop
                added += stop - begin
            if added * _SPARSE < after - offset:
                for entry in range(len(terms)):
                    size = _select_listed(total, docs[begins[entry] : stops[entry]], ranks, offset, keys, best, size)
                continue
            size = _select(total[: after - offset], ranks[offset:after], offset, keys, best, size)
            total[:] = 0.0
        sort_best_first(keys, best, size)


@njit(nogil=True, cache=True)
def _score(q_starts, q_terms, q_weights, starts, docs, weights, candidates, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for query in range(len(candidates)):
        for entry in range(q_starts[query], q_starts[query + 1]):
            start, stop = starts[q_terms[entry]], starts[q_terms[entry] + 1]
            for column in range(candidates.shape[1]):
                index = start + np.searchsorted(docs[start:stop], candidates[query, column])
                if index < stop and docs[index] == candidates[query, column]:
                    out[query, column] += q_weights[entry] * weights[index]


@njit(nogil=True, cache=True)
def _lower_bound(docs, begin, stop, doc):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the first index of an ascending list whose document is >= `doc`, by galloping search."""
    step = 1
    while begin + step < stop and docs[begin + step] < doc:
        begin += step
        step *= 2
    stop = min(stop, begin + step)
    while begin < stop:
        middle = (begin + stop) // 2
        if docs[middle] < doc:
            begin = middle + 1
        else:
            stop = middle
    return begin


@njit(nogil=True, cache=True)
def _add(total, docs, weights, weight, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for index in range(len(docs)):
        total[np.uint32(docs[index] - offset)] += weight * weights[index]  # unsigned: no check for a negative index


@njit(nogil=True, cache=True)
def _select_listed(total, listed, ranks, offset, keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Push the best documents of one term's postings, and clear their totals, so that each counts once."""
    threshold = _threshold(keys, size)
    for listed_doc in listed:
        doc = np.uint32(listed_doc)
        score = total[doc - np.uint32(offset)]
        total[doc - np.uint32(offset)] = 0.0
        if score >= threshold:
            size = push(keys, docs, size, pack_key(score, ranks[doc]), doc)
            threshold = _threshold(keys, size)
    return size


@njit(nogil=True, cache=True)
def _threshold(keys, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the score that enters the top-k: the smallest positive number while it is not full."""
    return unpack_score(keys[0]) if size == len(keys) else np.float32(1e-45)


@njit(nogil=True, cache=True)
def _select(total, ranks, offset, keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Push the best positive totals, skipping strides without any; return the size of the top-k."""
    threshold = _threshold(keys, size)
    whole = len(total) - len(total) % _STRIDE
    for start in range(0, len(total), _STRIDE):
        stop = len(total)
        if start < whole:
            stop = start + _STRIDE
            highest = total[start]
            for step in range(1, _STRIDE):
                highest = max(highest, total[start + step])
            if highest < threshold:
                continue
        for index in range(start, stop):
            if total[index] >= threshold:
                size = push(keys, docs, size, pack_key(total[index], ranks[index]), offset + index)
                threshold = _threshold(keys, size)
    return size
