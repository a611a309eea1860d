"""Tests that mteb's wrappers have the same nDCG@10 with the same sparse and late-interaction models."""

import pytest
from sentence_transformers import MultiVectorEncoder as LateInteraction
from sentence_transformers import SparseEncoder as Sparse
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from support.mteb_tasks import evaluate_with_mteb

from harness import weights
from harness.config import build
from harness.encoders.multi_vector import MultiVectorEncoder
from harness.encoders.sparse import SparseEncoder
from harness.errors import WeightsError
from harness.evaluation.timing import TimingPlan, measure
from harness.interop.mteb import task_of
from harness.retrievers.colbert import ColBERT
from harness.retrievers.splade import Splade
from harness.types import Corpus, Dataset, Qrels, Queries

PLAN = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)
K = 100


@pytest.fixture(scope="module")
def small(real_dataset):
    """Return XQuAD's first thirty documents, the longest longer than MiniLM's maximum, and up to thirty queries."""
    whole, n = real_dataset("xquad/en"), 30
    ids, texts = list(whole.corpus.ids)[:n], list(whole.corpus.texts[:n])
    judgements = {query: docs for query, docs in whole.qrels.items() if set(docs) <= set(ids)}
    query_texts = dict(zip(whole.queries.ids, whole.queries.texts, strict=True))
    query_ids = list(judgements)[::4][:n]
    qrels = Qrels({query: judgements[query] for query in query_ids})
    queries = Queries(query_ids, [query_texts[query] for query in query_ids])
    return Dataset("small", "test", Corpus(ids, texts), queries, qrels)


@pytest.fixture(scope="module")
def splade_folder():
    """Return the folder of splade_tiny's weights."""
    encoder = build.composed(["retriever=splade_tiny"])["retriever"]["encoder"]
    try:
        return str(weights.find(encoder["model"], build.construct(encoder["package"], "package")).path)
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


def ndcg_in_mteb(model, dataset) -> float:
    """Return mteb's nDCG@10 of a model in one of its wrappers."""
    task = task_of("SciFact", dataset=dataset)  # any retrieval task serves
    score: float = evaluate_with_mteb(model, task, encode_kwargs={"batch_size": 8}).get_score()
    return score


def ndcg_in_harness(retriever, dataset) -> float:
    """Return the nDCG@10 that the harness measures."""
    return measure(retriever, dataset, k=K, metrics=["ndcg@10"], plan=PLAN).means["ndcg@10"]


@pytest.mark.slow
def test_splade_has_the_score_of_mtebs_sparse_wrapper(splade_folder, small):
    from mteb.models.sentence_transformer_wrapper import SparseEncoderWrapper

    expected = ndcg_in_mteb(SparseEncoderWrapper(Sparse(splade_folder, device="cpu")), small)
    score = ndcg_in_harness(Splade(SparseEncoder(splade_folder, device="cpu", cache=False)), small)
    assert 0.3 < score <= 1
    assert abs(score - expected) < 0.0005


@pytest.mark.slow
def test_colbert_has_the_score_of_mtebs_multi_vector_wrapper(models, small, tmp_path):
    from mteb.models.sentence_transformer_wrapper import MultiVectorWrapper

    minilm = str(models / "all-MiniLM-L6-v2")
    modules = [Transformer(minilm), MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    LateInteraction(modules=modules, device="cpu").save(str(tmp_path / "saved"))
    expected = ndcg_in_mteb(MultiVectorWrapper(LateInteraction(str(tmp_path / "saved"), device="cpu")), small)
    score = ndcg_in_harness(ColBERT(MultiVectorEncoder(minilm, projection="none", device="cpu", cache=False)), small)
    assert 0.3 < score <= 1
    assert abs(score - expected) < 0.0005
