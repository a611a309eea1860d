"""Benchmarks of metrics against pytrec_eval and ranx, each from its input format to per-query scores."""

import numpy as np
import pytest
import pytrec_eval

from harness.metrics import parse, score
from harness.types import Qrels, Run, StringColumn

NAMES = ("ndcg@10", "map@1000", "recall@100")


@pytest.fixture
def make_input(measuring):
    """Return a run without ties, judgements of some of its documents, and the run as dicts."""
    n_queries, depth = (2000, 1000) if measuring else (20, 100)
    rng = np.random.default_rng(0)
    n_docs = 100_000 if measuring else 5_000
    ids = StringColumn([f"doc{i}" for i in range(n_docs)])
    docs = np.stack([rng.choice(n_docs, depth, replace=False) for _ in range(n_queries)])
    scores = rng.permuted(np.tile(np.arange(depth, dtype=np.float32), (n_queries, 1)), axis=1)
    queries = [f"q{i}" for i in range(n_queries)]
    run = Run(queries, ids, docs, scores)
    names = list(ids)
    judgements = {
        query: {names[doc]: int(grade) for doc, grade in zip(rng.choice(row, 30), rng.integers(0, 4, 30), strict=True)}
        for query, row in zip(queries, docs, strict=True)
    }
    judgements = {query: grades for query, grades in judgements.items() if any(grades.values())}
    as_dicts = {
        query: dict(zip(docs_ranked, map(float, values), strict=True))
        for row, query in enumerate(queries)
        for docs_ranked, values in [run.hits(row)]
    }
    return run, judgements, as_dicts


def describe_size(run):
    return f"{len(run):,} queries, {run.docs.shape[1]:,} documents each, {', '.join(NAMES)}"


def score_with_harness(run, judgements):
    qrels, metrics = Qrels(judgements), [parse(name) for name in NAMES]
    return lambda: score(run, qrels, metrics)


@pytest.mark.benchmark(group="metrics")
def test_metrics_against_pytrec_eval(versus, make_input):
    run, judgements, as_dicts = make_input

    def peer():
        evaluator = pytrec_eval.RelevanceEvaluator(judgements, {"ndcg_cut.10", "map_cut.1000", "recall.100"})
        return evaluator.evaluate(as_dicts)

    (rows, scores), peer_scores = versus(
        score_with_harness(run, judgements), peer, rounds=3, package="pytrec-eval-terrier", size=describe_size(run)
    )
    for name, key in zip(NAMES, ("ndcg_cut_10", "map_cut_1000", "recall_100"), strict=True):
        np.testing.assert_allclose(scores[name], [peer_scores[query][key] for query in rows], atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # from numba about ranx' code
@pytest.mark.benchmark(group="metrics")
def test_metrics_against_ranx(versus, make_input, measuring):
    if not measuring:
        pytest.skip("only with --benchmark-enable: ranx compiles its kernels for half a minute")
    ranx = pytest.importorskip("ranx")
    run, judgements, as_dicts = make_input
    peer_qrels, peer_run = ranx.Qrels(judgements), ranx.Run({query: as_dicts[query] for query in judgements})
    metrics = list(NAMES)
    ranx.evaluate(peer_qrels, peer_run, metrics)  # compile before timing
    (rows, scores), peer_scores = versus(
        score_with_harness(run, judgements),
        lambda: ranx.evaluate(peer_qrels, peer_run, metrics, return_mean=False),
        rounds=3,
        package="ranx",
        details="its Run built before",
        size=describe_size(run),
    )
    order = {query: position for position, query in enumerate(peer_run.keys())}
    for name in NAMES:
        np.testing.assert_allclose(scores[name], [peer_scores[name][order[query]] for query in rows], atol=1e-6)
