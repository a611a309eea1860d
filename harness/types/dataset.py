"""Dataset and Retriever: the two things that meet in one measured cell."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from harness.types.qrels import Qrels
from harness.types.run import Run
from harness.types.texts import Corpus, Queries, Strings


@dataclass(frozen=True)
class Dataset:
    """A test collection: documents, queries and which answers which.

    `drop_self_hits`: the queries' own documents are in the corpus and do not count (ArguAna, Quora).
    `group`: the dataset that this one is a part of, of `parts` in all (a forum of CQADupStack).
    `instruction`: the task in words, for prompts that a config makes of it; retrievers see it no other way.
    `titles`: reads the documents' titles alone, in the corpus' order, where the source keeps them apart.
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
    titles: Callable[[], Strings] | None = field(default=None, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a score depends on, 32 hex digits."""
        judged = sorted((query, sorted(docs.items())) for query, docs in self.qrels.items())
        content = json.dumps([self.corpus.fingerprint, self.queries.fingerprint, judged, self.drop_self_hits])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


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
