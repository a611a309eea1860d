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
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> np.uint32(31), ordered & np.uint32(0x7FFFFFFF), ~ordered)
    return np.where(keys == 0, np.float32(-np.inf), bits.view(np.float32))


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
