"""mteb's own wrappers find the same nDCG@10 with the same sparse and late-interaction models."""

import pytest
from sentence_transformers import MultiVectorEncoder as LateInteraction
from sentence_transformers import SparseEncoder as Sparse
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from support.mteb_tasks import evaluated

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
    """English XQuAD's first documents, the longest longer than MiniLM reads, and as many queries that they answer."""
    whole, n = real_dataset("xquad/en"), 30
    ids, texts = list(whole.corpus.ids)[:n], list(whole.corpus.texts[:n])
    judged = {query: docs for query, docs in whole.qrels.items() if set(docs) <= set(ids)}
    asked = dict(zip(whole.queries.ids, whole.queries.texts, strict=True))
    some = list(judged)[::4][:n]
    qrels = Qrels({query: judged[query] for query in some})
    return Dataset("small", "test", Corpus(ids, texts), Queries(some, [asked[query] for query in some]), qrels)


@pytest.fixture(scope="module")
def splade_folder():
    encoder = build.composed(["retriever=splade_tiny"])["retriever"]["encoder"]
    try:
        return str(weights.find(encoder["model"], build.construct(encoder["package"], "package")).path)
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


def mtebs(model, dataset) -> float:
    """mteb's nDCG@10 of a model in one of its wrappers, over our collection."""
    task = task_of("SciFact", dataset=dataset)  # any retrieval task's machinery
    score: float = evaluated(model, task, encode_kwargs={"batch_size": 8}).get_score()
    return score


def ours(retriever, dataset) -> float:
    return measure(retriever, dataset, k=K, metrics=["ndcg@10"], plan=PLAN).means["ndcg@10"]


def test_splade_scores_what_mtebs_sparse_wrapper_scores(splade_folder, small):
    from mteb.models.sentence_transformer_wrapper import SparseEncoderWrapper

    theirs = mtebs(SparseEncoderWrapper(Sparse(splade_folder, device="cpu")), small)
    own = ours(Splade(SparseEncoder(splade_folder, device="cpu", cache=False)), small)
    assert 0.3 < own <= 1
    assert abs(own - theirs) < 0.0005


def test_late_interaction_scores_what_mtebs_multi_vector_wrapper_scores(models, small, tmp_path):
    from mteb.models.sentence_transformer_wrapper import MultiVectorWrapper

    minilm = str(models / "all-MiniLM-L6-v2")
    modules = [Transformer(minilm), MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    LateInteraction(modules=modules, device="cpu").save(str(tmp_path / "saved"))
    theirs = mtebs(MultiVectorWrapper(LateInteraction(str(tmp_path / "saved"), device="cpu")), small)
    own = ours(ColBERT(MultiVectorEncoder(minilm, projection="none", device="cpu", cache=False)), small)
    assert 0.3 < own <= 1
    assert abs(own - theirs) < 0.0005
