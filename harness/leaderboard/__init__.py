"""Records to a Board: rows of retrievers, columns of datasets, what is best and what cannot be told from it.

`build(records, "ndcg@10", scores, baseline="bm25")`. A pure function of records and their per-query scores.
"""

from harness.leaderboard.build import build
from harness.leaderboard.model import AXES, Board, Cell, Difference, Row, Scores

__all__ = ["AXES", "Board", "Cell", "Difference", "Row", "Scores", "build"]
