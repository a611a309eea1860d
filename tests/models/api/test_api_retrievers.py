"""Tests of harness/api/retrievers.py: everything that `evaluate` takes as a retriever."""

from pathlib import Path

import numpy as np
import pytest
from support.functions import UNTIMED, ndcg_of, shared_words
from support.models import write_dense, write_masked

import harness
from harness.errors import ConfigError, RunError
from harness.evaluation.timing import TimingPlan
from harness.retrievers.bm25 import BM25
from harness.retrievers.function import Function
from harness.text.tokenizer import Tokenizer
from harness.types import Run, trec


@pytest.mark.parametrize(
    "form",
    [
        shared_words,
        lambda queries, k: [list(shared_words(queries, k)[query].items()) for query in queries.ids],
        lambda queries, k: Run.from_dict(shared_words(queries, k)),
    ],
    ids=["dict", "pairs", "run"],
)
def test_a_function_may_return_dicts_pairs_or_a_run(form, data):
    expected = ndcg_of(Run.from_dict(shared_words(data.queries, 10)), data)
    assert ndcg_of({"function": form}, data) == pytest.approx(expected)


def test_a_function_may_return_documents_that_the_warm_up_did_not_index(data):
    """The warm-up indexes one document, and the function returns others."""
    plan = TimingPlan(warmup_documents=1, repeats=1, latency_queries=1)
    frame = harness.evaluate(shared_words, data, timing=plan, metrics=["ndcg@10"], k=10).to_pandas()
    assert frame["queries_per_s"][0] > 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_function_in_a_hybrid_may_return_any_order_of_documents_and_queries(data, order):
    def search_as_run(queries, k):
        hits = shared_words(queries, k)
        return Run.from_dict({query: hits[query] for query in list(hits)[::order]})

    def search_as_dict(queries, k):
        return shared_words(queries, k)

    alone, fused = [], []
    for search in (search_as_run, search_as_dict):
        alone.append(ndcg_of({"alone": Function(search)}, data))
        hybrid = harness.Hybrid({"terms": harness.BM25(), "function": Function(search)})
        fused.append(ndcg_of({"fused": hybrid}, data))
    assert alone[0] == alone[1]
    assert fused[0] == fused[1]


def test_a_function_may_return_ids_without_scores_best_first(data):
    assert ndcg_of({"ids": lambda queries, k: [["d0"], ["d2"], ["d4"]]}, data) < 1.0
    assert ndcg_of({"ids": lambda queries, k: [["d1", "d0"], ["d2"], ["d4"]]}, data) == 1.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda queries, k: [["d0"]], "list of 1 for 3 queries"),
        (lambda queries, k: [["nowhere"]] * 3, "document 'nowhere' is not in the corpus of 5 documents"),
        (lambda queries, k: [[(7, 1.0)]] * 3, "document id 7 is int, not text"),
        (lambda queries, k: [[("d0", "high")]] * 3, r"hit \('d0', 'high'\) is neither"),
        (lambda queries, k: None, "NoneType for 3 queries"),
    ],
)
def test_a_function_that_returns_something_else_is_an_error(answer, message, data):
    with pytest.raises(RunError, match=message):
        harness.evaluate({"wrong": answer}, data, **UNTIMED)


def test_a_name_with_settings_is_the_config_with_overrides(data):
    assert ndcg_of("bm25 k1=0.9 b=0.4", data) == ndcg_of(BM25(Tokenizer(), 0.9, 0.4), data)
    frame = harness.evaluate(["bm25", "bm25 k1=0.9"], data, **UNTIMED).to_pandas()
    assert list(frame["retriever"]) == ["bm25", "bm25 [k1=0.9]"]


def test_objects_are_labelled_by_class_and_settings(data):
    class FirstDocument:
        def index(self, corpus):
            self.corpus = corpus

        def search(self, queries, k):
            return Run.from_dict({query: {"d0": 1.0} for query in queries.ids})

        def nbytes(self):
            return 0

    results = harness.evaluate([FirstDocument(), harness.BM25(Tokenizer(), k1=0.5)], data, **UNTIMED)
    assert results.labels == ["FirstDocument", "BM25 [k1=0.5]"]


def test_a_run_and_a_run_file_are_scored_and_not_timed(data, tmp_path):
    run = Run.from_dict(shared_words(data.queries, 10))
    trec.write(run, tmp_path / "lucene.trec", "lucene")
    results = harness.evaluate([run, str(tmp_path / "lucene.trec")], data, metrics=["ndcg@10"])
    frame = results.to_pandas()
    assert list(frame["retriever"]) == ["run", "lucene"]
    assert frame["ndcg@10"].nunique() == 1
    assert frame["queries_per_s"].isna().all(), "a run has no search time"
    assert harness.score(tmp_path / "lucene.trec", data, ["ndcg@10"]) == {"ndcg@10": frame["ndcg@10"][0]}


def make_sentence_model(kind: str, folder: Path):
    """Return a tiny model of a class of sentence-transformers."""
    import sentence_transformers as library

    if kind == "SentenceTransformer":
        return library.SentenceTransformer(str(write_dense(folder)), device="cpu")
    if kind == "SparseEncoder":
        return library.SparseEncoder(str(write_masked(folder)), device="cpu")
    return library.MultiVectorEncoder(str(write_dense(folder)), device="cpu")


@pytest.mark.parametrize("kind", ["SentenceTransformer", "SparseEncoder", "MultiVectorEncoder"])
def test_sentence_transformers_models_rank_by_their_own_encode_methods(kind, data, tmp_path):
    model = make_sentence_model(kind, tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    results = harness.evaluate({"model": model}, data, **UNTIMED)
    options = {"convert_to_sparse_tensor": False} if kind == "SparseEncoder" else {}
    queries = model.encode_query(list(data.queries.texts), **options)
    documents = model.encode_document(list(data.corpus.texts), **options)
    similarities = np.asarray(model.similarity(queries, documents).cpu())
    run = results.run("model")
    for row in range(len(data.queries)):
        most_similar = int(np.argmax(similarities[row]))
        assert run.hits(row)[0][0] == data.corpus.ids[most_similar]
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())


def test_a_model_of_mteb_is_a_retriever(data, tmp_path):
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    from harness.interop.mteb.registry import quiet

    model = make_sentence_model("SentenceTransformer", tmp_path)
    with quiet():
        wrapped = SentenceTransformerEncoderWrapper(model)
    assert ndcg_of({"mteb": wrapped}, data) == pytest.approx(ndcg_of({"model": model}, data), abs=1e-5)


def test_anything_else_is_an_error_with_the_choices(data):
    for invalid in (7, object(), []):
        with pytest.raises(ConfigError, match="give a config's name"):
            harness.evaluate(invalid, data, **UNTIMED)
    with pytest.raises(ConfigError, match=r"no retriever 'bm52'; .*did you mean bm25"):
        harness.evaluate("bm52", data, **UNTIMED)
    with pytest.raises(ConfigError, match=r"2 retrievers are called 'bm25'"):
        harness.evaluate(["bm25", "bm25"], data, **UNTIMED)
