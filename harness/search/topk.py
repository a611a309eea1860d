"""Top-k of a stream of scores, in the canonical order: score descending, then rank ascending.

`ranks` [documents] int32 orders documents of equal score (`Corpus.ranks`). The kernels release the GIL, so
`run_in_blocks` runs them on plain threads, one block of rows each.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

Hits = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Document indices, -1 where there is no hit, and scores, both [queries, k]."""


def empty_hits(rows: int, k: int) -> Hits:
    """Return documents of -1 and scores of -inf, both of `rows` rows and `k` columns."""
    return np.full((rows, k), -1, np.int32), np.full((rows, k), -np.inf, np.float32)


def empty_keys(rows: int, k: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return empty heaps, `rows` rows of `k` entries: keys of 0 and documents of -1."""
    return np.zeros((rows, k), np.uint64), np.full((rows, k), -1, np.int32)


@njit(nogil=True, cache=True)
def pack_key(score, rank):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return an integer that is greater for better hits: the ordered bits of `score` above the inverted `rank`."""
    bits = np.float32(score).view(np.uint32)
    ordered = ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)
    return (np.uint64(np.uint32(ordered)) << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(rank))


@njit(nogil=True, cache=True)
def unpack_score(key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the exact score in a key of `pack_key`."""
    ordered = np.uint32(key >> np.uint64(32))
    bits = ordered & np.uint32(0x7FFFFFFF) if ordered >> np.uint32(31) else ~ordered
    return np.uint32(bits).view(np.float32)


def unpack_scores(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the exact scores in keys of `pack_key`; -inf for a key of 0, which marks an empty entry."""
    scores = np.empty(keys.shape, np.float32)
    _unpack(keys.reshape(-1), scores.reshape(-1))
    return scores


@njit(nogil=True, cache=True)
def _unpack(keys, scores):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for index in range(len(keys)):
        scores[index] = unpack_score(keys[index]) if keys[index] else np.float32(-np.inf)


@njit(nogil=True, cache=True)
def _sift_down(keys, docs, node, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Restore the min-heap below a node whose key may be greater than its children's."""
    key, doc = keys[node], docs[node]
    while True:
        child = 2 * node + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[node], docs[node] = keys[child], docs[child]
        node = child
    keys[node], docs[node] = key, doc


@njit(nogil=True, cache=True)
def _heapify(keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for node in range(size // 2 - 1, -1, -1):
        _sift_down(keys, docs, node, size)


@njit(nogil=True, cache=True)
def push(keys, docs, size, key, doc):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add the entry (`key`, `doc`) to a top-k heap if it is among the best; return the new number of entries.

    `keys` and `docs` [k] contain `size` entries, and are a min-heap once they are full.
    """
    if size < len(keys):
        keys[size], docs[size] = key, doc
        size += 1
        if size == len(keys):
            _heapify(keys, docs, size)
    elif key > keys[0]:
        keys[0], docs[0] = key, doc
        _sift_down(keys, docs, 0, size)
    return size


@njit(nogil=True, cache=True)
def sort_best_first(keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sort the first `size` entries of `keys` and `docs` in place, greatest key first."""
    _heapify(keys, docs, size)
    for last in range(size - 1, 0, -1):
        keys[0], keys[last] = keys[last], keys[0]
        docs[0], docs[last] = docs[last], docs[0]
        _sift_down(keys, docs, 0, last)


def recall(approximate: NDArray[np.int32], exact: NDArray[np.int32]) -> float:
    """Return the recall of approximate search: the mean share of exact hits that it found.

    Args:
        approximate: Document indices [rows, k], -1 where there is no hit.
        exact: Document indices [rows, k]; rows without hits are left out; the recall is 1 if all are.
    """
    shares = [
        np.isin(expected[expected >= 0], hits).mean()
        for hits, expected in zip(approximate, exact, strict=True)
        if (expected >= 0).any()
    ]
    return float(np.mean(shares)) if shares else 1.0


class TopK:
    """The k best documents of each row, updated block by block."""

    def __init__(self, rows: int, k: int) -> None:
        self._keys, self._docs = empty_keys(rows, k)
        self._sizes = np.zeros(rows, np.int64)

    def update(
        self, scores: NDArray[np.float32], first: int, offset: int, ranks: NDArray[np.int32], threads: int
    ) -> None:
        """Add the scores of a block of rows and documents.

        Args:
            scores: Shape [rows, documents]; -inf for no hit.
            first: Index of the block's first row.
            offset: Index of the block's first document.
            ranks: Rank of each document of the corpus [documents]; among equal scores lower ranks come first.
            threads: Number of threads that the rows are divided among.
        """
        rows = slice(first, first + len(scores))
        keys, docs, sizes = self._keys[rows], self._docs[rows], self._sizes[rows]

        def work(start: int, stop: int) -> None:
            _update_rows(scores, offset, keys, docs, sizes, ranks, start, stop)

        run_in_blocks(work, len(scores), threads)

    def hits(self) -> Hits:
        """Return the documents (-1: no hit) and scores, both [rows, k], best first."""
        _sort(self._keys, self._docs, self._sizes)
        return self._docs, unpack_scores(self._keys)


@njit(nogil=True, cache=True)
def _update_rows(scores, offset, keys, docs, sizes, ranks, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    k = keys.shape[1]
    for row in range(first, last):
        size = sizes[row]
        threshold = unpack_score(keys[row, 0]) if size == k else np.float32(-3.4028235e38)
        for column in range(scores.shape[1]):
            score = scores[row, column]
            if not score < threshold:  # a NaN passes too, so that Run can reject it
                size = push(keys[row], docs[row], size, pack_key(score, ranks[offset + column]), offset + column)
                if size == k:
                    threshold = unpack_score(keys[row, 0])
        sizes[row] = size


@njit(nogil=True, cache=True)
def _sort(keys, docs, sizes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for row in range(len(docs)):
        sort_best_first(keys[row], docs[row], sizes[row])


def run_in_blocks(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Divide rows into blocks, four per thread to balance the load, and process them on a thread pool.

    Args:
        work: Called with the first row of a block and the row behind its last; must release the GIL to run in parallel.
        rows: Number of rows.
        threads: Number of threads; 1 for a single call in this thread.
    """
    if threads <= 1 or rows <= 1:
        work(0, rows)
        return
    blocks = min(rows, threads * 4)
    edges = [rows * block // blocks for block in range(blocks + 1)]
    for _ in _pool(threads).map(work, edges[:-1], edges[1:]):
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="search")
