"""Exact inner-product search by blocks of documents: a matrix product, then a pass that keeps what beats the k-th.

Memory beyond the vectors does not grow with queries x documents: one block's scores and the k best are held.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.search.topk import Best, Hits, no_hits

_DOCS = 8192
_QUERIES = 512
_ROWS = 1 << 18  # on an accelerator, of at most _BYTES
_BYTES = 1 << 29
_TIED = 32


def search(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    """The k documents [queries, k] of highest inner product with each query, and those products as float32.

    documents [n, dimensions], float32 or what converts to it block by block, and queries [m, dimensions] float32.
    Where one of both lies on an accelerator, the search is done there. Fewer than k documents leave -1.
    """
    if k < 1 or not len(queries) or not len(documents):
        return no_hits(len(queries), k)
    if documents.device.type == queries.device.type == "cpu":
        return _on_cpu(documents, queries, k, ranks, threads)
    device = queries.device if documents.device.type == "cpu" else documents.device
    return _on_accelerator(documents, queries.to(device), k, ranks)


def score(documents: torch.Tensor, queries: torch.Tensor, docs: NDArray[np.int32]) -> NDArray[np.float32]:
    """Inner products [queries, candidates] of each query with its candidates `docs`; -inf where there is none (-1)."""
    found = np.full(docs.shape, -np.inf, np.float32)
    for row in range(len(docs)):
        hit = docs[row] >= 0
        own = documents[torch.from_numpy(docs[row, hit]).to(documents.device).long()].to(queries.device).float()
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


def _on_accelerator(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: NDArray[np.int32]) -> Hits:
    """The best of every block are merged on the device by one integer each, and copied back once."""
    kept = min(k, len(documents))
    device, order = queries.device, torch.from_numpy(ranks).to(queries.device)
    keys = torch.empty((len(queries), 0), dtype=torch.int64, device=device)
    docs = torch.empty((len(queries), 0), dtype=torch.int32, device=device)
    for offset, part in _parts(documents, device):
        block_ranks = order[offset : offset + len(part)]
        found = [_best(block @ part.T, min(kept, len(part)), block_ranks) for block in _cut(queries, _QUERIES)]
        keys = torch.cat([keys, torch.cat([own for own, _ in found])], dim=1)
        docs = torch.cat([docs, torch.cat([places for _, places in found]).int() + offset], dim=1)
        keys, best = keys.topk(min(kept, keys.shape[1]), dim=1)
        docs = docs.gather(1, best)
    all_docs, all_scores = no_hits(len(queries), k)
    all_docs[:, :kept], all_scores[:, :kept] = _to_host(docs, _scores(keys))
    return all_docs, all_scores


def _cut(rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    return (rows[first : first + size] for first in range(0, max(1, len(rows)), size))


def _best(products: torch.Tensor, k: int, ranks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and places of each row's k best in the canonical order; `topk` alone takes any of those that tie."""
    values, places = products.topk(min(k + 1, products.shape[1]), dim=1)
    tied = (values[:, k - 1] == values[:, -1]).nonzero()[:, 0] if values.shape[1] > k else places.new_empty(0)
    places = places[:, :k]
    keys = _keys(values[:, :k], ranks[places])
    for rows in _cut(tied, _TIED):
        keys[rows], places[rows] = _keys(products[rows], ranks).topk(k, dim=1)
    return keys, places


def _keys(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """One integer that is greater for what goes first, as `topk.key_of`, but signed."""
    one = torch.where(scores.isnan(), torch.nan, scores + 0.0)  # of both zeros and of all that is no number
    bits = one.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (0xFFFFFFFF - ranks.long())


def _scores(keys: torch.Tensor) -> torch.Tensor:
    ordered = (keys >> 32).int()
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _parts(documents: torch.Tensor, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks [documents, dimensions] on the device as float32, each behind its first document's number."""
    rows = max(1, min(_ROWS, _BYTES // (4 * max(1, documents.shape[1]))))
    offsets = range(0, len(documents), rows)
    if not _apart(documents, device):
        yield from ((offset, documents[offset : offset + rows].float()) for offset in offsets)
        return
    sender = _Sender(documents, rows, device)
    with ThreadPoolExecutor(1, thread_name_prefix="copy") as pool:
        coming = pool.submit(sender.send, 0)
        for offset in offsets:
            part = sender.received(coming.result())
            if offset + rows < len(documents):
                coming = pool.submit(sender.send, offset + rows)  # while this one is multiplied
            yield offset, part.float()


def _apart(documents: torch.Tensor, device: torch.device) -> bool:
    return documents.device != device


class _Sender:
    """Copies blocks of host memory to the device through two page-locked buffers, beside what the device computes."""

    def __init__(self, documents: torch.Tensor, rows: int, device: torch.device) -> None:
        self._documents, self._rows, self._device = documents, rows, device
        self._cuda = device.type == "cuda"
        shape = (min(rows, len(documents)), documents.shape[1])
        self._buffers = [torch.empty(shape, dtype=documents.dtype, pin_memory=self._cuda) for _ in range(2)]
        self._stream = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]
        self._sent: list[torch.cuda.Event | None] = [None, None]

    def send(self, offset: int) -> tuple[torch.Tensor, "torch.cuda.Event | None"]:
        """Start the copy of the block at `offset`; the event is over when it has arrived."""
        turn, block = offset // self._rows % 2, self._documents[offset : offset + self._rows]
        if (before := self._sent[turn]) is not None:
            before.synchronize()
        buffer = self._buffers[turn][: len(block)].copy_(block)
        if self._stream is None:
            return buffer.to(self._device, copy=True), None
        with torch.cuda.stream(self._stream):
            part = buffer.to(self._device, non_blocking=True)
            self._sent[turn] = event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return part, event

    def received(self, sent: tuple[torch.Tensor, "torch.cuda.Event | None"]) -> torch.Tensor:
        """The block, for work that is queued from now on."""
        part, event = sent
        if event is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(event)
            part.record_stream(stream)
        return part


def _to_host(*found: torch.Tensor) -> list[NDArray[Any]]:
    """All of them in page-locked memory before one wait."""
    cuda = found[0].device.type == "cuda"
    copies = [torch.empty(own.shape, dtype=own.dtype, pin_memory=cuda).copy_(own, non_blocking=cuda) for own in found]
    if cuda:
        torch.cuda.current_stream(found[0].device).synchronize()
    return [copy.numpy() for copy in copies]
