"""The leak check: queries and relevant documents of the test split must not be in the training data.

Texts match if they are equal after normalisation (see `words`), or if both are long and share their first or last 24
words, such as a document and the same document without its title or one of its sentences.
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

_EDGE_WORDS = 24


@dataclass(frozen=True)
class Leak:
    """Queries or positives of a test split that are in the training data."""

    kind: str
    """Either `queries` or `positives`."""
    split: str
    count: int
    total: int
    """Number of such texts in the test split."""
    example: str
    rows: NDArray[np.bool_]
    """Mask [examples] of the rows that contain them."""

    def __str__(self) -> str:
        return f"{self.count:,} of {self.total:,} {self.kind} of {self.split} (such as {self.example!r})"


def check_leaks(examples: Examples, test: Dataset, plan: LeakPlan) -> tuple[Examples, list[Leak]]:
    """Return the examples without the rows that the plan drops, and the leaks.

    Args:
        examples: The training examples.
        test: The test split.
        plan: What to do with leaked queries and positives.

    Raises:
        ConfigError: The plan refuses a leak.
    """
    leaks = find_leaks(examples, test)
    choice = {"queries": plan.queries, "positives": plan.positives}
    if refused := [leak for leak in leaks if choice[leak.kind] == "refuse"]:
        allowed = " ".join(f"leaks.{leak.kind}=allow" for leak in refused)
        raise ConfigError(
            f"the training data contain {' and '.join(map(str, refused))}, so a test on {refused[0].split} would use "
            "training data. Splits of one corpus share documents, so positives are often allowed, queries hardly ever. "
            f"To leave out their rows: {allowed.replace('allow', 'drop')}; to train on them: {allowed}"
        )
    is_kept = np.ones(len(examples.rows), bool)
    for leak in leaks:
        if choice[leak.kind] == "drop":
            is_kept &= ~leak.rows
    return replace(examples, rows=examples.rows[is_kept]), leaks


def find_leaks(examples: Examples, test: Dataset) -> list[Leak]:
    """Return the test split's queries among the anchors, and its relevant documents among the positives.

    Args:
        examples: The training examples.
        test: The test split.

    Returns:
        At most two leaks, one of queries and one of positives.
    """
    index_of = {doc: index for index, doc in enumerate(test.corpus.ids)}
    relevant_ids = (doc for docs in test.qrels.values() for doc, grade in docs.items() if grade > 0)
    relevant = np.unique(np.fromiter((index_of[doc] for doc in relevant_ids if doc in index_of), np.int64))
    anchors, anchor_rows = np.unique(examples.rows[:, 0], return_inverse=True)
    positives, positive_rows = np.unique(examples.rows[:, 1], return_inverse=True)
    sides = {
        "queries": (list(test.queries.texts), [examples.anchors[anchor] for anchor in anchors], anchor_rows),
        "positives": (test.corpus.texts.take(relevant), examples.documents.texts.take(positives), positive_rows),
    }
    leaks = []
    for kind, (test_texts, train_texts, rows) in sides.items():
        test_keys = {key for text in test_texts for key in _keys(text)}
        is_leak = np.array([not test_keys.isdisjoint(_keys(text)) for text in train_texts], bool)
        if is_leak.any():
            leaked_keys = {key for text, leak in zip(train_texts, is_leak, strict=True) if leak for key in _keys(text)}
            leaked = [text for text in test_texts if not leaked_keys.isdisjoint(_keys(text))]
            split = f"{test.name} {test.split}"
            leaks.append(Leak(kind, split, len(leaked), len(test_texts), leaked[0][:80], is_leak[rows]))
    return leaks


def _keys(text: str) -> Iterator[bytes]:
    """Yield hashes of a text; two texts match if they share one."""
    all_words = words(text)
    parts = {"whole": all_words}
    if len(all_words) > 2 * _EDGE_WORDS:
        parts |= {"first": all_words[:_EDGE_WORDS], "last": all_words[-_EDGE_WORDS:]}
    for name, part_words in parts.items():
        if part_words:
            yield hashlib.blake2b(" ".join([name, *part_words]).encode("utf-8", "replace"), digest_size=16).digest()
