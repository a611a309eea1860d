"""Runs from rankings, and reciprocal rank fusion computed over dicts, for tests of fusion."""

import numpy as np

from harness.types import Run

Rankings = list[list[str]]


def run_of_rankings(rankings: Rankings, doc_ids: list[str], depth: int | None = None) -> Run:
    """Return a run that ranks each query's documents in the given order, padded to `depth`."""
    depth = max(map(len, rankings), default=0) if depth is None else depth
    docs, scores = np.full((len(rankings), depth), -1), np.zeros((len(rankings), depth))
    for row, ranking in enumerate(rankings):
        docs[row, : len(ranking)] = [doc_ids.index(doc) for doc in ranking]
        scores[row, : len(ranking)] = -np.arange(len(ranking))
    return Run([f"q{row}" for row in range(len(rankings))], doc_ids, docs, scores)


def fuse_rankings(rankings: Rankings, constant: float) -> list[tuple[str, float]]:
    """Return one query's documents by RRF score, computed over dicts, from its ranking in each run."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, doc in enumerate(ranking, start=1):
            scores[doc] = scores.get(doc, 0.0) + 1 / (constant + rank)
    rounded = {doc: float(np.float32(score)) for doc, score in scores.items()}
    return sorted(rounded.items(), key=lambda item: (item[1], item[0].encode()), reverse=True)


def hits_of(run: Run, query: int = 0) -> list[tuple[str, float]]:
    """Return the documents of one query with their scores."""
    names, scores = run.hits(query)
    return list(zip(names, scores.tolist(), strict=True))
