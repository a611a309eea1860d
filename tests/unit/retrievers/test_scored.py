"""Tests of scoring given documents from a run."""

import numpy as np

from harness.retrievers.scored import align_scores
from harness.types import Run


def test_scores_are_aligned_with_the_candidates():
    run = Run(["q"], ["a", "b", "c"], np.array([[0, 2]]), np.array([[2.0, 1.0]]))
    docs = np.array([[2, 1, 0, -1]], np.int32)
    assert align_scores(run, docs).tolist() == [[1.0, -np.inf, 2.0, -np.inf]]


def test_a_run_without_any_hit_scores_no_candidate():
    run = Run.from_dict({"q": {}})
    docs = np.array([[0, 1]], np.int32)
    assert align_scores(run, docs).tolist() == [[-np.inf, -np.inf]]
