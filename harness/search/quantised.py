"""Scalar (int8) and binary quantisation of dense vectors: less memory, approximate search, rescoring.

int8    v / scale, rounded; each dimension's scale maps the corpus's largest magnitude to 127; queries stay float32
binary  signs; candidates of the smallest Hamming distance are rescored with int8 or float32 vectors
"""

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.search import dense
from harness.search.topk import (
    Hits,
    empty_hits,
    empty_keys,
    pack_key,
    push,
    run_in_blocks,
    sort_best_first,
    unpack_score,
    unpack_scores,
)
from harness.types.protocols import Component

_RESCORE = ("int8", "float32")


class Int8(Component):
    """An int8 (scalar quantisation) index: a quarter of float32's memory, searched on the CPU."""

    def build(self, vectors: torch.Tensor) -> None:
        """Quantise vectors [documents, dimensions]."""
        vectors = vectors.cpu()
        self._scale = vectors.abs().amax(dim=0).clamp_min(1e-12) / 127 if len(vectors) else torch.ones(1)
        self._codes = torch.empty(vectors.shape, dtype=torch.int8)
        for start in range(0, len(vectors), 1 << 16):
            self._codes[start : start + (1 << 16)] = (vectors[start : start + (1 << 16)] / self._scale).round_()

    def search(self, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """Return the k documents [queries, k] of highest inner product with the quantised vectors, and the products.

        Args:
            queries: Vectors [queries, dimensions], float32.
            k: Number of hits per query; -1 and -inf where there are fewer documents.
            ranks: Rank of each document, shape [documents]; among equal scores lower ranks come first.
            threads: Number of threads.
        """
        return dense.search(self._codes, queries.cpu() * self._scale, k, ranks, threads)

    def score(self, queries: torch.Tensor, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return inner products of `queries` with the quantised vectors of candidates `docs` [queries, candidates]."""
        return dense.score(self._codes, queries.cpu() * self._scale, docs)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and scales."""
        return self._codes.nbytes + self._scale.nbytes


class Binary(Component):
    """A binary index, rescored; with int8 rescoring it takes 1/32 + 1/4 of float32's memory.

    Args:
        rescore: Precision of the vectors that rescore the candidates, `int8` or `float32`; None for no rescoring.
        oversample: Number of rescored candidates, as a multiple of k.

    Raises:
        ConfigError: An argument is not one of its choices, or below 1.
    """

    def __init__(self, rescore: str | None = "int8", oversample: int = 4) -> None:
        if rescore is not None and rescore not in _RESCORE:
            raise ConfigError(f"index.rescore={rescore!r}; choices: null, {', '.join(_RESCORE)}")
        if oversample < 1:
            raise ConfigError(f"index.oversample={oversample} must be at least 1")
        self._rescore, self._oversample = rescore, oversample
        self._int8: Int8 | None = None
        self._float: torch.Tensor | None = None

    def build(self, vectors: torch.Tensor) -> None:
        """Index the signs of vectors [documents, dimensions], and the vectors that rescore."""
        self._bits, self._dimensions = _pack_signs(vectors), vectors.shape[1]
        if self._rescore == "int8":
            self._int8 = Int8()
            self._int8.build(vectors)
        elif self._rescore == "float32":
            self._float = vectors.cpu()

    def search(self, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """Return the k documents [queries, k] of highest score, and the scores.

        The score is the rescored inner product; without rescoring, the inner product of the signs.

        Args:
            queries: Vectors [queries, dimensions], float32.
            k: Number of hits per query; -1 and -inf where there are fewer documents.
            ranks: Rank of each document, shape [documents]; among equal scores lower ranks come first.
            threads: Number of threads.
        """
        rescored = self._int8 is not None or self._float is not None
        docs, scores = self._nearest(queries, k * self._oversample if rescored else k, ranks, threads)
        if self._int8 is not None:
            scores = self._int8.score(queries, docs)
        elif self._float is not None:
            scores = dense.score(self._float, queries.cpu(), docs)
        return _best(docs, scores, k, ranks)

    def _nearest(self, queries: torch.Tensor, n: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        n = min(n, len(self._bits))
        if n < 1 or not len(queries):
            return empty_hits(len(queries), n)
        keys, docs = empty_keys(len(queries), n)
        query_bits = _pack_signs(queries)

        def work(start: int, stop: int) -> None:
            _hamming(self._bits, query_bits, self._dimensions, ranks, keys, docs, start, stop)

        run_in_blocks(work, len(query_bits), threads)
        return docs, unpack_scores(keys)

    @property
    def nbytes(self) -> int:
        """Bytes of the signs and of the vectors that rescore."""
        rescoring = self._int8.nbytes if self._int8 else self._float.nbytes if self._float is not None else 0
        return self._bits.nbytes + rescoring


def _best(docs: NDArray[np.int32], scores: NDArray[np.float32], k: int, ranks: NDArray[np.int32]) -> Hits:
    """Return the k best of each row's candidates in the canonical order; -1 and -inf where there is none."""
    tie_order = np.where(docs >= 0, ranks[docs], np.iinfo(np.int32).max)
    order = np.lexsort((tie_order, -scores), axis=1)[:, :k]
    return np.take_along_axis(docs, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _pack_signs(vectors: torch.Tensor) -> NDArray[np.uint64]:
    """Return the signs as bits, shape [rows, ceil(dimensions / 64)]."""
    signs = np.packbits((vectors > 0).cpu().numpy(), axis=1)
    return np.pad(signs, ((0, 0), (0, -signs.shape[1] % 8))).view(np.uint64)


@njit(nogil=True, cache=True)
def _popcount(word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the number of set bits of a 64-bit word."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(nogil=True, cache=True)
def _hamming(bits, queries, dimensions, ranks, keys, docs, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    k = keys.shape[1]
    for row in range(first, last):
        size, threshold = 0, np.float32(-np.inf)
        for doc in range(len(bits)):
            distance = np.uint64(0)
            for word in range(bits.shape[1]):
                distance += _popcount(bits[doc, word] ^ queries[row, word])
            score = np.float32(dimensions - 2 * np.int64(distance))
            if score >= threshold:
                size = push(keys[row], docs[row], size, pack_key(score, ranks[doc]), doc)
                if size == k:
                    threshold = unpack_score(keys[row, 0])
        sort_best_first(keys[row], docs[row], size)
