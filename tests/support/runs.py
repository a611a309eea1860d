"""Runs of a few queries, from dicts."""

from collections.abc import Mapping

import numpy as np

from harness.types import Run


def make_run(*rankings: Mapping[str, float], doc_ids: list[str] | None = None) -> Run:
    """Return a run of queries q0, q1, ... from {document id: score} of each, in the order given.

    Args:
        rankings: The documents of each query with their scores, in any order.
        doc_ids: The ids that the run's numbers point into; without them those of `rankings`, sorted.
    """
    ids = doc_ids or sorted({doc for ranking in rankings for doc in ranking})
    number = {doc: position for position, doc in enumerate(ids)}
    depth = max(map(len, rankings), default=0)
    docs, scores = np.full((len(rankings), depth), -1), np.zeros((len(rankings), depth))
    for row, ranking in enumerate(rankings):
        docs[row, : len(ranking)] = [number[doc] for doc in ranking]
        scores[row, : len(ranking)] = list(ranking.values())
    return Run([f"q{row}" for row in range(len(rankings))], ids, docs, scores)
