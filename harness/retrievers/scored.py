"""Helpers for composite retrievers and for scoring candidates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.types import CandidateScorer, Queries, Run, StringColumn


def check_scorer(retriever: Any) -> None:
    """Raise `ConfigError` for a retriever that cannot score given documents."""
    if not isinstance(retriever, CandidateScorer):
        raise ConfigError(
            f"{type(retriever).__name__} cannot score given documents: it has no method score(queries, docs), which a "
            "dataset with candidates (reranking) needs"
        )


def score_candidates(retriever: Any, queries: Queries, doc_ids: Sequence[str], docs: NDArray[np.int32]) -> Run:
    """Return the run of candidates that a retriever scores directly.

    Args:
        retriever: A `CandidateScorer`.
        queries: The queries.
        doc_ids: Ids of the corpus.
        docs: Document indices [queries, candidates], padded with -1; a document that scores -inf is not a hit.

    Raises:
        ConfigError: The retriever cannot score given documents.
    """
    check_scorer(retriever)
    scores = retriever.score(queries, docs)
    return Run(queries.ids, doc_ids, np.where(np.isneginf(scores), -1, docs), scores)


def to_corpus(run: Run, query_ids: Sequence[str], doc_ids: StringColumn) -> Run:
    """Return a component's run with the corpus's document indices and the queries' order.

    The indices of a component's run may differ from the corpus's, for example if it comes from `Run.from_dict` or has
    documents that are not in the corpus. These documents are left out; a query that the run lacks has no hits.

    Args:
        run: The component's run.
        query_ids: Ids of the queries, in the order of the result.
        doc_ids: Ids of the corpus.
    """
    docs, scores = run.docs, run.scores
    if run.doc_ids is not doc_ids:
        run_ids = StringColumn(run.doc_ids)
        if run_ids.arrow.slice(0, len(doc_ids)).equals(doc_ids.arrow):
            docs = np.where(docs < len(doc_ids), docs, -1)
        else:
            docs = np.where(docs >= 0, doc_ids.positions(run_ids)[docs], -1)
    if list(run.query_ids) != list(query_ids):
        row_of_query = {query: row for row, query in enumerate(run.query_ids)}
        rows = np.array([row_of_query.get(query, -1) for query in query_ids], np.intp)
        docs, scores = np.where(rows[:, None] >= 0, docs[rows], -1), scores[rows]
    elif docs is run.docs:
        return run
    return Run(query_ids, doc_ids, docs, scores)


def align_scores(run: Run, docs: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the scores of `docs` [queries, candidates] in `run`, which has the same queries; -inf without a hit."""
    docs_order, run_order = np.argsort(docs, axis=1, kind="stable"), np.argsort(run.docs, axis=1, kind="stable")
    scores = np.full(docs.shape, -np.inf, np.float32)
    if not run.docs.shape[1]:
        return scores
    for row in range(len(docs)):
        candidates, hits = docs[row, docs_order[row]], run.docs[row, run_order[row]]
        positions = np.minimum(np.searchsorted(hits, candidates), len(hits) - 1)
        is_hit = (candidates >= 0) & (hits[positions] == candidates)
        scores[row, docs_order[row][is_hit]] = run.scores[row, run_order[row][positions[is_hit]]]
    return scores
