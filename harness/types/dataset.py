"""Dataset and Retriever: the two things that meet in one measured cell."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.types.qrels import Qrels
from harness.types.run import Run
from harness.types.texts import Corpus, Queries, StringColumn


@dataclass(frozen=True)
class Dataset:
    """A test collection: documents, queries and which answers which.

    `drop_self_hits`: the queries' own documents are in the corpus and do not count (ArguAna, Quora).
    `group`: the dataset that this one is a part of, of `parts` in all (a forum of CQADupStack).
    `instruction`: the task in words, for prompts that a config makes of it; retrievers see it no other way.
    `load_titles`: reads the documents' titles alone, in the corpus' order, where the source keeps them apart.
    `candidates`: by query, the documents that are to be ranked for it, in place of the whole corpus (reranking).
    `metadata`: what the source says of the collection, for its record: citation, licence, languages, main score.
    `extra_metrics`: measures that the collection defines itself, as means over a run's queries, by name.
    """

    name: str
    split: str
    corpus: Corpus
    queries: Queries
    qrels: Qrels
    drop_self_hits: bool = False
    group: str | None = None
    parts: int = 1
    instruction: str | None = None
    load_titles: Callable[[], StringColumn] | None = field(default=None, compare=False)
    candidates: Mapping[str, Sequence[str]] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)
    extra_metrics: Callable[[Run], Mapping[str, float]] | None = field(default=None, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a score depends on, 32 hex digits."""
        judged = sorted((query, sorted(docs.items())) for query, docs in self.qrels.items())
        content = [self.corpus.fingerprint, self.queries.fingerprint, judged, self.drop_self_hits]
        if self.candidates is not None:
            content.append(sorted((query, sorted(self.candidates.get(query, ()))) for query in self.queries.ids))
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    @cached_property
    def candidate_matrix(self) -> NDArray[np.int32] | None:
        """Numbers of each query's candidates [queries, most], -1 where it has fewer; None: the whole corpus."""
        if self.candidates is None:
            return None
        own = [list(self.candidates.get(query, ())) for query in self.queries.ids]
        lengths = np.array([len(docs) for docs in own], np.int64)
        ids = pa.array([doc for docs in own for doc in docs], pa.large_string())
        numbers = pc.index_in(ids, value_set=self.corpus.ids.arrow.combine_chunks()).to_numpy(zero_copy_only=False)
        found = np.full((len(own), int(lengths.max(initial=0))), -1, np.int32)
        found[np.arange(found.shape[1]) < lengths[:, None]] = numbers
        return found


class Retriever(Protocol):
    """Anything that ranks documents for queries. It knows of no dataset, split or judgement."""

    def index(self, corpus: Corpus) -> None:
        """Make the corpus searchable, forgetting what was indexed before."""
        ...

    def search(self, queries: Queries, k: int) -> Run:
        """The k best documents of each query, fewer where fewer match."""
        ...

    def nbytes(self) -> int:
        """Bytes of the index as it is held to be searched."""
        ...
