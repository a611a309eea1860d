"""Helpers for composite retrievers and for scoring given candidates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.types import CandidateScorer, Queries, Run, StringColumn


def check_scores(retriever: Any) -> None:
    """Raises `ConfigError` for a retriever that cannot score given documents."""
    if not isinstance(retriever, CandidateScorer):
        raise ConfigError(
            f"{type(retriever).__name__} cannot score given documents: it has no method score(queries, docs), which a "
            "collection with candidates of its own (reranking) needs"
        )


def scored(retriever: Any, queries: Queries, doc_ids: Sequence[str], docs: NDArray[np.int32]) -> Run:
    """The run of the documents `docs` [queries, candidates], scored directly; -1 and what scores -inf is no hit."""
    check_scores(retriever)
    scores = retriever.score(queries, docs)
    return Run(queries.ids, doc_ids, np.where(np.isneginf(scores), -1, docs), scores)


def within(run: Run, query_ids: Sequence[str], doc_ids: StringColumn) -> Run:
    """Return a part's run over the corpus's numbering and the queries' order.

    A part may number documents in its own way, as `Run.from_dict` does, or behind those of the corpus. Documents that
    the corpus lacks are left out; a query that the run lacks has no hits.
    """
    docs, scores = run.docs, run.scores
    if run.doc_ids is not doc_ids:
        run_ids = StringColumn(run.doc_ids)
        if run_ids.arrow.slice(0, len(doc_ids)).equals(doc_ids.arrow):
            docs = np.where(docs < len(doc_ids), docs, -1)
        else:
            docs = np.where(docs >= 0, doc_ids.positions(run_ids)[docs], -1)
    if list(run.query_ids) != list(query_ids):
        places = {query: row for row, query in enumerate(run.query_ids)}
        rows = np.array([places.get(query, -1) for query in query_ids], np.intp)
        docs, scores = np.where(rows[:, None] >= 0, docs[rows], -1), scores[rows]
    elif docs is run.docs:
        return run
    return Run(query_ids, doc_ids, docs, scores)


def aligned(run: Run, docs: NDArray[np.int32]) -> NDArray[np.float32]:
    """The run's scores [queries, candidates] of the documents `docs`; -inf for one that it has not."""
    here, there = np.argsort(docs, axis=1, kind="stable"), np.argsort(run.docs, axis=1, kind="stable")
    found = np.full(docs.shape, -np.inf, np.float32)
    for row in range(len(docs)):
        own, held = docs[row, here[row]], run.docs[row, there[row]]
        places = np.minimum(np.searchsorted(held, own), max(len(held) - 1, 0))
        same = (own >= 0) & (held[places] == own)
        found[row, here[row][same]] = run.scores[row, there[row][places[same]]]
    return found
