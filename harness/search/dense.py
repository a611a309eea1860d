"""Exact inner-product search by blocks of documents: a matrix product, then a pass that keeps what beats the k-th.

Memory beyond the vectors does not grow with queries x documents: one block's scores and the k best are held.
"""

from functools import partial

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from harness.search.topk import Hits, best_first, in_blocks, key_of, no_hits, no_keys, offer, score_of, scores_of

_DOCS = 8192
_QUERIES = 512


def search(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    """The k documents [queries, k] of highest inner product with each query, and those products as float32.

    documents [n, dimensions] and queries [m, dimensions]: float32, on one device. Fewer than k documents leave -1.
    """
    if k < 1 or not len(queries) or not len(documents):
        return no_hits(len(queries), k)
    if documents.device.type == "cpu":
        return _on_cpu(documents, queries, k, ranks, threads)
    return _on_accelerator(documents, queries, k)


def _on_cpu(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    keys, docs = no_keys(len(queries), k)
    buffer = torch.empty((min(_QUERIES, len(queries)) * min(_DOCS, len(documents)),), dtype=torch.float32)
    for first in range(0, len(queries), _QUERIES):
        block = queries[first : first + _QUERIES]
        best = keys[first : first + len(block)], docs[first : first + len(block)]
        sizes = np.zeros(len(block), np.int64)
        for offset in range(0, len(documents), _DOCS):
            part = documents[offset : offset + _DOCS]
            product = buffer[: len(block) * len(part)].view(len(block), len(part))
            torch.mm(block, part.T, out=product)
            in_blocks(partial(_offer_rows, product.numpy(), offset, *best, sizes, ranks), len(block), threads)
        _sort(*best, sizes)
    return docs, scores_of(keys)


@njit(nogil=True, cache=True)
def _offer_rows(product, offset, keys, docs, sizes, ranks, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    k = keys.shape[1]
    for row in range(first, last):
        size = sizes[row]
        least = score_of(keys[row, 0]) if size == k else np.float32(-np.inf)
        for column in range(product.shape[1]):
            score = product[row, column]
            if not score < least:  # a NaN goes through too, so that Run can refuse it
                size = offer(keys[row], docs[row], size, key_of(score, ranks[offset + column]), offset + column)
                if size == k:
                    least = score_of(keys[row, 0])
        sizes[row] = size


@njit(nogil=True, cache=True)
def _sort(keys, docs, sizes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for row in range(len(docs)):
        best_first(keys[row], docs[row], sizes[row])


def _on_accelerator(documents: torch.Tensor, queries: torch.Tensor, k: int) -> Hits:
    """As `_on_cpu` with the device's own top-k; documents that tie at the k-th place are kept as it likes."""
    docs, scores = no_hits(len(queries), k)
    rows = 1 << 18
    for first in range(0, len(queries), _QUERIES):
        block = queries[first : first + _QUERIES]
        best_scores = torch.empty((len(block), 0), device=block.device)
        best_docs = torch.empty((len(block), 0), device=block.device, dtype=torch.int64)
        for offset in range(0, len(documents), rows):
            product = block @ documents[offset : offset + rows].T
            values, places = product.topk(min(k, product.shape[1]), dim=1)
            best_scores = torch.cat([best_scores, values], dim=1)
            best_docs = torch.cat([best_docs, places + offset], dim=1)
            best_scores, order = best_scores.topk(min(k, best_scores.shape[1]), dim=1)
            best_docs = best_docs.gather(1, order)
        found = best_docs.shape[1]
        docs[first : first + len(block), :found] = best_docs.cpu().numpy()
        scores[first : first + len(block), :found] = best_scores.cpu().numpy()
    return docs, scores
