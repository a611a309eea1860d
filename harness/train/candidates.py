"""Input and output of query generators: documents, and queries with the document that answers each."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.types import Corpus, StringColumn


@dataclass(frozen=True)
class Task:
    """Documents to generate queries for.

    They are the documents of `corpus` with the indices `sample`; each gets at most `per_document` queries.
    """

    name: str
    corpus: Corpus
    titles: Callable[[], StringColumn] | None
    sample: list[int]
    per_document: int
    journal: Path
    """Path of the journal in which an LLM generator stores the answers that it has paid for."""
    resume: bool
    """Reuse the answers in an existing journal."""


@dataclass(frozen=True)
class Candidate:
    """A query (anchor) and the text that answers it (positive): the document with index `doc`, or a part of it."""

    doc: int
    anchor: str
    positive: str


@dataclass
class Generated:
    """Generated candidates, in the order of the sample, and the counts of dropped ones."""

    candidates: list[Candidate] = field(default_factory=list)
    generated: int = 0
    """Number of generated queries, including dropped ones."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Number of dropped queries by reason."""
    unusable: Counter[str] = field(default_factory=Counter)
    """Number of documents without queries, by reason."""
    texts_of: Callable[[], Iterable[str]] | None = None
    """Returns the text of every document in the form of the positives; None if it is the full text."""
    documents: dict[str, Any] = field(default_factory=dict)
    """Further counts of documents, for the manifest."""
    cost: dict[str, Any] = field(default_factory=dict)
    """Tokens and USD, for the manifest."""


class Generator(Protocol):
    """Protocol for query generators; see conf/generator/*.yaml."""

    def generate(self, task: Task) -> Generated:
        """Generate candidates for the documents of the task."""
        ...
