"""Late interaction: score(q, d) is the sum over the query's tokens of their greatest inner product with d's tokens.

Tokens lie packed, one document after another, without padding. A chunk of documents' tokens is multiplied with a block
of queries at once, and the products are reduced while they are in the cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from harness.search.topk import Best, Hits, in_blocks, no_hits

_DOCS = 8192
_COLUMNS = 1024  # query tokens in a block
_PRODUCTS = 1 << 20  # products of a chunk: four megabytes
_TOKENS = 1 << 12  # document tokens of a chunk, converted to float32 for it
_ON_DEVICE = 1 << 27


@dataclass(frozen=True)
class Tokens:
    """Vectors [tokens, dimensions] of many texts; text i has rows `starts[i]:starts[i + 1]`."""

    starts: NDArray[np.int64]
    vectors: torch.Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        """Bytes held to be searched."""
        return self.starts.nbytes + self.vectors.nbytes

    def span(self, first: int, stop: int) -> "Tokens":
        """Texts first..stop."""
        starts = self.starts[first : stop + 1]
        return Tokens(starts - starts[0], self.vectors[starts[0] : starts[-1]])

    def take(self, texts: NDArray[np.int32]) -> "Tokens":
        """Some texts, in that order."""
        spans = list(zip(self.starts[texts].tolist(), self.starts[texts + 1].tolist(), strict=True))
        starts = np.concatenate([[0], np.cumsum([stop - start for start, stop in spans], dtype=np.int64)])
        return Tokens(starts, torch.cat([self.vectors[start:stop] for start, stop in spans]))

    def of(self, text: int) -> torch.Tensor:
        """The vectors [tokens, dimensions] of one text as float32."""
        return self.vectors[self.starts[text] : self.starts[text + 1]].float()


def search(documents: Tokens, queries: Tokens, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
    """The k documents [queries, k] of highest score and those scores as float32; a document without tokens is no hit.

    Half-precision vectors are multiplied as float32. Memory beyond the vectors is one block of scores.
    """
    if k < 1 or not len(queries) or not len(documents):
        return no_hits(len(queries), k)
    best = Best(len(queries), k)
    for first, block in query_blocks(queries):
        for offset in range(0, len(documents), _DOCS):
            last = min(offset + _DOCS, len(documents))
            best.offer(scores(documents, block, offset, last, threads), first, offset, ranks, threads)
    return best.hits()


def scores(documents: Tokens, queries: Tokens, first: int, last: int, threads: int) -> NDArray[np.float32]:
    """Scores [queries, last - first] of documents first..last; -inf for one without tokens. Few queries at a time."""
    columns = queries.vectors.to(documents.vectors.device).float().T
    if columns.device.type != "cpu":
        return _on_accelerator(documents, columns, queries.starts, first, last)
    out = np.full((len(queries), last - first), -np.inf, np.float32)
    for start, stop in _chunks(documents.starts, first, last, min(_TOKENS, _PRODUCTS // max(1, columns.shape[1]))):
        edges = documents.starts[start : stop + 1]
        product = torch.mm(documents.vectors[edges[0] : edges[-1]].float(), columns).numpy()

        def reduce(low: int, high: int, product=product, edges=edges, start=start) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
            _reduce(product, edges, queries.starts, low, high, out, start - first)

        in_blocks(reduce, stop - start, threads if product.size > 1 << 16 else 1)
    return out


def score(documents: Tokens, queries: Tokens, docs: NDArray[np.int32], threads: int) -> NDArray[np.float32]:
    """Scores [queries, candidates] of the candidates `docs` of each query; -inf where there is none (-1)."""
    out = np.full(docs.shape, -np.inf, np.float32)
    for row in range(len(docs)):
        order = np.argsort(docs[row], kind="stable")
        order = order[docs[row, order] >= 0]
        if len(order):
            own = documents.take(docs[row, order])
            out[row, order] = scores(own, queries.span(row, row + 1), 0, len(order), threads)[0]
    return out


def query_blocks(queries: Tokens) -> Iterator[tuple[int, Tokens]]:
    """Number of the first query, and some queries that have about as many tokens as are multiplied at once."""
    for first, stop in _chunks(queries.starts, 0, len(queries), _COLUMNS):
        yield first, queries.span(first, stop)


def _chunks(starts: NDArray[np.int64], first: int, last: int, tokens: int) -> Iterator[tuple[int, int]]:
    """Spans of documents that have at most so many tokens together, or are one document."""
    while first < last:
        stop = int(np.searchsorted(starts, starts[first] + max(tokens, 1), side="right")) - 1
        stop = min(max(stop, first + 1), last)
        yield first, stop
        first = stop


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _reduce(product, edges, asked, low, high, out, shift):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    greatest = np.empty(product.shape[1], np.float32)
    for doc in range(low, high):
        first, last = edges[doc] - edges[0], edges[doc + 1] - edges[0]
        if first == last:
            continue
        greatest[:] = product[first]
        for token in range(first + 1, last):
            for column in range(len(greatest)):
                greatest[column] = max(greatest[column], product[token, column])
        for query in range(len(asked) - 1):
            total = np.float32(0.0)
            for column in range(asked[query], asked[query + 1]):
                total += greatest[column]
            out[query, shift + doc] = total


def _on_accelerator(
    documents: Tokens, columns: torch.Tensor, asked: NDArray[np.int64], first: int, last: int
) -> NDArray[np.float32]:
    """As on a CPU, with a segmented maximum over each chunk on the device."""
    parts = []
    query = torch.from_numpy(np.repeat(np.arange(len(asked) - 1), np.diff(asked))).to(columns.device)
    for start, stop in _chunks(documents.starts, first, last, _ON_DEVICE // max(1, columns.shape[1])):
        edges = documents.starts[start : stop + 1]
        product = documents.vectors[edges[0] : edges[-1]].float() @ columns
        sizes = torch.from_numpy(np.diff(edges)).to(columns.device)
        greatest = torch.segment_reduce(product, "max", lengths=sizes, unsafe=True)
        summed = torch.zeros((len(asked) - 1, stop - start), device=columns.device).index_add_(0, query, greatest.T)
        summed[:, sizes == 0] = -torch.inf
        parts.append(summed)
    return torch.cat(parts, dim=1).cpu().numpy()
