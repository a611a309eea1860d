"""A retriever over a sharded corpus: each shard is searched by a worker, and the rankings are merged.

The retriever must be `Shardable`; one whose scores depend on statistics of the whole corpus is `StatisticsSharing` too.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from harness import instrument
from harness.distributed import cluster
from harness.distributed.shipping import pack, pickle_retriever, process_environment, shard_edges
from harness.distributed.worker import WorkerResult
from harness.embedding_cache import cache
from harness.errors import ConfigError, HarnessError
from harness.instrument import component, describe, describe_encoder, stage
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Explanation, Phase, Queries, Retriever, Run
from harness.types.protocols import CandidateScorer, Component, StatisticsSharing, is_shardable

_MAX_LOSSES = 3
_INLINE = 50_000  # bytes of queries that are sent with the call itself

RemoteCall = Callable[[Any, str, int], Any]
"""Calls a worker for a shard, given the worker and the shard's key and index; returns a reference to the result."""


class ShardError(HarnessError):
    """A shard whose workers were lost one after another."""


class Sharded(Component):
    """A retriever that shards the corpus over the workers of a Ray cluster.

    Args:
        retriever: Searches each shard; it must be shardable.
        shards: Number of shards; None for as many as workers fit on the cluster.
        address: `local`, `auto`, or the address of a cluster.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker.

    Raises:
        ConfigError: The retriever's scores are not comparable across shards, or a number is out of range.
    """

    _corpus = SetByIndex[Corpus]()
    _edges = SetByIndex[Sequence[int]]()

    def __init__(
        self,
        retriever: Retriever,
        shards: int | None = None,
        address: str = "local",
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        if not is_shardable(retriever):
            raise ConfigError(_NOT_COMPARABLE.format(type(retriever).__name__))
        if shards is not None and shards < 1:
            raise ConfigError(f"retriever.shards={shards} must be at least 1, or null for as many as fit")
        if cpus < 0 or gpus < 0 or not cpus + gpus:
            raise ConfigError(f"retriever.cpus={cpus:g} and retriever.gpus={gpus:g}: a worker needs CPUs or GPUs")
        self._retriever, self._shards = retriever, shards
        self._pool = cluster.worker_pool(address, cpus, gpus)
        self._pool.join()
        weakref.finalize(self, self._pool.leave).atexit = False  # Ray stops by itself at exit
        self._name = uuid4().hex
        self._pickled: Any = None
        self._nbytes = 0
        self._workers: dict[int, Any] = {}  # by shard
        self._preparing: dict[int, list[Any]] = {}
        self._statistics: Any = None
        self._indexed = False

    def index(self, corpus: Corpus) -> None:
        """Send each shard to a worker, which indexes it."""
        with stage("load"):
            self._pool.grow(self._shards)
            self._pickled = self._pickled or pickle_retriever(self._retriever)
        n = max(1, min(self._shards or len(self._pool.slots), len(corpus)))
        self._corpus, self._edges = corpus, shard_edges(len(corpus), n)
        self._workers, self._statistics, self._indexed = {}, None, False
        use: cache.Use = cache.use()
        with stage("encode", total=len(corpus)) as step:
            if isinstance(self._retriever, StatisticsSharing):
                results = self._call_all(lambda worker, key, _: worker.statistics.remote(key, use))
                first, *following = (result.value for result in results)
                self._statistics = cluster.library().put(first.merged(following))
                self._add_costs(results, "encode")
            results = self._call_all(lambda worker, key, _: worker.index.remote(key, self._statistics, use), step)
        self._add_costs(results, "encode")
        self._indexed = True
        self._nbytes = sum(result.value for result in results)
        with stage("build"):
            self._ranks = corpus.ranks
        self._describe(results, np.diff(self._edges))

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` best documents for each of the `queries`, merged from the `k` best of each shard."""
        sent = _send(queries)
        with stage("search"):
            results = self._call_all(lambda worker, key, _: worker.search.remote(key, sent, k))
        self._add_costs(results, "search")
        with stage("merge"):
            docs = [
                np.where(result.value[0] >= 0, result.value[0] + start, -1)
                for start, result in zip(self._edges[:-1], results, strict=True)
            ]
            scores = np.concatenate([result.value[1] for result in results], axis=1)
            run = Run(queries.ids, self._corpus.ids, np.concatenate(docs, axis=1), scores, self._ranks).top(k)
        self._describe(results, np.diff(self._edges))
        return run

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the retriever's scores of `docs` [queries, candidates] for `queries`; -inf where `docs` is -1."""
        if not isinstance(self._retriever, CandidateScorer):
            raise ConfigError(f"{type(self._retriever).__name__} cannot score given documents, as a scorer must")
        sent = _send(queries)

        def call(worker: Any, key: str, shard: int) -> Any:
            start, stop = self._edges[shard], self._edges[shard + 1]
            local_docs = np.where((docs >= start) & (docs < stop), docs - start, -1).astype(np.int32)
            return worker.score.remote(key, sent, local_docs)

        with stage("score"):
            results = self._call_all(call)
        self._add_costs(results, "score")
        scores: NDArray[np.float32] = np.maximum.reduce([result.value for result in results])
        return scores

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Return explanations of `docs` for `query`; they relate a document to its shard, not to the whole corpus."""
        shards = np.searchsorted(self._edges, docs, side="right") - 1
        sent = _send(query)

        def call(worker: Any, key: str, shard: int) -> Any:
            local_docs = [doc - self._edges[shard] for doc, at in zip(docs, shards, strict=True) if at == shard]
            return worker.explain.remote(key, sent, local_docs)

        explanations = [iter(result.value) for result in self._call_all(call)]
        return [next(explanations[shard]) for shard in shards]

    def nbytes(self) -> int:
        """Return the bytes of all shards' indexes."""
        return self._nbytes

    def _call_all(self, call: RemoteCall, step: instrument.Advance | None = None) -> list[WorkerResult]:
        """Return the results of all shards in order; a shard whose worker is lost is moved and called again."""
        ray = cluster.library()
        loss_errors = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError)
        waiting = {self._call(shard, call): shard for shard in range(len(self._edges) - 1)}
        results: dict[int, WorkerResult] = {}
        losses: dict[int, int] = defaultdict(int)
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            shard = waiting.pop(done)
            try:
                ray.get(self._preparing.pop(shard, []))
                results[shard] = ray.get(done)
            except loss_errors as error:
                losses[shard] += 1
                self._replace_worker(shard, losses[shard], error)
                waiting[self._call(shard, call)] = shard
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from (None if isinstance(error.cause, HarnessError) else error)
            if step:
                step(self._edges[shard + 1] - self._edges[shard])
        return [results[shard] for shard in sorted(results)]

    def _call(self, shard: int, call: RemoteCall) -> Any:
        """Call a shard's worker and return a reference to the result; a new worker first receives the documents."""
        worker = self._pool.slots[shard % len(self._pool.slots)]
        key = f"{self._name}/{shard}"
        if self._workers.get(shard) is not worker:
            documents = pack(self._corpus[self._edges[shard] : self._edges[shard + 1]])
            self._preparing[shard] = [worker.place.remote(key, self._pickled, *documents, process_environment())]
            if self._indexed:
                self._preparing[shard].append(worker.index.remote(key, self._statistics, "reuse"))
            self._workers[shard] = worker
        return call(worker, key, shard)

    def _replace_worker(self, shard: int, losses: int, error: Exception) -> None:
        if losses >= _MAX_LOSSES:
            start, stop = self._edges[shard], self._edges[shard + 1]
            cause = " ".join(str(error).split()).partition(" Some common causes")[0]
            raise ShardError(
                f"shard {shard} of {len(self._edges) - 1} (documents {start:,} to {stop:,}) lost its worker {losses} "
                f"times; if memory is short, set retriever.shards higher. The last loss: {cause}"
            ) from None
        self._pool.replace(self._workers.pop(shard))

    def _add_costs(self, results: Sequence[WorkerResult], into: str) -> None:
        """Add the workers' counters and CPU time, and the cached time of the slowest of them."""
        by_worker: dict[Any, list[Phase]] = defaultdict(list)
        for shard, result in enumerate(results):
            by_worker[self._workers[shard]].append(result.phase)
            instrument.add_counters(result.phase)
        wall_s = max(sum(phase.wall_s for phase in phases) for phases in by_worker.values())
        spent_s = max(sum(phase.wall_s - phase.cached_s for phase in phases) for phases in by_worker.values())
        cpu_s = sum(result.phase.cpu_s for result in results)
        dates = [result.phase.cached_since for result in results if result.phase.cached_s]
        since = None if None in dates else min(filter(None, dates), default=None)
        instrument.add_cached_time(Phase(wall_s=wall_s - spent_s, cpu_s=cpu_s, cached_since=since), into)
        if any(result.phase.foreign_machine for result in results):
            instrument.add_cached_time(Phase(wall_s=0, cpu_s=0), into, foreign_machine=True)

    def _describe(self, results: Sequence[WorkerResult], sizes: NDArray[np.int64]) -> None:
        """Add the metadata of the first shard; floats are averaged over shards, weighted by size."""
        for name, fields in results[0].encoders.items():
            with component(name):
                describe_encoder(**fields)
        for name, value in results[0].metadata.items():
            values = [result.metadata.get(name) for result in results]
            is_mean = isinstance(value, float) and None not in values and sum(sizes) > 0
            describe(name, float(np.average(np.array(values, float), weights=sizes)) if is_mean else value)
        describe("shards", len(results))
        describe("nodes", len({self._pool.nodes[worker] for worker in self._workers.values()}))


def _send(queries: Queries) -> Any:
    """Serialise queries: a few are sent with each call, many are put once into the workers' shared store."""
    sent = pack(queries)
    return sent if sum(buffer.size for buffer in sent) < _INLINE else cluster.library().put(sent)


_NOT_COMPARABLE = (
    "the scores of {} are not comparable across shards; choices for retriever@retriever.retriever: bm25, splade_*, "
    "dense ones with index=null, colbert ones with candidates=null. For a composite retriever, shard its retrievers: "
    "harness retriever=hybrid retriever@retriever.retrievers.dense=sharded"
)
