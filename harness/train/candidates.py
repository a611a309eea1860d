"""What a generator is asked for, and what it gives: anchors, each with the document that answers it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.types import Corpus, StringColumn


@dataclass(frozen=True)
class Task:
    """Documents to write queries for: the numbers `sample` of a corpus, `per_document` queries each at most."""

    name: str
    corpus: Corpus
    titles: Callable[[], StringColumn] | None
    sample: list[int]
    per_document: int
    answers: Path
    """The journal of a generator that pays for its answers."""
    resume: bool
    """Go on with the journal that is there."""


@dataclass(frozen=True)
class Candidate:
    """A query and the text that answers it, which is document number `doc` or what was left of it."""

    doc: int
    anchor: str
    positive: str


@dataclass
class Generated:
    """Candidates by document, in the order of the sample, and the count of what was dropped."""

    candidates: list[Candidate] = field(default_factory=list)
    given: int = 0
    """Queries that were generated, with those dropped."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Queries by reason."""
    unusable: Counter[str] = field(default_factory=Counter)
    """Documents that gave none, by reason."""
    texts_of: Callable[[], Iterable[str]] | None = None
    """All documents as they stand among the positives; None: whole."""
    documents: dict[str, Any] = field(default_factory=dict)
    """More about the documents, for the manifest."""
    cost: dict[str, Any] = field(default_factory=dict)
    """Tokens and USD, for the manifest."""


class Generator(Protocol):
    """Writes queries for documents: conf/generator/*.yaml."""

    def generate(self, task: Task) -> Generated:
        """Candidates for the documents of the task."""
        ...
