"""Protocols of retrievers: the three methods that every one has, and optional capabilities.

A capability is asked for with `isinstance`, which looks whether the methods are there.
"""

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.types.explanation import Explanation
from harness.types.run import Run
from harness.types.texts import Corpus, Queries


@runtime_checkable
class Retriever(Protocol):
    """Protocol for retrievers. A retriever never sees dataset names, splits or relevance judgements."""

    def index(self, corpus: Corpus) -> None:
        """Make the corpus searchable, replacing what was indexed before."""
        ...

    def search(self, queries: Queries, k: int) -> Run:
        """Return the k best documents of each query, fewer where fewer match."""
        ...

    def nbytes(self) -> int:
        """Return the bytes of the index as it is held to be searched."""
        ...


@runtime_checkable
class CandidateScorer(Protocol):
    """Capability: score given documents. Rerankers, and datasets that bring their own candidates, need it."""

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores [queries, candidates] of document indices ``docs`` of that shape, padded with -1.

        A padded place, and a document that the retriever does not score, is -inf.
        """
        ...


@runtime_checkable
class Explainer(Protocol):
    """Capability: explain why documents rank where they do; used only after `index`."""

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Return one explanation for each document index in ``docs``; ``query`` holds one query."""
        ...


@runtime_checkable
class Precomputed(Protocol):
    """Capability: rankings that may have been made elsewhere, so that time spent here is not their cost."""

    @property
    def is_precomputed(self) -> bool:
        """True where the rankings were made elsewhere."""
        ...


@runtime_checkable
class ExternallyIndexed(Protocol):
    """Capability: an index that lies elsewhere and holds the whole corpus, whatever part of it `index` is given."""

    @property
    def is_externally_indexed(self) -> bool:
        """True where the index lies elsewhere."""
        ...


@runtime_checkable
class Shardable(Protocol):
    """Capability: rankings of a corpus's shards that merge, by score, into the ranking of the whole corpus."""

    @property
    def is_shardable(self) -> bool:
        """True where the rankings of shards merge with this retriever's settings."""
        ...


@runtime_checkable
class TaskPrompted(Protocol):
    """Capability: prompts and a language that follow the mteb task of a dataset."""

    def for_task(
        self, task: str, subset: str | None = None, split: str | None = None, language: str | None = None
    ) -> Retriever:
        """Return a retriever for a task, NAME or NAME:SUBSET:SPLIT; itself where it was made for one."""
        ...


class MergeableStatistics(Protocol):
    """Statistics of one shard that add up to those of the corpus."""

    def merged(self, others: "list[Self]") -> Self:
        """Return the statistics of this shard and of those that follow it."""
        ...


@runtime_checkable
class StatisticsSharing(Protocol):
    """Capability of a `Shardable` whose scores depend on statistics of the whole corpus, such as BM25's idf."""

    def corpus_statistics(self, corpus: Corpus) -> Any:
        """Return what a shard adds to the statistics of the corpus, as `MergeableStatistics`."""
        ...

    def use_statistics(self, statistics: Any) -> None:
        """Score what is indexed from now on as a part of the corpus with these statistics."""
        ...


def is_precomputed(retriever: object) -> bool:
    """Return whether a retriever's rankings were made elsewhere."""
    return isinstance(retriever, Precomputed) and bool(retriever.is_precomputed)


def is_shardable(retriever: object) -> bool:
    """Return whether a retriever's rankings of shards merge into that of the whole corpus."""
    return isinstance(retriever, Shardable) and bool(retriever.is_shardable)
