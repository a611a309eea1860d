"""What runs in an actor: the retrievers of its shards, and what each call cost there."""

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
from harness.distributed.shipping import Sent, Surroundings, unpacked
from harness.embedding_cache import cache
from harness.environment import THREAD_VARIABLES, limited_threads
from harness.types import Corpus, Phase, Queries


@dataclass(frozen=True)
class Answer:
    """A call's value with its cost in the worker and the metadata of the shard's retriever."""

    value: Any
    phase: Phase
    encoders: dict[str, dict[str, Any]]
    metadata: dict[str, Any]


class Worker:
    """One process of a cluster. It holds the retriever of each shard that was placed here, by the shard's key."""

    def __init__(self, threads: int) -> None:
        pools = (*THREAD_VARIABLES, "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")  # read when the libraries are loaded
        os.environ.update(dict.fromkeys(pools, str(threads)))
        self._limits = ExitStack()
        self._limits.enter_context(limited_threads(threads))
        self._retrievers: dict[str, Any] = {}
        self._corpora: dict[str, Corpus] = {}

    def node(self) -> str:
        """The node that this process runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def place(self, key: str, recipe: bytes, ids: pa.Buffer, texts: pa.Buffer, around: Surroundings) -> None:
        """Take a shard's documents, and its retriever unless that is here: its weights stay loaded."""
        around.enter()
        if key not in self._retrievers:
            self._retrievers[key] = loads(recipe)  # noqa: S301  # from the process that started this one
        self._corpora[key] = unpacked(Corpus, (ids, texts))

    def statistics(self, key: str, use: cache.Use) -> Answer:
        """What the shard adds to the statistics of the whole corpus."""
        return _timed(lambda: self._retrievers[key].corpus_statistics(self._corpora[key]), use)

    def index(self, key: str, whole: Any, use: cache.Use) -> Answer:
        """Index the shard, with the statistics of the `whole` corpus where there are some; gives the index' bytes."""
        retriever = self._retrievers[key]
        if whole is not None:
            retriever.use_statistics(whole)
        corpus = self._corpora.pop(key)

        def work() -> int:
            retriever.index(corpus)
            return int(retriever.nbytes())

        return _timed(work, use)

    def search(self, key: str, queries: Sent, k: int) -> Answer:
        """Documents by their number in the shard and scores, both [queries, k at most]."""

        def work() -> tuple[NDArray[np.int32], NDArray[np.float32]]:
            run = self._retrievers[key].search(unpacked(Queries, queries), k)
            return run.docs, run.scores

        return _timed(work)

    def explain(self, key: str, query: Sent, docs: list[int]) -> Answer:
        """Why documents of the shard, by their number in it, score what they do."""
        return _timed(lambda: self._retrievers[key].explain(unpacked(Queries, query), docs) if docs else [])

    def score(self, key: str, queries: Sent, docs: NDArray[np.int32]) -> Answer:
        """Scores of the shard's documents `docs` [queries, candidates]; -inf where there is none (-1)."""
        return _timed(lambda: self._retrievers[key].score(unpacked(Queries, queries), docs))


def _timed(work: Callable[[], Any], use: cache.Use = "reuse") -> Answer:
    with cache.using(use), instrument.recording() as seen:
        value = work()
    return Answer(value, seen.phase(), dict(seen.encoders), seen.metadata)
