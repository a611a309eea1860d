"""A whole cell, from texts to nDCG@10, against mteb.evaluate and beir's EvaluateRetrieval."""

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
    """English XQuAD, or its first documents."""
    whole = real_dataset("xquad/en")
    return whole if measuring else _small(whole)


def _small(dataset):
    kept = set(dataset.corpus.ids[:20])
    qrels = {query: docs for query, docs in dataset.qrels.items() if set(docs) <= kept}
    qrels = dict(list(qrels.items())[:10])
    texts = dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True))
    corpus = Corpus(dataset.corpus.ids[:20], dataset.corpus.texts[:20])
    return Dataset("small", "test", corpus, Queries(list(qrels), [texts[query] for query in qrels]), Qrels(qrels))


def said(dataset):
    return f"XQuAD en: {len(dataset.corpus):,} documents, {len(dataset.queries):,} queries"


def ours(retriever, dataset):
    with cache.using("off"):
        return measure(retriever, dataset, k=K, metrics=["ndcg@10"], plan=PLAN).means["ndcg@10"]


def mtebs(model, dataset):
    """What calls mteb for a model over our collection."""
    task = task_of("SciFact", dataset=dataset)  # any retrieval task's machinery
    data = task.dataset

    def evaluate():
        task.dataset, task.data_loaded = data, True
        return evaluate_with_mteb(model, task).get_score()

    return evaluate


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of mteb's own calls
@pytest.mark.benchmark(group="whole cell")
def test_a_whole_cell_against_mteb(versus, measuring, minilm, dataset, models):
    peer = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    own, theirs = versus(
        lambda: ours(minilm, dataset),
        mtebs(peer, dataset),
        rounds=2 if measuring else 1,
        of="mteb",
        how="all-MiniLM-L6-v2",
        size=said(dataset),
    )
    assert abs(own - theirs) < 0.0005


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of mteb's own calls
@pytest.mark.benchmark(group="whole cell")
def test_a_whole_bm25_cell_against_mteb(versus, dataset):
    """mteb's own baseline, of which our preset has words, k1 and b; it stems stop words that our list has not."""
    import mteb

    retriever = build.construct(build.composed(["retriever=bm25_mteb"])["retriever"], "retriever")
    own, theirs = versus(
        lambda: ours(retriever, dataset),
        mtebs(mteb.get_model("mteb/baseline-bm25s"), dataset),
        rounds=3,
        of="mteb",
        how="baseline-bm25s",
        size=said(dataset),
    )
    assert abs(own - theirs) < 0.01


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the peer's own calls
@pytest.mark.benchmark(group="whole cell")
def test_a_whole_cell_against_beir(versus, measuring, minilm, dataset, models):
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.models import SentenceBERT
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    model = SentenceBERT(str(models / "all-MiniLM-L6-v2"), device="cpu")
    corpus = {
        key: {"title": "", "text": text} for key, text in zip(dataset.corpus.ids, dataset.corpus.texts, strict=True)
    }
    queries = dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True))
    judged = {query: dict(docs) for query, docs in dataset.qrels.items()}

    def evaluate():
        search = DenseRetrievalExactSearch(model, show_progress_bar=False)
        evaluator = EvaluateRetrieval(search, k_values=[10, K], score_function="dot")
        found = evaluator.retrieve(corpus, queries)
        return evaluator.evaluate(judged, found, [10])[0]["NDCG@10"]

    own, theirs = versus(
        lambda: ours(minilm, dataset),
        evaluate,
        rounds=2 if measuring else 1,
        of="beir",
        how="DenseRetrievalExactSearch, all-MiniLM-L6-v2",
        size=said(dataset),
    )
    np.testing.assert_allclose(own, theirs, atol=0.0005)
