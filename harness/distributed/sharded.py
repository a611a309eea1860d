"""A retriever over a corpus cut into shards, an actor for each, merged in the one order of documents.

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
from harness.distributed.shipping import edges, packed, recipe, surroundings
from harness.distributed.worker import Answer
from harness.embedding_cache import cache
from harness.errors import ConfigError, HarnessError
from harness.instrument import component, describe, describe_encoder, stage
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Explanation, Phase, Queries, Retriever, Run
from harness.types.protocols import CandidateScorer, Component, StatisticsSharing, is_shardable

_TRIES = 3
_INLINE = 50_000  # bytes

Ask = Callable[[Any, str, int], Any]
"""Sends a call to an actor, for a shard by its key and number; gives the answer's reference."""


class ShardError(HarnessError):
    """A shard whose actors were lost one after another."""


class Sharded(Component):
    """`shards` None: as many as actors of `cpus` CPUs and `gpus` GPUs fit on the cluster at `address`."""

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
            raise ConfigError(f"retriever.cpus={cpus:g} and retriever.gpus={gpus:g}: an actor needs one or the other")
        self._retriever, self._shards = retriever, shards
        self._fleet = cluster.fleet(address, cpus, gpus)
        self._fleet.join()
        weakref.finalize(self, self._fleet.leave).atexit = False  # Ray's own end comes there
        self._name = uuid4().hex
        self._recipe: Any = None
        self._nbytes = 0
        self._homes: dict[int, Any] = {}  # shard -> the actor that has it
        self._preparing: dict[int, list[Any]] = {}
        self._whole: Any = None
        self._indexed = False

    def index(self, corpus: Corpus) -> None:
        """Send each actor its part, and have it indexed there."""
        with stage("load"):
            self._fleet.grow(self._shards)
            self._recipe = self._recipe or recipe(self._retriever)
        n = max(1, min(self._shards or len(self._fleet.slots), len(corpus)))
        self._corpus, self._edges = corpus, edges(len(corpus), n)
        self._homes, self._whole, self._indexed = {}, None, False
        use: cache.Use = cache.use()
        with stage("encode", total=len(corpus)) as step:
            if isinstance(self._retriever, StatisticsSharing):
                found = self._each(lambda home, key, _: home.statistics.remote(key, use))
                first, *others = (answer.value for answer in found)
                self._whole = cluster.library().put(first.merged(others))
                self._add_costs(found, "encode")
            found = self._each(lambda home, key, _: home.index.remote(key, self._whole, use), step)
        self._add_costs(found, "encode")
        self._indexed = True
        self._nbytes = sum(answer.value for answer in found)
        with stage("build"):
            self._ranks = corpus.ranks
        self._describe(found, np.diff(self._edges))

    def search(self, queries: Queries, k: int) -> Run:
        """The k best of the shards' k best each."""
        sent = _sent(queries)
        with stage("search"):
            found = self._each(lambda home, key, _: home.search.remote(key, sent, k))
        self._add_costs(found, "search")
        with stage("merge"):
            docs = [
                np.where(answer.value[0] >= 0, answer.value[0] + start, -1)
                for start, answer in zip(self._edges[:-1], found, strict=True)
            ]
            scores = np.concatenate([answer.value[1] for answer in found], axis=1)
            run = Run(queries.ids, self._corpus.ids, np.concatenate(docs, axis=1), scores, self._ranks).top(k)
        self._describe(found, np.diff(self._edges))
        return run

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """The retriever's own scores [queries, candidates] of documents `docs`; -inf where there is none (-1)."""
        if not isinstance(self._retriever, CandidateScorer):
            raise ConfigError(f"{type(self._retriever).__name__} cannot score given documents, as a scorer must")
        sent = _sent(queries)

        def ask(home: Any, key: str, shard: int) -> Any:
            start, stop = self._edges[shard], self._edges[shard + 1]
            own = np.where((docs >= start) & (docs < stop), docs - start, -1).astype(np.int32)
            return home.score.remote(key, sent, own)

        with stage("score"):
            found = self._each(ask)
        self._add_costs(found, "score")
        scores: NDArray[np.float32] = np.maximum.reduce([answer.value for answer in found])
        return scores

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """The retriever's own explanations; what they set a document beside is its shard, not the whole corpus."""
        shards = np.searchsorted(self._edges, docs, side="right") - 1
        sent = _sent(query)

        def ask(home: Any, key: str, shard: int) -> Any:
            own = [doc - self._edges[shard] for doc, at in zip(docs, shards, strict=True) if at == shard]
            return home.explain.remote(key, sent, own)

        found = [iter(answer.value) for answer in self._each(ask)]
        return [next(found[shard]) for shard in shards]

    def nbytes(self) -> int:
        """Bytes of all shards' indexes."""
        return self._nbytes

    def _each(self, ask: Ask, step: instrument.Advance | None = None) -> list[Answer]:
        """The answers of all shards in their order; one whose actor is lost is done anew elsewhere and asked again."""
        ray = cluster.library()
        lost = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError)
        waiting = {self._asked(shard, ask): shard for shard in range(len(self._edges) - 1)}
        found: dict[int, Answer] = {}
        losses: dict[int, int] = defaultdict(int)
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            shard = waiting.pop(done)
            try:
                ray.get(self._preparing.pop(shard, []))
                found[shard] = ray.get(done)
            except lost as error:
                losses[shard] += 1
                self._lost(shard, losses[shard], error)
                waiting[self._asked(shard, ask)] = shard
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from (None if isinstance(error.cause, HarnessError) else error)
            if step:
                step(self._edges[shard + 1] - self._edges[shard])
        return [found[shard] for shard in sorted(found)]

    def _asked(self, shard: int, ask: Ask) -> Any:
        """The reference of what a shard is asked; where its actor is new, its documents are sent there first."""
        home = self._fleet.slots[shard % len(self._fleet.slots)]
        key = f"{self._name}/{shard}"
        if self._homes.get(shard) is not home:
            part = packed(self._corpus[self._edges[shard] : self._edges[shard + 1]])
            self._preparing[shard] = [home.place.remote(key, self._recipe, *part, surroundings())]
            if self._indexed:
                self._preparing[shard].append(home.index.remote(key, self._whole, "reuse"))
            self._homes[shard] = home
        return ask(home, key, shard)

    def _lost(self, shard: int, times: int, error: Exception) -> None:
        if times >= _TRIES:
            start, stop = self._edges[shard], self._edges[shard + 1]
            cause = " ".join(str(error).split()).partition(" Some common causes")[0]
            raise ShardError(
                f"shard {shard} of {len(self._edges) - 1} (documents {start:,} to {stop:,}) lost its actor {times} "
                f"times; where memory is short, set retriever.shards higher. The last loss: {cause}"
            ) from None
        self._fleet.replace(self._homes.pop(shard))

    def _add_costs(self, answers: Sequence[Answer], into: str) -> None:
        """Add the workers' counters and CPU time, and the wall time that the cache spared the slowest of them."""
        by_worker: dict[Any, list[Phase]] = defaultdict(list)
        for shard, answer in enumerate(answers):
            by_worker[self._homes[shard]].append(answer.phase)
            instrument.add_counters(answer.phase)
        wall_s = max(sum(phase.wall_s for phase in phases) for phases in by_worker.values())
        spent_s = max(sum(phase.wall_s - phase.cached_s for phase in phases) for phases in by_worker.values())
        cpu_s = sum(answer.phase.cpu_s for answer in answers)
        instrument.add_cached_time(Phase(wall_s=wall_s - spent_s, cpu_s=cpu_s), into)
        if any(answer.phase.foreign_machine for answer in answers):
            instrument.add_cached_time(Phase(wall_s=0, cpu_s=0), into, foreign_machine=True)

    def _describe(self, answers: Sequence[Answer], sizes: NDArray[np.int64]) -> None:
        """Add the metadata of the first shard; a number that differs by shard is their mean, weighted by size."""
        for name, fields in answers[0].encoders.items():
            with component(name):
                describe_encoder(**fields)
        for name, value in answers[0].metadata.items():
            values = [answer.metadata.get(name) for answer in answers]
            is_mean = isinstance(value, float) and None not in values and sum(sizes) > 0
            describe(name, float(np.average(np.array(values, float), weights=sizes)) if is_mean else value)
        describe("shards", len(answers))
        describe("nodes", len({self._fleet.nodes[home] for home in self._homes.values()}))


def _sent(queries: Queries) -> Any:
    """Queries as an actor takes them: a few in the call itself, many once in the store that the actors share."""
    sent = packed(queries)
    return sent if sum(buffer.size for buffer in sent) < _INLINE else cluster.library().put(sent)


_NOT_COMPARABLE = (
    "the scores of {} do not compare across shards; choices for retriever@retriever.retriever: bm25, splade_*, dense "
    "ones with index=null, colbert ones with candidates=null. Of one that is made of others shard the parts: harness "
    "retriever=hybrid retriever@retriever.retrievers.dense=sharded"
)
