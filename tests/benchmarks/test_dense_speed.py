"""Exact dense search against torch.topk, encoding against SentenceTransformer.encode, a whole cell against mteb."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from harness.environment import cores
from harness.runner import TimingPlan, measure
from harness.search import dense

K = 100


@pytest.mark.benchmark(group="dense top-k")
def test_exact_top_k_against_torch_topk(versus, measuring):
    n, m = (100_000, 500) if measuring else (2_000, 20)
    generator = torch.Generator().manual_seed(0)
    documents = torch.nn.functional.normalize(torch.randn((n, 384), generator=generator))
    queries = torch.nn.functional.normalize(torch.randn((m, 384), generator=generator))
    ranks = np.arange(n, dtype=np.int32)
    (_, scores), theirs = versus(
        lambda: dense.search(documents, queries, K, ranks, cores()),
        lambda: (queries @ documents.T).topk(K, dim=1),
    )
    np.testing.assert_allclose(scores, theirs.values.numpy(), atol=1e-5)


@pytest.mark.benchmark(group="encode")
def test_encoding_against_sentence_transformers(versus, measuring, minilm, collection, models):
    texts = collection("scifact").corpus.texts[: 256 if measuring else 8]
    peer = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    plain = list(texts)
    ours, theirs = versus(
        lambda: minilm._encoder.encode(texts, "document"), lambda: peer.encode(plain, show_progress_bar=False), rounds=3
    )
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of mteb's own calls
@pytest.mark.benchmark(group="whole cell")
def test_a_whole_cell_against_mteb(versus, measuring, minilm, collection, models):
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset as HFDataset

    dataset = collection("xquad/en")
    if not measuring:
        dataset = _small(dataset)
    task = mteb.get_task("SciFact")  # any retrieval task's machinery, over our collection
    corpus = {"id": list(dataset.corpus.ids), "text": list(dataset.corpus.texts), "title": [""] * len(dataset.corpus)}
    queries = {"id": list(dataset.queries.ids), "text": list(dataset.queries.texts)}
    split = {
        "corpus": HFDataset.from_dict(corpus),
        "queries": HFDataset.from_dict(queries),
        "relevant_docs": {query: dict(docs) for query, docs in dataset.qrels.items()},
        "top_ranked": None,
    }
    peer = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    plan = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)

    def evaluate():
        task.dataset, task.data_loaded = {"default": {"test": split}}, True
        result = mteb.evaluate(peer, task, cache=None, show_progress_bar=False, overwrite_strategy="always")
        return result.task_results[0].get_score()

    def cell():
        return measure(minilm, dataset, k=K, metrics=["ndcg@10"], plan=plan).means["ndcg@10"]

    ours, theirs = versus(cell, evaluate, rounds=2 if measuring else 1)
    assert abs(ours - theirs) < 0.0005


def _small(dataset):
    from harness.types import Corpus, Dataset, Qrels, Queries

    kept = set(dataset.corpus.ids[:20])
    qrels = {query: docs for query, docs in dataset.qrels.items() if set(docs) <= kept}
    qrels = dict(list(qrels.items())[:10])
    texts = dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True))
    corpus = Corpus(dataset.corpus.ids[:20], dataset.corpus.texts[:20])
    return Dataset("small", "test", corpus, Queries(list(qrels), [texts[query] for query in qrels]), Qrels(qrels))
