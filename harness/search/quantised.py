"""Dense vectors in one byte or one bit a dimension: less memory, an approximate search, and rescoring of its best.

int8    v / scale rounded, the scale by dimension so that the corpus' greatest is 127; the query stays float32
binary  the signs; candidates by the number of equal signs, which are then rescored with finer codes
"""

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.search import dense
from harness.search.topk import Hits, best_first, in_blocks, key_of, no_hits, no_keys, offer, score_of, scores_of
from harness.types.protocols import Component

_RESCORE = ("int8", "float32")


class Int8(Component):
    """A quarter of the memory. Held and searched on the CPU."""

    def build(self, vectors: torch.Tensor) -> None:
        """Quantise vectors [documents, dimensions]."""
        vectors = vectors.cpu()
        self._scale = vectors.abs().amax(dim=0).clamp_min(1e-12) / 127 if len(vectors) else torch.ones(1)
        self._codes = torch.empty(vectors.shape, dtype=torch.int8)
        for start in range(0, len(vectors), 1 << 16):
            self._codes[start : start + (1 << 16)] = (vectors[start : start + (1 << 16)] / self._scale).round_()

    def search(self, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """The k documents of highest inner product with the quantised vectors, and those products."""
        return dense.search(self._codes, queries.cpu() * self._scale, k, ranks, threads)

    def score(self, queries: torch.Tensor, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Inner products [queries, candidates] with the quantised vectors of the documents `docs`."""
        return dense.score(self._codes, queries.cpu() * self._scale, docs)

    @property
    def nbytes(self) -> int:
        """Bytes held to be searched."""
        return self._codes.nbytes + self._scale.nbytes


class Binary(Component):
    """A bit a dimension; k x `oversample` candidates are rescored with int8 or float32 vectors, or not at all (null).

    The finer vectors are held too and count: 1/32 + 1/4 of float32 with int8.
    """

    def __init__(self, rescore: str | None = "int8", oversample: int = 4) -> None:
        if rescore is not None and rescore not in _RESCORE:
            raise ConfigError(f"index.rescore={rescore!r}; choices: null, {', '.join(_RESCORE)}")
        if oversample < 1:
            raise ConfigError(f"index.oversample={oversample} must be at least 1")
        self._rescore, self._oversample = rescore, oversample
        self._fine: Int8 | None = None
        self._float: torch.Tensor | None = None

    def build(self, vectors: torch.Tensor) -> None:
        """Take the signs of vectors [documents, dimensions], and keep what rescoring needs."""
        self._bits, self._dimensions = _packed(vectors), vectors.shape[1]
        if self._rescore == "int8":
            self._fine = Int8()
            self._fine.build(vectors)
        elif self._rescore == "float32":
            self._float = vectors.cpu()

    def search(self, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """The k best by the rescored inner product; without rescoring, by that of the signs (-1, 1)."""
        rescored = self._fine is not None or self._float is not None
        docs, scores = self._nearest(queries, k * self._oversample if rescored else k, ranks, threads)
        if self._fine is not None:
            scores = self._fine.score(queries, docs)
        elif self._float is not None:
            scores = dense.score(self._float, queries.cpu(), docs)
        return _kept(docs, scores, k, ranks)

    def _nearest(self, queries: torch.Tensor, n: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        n = min(n, len(self._bits))
        if n < 1 or not len(queries):
            return no_hits(len(queries), n)
        keys, docs = no_keys(len(queries), n)
        asked = _packed(queries)
        in_blocks(
            lambda a, b: _hamming(self._bits, asked, self._dimensions, ranks, keys, docs, a, b), len(asked), threads
        )
        return docs, scores_of(keys)

    @property
    def nbytes(self) -> int:
        """Bytes of the bits and of the vectors that rescore."""
        finer = self._fine.nbytes if self._fine else self._float.nbytes if self._float is not None else 0
        return self._bits.nbytes + finer


def _kept(docs: NDArray[np.int32], scores: NDArray[np.float32], k: int, ranks: NDArray[np.int32]) -> Hits:
    """The k best of candidates in the canonical order; -1 and -inf are empty places."""
    place = np.where(docs >= 0, ranks[docs], np.iinfo(np.int32).max)
    order = np.lexsort((place, -scores), axis=1)[:, :k]
    return np.take_along_axis(docs, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _packed(vectors: torch.Tensor) -> NDArray[np.uint64]:
    """Signs [rows, dimensions / 64 rounded up], 64 in a word."""
    signs = np.packbits((vectors > 0).cpu().numpy(), axis=1)
    return np.pad(signs, ((0, 0), (0, -signs.shape[1] % 8))).view(np.uint64)


@njit(nogil=True, cache=True)
def _ones(word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """How many bits of a 64-bit word are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(nogil=True, cache=True)
def _hamming(bits, queries, dimensions, ranks, keys, docs, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    k = keys.shape[1]
    for row in range(first, last):
        size, least = 0, np.float32(-np.inf)
        for doc in range(len(bits)):
            apart = np.uint64(0)
            for word in range(bits.shape[1]):
                apart += _ones(bits[doc, word] ^ queries[row, word])
            score = np.float32(dimensions - 2 * np.int64(apart))
            if score >= least:
                size = offer(keys[row], docs[row], size, key_of(score, ranks[doc]), doc)
                if size == k:
                    least = score_of(keys[row, 0])
        best_first(keys[row], docs[row], size)
