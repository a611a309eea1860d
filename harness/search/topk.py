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


@njit(nogil=True, cache=True, inline="always")
def _worse(score_a, doc_a, score_b, doc_b, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return score_a < score_b or (score_a == score_b and ranks[doc_a] > ranks[doc_b])


@njit(nogil=True, cache=True)
def _sink(docs, scores, size, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Restore the heap, worst at the root, after its root was replaced."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _worse(scores[child + 1], docs[child + 1], scores[child], docs[child], ranks):
            child += 1
        if not _worse(scores[child], docs[child], scores[place], docs[place], ranks):
            return
        docs[place], docs[child] = docs[child], docs[place]
        scores[place], scores[child] = scores[child], scores[place]
        place = child


@njit(nogil=True, cache=True)
def offer(docs, scores, size, doc, score, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Put a document into a heap of at most len(docs); returns how many it holds now."""
    if size == len(docs):
        if score != score or _worse(scores[0], docs[0], score, doc, ranks):  # a NaN stays, for Run to refuse
            docs[0], scores[0] = doc, score
            _sink(docs, scores, size, ranks)
        return size
    place = size
    docs[place], scores[place] = doc, score
    while place:
        parent = (place - 1) // 2
        if not _worse(scores[place], docs[place], scores[parent], docs[parent], ranks):
            break
        docs[place], docs[parent] = docs[parent], docs[place]
        scores[place], scores[parent] = scores[parent], scores[place]
        place = parent
    return size + 1


@njit(nogil=True, cache=True)
def sort_heap(docs, scores, size, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Turn a heap into a list, best first."""
    for last in range(size - 1, 0, -1):
        docs[0], docs[last] = docs[last], docs[0]
        scores[0], scores[last] = scores[last], scores[0]
        _sink(docs, scores, last, ranks)


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
