"""The leak guard: no query and no relevant document of a test split is trained on unless that is allowed by name.

Texts are the same when they are equal, or near: equal once normalised (see `words`), or long and
with the same first or last 24 words, as a document whose title or one of whose sentences was taken away.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.train.examples import Examples
from harness.train.plan import LeakPlan
from harness.train.words import words
from harness.types import Dataset

_EDGE = 24


@dataclass(frozen=True)
class Leak:
    """Texts of one kind, queries or positives, of a test split that are among the training data."""

    kind: str
    split: str
    found: int
    of: int
    example: str
    rows: NDArray[np.bool_]
    """[examples] the rows that they are in."""

    def __str__(self) -> str:
        return f"{self.found:,} of {self.of:,} {self.kind} of {self.split} (such as {self.example!r})"


def guarded(examples: Examples, test: Dataset, plan: LeakPlan) -> tuple[Examples, list[Leak]]:
    """The examples that may be trained on, and what was found. Raises `ConfigError` for what the plan refuses."""
    found = leaks(examples, test)
    choice = {"queries": plan.queries, "positives": plan.positives}
    if refused := [leak for leak in found if choice[leak.kind] == "refuse"]:
        allowed = " ".join(f"leaks.{leak.kind}=allow" for leak in refused)
        raise ConfigError(
            f"the training data hold {' and '.join(map(str, refused))}: a test on {refused[0].split} would be of what "
            "was trained on. Splits of one corpus share documents, so their positives are often allowed; queries "
            f"hardly ever are. To leave their rows out: {allowed.replace('allow', 'drop')}; to train on them: {allowed}"
        )
    kept = np.ones(len(examples.rows), bool)
    for leak in found:
        if choice[leak.kind] == "drop":
            kept &= ~leak.rows
    return replace(examples, rows=examples.rows[kept]), found


def leaks(examples: Examples, test: Dataset) -> list[Leak]:
    """The test split's queries among the anchors, and its relevant documents among the positives."""
    place = {doc: number for number, doc in enumerate(test.corpus.ids)}
    judged = (doc for docs in test.qrels.values() for doc, grade in docs.items() if grade > 0)
    relevant = np.unique(np.fromiter((place[doc] for doc in judged if doc in place), np.int64))
    anchors, anchor_rows = np.unique(examples.rows[:, 0], return_inverse=True)
    positives, positive_rows = np.unique(examples.rows[:, 1], return_inverse=True)
    sides = {
        "queries": (list(test.queries.texts), [examples.anchors[anchor] for anchor in anchors], anchor_rows),
        "positives": (test.corpus.texts.take(relevant), examples.documents.texts.take(positives), positive_rows),
    }
    found = []
    for kind, (held, trained, rows) in sides.items():
        keys = {key for text in held for key in _keys(text)}
        hits = np.array([not keys.isdisjoint(_keys(text)) for text in trained], bool)
        if hits.any():
            known = {key for text, hit in zip(trained, hits, strict=True) if hit for key in _keys(text)}
            theirs = [text for text in held if not known.isdisjoint(_keys(text))]
            split = f"{test.name} {test.split}"
            found.append(Leak(kind, split, len(theirs), len(held), theirs[0][:80], hits[rows]))
    return found


def _keys(text: str) -> Iterator[bytes]:
    found = words(text)
    parts = {"whole": found}
    if len(found) > 2 * _EDGE:
        parts |= {"first": found[:_EDGE], "last": found[-_EDGE:]}
    for name, own in parts.items():
        if own:
            yield hashlib.blake2b(" ".join([name, *own]).encode("utf-8", "replace"), digest_size=16).digest()
