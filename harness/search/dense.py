"""Exact inner-product search by blocks of documents: a matrix product, then a pass that keeps what beats the k-th.

Memory beyond the vectors does not grow with queries x documents: one block's scores and the k best are held.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from harness.search.topk import Best, Hits, no_hits

_DOCS = 8192
_QUERIES = 512


def search(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    """The k documents [queries, k] of highest inner product with each query, and those products as float32.

    documents [n, dimensions], float32 or what converts to it block by block, and queries [m, dimensions] float32, on
    one device. Fewer than k documents leave -1.
    """
    if k < 1 or not len(queries) or not len(documents):
        return no_hits(len(queries), k)
    if documents.device.type == "cpu":
        return _on_cpu(documents, queries, k, ranks, threads)
    return _on_accelerator(documents, queries, k)


def score(documents: torch.Tensor, queries: torch.Tensor, docs: NDArray[np.int32]) -> NDArray[np.float32]:
    """Inner products [queries, candidates] of each query with its candidates `docs`; -inf where there is none (-1)."""
    found = np.full(docs.shape, -np.inf, np.float32)
    for row in range(len(docs)):
        hit = docs[row] >= 0
        own = documents[torch.from_numpy(docs[row, hit]).to(documents.device).long()].float()
        found[row, hit] = (own @ queries[row]).cpu().numpy()
    return found


def _on_cpu(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    best = Best(len(queries), k)
    buffer = torch.empty((min(_QUERIES, len(queries)) * min(_DOCS, len(documents)),), dtype=torch.float32)
    for first in range(0, len(queries), _QUERIES):
        block = queries[first : first + _QUERIES]
        for offset in range(0, len(documents), _DOCS):
            part = documents[offset : offset + _DOCS].float()
            product = buffer[: len(block) * len(part)].view(len(block), len(part))
            torch.mm(block, part.T, out=product)
            best.offer(product.numpy(), first, offset, ranks, threads)
    return best.hits()


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
