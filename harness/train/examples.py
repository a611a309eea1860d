"""Training examples: rows of an anchor, a positive and negatives, as indices into anchors and documents.

They are made from a dataset's judged queries and chosen negatives, or read from a file of triplets.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.instrument import stage
from harness.train import triplets
from harness.train.negatives import Negatives, fill_with_random
from harness.types import Corpus, Dataset, Queries, Retriever

_RANK_DEPTH = 1000
"""Depth of the ranking that orders a query's relevant documents."""


@dataclass(frozen=True)
class Examples:
    """Training examples. `rows` has shape [examples, 2 + n]: indices of anchor, positive and n negatives."""

    anchors: list[str]
    documents: Corpus
    rows: NDArray[np.int64]
    known: Mapping[int, Mapping[int, int]]
    """Grades of every anchor's known positives, by index, including positives without a row."""
    source: str
    """Name of the dataset or file, for messages."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all texts, rows and known positives, 32 hex digits."""
        digest = hashlib.blake2b(self.documents.fingerprint.encode(), digest_size=16)
        for text in self.anchors:
            digest.update(f"{len(text)} {text}".encode())
        digest.update(np.ascontiguousarray(self.rows).tobytes())
        digest.update(repr(sorted((anchor, sorted(docs.items())) for anchor, docs in self.known.items())).encode())
        return digest.hexdigest()

    def without(self, anchors: Iterable[int]) -> "Examples":
        """Return the examples without the rows of these anchors."""
        return replace(self, rows=self.rows[~np.isin(self.rows[:, 0], np.fromiter(anchors, np.int64))])


def from_dataset(
    dataset: Dataset, negatives: Negatives, per_query: int, seed: int, nearest: Retriever | None = None
) -> Examples:
    """Make a row, with negatives, for up to `per_query` relevant documents of each judged query.

    Args:
        dataset: The training split.
        negatives: Chooses the negatives.
        per_query: Maximum number of positives of a query.
        seed: Seed of the random choices.
        nearest: Ranks each query's relevant documents; the best are used, then random ones. None uses random ones
            only. A ranking helps where judgements come from links or clicks, and some texts do not fit the query.
    """
    corpus, queries = dataset.corpus, dataset.queries
    index_of = {doc: index for index, doc in enumerate(corpus.ids)}
    known = {
        index: {index_of[doc]: grade for doc, grade in dataset.qrels[query].items() if grade > 0 and doc in index_of}
        for index, query in enumerate(queries.ids)
    }
    rng = np.random.default_rng(seed)
    positives = [rng.permutation(sorted(docs)).tolist() for docs in known.values()]
    if nearest is not None:
        positives = _by_rank(positives, nearest, dataset)
    pairs = [(anchor, doc) for anchor, docs in zip(known, positives, strict=True) for doc in docs[:per_query]]
    texts = queries.texts.take(np.array([anchor for anchor, _ in pairs], np.int64))
    repeated = Queries([str(index) for index in range(len(pairs))], texts)
    known_positives = [set(known[anchor]) for anchor, _ in pairs]
    chosen = negatives.choose(repeated, corpus, known_positives)
    filled = fill_with_random(chosen, negatives.n, repeated, corpus, known_positives, seed)
    rows = np.array([[*pair, *negative_row] for pair, negative_row in zip(pairs, filled, strict=True)], np.int64)
    return Examples(list(queries.texts), corpus, rows, known, f"{dataset.name} {dataset.split}")


def _by_rank(positives: list[list[int]], nearest: Retriever, dataset: Dataset) -> list[list[int]]:
    """Order each query's relevant documents by the retriever's ranking of all relevant documents."""
    all_relevant = np.unique(np.array([doc for docs in positives for doc in docs], np.int64))
    corpus = Corpus(dataset.corpus.ids.take(all_relevant), dataset.corpus.texts.take(all_relevant))
    with stage("rank positives", total=len(positives)) as step:
        nearest.index(corpus)
        run = nearest.search(dataset.queries, min(_RANK_DEPTH, len(corpus)))
        step(len(positives))
    ranked = []
    for hits, docs in zip(run.docs, positives, strict=True):
        relevant = set(docs)
        first = [doc for doc in all_relevant[hits[hits >= 0]].tolist() if doc in relevant]
        ranked.append(list(dict.fromkeys([*first, *docs])))
    return ranked


def from_file(path: Path) -> Examples:
    """Read a file of triplets. Equal texts become one anchor or one document.

    Raises:
        DataError: A row is invalid.
        ConfigError: The file has no rows.
    """
    read = triplets.read(path)
    if not read.anchors:
        raise ConfigError(f"{path} has no triplets; make some: harness synthesize --help")
    anchors: dict[str, int] = {}
    documents: dict[str, int] = {}
    known: dict[int, dict[int, int]] = defaultdict(dict)
    rows = []
    for text, positive, negatives in zip(read.anchors, read.positives, read.negatives, strict=True):
        anchor = anchors.setdefault(text, len(anchors))
        row = [documents.setdefault(document, len(documents)) for document in (positive, *negatives)]
        known[anchor][row[0]] = 1
        rows.append([anchor, *row])
    corpus = Corpus([str(number) for number in range(len(documents))], documents)
    return Examples(list(anchors), corpus, np.array(rows, np.int64), dict(known), path.name)
