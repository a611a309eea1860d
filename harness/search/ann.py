"""Approximate dense search with faiss: HNSW or IVF over float32 vectors."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.search.topk import Hits, empty_hits
from harness.types.protocols import Component


class Faiss(Component):
    """An approximate index of faiss; needs the extra `faiss`. Parameters are named as in faiss.

    Args:
        kind: `hnsw` or `ivf`.
        M: Neighbours of each node of the HNSW graph.
        ef_construction: Candidates examined for each node while the graph is built.
        ef_search: Candidates examined for each query; at least k are.
        nlist: Inverted lists; None for 4 times the square root of the number of documents.
        nprobe: Inverted lists searched for each query.

    Raises:
        ConfigError: An argument is not one of its choices, or below 1.
    """

    def __init__(
        self,
        kind: str = "hnsw",
        M: int = 32,  # noqa: N803  # faiss's name
        ef_construction: int = 200,
        ef_search: int = 128,
        nlist: int | None = None,
        nprobe: int = 64,
    ) -> None:
        if kind not in ("hnsw", "ivf"):
            raise ConfigError(f"index.kind={kind!r}; choices: hnsw, ivf")
        numbers = {"M": M, "ef_construction": ef_construction, "ef_search": ef_search, "nprobe": nprobe}
        for name, value in {**numbers, "nlist": 1 if nlist is None else nlist}.items():
            if value < 1:
                raise ConfigError(f"index.{name}={value} must be at least 1")
        self._kind, self._m, self._nlist, self._nprobe = kind, M, nlist, nprobe
        self._ef_construction, self._ef_search = ef_construction, ef_search
        self._index: Any = None

    def build(self, vectors: torch.Tensor) -> None:
        """Index vectors [documents, dimensions]."""
        faiss = _faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        rows = np.ascontiguousarray(vectors.cpu().numpy())
        self._n, dimensions = rows.shape
        if self._kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(dimensions, self._m, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction, self._index.hnsw.efSearch = self._ef_construction, self._ef_search
        else:
            nlist = max(1, min(self._n, self._nlist or round(4 * math.sqrt(self._n))))
            quantiser = faiss.IndexFlatIP(dimensions)
            self._index = faiss.IndexIVFFlat(quantiser, dimensions, nlist, faiss.METRIC_INNER_PRODUCT)
            self._index.nprobe = min(self._nprobe, nlist)
            self._index.cp.min_points_per_centroid = 1  # no warning about few documents
            if self._n:
                self._index.train(rows)
        self._vectors_nbytes = rows.nbytes
        if self._n:
            self._index.add(rows)

    def search(self, queries: torch.Tensor, k: int, ranks: NDArray[np.int32], threads: int) -> Hits:
        """Return approximately the k documents [queries, k] of highest inner product, and the products.

        Args:
            queries: Vectors [queries, dimensions], float32.
            k: Number of hits per query; -1 and -inf where fewer are found.
            ranks: Not used: `Run` sorts hits of equal score.
            threads: Number of faiss's OpenMP threads.
        """
        if k < 1 or not len(queries) or not self._n:
            return empty_hits(len(queries), k)
        faiss = _faiss()
        faiss.omp_set_num_threads(threads)
        if self._kind == "hnsw":
            self._index.hnsw.efSearch = max(self._ef_search, k)
        scores, docs = self._index.search(np.ascontiguousarray(queries.cpu().numpy()), k)
        return docs.astype(np.int32), np.where(docs >= 0, scores, -np.inf).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors and of the graph, or of the inverted lists and their centroids."""
        if self._kind == "hnsw":
            graph = self._index.hnsw
            structure = 4 * (graph.neighbors.size() + graph.levels.size()) + 8 * graph.offsets.size()
        else:
            structure = 8 * self._n + 4 * self._index.nlist * self._index.d
        return self._vectors_nbytes + int(structure)


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError:
        raise ConfigError("this index needs a package: pip install 'retrieval-harness[faiss]'") from None
    return faiss
