"""MaxSim (late interaction): the sum over a query's tokens of their maximum inner product with a document's tokens.

Token embeddings are packed, one document after another, without padding. A chunk of documents' tokens is multiplied
with a block of queries at once, and the products are reduced while they are in the CPU cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from harness.search.topk import Hits, TopK, empty_hits, run_in_blocks

_DOCS = 8192
_COLUMNS = 1024  # query tokens in a block
_PRODUCTS = 1 << 20  # products of a chunk: 4 MB
_TOKENS = 1 << 12  # document tokens of a chunk, which is converted to float32
_DEVICE_PRODUCTS = 1 << 27


@dataclass(frozen=True)
class TokenEmbeddings:
    """Packed token vectors [tokens, dimensions] of many texts; text i has rows `starts[i]:starts[i + 1]`."""

    starts: NDArray[np.int64]
    vectors: torch.Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors and offsets."""
        return self.starts.nbytes + self.vectors.nbytes

    def span(self, first: int, stop: int) -> "TokenEmbeddings":
        """Return the texts from `first` to `stop`, excluding `stop`."""
        starts = self.starts[first : stop + 1]
        return TokenEmbeddings(starts - starts[0], self.vectors[starts[0] : starts[-1]])

    def take(self, texts: NDArray[np.int32]) -> "TokenEmbeddings":
        """Return the texts with these indices, in their order."""
        spans = list(zip(self.starts[texts].tolist(), self.starts[texts + 1].tolist(), strict=True))
        starts = np.concatenate([[0], np.cumsum([stop - start for start, stop in spans], dtype=np.int64)])
        return TokenEmbeddings(starts, torch.cat([self.vectors[start:stop] for start, stop in spans]))

    def vectors_of(self, text: int) -> torch.Tensor:
        """Return the vectors [tokens, dimensions] of one text as float32."""
        return self.vectors[self.starts[text] : self.starts[text + 1]].float()


def search(
    documents: TokenEmbeddings, queries: TokenEmbeddings, k: int, ranks: NDArray[np.int32], threads: int
) -> Hits:
    """Return the k documents [queries, k] of highest MaxSim, and the scores as float32.

    A document without tokens is no hit. Half-precision vectors are multiplied as float32. Memory beyond the vectors is
    one block of scores.

    Args:
        documents: Token embeddings of the corpus.
        queries: Token embeddings of the queries.
        k: Number of hits per query; -1 and -inf where there are fewer.
        ranks: Rank of each document, shape [documents]; among equal scores lower ranks come first.
        threads: Number of CPU threads.
    """
    if k < 1 or not len(queries) or not len(documents):
        return empty_hits(len(queries), k)
    best = TopK(len(queries), k)
    for first, block in query_blocks(queries):
        for offset in range(0, len(documents), _DOCS):
            last = min(offset + _DOCS, len(documents))
            best.update(scores(documents, block, offset, last, threads), first, offset, ranks, threads)
    return best.hits()


def scores(
    documents: TokenEmbeddings, queries: TokenEmbeddings, first: int, last: int, threads: int
) -> NDArray[np.float32]:
    """Return the scores [queries, last - first] of the documents first..last; -inf for one without tokens.

    Args:
        documents: Token embeddings of the corpus.
        queries: A block of queries (see `query_blocks`): their products with a chunk of documents are in memory.
        first: Index of the first document.
        last: Index behind the last document.
        threads: Number of CPU threads.
    """
    columns = queries.vectors.to(documents.vectors.device).float().T
    if columns.device.type != "cpu":
        return _on_accelerator(documents, columns, queries.starts, first, last)
    out = np.full((len(queries), last - first), -np.inf, np.float32)
    for start, stop in _chunks(documents.starts, first, last, min(_TOKENS, _PRODUCTS // max(1, columns.shape[1]))):
        edges = documents.starts[start : stop + 1]
        product = torch.mm(documents.vectors[edges[0] : edges[-1]].float(), columns).numpy()

        def reduce(low: int, high: int, product=product, edges=edges, start=start) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
            _reduce(product, edges, queries.starts, low, high, out, start - first)

        run_in_blocks(reduce, stop - start, threads if product.size > 1 << 16 else 1)
    return out


def score(
    documents: TokenEmbeddings, queries: TokenEmbeddings, docs: NDArray[np.int32], threads: int
) -> NDArray[np.float32]:
    """Return the MaxSim scores [queries, candidates] of each query's candidates.

    Args:
        documents: Token embeddings of the corpus.
        queries: Token embeddings of the queries.
        docs: Candidate document indices [queries, candidates], padded with -1, whose score is -inf.
        threads: Number of CPU threads.
    """
    out = np.full(docs.shape, -np.inf, np.float32)
    for row in range(len(docs)):
        order = np.argsort(docs[row], kind="stable")
        order = order[docs[row, order] >= 0]
        if len(order):
            candidates = documents.take(docs[row, order])
            out[row, order] = scores(candidates, queries.span(row, row + 1), 0, len(order), threads)[0]
    return out


def query_blocks(queries: TokenEmbeddings) -> Iterator[tuple[int, TokenEmbeddings]]:
    """Yield blocks of queries with about `_COLUMNS` tokens, each after the index of its first query."""
    for first, stop in _chunks(queries.starts, 0, len(queries), _COLUMNS):
        yield first, queries.span(first, stop)


def _chunks(starts: NDArray[np.int64], first: int, last: int, tokens: int) -> Iterator[tuple[int, int]]:
    """Yield spans of documents with at most `tokens` tokens in total, or of one document that has more."""
    while first < last:
        stop = int(np.searchsorted(starts, starts[first] + max(tokens, 1), side="right")) - 1
        stop = min(max(stop, first + 1), last)
        yield first, stop
        first = stop


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _reduce(product, edges, query_starts, low, high, out, shift):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    maxima = np.empty(product.shape[1], np.float32)
    for doc in range(low, high):
        first, last = edges[doc] - edges[0], edges[doc + 1] - edges[0]
        if first == last:
            continue
        maxima[:] = product[first]
        for token in range(first + 1, last):
            for column in range(len(maxima)):
                maxima[column] = max(maxima[column], product[token, column])
        for query in range(len(query_starts) - 1):
            total = np.float32(0.0)
            for column in range(query_starts[query], query_starts[query + 1]):
                total += maxima[column]
            out[query, shift + doc] = total


def _on_accelerator(
    documents: TokenEmbeddings, columns: torch.Tensor, query_starts: NDArray[np.int64], first: int, last: int
) -> NDArray[np.float32]:
    """Return the scores of documents first..last, by a segmented maximum over each chunk on the device."""
    parts = []
    query = torch.from_numpy(np.repeat(np.arange(len(query_starts) - 1), np.diff(query_starts))).to(columns.device)
    for start, stop in _chunks(documents.starts, first, last, _DEVICE_PRODUCTS // max(1, columns.shape[1])):
        edges = documents.starts[start : stop + 1]
        product = documents.vectors[edges[0] : edges[-1]].float() @ columns
        sizes = torch.from_numpy(np.diff(edges)).to(columns.device)
        maxima = torch.segment_reduce(product, "max", lengths=sizes, unsafe=True)
        summed = torch.zeros((len(query_starts) - 1, stop - start), device=columns.device).index_add_(
            0, query, maxima.T
        )
        summed[:, sizes == 0] = -torch.inf
        parts.append(summed)
    return torch.cat(parts, dim=1).cpu().numpy()
