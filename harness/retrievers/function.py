"""A function as a retriever: whatever answers queries without indexing a corpus here, such as a deployed service."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import RunError
from harness.instrument import stage
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Queries, Run
from harness.types.protocols import Component

Search = Callable[[Queries, int], Any]


class Function(Component):
    """A retriever that calls ``search(queries, k)``.

    Args:
        search: Takes `Queries` (ids and texts; iterating gives the ids, ``queries["q1"]`` the text) and the number of
            documents wanted. It returns a `Run`, a mapping ``{query: hits}``, or a list with the hits of each query in
            order. Hits are ``{document: score}``, pairs ``(document, score)``, or document ids, best first.
    """

    is_externally_indexed = True
    _corpus = SetByIndex[Corpus]()

    def __init__(self, search: Search) -> None:
        self._search = search

    def index(self, corpus: Corpus) -> None:
        """Keep the corpus's ids; the function has its own index."""
        self._corpus = corpus

    def search(self, queries: Queries, k: int) -> Run:
        """Return the function's hits, at most k for each query.

        Raises:
            RunError: The function returned something else, or a document that the corpus does not have.
        """
        corpus = self._corpus
        with stage("search"):
            answer = self._search(queries, k)
        return answer.top(k) if isinstance(answer, Run) else _run(corpus, queries, answer, k)

    def nbytes(self) -> int:
        """Return 0: the index is not here."""
        return 0


def _run(corpus: Corpus, queries: Queries, answer: Any, k: int) -> Run:
    if isinstance(answer, Mapping):
        rows = [_pairs(answer.get(query, ()), query) for query in queries.ids]
    elif isinstance(answer, Sequence) and not isinstance(answer, str) and len(answer) == len(queries):
        rows = [_pairs(hits, query) for query, hits in zip(queries.ids, answer, strict=True)]
    else:
        raise RunError(
            f"the function returned {_described(answer)} for {len(queries)} queries; return a Run, "
            "{query: {document: score}}, or a list with the hits of each query"
        )
    docs = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int32)
    scores = np.zeros(docs.shape, np.float64)
    known = corpus.ids.arrow.combine_chunks()
    for row, (pairs, query) in enumerate(zip(rows, queries.ids, strict=True)):
        numbers = pc.index_in(pa.array([doc for doc, _ in pairs], pa.large_string()), value_set=known)
        if numbers.null_count:
            unknown = pairs[pc.index(numbers.is_null(), True).as_py()][0]
            raise RunError(f"query {query!r}: document {unknown!r} is not in the corpus of {len(known):,} documents")
        docs[row, : len(pairs)] = numbers.to_numpy()
        scores[row, : len(pairs)] = [score for _, score in pairs]
    return Run(queries.ids, corpus.ids, docs, scores).top(k)


def _pairs(hits: Any, query: str) -> list[tuple[str, float]]:
    """Return the (document, score) pairs of one query's hits; ids alone are scored by their rank."""
    if isinstance(hits, Mapping):
        hits = list(hits.items())
    pairs = []
    for rank, hit in enumerate(hits):
        doc, score = (hit, -float(rank)) if isinstance(hit, str) else _pair(hit, query)
        pairs.append((doc, score))
    return pairs


def _pair(hit: Any, query: str) -> tuple[str, float]:
    try:
        doc, score = hit
        score = float(score)
    except (TypeError, ValueError):
        raise RunError(f"query {query!r}: hit {hit!r} is neither a document id nor a (document, score) pair") from None
    if not isinstance(doc, str):
        raise RunError(f"query {query!r}: document id {doc!r} is {type(doc).__name__}, not text; use str({doc!r})")
    return doc, score


def _described(answer: Any) -> str:
    size = f" of {len(answer)}" if hasattr(answer, "__len__") else ""
    return f"{type(answer).__name__}{size}"
