"""Our metrics against pytrec_eval, both from what each takes as its input to per-query scores."""

import numpy as np
import pytest
import pytrec_eval

from harness.metrics import parse, score
from harness.types import Qrels, Run, Strings


@pytest.mark.benchmark(group="metrics")
def test_metrics_against_pytrec_eval(versus, measuring):
    n_queries, depth = (2000, 1000) if measuring else (20, 100)
    rng = np.random.default_rng(0)
    n_docs = 100_000 if measuring else 5_000
    ids = Strings([f"doc{i}" for i in range(n_docs)])
    docs = np.stack([rng.choice(n_docs, depth, replace=False) for _ in range(n_queries)])
    scores = rng.standard_normal(docs.shape).astype(np.float32)
    queries = [f"q{i}" for i in range(n_queries)]
    run = Run(queries, ids, docs, scores)
    names = list(ids)
    judged = {
        query: {names[doc]: int(grade) for doc, grade in zip(rng.choice(row, 30), rng.integers(0, 4, 30), strict=True)}
        for query, row in zip(queries, docs, strict=True)
    }
    judged = {query: grades for query, grades in judged.items() if any(grades.values())}
    qrels = Qrels(judged)
    as_dicts = {
        query: dict(zip(found, map(float, values), strict=True))
        for row, query in enumerate(queries)
        for found, values in [run.hits(row)]
    }
    wanted = [parse(name) for name in ("ndcg@10", "map@1000", "recall@100")]

    def peer():
        evaluator = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "map_cut.1000", "recall.100"})
        return evaluator.evaluate(as_dicts)

    (rows, ours), theirs = versus(lambda: score(run, qrels, wanted), peer, rounds=3)
    for name, key in (("ndcg@10", "ndcg_cut_10"), ("map@1000", "map_cut_1000"), ("recall@100", "recall_100")):
        np.testing.assert_allclose(ours[name], [theirs[query][key] for query in rows], atol=1e-6)
