"""What retrievers that are made of others, and tasks with candidates of their own, ask of a retriever."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.types import CandidateScorer, Queries, Run


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


def within(run: Run, doc_ids: Sequence[str]) -> Run:
    """The run without documents that only it has, which are numbered behind those of the corpus."""
    if len(run.doc_ids) == len(doc_ids):
        return run
    return Run(run.query_ids, doc_ids, np.where(run.docs < len(doc_ids), run.docs, -1), run.scores)


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
