"""Exact inner-product search by blocks of documents: a matrix product, then an update of the top-k.

Memory beyond the vectors is one block's scores and the k best documents of each query.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.search.topk import Hits, TopK, empty_hits

_DOCS = 8192
_QUERIES = 512
_ROWS = 1 << 18  # documents of a block on an accelerator, of at most _BYTES
_BYTES = 1 << 29
_TIED = 32  # tied rows that are sorted at once


def search(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    """Return the k documents of highest inner product with each query, and the products as float32.

    The search runs on an accelerator if the documents or the queries are on one.

    Args:
        documents: Vectors [documents, dimensions]; converted to float32 block by block.
        queries: Vectors [queries, dimensions], float32.
        k: Number of hits per query; -1 and -inf where there are fewer documents.
        ranks: Rank of each document, shape [documents]; among equal scores lower ranks come first.
        threads: Number of threads that update the top-k on a CPU.
    """
    if k < 1 or not len(queries) or not len(documents):
        return empty_hits(len(queries), k)
    if documents.device.type == queries.device.type == "cpu":
        return _on_cpu(documents, queries, k, ranks, threads)
    device = queries.device if documents.device.type == "cpu" else documents.device
    return _on_accelerator(documents, queries.to(device), k, ranks)


def score(documents: torch.Tensor, queries: torch.Tensor, docs: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the inner products [queries, candidates] of each query with its candidates.

    Args:
        documents: Vectors [documents, dimensions].
        queries: Vectors [queries, dimensions], float32.
        docs: Candidate document indices [queries, candidates], padded with -1, whose score is -inf.
    """
    scores = np.full(docs.shape, -np.inf, np.float32)
    for row in range(len(docs)):
        is_doc = docs[row] >= 0
        indices = torch.from_numpy(docs[row, is_doc]).to(documents.device).long()
        scores[row, is_doc] = (documents[indices].to(queries.device).float() @ queries[row]).cpu().numpy()
    return scores


def _on_cpu(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    best = TopK(len(queries), k)
    buffer = torch.empty((min(_QUERIES, len(queries)) * min(_DOCS, len(documents)),), dtype=torch.float32)
    for first in range(0, len(queries), _QUERIES):
        block = queries[first : first + _QUERIES]
        for offset in range(0, len(documents), _DOCS):
            part = documents[offset : offset + _DOCS].float()
            product = buffer[: len(block) * len(part)].view(len(block), len(part))
            torch.mm(block, part.T, out=product)
            best.update(product.numpy(), first, offset, ranks, threads)
    return best.hits()


def _on_accelerator(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32]) -> Hits:
    """Search on the device: the top-k of each block are merged by their integer keys, and copied to the host once."""
    width = min(k, len(documents))
    device, order = queries.device, torch.from_numpy(ranks).to(queries.device)
    keys = torch.empty((len(queries), 0), dtype=torch.int64, device=device)
    docs = torch.empty((len(queries), 0), dtype=torch.int32, device=device)
    for offset, part in _document_blocks(documents, device):
        block_ranks = order[offset : offset + len(part)]
        best_of_blocks = [
            _best(block @ part.T, min(width, len(part)), block_ranks) for block in _split(queries, _QUERIES)
        ]
        keys = torch.cat([keys, torch.cat([block_keys for block_keys, _ in best_of_blocks])], dim=1)
        docs = torch.cat([docs, torch.cat([columns for _, columns in best_of_blocks]).int() + offset], dim=1)
        keys, best = keys.topk(min(width, keys.shape[1]), dim=1)
        docs = docs.gather(1, best)
    all_docs, all_scores = empty_hits(len(queries), k)
    all_docs[:, :width], all_scores[:, :width] = _to_host(docs, _scores(keys))
    return all_docs, all_scores


