"""Benchmarks of an evaluation, from texts to nDCG@10, against mteb.evaluate and beir's EvaluateRetrieval."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from support.mteb_tasks import evaluate_with_mteb

from harness.config import build
from harness.embedding_cache import cache
from harness.evaluation.timing import TimingPlan, measure
from harness.interop.mteb import task_of
from harness.types import Corpus, Dataset, Qrels, Queries

K = 100
PLAN = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)


@pytest.fixture
def dataset(real_dataset, measuring):
    """Return English XQuAD or, if benchmarks are disabled, a sample of it."""
    whole = real_dataset("xquad/en")
    return whole if measuring else sample(whole)


def sample(dataset):
    doc_ids = set(dataset.corpus.ids[:20])
    qrels = {query: docs for query, docs in dataset.qrels.items() if set(docs) <= doc_ids}
    qrels = dict(list(qrels.items())[:10])
    texts = dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True))
    corpus = Corpus(dataset.corpus.ids[:20], dataset.corpus.texts[:20])
    return Dataset("small", "test", corpus, Queries(list(qrels), [texts[query] for query in qrels]), Qrels(qrels))


def describe_size(dataset):
    return f"XQuAD en: {len(dataset.corpus):,} documents, {len(dataset.queries):,} queries"


def evaluate_with_harness(retriever, dataset):
    with cache.using("off"):
        return measure(retriever, dataset, k=K, metrics=["ndcg@10"], plan=PLAN).means["ndcg@10"]


def make_mteb_evaluation(model, dataset):
    """Return a function that evaluates a model on the dataset with mteb."""
    task = task_of("SciFact", dataset=dataset)  # SciFact's task with another dataset
    data = task.dataset

    def evaluate():
        task.dataset, task.data_loaded = data, True
        return evaluate_with_mteb(model, task).get_score()

    return evaluate


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # from mteb
@pytest.mark.benchmark(group="whole evaluation")
def test_evaluation_against_mteb(versus, measuring, minilm, dataset, models):
    peer = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    ndcg, peer_ndcg = versus(
        lambda: evaluate_with_harness(minilm, dataset),
        make_mteb_evaluation(peer, dataset),
        rounds=2 if measuring else 1,
        package="mteb",
        details="all-MiniLM-L6-v2",
        size=describe_size(dataset),
    )
    assert abs(ndcg - peer_ndcg) < 0.0005


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # from mteb
@pytest.mark.benchmark(group="whole evaluation")
def test_bm25_evaluation_against_mteb(versus, dataset):
    """Compare with mteb's BM25 baseline; bm25_mteb has its tokens, k1 and b, but not its stemmed stop words."""
    import mteb

    retriever = build.construct(build.composed(["retriever=bm25_mteb"])["retriever"], "retriever")
    ndcg, peer_ndcg = versus(
        lambda: evaluate_with_harness(retriever, dataset),
        make_mteb_evaluation(mteb.get_model("mteb/baseline-bm25s"), dataset),
        rounds=3,
        package="mteb",
        details="baseline-bm25s",
        size=describe_size(dataset),
    )
    assert abs(ndcg - peer_ndcg) < 0.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # from beir
@pytest.mark.benchmark(group="whole evaluation")
def test_evaluation_against_beir(versus, measuring, minilm, dataset, models):
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.models import SentenceBERT
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    model = SentenceBERT(str(models / "all-MiniLM-L6-v2"), device="cpu")
    corpus = {
        key: {"title": "", "text": text} for key, text in zip(dataset.corpus.ids, dataset.corpus.texts, strict=True)
    }
    queries = dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True))
    qrels = {query: dict(docs) for query, docs in dataset.qrels.items()}

    def evaluate():
        search = DenseRetrievalExactSearch(model, show_progress_bar=False)
        evaluator = EvaluateRetrieval(search, k_values=[10, K], score_function="dot")
        run = evaluator.retrieve(corpus, queries)
        return evaluator.evaluate(qrels, run, [10])[0]["NDCG@10"]

    ndcg, peer_ndcg = versus(
        lambda: evaluate_with_harness(minilm, dataset),
        evaluate,
        rounds=2 if measuring else 1,
        package="beir",
        details="DenseRetrievalExactSearch, all-MiniLM-L6-v2",
        size=describe_size(dataset),
    )
    np.testing.assert_allclose(ndcg, peer_ndcg, atol=0.0005)
