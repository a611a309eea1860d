"""What is trained on: rows of an anchor, a positive and negatives, as numbers into anchors and documents.

They come from a dataset's judged training queries with negatives beside them, or from a file of triplets.
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
from harness.train.negatives import Negatives, filled
from harness.types import Corpus, Dataset, Queries, Retriever

_RANKED = 1000
"""Ranks among which the nearest relevant documents of a query are looked for."""


@dataclass(frozen=True)
class Examples:
    """`rows` [examples, 2 + n]: the numbers of an anchor, of its positive and of n negatives."""

    anchors: list[str]
    documents: Corpus
    rows: NDArray[np.int64]
    known: Mapping[int, Mapping[int, int]]
    """Of each anchor the known positives, also those in no row, with their grade."""
    said: str
    """Where they come from, for messages."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all texts and rows, 32 hex digits."""
        digest = hashlib.blake2b(self.documents.fingerprint.encode(), digest_size=16)
        for text in self.anchors:
            digest.update(f"{len(text)} {text}".encode())
        digest.update(np.ascontiguousarray(self.rows).tobytes())
        digest.update(repr(sorted((anchor, sorted(docs.items())) for anchor, docs in self.known.items())).encode())
        return digest.hexdigest()

    def without(self, anchors: Iterable[int]) -> "Examples":
        """The rows of all other anchors."""
        return replace(self, rows=self.rows[~np.isin(self.rows[:, 0], np.fromiter(anchors, np.int64))])


def of_dataset(
    dataset: Dataset, negatives: Negatives, per_query: int, seed: int, nearest: Retriever | None = None
) -> Examples:
    """Up to `per_query` relevant documents of each judged query, each with negatives.

    Drawn at random; or the first that `nearest` ranks, and random ones where it ranks too few: judgements made from
    links or clicks call much relevant that a model cannot tell from the rest.
    """
    corpus, queries = dataset.corpus, dataset.queries
    place = {doc: number for number, doc in enumerate(corpus.ids)}
    known = {
        number: {place[doc]: grade for doc, grade in dataset.qrels[query].items() if grade > 0 and doc in place}
        for number, query in enumerate(queries.ids)
    }
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(sorted(docs)).tolist() for docs in known.values()]
    if nearest is not None:
        drawn = _by_rank(drawn, nearest, dataset)
    pairs = [(anchor, doc) for anchor, docs in zip(known, drawn, strict=True) for doc in docs[:per_query]]
    asked = queries.texts.take(np.array([anchor for anchor, _ in pairs], np.int64))
    repeated = Queries([str(number) for number in range(len(pairs))], asked)
    answers = [set(known[anchor]) for anchor, _ in pairs]
    chosen = negatives.choose(repeated, corpus, answers)
    whole = filled(chosen, negatives.n, repeated, corpus, answers, seed)
    rows = np.array([[*pair, *own] for pair, own in zip(pairs, whole, strict=True)], np.int64)
    return Examples(list(queries.texts), corpus, rows, known, f"{dataset.name} {dataset.split}")


def _by_rank(drawn: list[list[int]], nearest: Retriever, dataset: Dataset) -> list[list[int]]:
    """Each query's documents, those first that the retriever ranks first among all that answer some query."""
    answering = np.unique(np.array([doc for docs in drawn for doc in docs], np.int64))
    corpus = Corpus(dataset.corpus.ids.take(answering), dataset.corpus.texts.take(answering))
    with stage("rank positives", total=len(drawn)) as step:
        nearest.index(corpus)
        run = nearest.search(dataset.queries, min(_RANKED, len(corpus)))
        step(len(drawn))
    ranked = []
    for found, docs in zip(run.docs, drawn, strict=True):
        own = set(docs)
        first = [doc for doc in answering[found[found >= 0]].tolist() if doc in own]
        ranked.append(list(dict.fromkeys([*first, *docs])))
    return ranked


def of_file(path: Path) -> Examples:
    """A file of triplets. Texts that are equal are one anchor or one document. Raises `DataError`."""
    read = triplets.read(path)
    if not read.anchors:
        raise ConfigError(f"{path} holds no triplets; make some: harness synthesize --help")
    anchors: dict[str, int] = {}
    documents: dict[str, int] = {}
    known: dict[int, dict[int, int]] = defaultdict(dict)
    rows = []
    for asked, positive, negatives in zip(read.anchors, read.positives, read.negatives, strict=True):
        anchor = anchors.setdefault(asked, len(anchors))
        row = [documents.setdefault(text, len(documents)) for text in (positive, *negatives)]
        known[anchor][row[0]] = 1
        rows.append([anchor, *row])
    corpus = Corpus([str(number) for number in range(len(documents))], documents)
    return Examples(list(anchors), corpus, np.array(rows, np.int64), dict(known), path.name)
