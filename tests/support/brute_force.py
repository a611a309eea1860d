"""Exact search by sorting all scores, for tests of search."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def top_k(
    scores: NDArray[Any], ranks: NDArray[np.int32], k: int, is_hit: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """Return each query's k best documents, by score descending, then rank ascending, padded with -1.

    Args:
        scores: Scores, shape [queries, documents].
        ranks: Rank of each document among documents of equal score.
        k: Number of documents of each query.
        is_hit: Documents that may be returned, shape [queries, documents]; None for all.
    """
    best = np.full((len(scores), k), -1, np.int32)
    for row, row_scores in enumerate(scores):
        order = np.lexsort((ranks, -row_scores))
        order = order if is_hit is None else order[is_hit[row][order]]
        best[row, : len(order)] = order[:k]
    return best
