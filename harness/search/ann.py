"""Approximate dense search with faiss: a graph (HNSW) or inverted lists (IVF) over float32 vectors."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.search.topk import Hits, no_hits
from harness.types.protocols import Component


class Faiss(Component):
    """`kind` hnsw: `links` a node, `ef_construction` and `ef_search` nodes looked at; ivf: `lists`, `probes` of them.

    `lists` null is four times the root of the number of documents. Needs the extra `faiss`.
    """

    def __init__(
        self,
        kind: str = "hnsw",
        links: int = 32,
        ef_construction: int = 200,
        ef_search: int = 128,
        lists: int | None = None,
        probes: int = 64,
    ) -> None:
        if kind not in ("hnsw", "ivf"):
            raise ConfigError(f"index.kind={kind!r}; choices: hnsw, ivf")
        numbers = {"links": links, "ef_construction": ef_construction, "ef_search": ef_search, "probes": probes}
        for name, value in {**numbers, "lists": 1 if lists is None else lists}.items():
            if value < 1:
                raise ConfigError(f"index.{name}={value} must be at least 1")
        self._kind, self._links, self._lists, self._probes = kind, links, lists, probes
        self._efforts = ef_construction, ef_search
        self._index: Any = None

    def build(self, vectors: torch.Tensor) -> None:
        """Index vectors [documents, dimensions]."""
        faiss = _faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        rows = np.ascontiguousarray(vectors.cpu().numpy())
        self._n, dimensions = rows.shape
        if self._kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(dimensions, self._links, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction, self._index.hnsw.efSearch = self._efforts
        else:
            lists = max(1, min(self._n, self._lists or round(4 * math.sqrt(self._n))))
            quantiser = faiss.IndexFlatIP(dimensions)
            self._index = faiss.IndexIVFFlat(quantiser, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
            self._index.nprobe = min(self._probes, lists)
            self._index.cp.min_points_per_centroid = 1  # few documents are no warning
            if self._n:
                self._index.train(rows)
        self._vectors_nbytes = rows.nbytes
        if self._n:
            self._index.add(rows)

    def search(self, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """About the k documents of highest inner product, and those products; the order of ties is put right later."""
        if k < 1 or not len(queries) or not self._n:
            return no_hits(len(queries), k)
        faiss = _faiss()
        faiss.omp_set_num_threads(threads)
        if self._kind == "hnsw":
            self._index.hnsw.efSearch = max(self._efforts[1], k)
        scores, docs = self._index.search(np.ascontiguousarray(queries.cpu().numpy()), k)
        return docs.astype(np.int32), np.where(docs >= 0, scores, -np.inf).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors, and of the graph's links or the lists' numbers and centroids."""
        if self._kind == "hnsw":
            graph = self._index.hnsw
            links = 4 * (graph.neighbors.size() + graph.levels.size()) + 8 * graph.offsets.size()
        else:
            links = 8 * self._n + 4 * self._index.nlist * self._index.d
        return self._vectors_nbytes + int(links)


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError:
        raise ConfigError("this index needs a package: pip install 'retrieval-harness[faiss]'") from None
    return faiss
