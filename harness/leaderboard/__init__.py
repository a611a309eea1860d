"""The leaderboard: rows of retrievers and columns of datasets, with the best of each column and what is tied with it.

`build(records, "ndcg@10", scores, baseline="bm25")` is a pure function of records and their per-query scores.
"""

from harness.leaderboard.build import build
from harness.leaderboard.model import AXES, Difference, EvaluationSummary, Leaderboard, Row, Scores

__all__ = ["AXES", "Difference", "EvaluationSummary", "Leaderboard", "Row", "Scores", "build"]
