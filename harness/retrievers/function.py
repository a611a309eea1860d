"""A function as a retriever, such as a client of a deployed search service."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.errors import RunError
from harness.instrument import stage
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Queries, Run
from harness.types.protocols import Component

log = logging.getLogger(__name__)
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
        self._has_warned = False

    def index(self, corpus: Corpus) -> None:
        """Store the corpus, whose ids the hits refer to; the function searches an index of its own."""
        self._corpus = corpus

    def search(self, queries: Queries, k: int) -> Run:
        """Return the function's hits, at most `k` for each of the `queries`.

        Raises:
            RunError: The function returned a value of another type, a document that the corpus does not have, or
                hits of other queries only.
        """
        corpus = self._corpus
        with stage("search"):
            result = self._search(queries, k)
        if isinstance(result, Mapping):
            self._check_queries(result, queries)
        run = result if isinstance(result, Run) else Run.from_hits(_by_query(result, queries), queries.ids, corpus)
        return run.top(k)

    def nbytes(self) -> int:
        """Return 0: this process holds no index."""
        return 0

    def _check_queries(self, result: Mapping[Any, Any], queries: Queries) -> None:
        """Raise `RunError` if a result has hits of other queries only; warn once if it lacks some queries."""
        missing = [query for query in queries if query not in result]
        if result and len(missing) == len(queries) > 0:
            raise RunError(
                f"the function returned hits of queries such as {next(iter(result))!r}, and none of the {len(queries)} "
                f"queries that it was given, such as {missing[0]!r}; return the ids of `queries`, which are text"
            )
        if missing and len(queries) > 1 and not self._has_warned:
            self._has_warned = True
            log.warning("the function returned no hits of %d of %d queries; they score 0", len(missing), len(queries))


def _by_query(result: Any, queries: Queries) -> dict[str, dict[str, float]]:
    """Return a function's result as `{query id: {document id: score}}`."""
    if isinstance(result, Mapping):
        return {query: _scores(result.get(query, ()), query) for query in queries}
    if isinstance(result, Sequence) and not isinstance(result, str) and len(result) == len(queries):
        return {query: _scores(hits, query) for query, hits in zip(queries, result, strict=True)}
    size = f" of {len(result)}" if hasattr(result, "__len__") else ""
    raise RunError(
        f"the function returned {type(result).__name__}{size} for {len(queries)} queries; return a Run, "
        "{query: {document: score}}, or a list with the hits of each query"
    )


def _scores(hits: Mapping[str, float] | Iterable[Any], query: str) -> dict[str, float]:
    """Return the scores of one query's hits by document id; ids alone are scored by their rank."""
    scores: dict[str, float] = {}
    for rank, hit in enumerate(hits.items() if isinstance(hits, Mapping) else hits):
        doc, score = (hit, -float(rank)) if isinstance(hit, str) else _pair(hit, query)
        if doc in scores:
            raise RunError(f"query {query!r}: document {doc!r} is ranked more than once")
        scores[doc] = score
    return scores


def _pair(hit: Any, query: str) -> tuple[str, float]:
    try:
        doc, score = hit
        score = float(score)
    except (TypeError, ValueError):
        raise RunError(f"query {query!r}: hit {hit!r} is neither a document id nor a (document, score) pair") from None
    if not isinstance(doc, str):
        raise RunError(f"query {query!r}: document id {doc!r} is {type(doc).__name__}, not text; use str({doc!r})")
    return doc, score
