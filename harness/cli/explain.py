"""`harness explain`: a retriever indexes a collection, ranks one query, and says why documents stand where they do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.config import build
from harness.config.evaluation import checked_config
from harness.console import listener, say
from harness.errors import ConfigError
from harness.instrument import listening
from harness.types import Corpus, Dataset, Explainer, Explanation, Queries, Retriever

_KEYS = ("query", "doc", "top")


@dataclass(frozen=True)
class Explained:
    """One document: where it stands among how many, its text, and why."""

    doc: str
    text: str
    rank: int | None
    score: float | None
    why: Explanation


@dataclass(frozen=True)
class Answer:
    """One query and the documents that were asked about."""

    retriever: str
    dataset: str
    query: str
    looked_at: int
    """Places of the ranking that were looked at for the documents' ranks."""
    documents: list[Explained]


def explain(words: Sequence[str], folders: Sequence[str] = ()) -> Answer:
    """`query=TEXT_OR_ID`, `doc=ID` or `top=N` (3), and overrides of the config. Raises `ConfigError`.

    `folders` have configs of the user's own.
    """
    asked = {key: value for key, _, value in (word.partition("=") for word in words) if key in _KEYS}
    overrides = [word for word in words if word.partition("=")[0] not in _KEYS]
    if not asked.get("query"):
        raise ConfigError('no query is given; add: query="some words", or a query\'s id')
    top = _number(asked.get("top", "3"))
    config = checked_config(build.composition(overrides, folders))
    retriever: Retriever = build.construct(config.retriever, "retriever")
    if not isinstance(retriever, Explainer):
        raise ConfigError(f"{type(retriever).__name__} cannot explain itself: it has no method explain(query, docs)")
    dataset: Dataset = build.construct(config.dataset, "dataset")
    query = _query(dataset, asked["query"])
    wanted = None if "doc" not in asked else _document(dataset, asked["doc"])
    with listening(listener()):
        say(f"indexing {len(dataset.corpus):,} documents of {dataset.name}")
        retriever.index(dataset.corpus)
    return _answer(build.choices(overrides, folders), retriever, dataset, query, wanted, top, max(config.k, top))


def _answer(
    chosen: dict[str, str], retriever: Explainer, dataset: Dataset, query: Queries, wanted: int | None, top: int, k: int
) -> Answer:
    depth = min(len(dataset.corpus), k)
    run = retriever.search(query, depth)  # type: ignore[attr-defined]  # it is a retriever too
    docs = run.docs[0, :top][run.docs[0, :top] >= 0].tolist() if wanted is None else [wanted]
    found = []
    for doc, why in zip(docs, retriever.explain(query, docs), strict=True):
        places = np.flatnonzero(run.docs[0] == doc)
        rank = int(places[0]) + 1 if len(places) else None
        score = float(run.scores[0, places[0]]) if len(places) else None
        found.append(Explained(dataset.corpus.ids[doc], dataset.corpus.texts[doc], rank, score, why))
    return Answer(chosen["retriever"], dataset.name, query.texts[0], depth, found)


def _number(said: str) -> int:
    if not said.isdecimal() or int(said) < 1:
        raise ConfigError(f"top={said!r} must be a whole number of at least 1")
    return int(said)


def _query(dataset: Dataset, said: str) -> Queries:
    """The dataset's query of that id, else the words themselves."""
    ids = list(dataset.queries.ids)
    if said in ids:
        row = ids.index(said)
        return dataset.queries[row : row + 1]
    return Queries(["query"], [said])


def _document(dataset: Dataset, said: str) -> int:
    corpus: Corpus = dataset.corpus
    ids = list(corpus.ids)
    if said not in ids:
        raise ConfigError(
            f"doc={said!r} is not among the {len(ids):,} documents of {dataset.name} (such as {ids[0]!r}); "
            "to see what a query finds: top=10 in its place"
        )
    return ids.index(said)
