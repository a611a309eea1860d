"""The k best of a stream of scores, in the canonical order: score descending, then rank ascending.

`ranks` [documents] int32 says which document goes first among equal scores (`Corpus.ranks`). The kernels release the
interpreter's lock, so `in_blocks` runs them on plain threads, one block of rows each.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

Hits = tuple[NDArray[np.int32], NDArray[np.float32]]


def no_hits(rows: int, k: int) -> Hits:
    """Empty places: documents -1 and scores -inf, both [rows, k]."""
    return np.full((rows, k), -1, np.int32), np.full((rows, k), -np.inf, np.float32)


def no_keys(rows: int, k: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Room for the best of each row: keys 0 and documents -1, both [rows, k]."""
    return np.zeros((rows, k), np.uint64), np.full((rows, k), -1, np.int32)


@njit(nogil=True, cache=True)
def key_of(score, rank):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """One integer that is greater for what goes first: the score's ordered bits above the inverted rank."""
    bits = np.float32(score).view(np.uint32)
    ordered = ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)
    return (np.uint64(np.uint32(ordered)) << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(rank))


@njit(nogil=True, cache=True)
def score_of(key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The score inside a key, exactly."""
    ordered = np.uint32(key >> np.uint64(32))
    bits = ordered & np.uint32(0x7FFFFFFF) if ordered >> np.uint32(31) else ~ordered
    return np.uint32(bits).view(np.float32)


def scores_of(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """The scores inside keys, exactly; -inf where a key is 0, which no score has."""
    scores = np.empty(keys.shape, np.float32)
    _unpack(keys.reshape(-1), scores.reshape(-1))
    return scores


@njit(nogil=True, cache=True)
def _unpack(keys, scores):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for place in range(len(keys)):
        scores[place] = score_of(keys[place]) if keys[place] else np.float32(-np.inf)


@njit(nogil=True, cache=True)
def _sink(keys, docs, place, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Restore the heap, least key at the root, below a place whose entry may be too great."""
    key, doc = keys[place], docs[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[place], docs[place] = keys[child], docs[child]
        place = child
    keys[place], docs[place] = key, doc


@njit(nogil=True, cache=True)
def _heapify(keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for place in range(size // 2 - 1, -1, -1):
        _sink(keys, docs, place, size)


@njit(nogil=True, cache=True)
def offer(keys, docs, size, key, doc):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Keep an entry if it is among the best len(keys); returns how many are kept. A heap once all places are full."""
    if size < len(keys):
        keys[size], docs[size] = key, doc
        size += 1
        if size == len(keys):
            _heapify(keys, docs, size)
    elif key > keys[0]:
        keys[0], docs[0] = key, doc
        _sink(keys, docs, 0, size)
    return size


@njit(nogil=True, cache=True)
def best_first(keys, docs, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sort what is kept, greatest key first."""
    _heapify(keys, docs, size)
    for last in range(size - 1, 0, -1):
        keys[0], keys[last] = keys[last], keys[0]
        docs[0], docs[last] = docs[last], docs[0]
        _sink(keys, docs, 0, last)


def recall(found: NDArray[np.int32], exact: NDArray[np.int32]) -> float:
    """The mean share of `exact` [rows, k] that is in `found` [rows, k], over rows with any; 1 where there is none."""
    shares = [
        np.isin(right[right >= 0], got).mean() for got, right in zip(found, exact, strict=True) if (right >= 0).any()
    ]
    return float(np.mean(shares)) if shares else 1.0


class Best:
    """The k best of each row [rows, k] while scores come block by block."""

    def __init__(self, rows: int, k: int) -> None:
        self._keys, self._docs = no_keys(rows, k)
        self._sizes = np.zeros(rows, np.int64)

    def offer(
        self, scores: NDArray[np.float32], first: int, offset: int, ranks: NDArray[np.int32], threads: int
    ) -> None:
        """Scores [n, documents] of rows first..first+n for documents offset, offset + 1, ...; -inf is no hit."""
        rows = slice(first, first + len(scores))
        keys, docs, sizes = self._keys[rows], self._docs[rows], self._sizes[rows]

        def work(start: int, stop: int) -> None:
            _offer_rows(scores, offset, keys, docs, sizes, ranks, start, stop)

        in_blocks(work, len(scores), threads)

    def hits(self) -> Hits:
        """Documents (-1: no hit) and scores, both [rows, k], best first."""
        _sort(self._keys, self._docs, self._sizes)
        return self._docs, scores_of(self._keys)


@njit(nogil=True, cache=True)
def _offer_rows(scores, offset, keys, docs, sizes, ranks, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    k = keys.shape[1]
    for row in range(first, last):
        size = sizes[row]
        least = score_of(keys[row, 0]) if size == k else np.float32(-3.4028235e38)
        for column in range(scores.shape[1]):
            score = scores[row, column]
            if not score < least:  # a NaN goes through too, so that Run can refuse it
                size = offer(keys[row], docs[row], size, key_of(score, ranks[offset + column]), offset + column)
                if size == k:
                    least = score_of(keys[row, 0])
        sizes[row] = size


@njit(nogil=True, cache=True)
def _sort(keys, docs, sizes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for row in range(len(docs)):
        best_first(keys[row], docs[row], sizes[row])


def in_blocks(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Call `work(start, stop)` over all rows on `threads` threads, a few blocks each so that none waits long."""
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