def _split(rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    return (rows[first : first + size] for first in range(0, max(1, len(rows)), size))


def _best(products: torch.Tensor, k: int, ranks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and column indices of each row's k best in the canonical order.

    `torch.topk` picks any of the documents that tie for the last position; rows with such ties are sorted by key.
    """
    values, columns = products.topk(min(k + 1, products.shape[1]), dim=1)
    tied = (values[:, k - 1] == values[:, -1]).nonzero()[:, 0] if values.shape[1] > k else columns.new_empty(0)
    columns = columns[:, :k]
    keys = _keys(values[:, :k], ranks[columns])
    for rows in _split(tied, _TIED):
        keys[rows], columns[rows] = _keys(products[rows], ranks).topk(k, dim=1)
    return keys, columns


def _keys(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Return integers that are greater for better hits, as `topk.pack_key` does, but signed."""
    canonical = torch.where(scores.isnan(), torch.nan, scores + 0.0)  # one bit pattern for -0.0 and 0.0, one for NaN
    bits = canonical.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (0xFFFFFFFF - ranks.long())


def _scores(keys: torch.Tensor) -> torch.Tensor:
    ordered = (keys >> 32).int()
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _document_blocks(documents: torch.Tensor, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the index of each block's first document, and its vectors on the device as float32."""
    rows = max(1, min(_ROWS, _BYTES // (4 * max(1, documents.shape[1]))))
    offsets = range(0, len(documents), rows)
    if not _needs_copy(documents, device):
        yield from ((offset, documents[offset : offset + rows].float()) for offset in offsets)
        return
    sender = _Sender(documents, rows, device)
    with ThreadPoolExecutor(1, thread_name_prefix="copy") as pool:
        pending = pool.submit(sender.send, 0)
        for offset in offsets:
            part = sender.receive(pending.result())
            if offset + rows < len(documents):
                pending = pool.submit(sender.send, offset + rows)  # while this block is multiplied
            yield offset, part.float()


def _needs_copy(documents: torch.Tensor, device: torch.device) -> bool:
    return documents.device != device


class _Sender:
    """Copies blocks from host memory to the device through two page-locked buffers while the device computes."""

    def __init__(self, documents: torch.Tensor, rows: int, device: torch.device) -> None:
        self._documents, self._rows, self._device = documents, rows, device
        self._cuda = device.type == "cuda"
        shape = (min(rows, len(documents)), documents.shape[1])
        self._buffers = [torch.empty(shape, dtype=documents.dtype, pin_memory=self._cuda) for _ in range(2)]
        self._stream = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]
        self._events: list[torch.cuda.Event | None] = [None, None]

    def send(self, offset: int) -> tuple[torch.Tensor, "torch.cuda.Event | None"]:
        """Start to copy the block at `offset`; return it with the event that marks the end of the copy."""
        turn, block = offset // self._rows % 2, self._documents[offset : offset + self._rows]
        if (previous := self._events[turn]) is not None:
            previous.synchronize()
        buffer = self._buffers[turn][: len(block)].copy_(block)
        if self._stream is None:
            return buffer.to(self._device, copy=True), None
        with torch.cuda.stream(self._stream):
            part = buffer.to(self._device, non_blocking=True)
            self._events[turn] = event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return part, event

    def receive(self, sent: tuple[torch.Tensor, "torch.cuda.Event | None"]) -> torch.Tensor:
        """Return the block; work that is queued from now on waits for its copy."""
        part, event = sent
        if event is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(event)
            part.record_stream(stream)
        return part


def _to_host(*tensors: torch.Tensor) -> list[NDArray[Any]]:
    """Copy tensors to page-locked memory, with one synchronisation for all of them."""
    cuda = tensors[0].device.type == "cuda"
    copies = [
        torch.empty(each.shape, dtype=each.dtype, pin_memory=cuda).copy_(each, non_blocking=cuda) for each in tensors
    ]
    if cuda:
        torch.cuda.current_stream(tensors[0].device).synchronize()
    return [copy.numpy() for copy in copies]
