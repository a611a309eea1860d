"""Candidates for late interaction: every token is taken for the centroid that it lies nearest to.

A document is the set of its tokens' centroids; its approximate score is the sum over query tokens of the greatest
inner product with one of them. That needs one product of query tokens with all centroids, and no document's vectors.
"""

import math

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from harness.search.maxsim import Tokens, query_blocks
from harness.search.topk import Best, Hits, in_blocks, no_hits

_SAMPLE = 1 << 16
_ROUNDS = 4
_BLOCK = 1 << 9
_MOST = 1 << 14


class Centroids:
    """Spherical k-means over a seeded sample of the token vectors: about 4 times the root of the number of tokens.

    Each document then keeps its different centroids. The vectors are taken to be of length 1.
    """

    def __init__(self, documents: Tokens, seed: int) -> None:
        vectors = documents.vectors
        n = min(_MOST, 1 << int(math.log2(max(1.0, 4 * math.sqrt(len(vectors))))), -(-len(vectors) // 4))
        chosen = np.random.default_rng(seed).permutation(len(vectors))[:_SAMPLE]
        sample = vectors[torch.from_numpy(chosen).to(vectors.device)].float()
        self.centres = _means(sample, n)
        nearest = _nearest(vectors, self.centres) if len(vectors) else None
        self.starts, self.codes = _distinct(documents.starts, nearest)

    @property
    def nbytes(self) -> int:
        """Bytes held to be searched."""
        return self.centres.nbytes + self.starts.nbytes + self.codes.nbytes

    def search(self, queries: Tokens, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """The k documents [queries, k] of highest approximate score, and those scores."""
        n_docs = len(self.starts) - 1
        k = min(k, n_docs)
        if k < 1 or not len(queries):
            return no_hits(len(queries), k)
        best = Best(len(queries), k)
        for first, block in query_blocks(queries):
            scores = np.full((len(block), n_docs), -np.inf, np.float32)

            def work(start: int, stop: int, block=block, scores=scores) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
                for query in range(start, stop):
                    products = (self.centres @ block.of(query).to(self.centres.device).T).cpu().numpy()
                    _approximate(products, self.starts, self.codes, scores[query])

            in_blocks(work, len(block), threads)
            best.offer(scores, first, 0, ranks, threads)
        return best.hits()


def _means(sample: torch.Tensor, n: int) -> torch.Tensor:
    """n unit vectors; one that nothing lies nearest to stays where it was."""
    centres = sample[:n].clone()
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        used = torch.bincount(nearest, minlength=n) > 0
        centres[used] = torch.nn.functional.normalize(sums[used], dim=1)
    return centres


def _nearest(vectors: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The number of each vector's centre."""
    found = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for start in range(0, len(vectors), _BLOCK):
        products = vectors[start : start + _BLOCK].float() @ centres.T
        torch.argmax(products, dim=1, out=found[start : start + _BLOCK])
    return found


def _distinct(starts: NDArray[np.int64], nearest: torch.Tensor | None) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Each document's different centroids, packed."""
    if nearest is None:
        return starts, np.empty(0, np.int32)
    docs = np.repeat(np.arange(len(starts) - 1, dtype=np.int64), np.diff(starts))
    pairs = np.unique(docs << 32 | nearest.cpu().numpy())
    counts = np.bincount(pairs >> 32, minlength=len(starts) - 1)
    return np.concatenate([[0], np.cumsum(counts)]), (pairs & 0xFFFFFFFF).astype(np.int32)


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _approximate(products, starts, codes, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    greatest = np.empty(products.shape[1], np.float32)
    for doc in range(len(starts) - 1):
        if starts[doc] == starts[doc + 1]:
            continue
        greatest[:] = products[codes[starts[doc]]]
        for place in range(starts[doc] + 1, starts[doc + 1]):
            row = products[codes[place]]
            for column in range(len(greatest)):
                greatest[column] = max(greatest[column], row[column])
        total = np.float32(0.0)
        for column in range(len(greatest)):
            total += greatest[column]
        out[doc] = total
