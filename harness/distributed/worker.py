"""Worker process: holds the retrievers of its shards and measures each call."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pickle import loads
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness import instrument
from harness.distributed.shipping import ProcessEnvironment, Sent, unpack
from harness.embedding_cache import cache
from harness.environment import THREAD_VARIABLES, limited_threads
from harness.types import Corpus, Phase, Queries


@dataclass(frozen=True)
class WorkerResult:
    """The value of a call, its cost in the worker, and the metadata of the shard's retriever."""

    value: Any
    phase: Phase
    encoders: dict[str, dict[str, Any]]
    metadata: dict[str, Any]


class Worker:
    """One process of a cluster; holds the retriever of each shard placed on it, by the shard's key."""

    def __init__(self, threads: int) -> None:
        pools = (*THREAD_VARIABLES, "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")  # read when the libraries are loaded
        os.environ.update(dict.fromkeys(pools, str(threads)))
        self._limits = ExitStack()
        self._limits.enter_context(limited_threads(threads))
        self._retrievers: dict[str, Any] = {}
        self._corpora: dict[str, Corpus] = {}

    def node(self) -> str:
        """Return the id of the node that this process runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def place(
        self, key: str, retriever: bytes, ids: pa.Buffer, texts: pa.Buffer, environment: ProcessEnvironment
    ) -> None:
        """Receive a shard's documents, and its retriever unless this worker has it already, with its weights loaded.

        Args:
            key: The shard's key.
            retriever: The pickled retriever.
            ids: Serialised ids of the documents.
            texts: Serialised texts of the documents.
            environment: The driver's process environment.
        """
        environment.enter()
        if key not in self._retrievers:
            self._retrievers[key] = loads(retriever)  # noqa: S301  # from the process that started this one
        self._corpora[key] = unpack(Corpus, (ids, texts))

    def statistics(self, key: str, use: cache.Use) -> WorkerResult:
        """Return the statistics of the shard with this `key`; `use` is the mode of the embedding cache."""
        return _timed(lambda: self._retrievers[key].corpus_statistics(self._corpora[key]), use)

    def index(self, key: str, statistics: Any, use: cache.Use) -> WorkerResult:
        """Index a shard and return the bytes of the index.

        Args:
            key: The shard's key.
            statistics: Statistics of the whole corpus; None for retrievers that need none.
            use: Mode of the embedding cache.
        """
        retriever = self._retrievers[key]
        if statistics is not None:
            retriever.use_statistics(statistics)
        corpus = self._corpora.pop(key)

        def work() -> int:
            retriever.index(corpus)
            return int(retriever.nbytes())

        return _timed(work, use)

    def search(self, key: str, queries: Sent, k: int) -> WorkerResult:
        """Return the `k` best documents of shard `key` for `queries`: indices in the shard and scores [queries, k]."""

        def work() -> tuple[NDArray[np.int32], NDArray[np.float32]]:
            run = self._retrievers[key].search(unpack(Queries, queries), k)
            return run.docs, run.scores

        return _timed(work)

    def explain(self, key: str, query: Sent, docs: list[int]) -> WorkerResult:
        """Explain `docs`, indices in the shard with this `key`, for one serialised `query`."""
        return _timed(lambda: self._retrievers[key].explain(unpack(Queries, query), docs) if docs else [])

    def score(self, key: str, queries: Sent, docs: NDArray[np.int32]) -> WorkerResult:
        """Return scores of `docs`, indices [queries, candidates] in shard `key`, for `queries`; -inf for index -1."""
        return _timed(lambda: self._retrievers[key].score(unpack(Queries, queries), docs))


def _timed(work: Callable[[], Any], use: cache.Use = "reuse") -> WorkerResult:
    """Return the result of `work` with its cost."""
    with cache.using(use), instrument.recording() as recorder:
        value = work()
    return WorkerResult(value, recorder.phase(), dict(recorder.encoders), recorder.metadata)
