"""Candidate generation for late interaction: every document token is replaced by its nearest centroid.

A document is the set of its tokens' centroids; its approximate score is the sum over query tokens of the maximum inner
product with one of them. It needs the products of query tokens with all centroids, and no document vectors.
"""

import math

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from harness.search.maxsim import TokenEmbeddings, query_blocks
from harness.search.topk import Hits, TopK, empty_hits, run_in_blocks

_SAMPLE = 1 << 16
_ITERATIONS = 4
_BLOCK = 1 << 9
_MAX_CENTROIDS = 1 << 14


class Centroids:
    """Centroids of token vectors, and the distinct centroids of each document.

    Spherical k-means over a sample of the vectors; there are about 4 times the square root of the number of tokens.

    Args:
        documents: Token vectors of unit length.
        seed: Seed of the sample.
    """

    def __init__(self, documents: TokenEmbeddings, seed: int) -> None:
        vectors = documents.vectors
        n = min(_MAX_CENTROIDS, 1 << int(math.log2(max(1.0, 4 * math.sqrt(len(vectors))))), -(-len(vectors) // 4))
        indices = np.random.default_rng(seed).permutation(len(vectors))[:_SAMPLE]
        sample = vectors[torch.from_numpy(indices).to(vectors.device)].float()
        self.centroids = _k_means(sample, n)
        nearest = _nearest(vectors, self.centroids) if len(vectors) else None
        self.starts, self.codes = _distinct(documents.starts, nearest)

    @property
    def nbytes(self) -> int:
        """Bytes of the centroids and of each document's list of them."""
        return self.centroids.nbytes + self.starts.nbytes + self.codes.nbytes

    def search(self, queries: TokenEmbeddings, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """Return the documents [queries, min(k, documents)] of highest approximate score, and the scores.

        Args:
            queries: Token embeddings of the queries.
            k: Number of candidates per query.
            ranks: Rank of each document, shape [documents]; among equal scores lower ranks come first.
            threads: Number of threads.
        """
        n_docs = len(self.starts) - 1
        k = min(k, n_docs)
        if k < 1 or not len(queries):
            return empty_hits(len(queries), k)
        best = TopK(len(queries), k)
        for first, block in query_blocks(queries):
            scores = np.full((len(block), n_docs), -np.inf, np.float32)

            def work(start: int, stop: int, block=block, scores=scores) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
                for query in range(start, stop):
                    products = (self.centroids @ block.vectors_of(query).to(self.centroids.device).T).cpu().numpy()
                    _approximate(products, self.starts, self.codes, scores[query])

            run_in_blocks(work, len(block), threads)
            best.update(scores, first, 0, ranks, threads)
        return best.hits()


def _k_means(sample: torch.Tensor, n: int) -> torch.Tensor:
    """Return n unit vectors; a centroid without vectors stays unchanged."""
    centroids = sample[:n].clone()
    for _ in range(_ITERATIONS):
        nearest = _nearest(sample, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, sample)
        used = torch.bincount(nearest, minlength=n) > 0
        centroids[used] = torch.nn.functional.normalize(sums[used], dim=1)
    return centroids


def _nearest(vectors: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return the index of each vector's nearest centroid."""
    nearest = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for start in range(0, len(vectors), _BLOCK):
        products = vectors[start : start + _BLOCK].float() @ centroids.T
        torch.argmax(products, dim=1, out=nearest[start : start + _BLOCK])
    return nearest


def _distinct(starts: NDArray[np.int64], nearest: torch.Tensor | None) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the distinct centroids of each document, packed: offsets and centroid indices."""
    if nearest is None:
        return starts, np.empty(0, np.int32)
    docs = np.repeat(np.arange(len(starts) - 1, dtype=np.int64), np.diff(starts))
    pairs = np.unique(docs << 32 | nearest.cpu().numpy())
    counts = np.bincount(pairs >> 32, minlength=len(starts) - 1)
    return np.concatenate([[0], np.cumsum(counts)]), (pairs & 0xFFFFFFFF).astype(np.int32)


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _approximate(products, starts, codes, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    maxima = np.empty(products.shape[1], np.float32)
    for doc in range(len(starts) - 1):
        if starts[doc] == starts[doc + 1]:
            continue
        maxima[:] = products[codes[starts[doc]]]
        for index in range(starts[doc] + 1, starts[doc + 1]):
            row = products[codes[index]]
            for column in range(len(maxima)):
                maxima[column] = max(maxima[column], row[column])
        total = np.float32(0.0)
        for column in range(len(maxima)):
            total += maxima[column]
        out[doc] = total
