"""Our metrics against pytrec_eval and ranx, each from what it takes as its input to per-query scores."""

import numpy as np
import pytest
import pytrec_eval

from harness.metrics import parse, score
from harness.types import Qrels, Run, StringColumn

NAMES = ("ndcg@10", "map@1000", "recall@100")


@pytest.fixture
def made(measuring):
    """A run without ties, the grades of some of its documents, and the same run as dicts."""
    n_queries, depth = (2000, 1000) if measuring else (20, 100)
    rng = np.random.default_rng(0)
    n_docs = 100_000 if measuring else 5_000
    ids = StringColumn([f"doc{i}" for i in range(n_docs)])
    docs = np.stack([rng.choice(n_docs, depth, replace=False) for _ in range(n_queries)])
    scores = rng.permuted(np.tile(np.arange(depth, dtype=np.float32), (n_queries, 1)), axis=1)
    queries = [f"q{i}" for i in range(n_queries)]
    run = Run(queries, ids, docs, scores)
    names = list(ids)
    judged = {
        query: {names[doc]: int(grade) for doc, grade in zip(rng.choice(row, 30), rng.integers(0, 4, 30), strict=True)}
        for query, row in zip(queries, docs, strict=True)
    }
    judged = {query: grades for query, grades in judged.items() if any(grades.values())}
    as_dicts = {
        query: dict(zip(found, map(float, values), strict=True))
        for row, query in enumerate(queries)
        for found, values in [run.hits(row)]
    }
    return run, judged, as_dicts


def said(run):
    return f"{len(run):,} queries, {run.docs.shape[1]:,} documents each, {', '.join(NAMES)}"


def ours(run, judged):
    qrels, wanted = Qrels(judged), [parse(name) for name in NAMES]
    return lambda: score(run, qrels, wanted)


@pytest.mark.benchmark(group="metrics")
def test_metrics_against_pytrec_eval(versus, made):
    run, judged, as_dicts = made

    def peer():
        evaluator = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "map_cut.1000", "recall.100"})
        return evaluator.evaluate(as_dicts)

    (rows, own), theirs = versus(ours(run, judged), peer, rounds=3, of="pytrec-eval-terrier", size=said(run))
    for name, key in zip(NAMES, ("ndcg_cut_10", "map_cut_1000", "recall_100"), strict=True):
        np.testing.assert_allclose(own[name], [theirs[query][key] for query in rows], atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of numba about ranx' own code
@pytest.mark.benchmark(group="metrics")
def test_metrics_against_ranx(versus, made, measuring):
    if not measuring:
        pytest.skip("only with make bench: ranx compiles its kernels for half a minute")
    ranx = pytest.importorskip("ranx")
    run, judged, as_dicts = made
    held, found = ranx.Qrels(judged), ranx.Run({query: as_dicts[query] for query in judged})
    wanted = list(NAMES)
    ranx.evaluate(held, found, wanted)  # compiled before the clock runs
    (rows, own), theirs = versus(
        ours(run, judged),
        lambda: ranx.evaluate(held, found, wanted, return_mean=False),
        rounds=3,
        of="ranx",
        how="its Run built before",
        size=said(run),
    )
    order = {query: place for place, query in enumerate(found.keys())}
    for name in NAMES:
        np.testing.assert_allclose(own[name], [theirs[name][order[query]] for query in rows], atol=1e-6)
