"""Tests of harness/interop/beir.py: equal scores in both evaluators, equal runs of wrapped searches, equal datasets."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from beir.datasets.data_loader import GenericDataLoader
from beir.retrieval.evaluation import EvaluateRetrieval
from beir.retrieval.models import SentenceBERT
from beir.retrieval.search import BaseSearch
from beir.retrieval.search.dense import DenseRetrievalExactSearch, FlatIPFaissSearch
from support.models import write_dense

from harness.cli.run import main as run
from harness.config import build
from harness.errors import ConfigError, DataError, RunError
from harness.evaluation.timing import TimingPlan, measure
from harness.interop import beir
from harness.retrievers.bm25 import BM25
from harness.store import Store
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Dataset, Qrels, Queries

PLAN = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)
METRICS = {"ndcg@10": "NDCG@10", "map@100": "MAP@100", "recall@100": "Recall@100", "precision@10": "P@10"}
ROUNDING = 6e-6  # BEIR rounds its means to five digits


class WithoutFiles:
    """Methods that BEIR's abstract class requires, and that its FAISS searches lack."""

    def encode(self, *args, **kwargs):
        raise NotImplementedError

    def search_from_files(self, *args, **kwargs):
        raise NotImplementedError


class WordOverlap(WithoutFiles, BaseSearch):
    """A user's search: scores a document by the number of words that it shares with the query."""

    def search(self, corpus, queries, top_k, score_function, **kwargs):
        results = {}
        for query, text in queries.items():
            words = set(text.lower().split())
            scores = {doc: float(len(words & set(row["text"].lower().split()))) for doc, row in corpus.items()}
            results[query] = dict(sorted(scores.items(), key=lambda hit: -hit[1])[: top_k + 5])
        return results


class HashedWords:
    """A model with BEIR's methods, whose embeddings are normalised counts of hashed words."""

    def encode_queries(self, texts, **kwargs):
        counts = np.zeros((len(texts), 512), np.float32)
        for row, text in enumerate(texts):
            np.add.at(counts[row], [zlib.crc32(word.encode()) % 512 for word in text.lower().split()], 1.0)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    def encode_corpus(self, documents, **kwargs):
        return self.encode_queries([f"{document['title']} {document['text']}" for document in documents])


class FaissSearch(WithoutFiles, FlatIPFaissSearch):
    pass


@pytest.fixture(scope="module")
def small(real_dataset):
    """Return twelve documents of XQuAD, and thirty queries whose relevant document is among them."""
    dataset = real_dataset("xquad/en")
    corpus = dataset.corpus[:12]
    doc_ids = set(corpus.ids)
    rows = [row for row, query in enumerate(dataset.queries.ids) if doc_ids.issuperset(dataset.qrels[query])][:30]
    queries = Queries(dataset.queries.ids.take(np.array(rows)), dataset.queries.texts.take(np.array(rows)))
    qrels = Qrels({query: dataset.qrels[query] for query in queries.ids})
    return Dataset("xquad/en", "test", corpus, queries, qrels)


@pytest.fixture(scope="module")
def minilm_search(models):
    """Return BEIR's exact dense search with MiniLM."""
    model = SentenceBERT(str(models / "all-MiniLM-L6-v2"), device="cpu")
    return DenseRetrievalExactSearch(model, show_progress_bar=False)


def beir_scores(search, dataset, ignore_identical_ids=True):
    corpus, queries, qrels = beir.to_triple(dataset)
    evaluator = EvaluateRetrieval(search, k_values=[10, 100])
    results = evaluator.retrieve(corpus, queries)
    means = evaluator.evaluate(qrels, results, evaluator.k_values, ignore_identical_ids=ignore_identical_ids)
    return {name: value for by_metric in means for name, value in by_metric.items()}


def assert_equal_scores(retriever, search, dataset, ignore_identical_ids=True):
    harness_scores = measure(retriever, dataset, k=100, metrics=list(METRICS), plan=PLAN).means
    expected = beir_scores(search, dataset, ignore_identical_ids)
    for metric, name in METRICS.items():
        assert harness_scores[metric] == pytest.approx(expected[name], abs=ROUNDING), metric
    assert harness_scores["ndcg@10"] > 0.2


def assert_equal_runs(left, right, atol=0.0):
    assert left.query_ids == right.query_ids
    for row in range(len(left)):
        (left_ids, left_scores), (right_ids, right_scores) = left.hits(row), right.hits(row)
        assert left_ids == right_ids
        np.testing.assert_allclose(left_scores, right_scores, rtol=0, atol=atol)


@pytest.mark.parametrize("ignore_identical_ids", [True, False])
@pytest.mark.parametrize("name", ["cranfield", "xquad/en"])
def test_a_retriever_has_equal_scores_in_beirs_evaluator(real_dataset, name, ignore_identical_ids):
    """Cranfield's query ids are document ids of other texts, so that dropping identical ids changes its scores."""
    dataset = replace(real_dataset(name), drop_self_hits=ignore_identical_ids)
    search = beir.Search(BM25(Tokenizer()), ignore_identical_ids=ignore_identical_ids)
    assert_equal_scores(BM25(Tokenizer()), search, dataset, ignore_identical_ids)


def test_a_query_without_hits_counts_in_both_means(small):
    queries = Queries([*small.queries.ids, "none"], [*small.queries.texts, "qwertyuiop"])
    dataset = replace(small, queries=queries, qrels=Qrels({**small.qrels, "none": {small.corpus.ids[0]: 1}}))
    assert_equal_scores(BM25(Tokenizer()), beir.Search(BM25(Tokenizer())), dataset)


@pytest.mark.slow
@pytest.mark.parametrize("score_function", ["cos_sim", "dot"])
def test_beirs_dense_search_returns_the_run_of_the_dense_retriever(small, minilm, minilm_search, score_function):
    minilm.index(small.corpus)
    wrapped = beir.BeirRetriever(minilm_search, score_function)
    wrapped.index(small.corpus)
    assert_equal_runs(minilm.search(small.queries, 10), wrapped.search(small.queries, 10), atol=1e-5)
    assert wrapped.nbytes() > 0


@pytest.mark.slow
def test_beirs_dense_search_has_equal_scores_in_both_evaluators(small, minilm, minilm_search):
    assert_equal_scores(beir.BeirRetriever(minilm_search), minilm_search, small)
    assert_equal_scores(minilm, beir.Search(minilm), small)


def test_a_single_query_has_the_hits_that_it_has_in_a_batch(small):
    """BEIR's exact search alone raises IndexError for a single query."""
    retriever = beir.BeirRetriever(DenseRetrievalExactSearch(HashedWords()))
    retriever.index(small.corpus)
    single, batch = (retriever.search(queries, 5).hits(0) for queries in (small.queries[:1], small.queries))
    assert single[0] == batch[0]
    np.testing.assert_allclose(single[1], batch[1], rtol=0, atol=1e-6)


def test_a_faiss_search_searches_the_last_indexed_corpus(small):
    """BEIR's FAISS searches alone build one index, of the first corpus that they get."""
    faiss, exact = (beir.BeirRetriever(kind(HashedWords())) for kind in (FaissSearch, DenseRetrievalExactSearch))
    for corpus in (small.corpus[:5], small.corpus):
        faiss.index(corpus)
        exact.index(corpus)
        assert_equal_runs(faiss.search(small.queries, 12), exact.search(small.queries, 12), atol=1e-6)


@pytest.mark.parametrize("n_queries", [225, 1])
def test_a_retriever_wrapped_as_beirs_search_returns_the_same_run(real_dataset, n_queries):
    """Documents with the query's id, which Cranfield has, stay in the run."""
    dataset = real_dataset("cranfield")
    direct, wrapped = BM25(Tokenizer()), beir.BeirRetriever(beir.Search(BM25(Tokenizer())))
    for retriever in (direct, wrapped):
        retriever.index(dataset.corpus)
    queries = dataset.queries[:n_queries]
    assert_equal_runs(direct.search(queries, 100), wrapped.search(queries, 100))


def test_query_ids_may_equal_document_ids():
    corpus = Corpus(["a", "query b", "b"], ["one", "two", "three"])
    queries = Queries(["a", "b", "query a"], ["one", "three", "one"])
    retriever = beir.BeirRetriever(beir.Search(BM25(Tokenizer())))
    retriever.index(corpus)
    run = retriever.search(queries, 3)
    assert [run.hits(row)[0] for row in range(3)] == [["a"], ["b"], ["a"]]


def test_results_of_earlier_queries_are_ignored(small):
    """BEIR's FAISS, sparse and lexical searches return every query that they have searched so far."""

    class Accumulating(WordOverlap):
        results = {}  # noqa: RUF012

        def search(self, *args, **kwargs):
            self.results.update(super().search(*args, **kwargs))
            return self.results

    accumulating, fresh = beir.BeirRetriever(Accumulating()), beir.BeirRetriever(WordOverlap())
    for retriever in (accumulating, fresh):
        retriever.index(small.corpus)
    for queries in (small.queries[:2], small.queries[2:5]):
        assert_equal_runs(accumulating.search(queries, 10), fresh.search(queries, 10))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["cranfield", "xquad/en"])
def test_a_triple_of_beirs_loader_survives_a_round_trip(real_dataset, data, name):
    """The loader leaves its qrels file open."""
    triple = GenericDataLoader(str(data / name)).load(split="test")
    dataset = beir.to_dataset(*triple, name=name)
    assert dataset.fingerprint == real_dataset(name).fingerprint
    corpus, queries, qrels = beir.to_triple(dataset)
    assert queries == {query: triple[1][query] for query in queries}
    assert qrels == {query: triple[2][query] for query in queries}
    text_of = {doc: f"{row['title']} {row['text']}".strip() for doc, row in triple[0].items()}
    assert {doc: f"{row['title']} {row['text']}".strip() for doc, row in corpus.items()} == text_of
    assert {doc: row["title"] for doc, row in corpus.items()} == {doc: row["title"] for doc, row in triple[0].items()}


@pytest.mark.slow
def test_a_config_may_name_a_search_of_beir(tmp_path, monkeypatch):
    folder = tmp_path / "conf" / "retriever"
    folder.mkdir(parents=True)
    (folder / "exact.yaml").write_text(
        f"""
_target_: harness.interop.beir.BeirRetriever
score_function: cos_sim
model:
  _target_: beir.retrieval.search.dense.DenseRetrievalExactSearch
  show_progress_bar: false
  model: {{_target_: beir.retrieval.models.SentenceBERT, model_path: {write_dense(tmp_path)}, device: cpu}}
"""
    )
    overrides = [f"--config-dir={folder.parent}", "retriever=exact", "dataset=stdlib", "dataset.documents=30"]
    assert run([*overrides, "dataset.queries=5", f"results_dir={tmp_path / 'results'}"]) == 0
    (record,) = Store(tmp_path / "results").records()
    assert record.retriever.config["model"]["_target_"].endswith("DenseRetrievalExactSearch")
    assert len(record.timing.latencies_s) >= 5, "every query, and again until two seconds have passed"


def test_a_users_search_has_equal_scores_in_both_evaluators(small):
    retriever = build.construct(
        {"_target_": "harness.interop.beir.BeirRetriever", "model": {"_target_": f"{__name__}.WordOverlap"}},
        "retriever",
    )
    assert_equal_scores(retriever, WordOverlap(), small)
    assert retriever.search(small.queries, 7).depth == 7


def test_an_unknown_score_function_is_an_error_with_the_choices(small, minilm_search):
    retriever = beir.BeirRetriever(minilm_search, "euclidean")
    retriever.index(small.corpus)
    with pytest.raises(ValueError, match="cos_sim"):
        retriever.search(small.queries, 3)


def test_a_hit_outside_the_corpus_is_an_error_with_query_and_document(small):
    class UnknownDocument(WordOverlap):
        def search(self, corpus, queries, *args, **kwargs):
            return {query: {"gone": 1.0} for query in queries}

    retriever = beir.BeirRetriever(UnknownDocument())
    retriever.index(small.corpus)
    with pytest.raises(RunError, match=rf"'{small.queries.ids[0]}'.*'gone'"):
        retriever.search(small.queries, 3)


def test_embedding_files_are_an_error_with_the_call_to_use(small, tmp_path):
    corpus, queries, _ = beir.to_triple(small)
    evaluator = EvaluateRetrieval(beir.Search(BM25(Tokenizer())))
    with pytest.raises(ConfigError, match=r"EvaluateRetrieval\.retrieve"):
        evaluator.encode_and_retrieve(corpus, queries, encode_output_path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"EvaluateRetrieval\.retrieve"):
        evaluator.retriever.search_from_files("queries.pkl", ["corpus.0.pkl"], 3)


def test_a_document_without_text_is_an_error_that_names_it():
    """GenericDataLoader returns None where a line has no text."""
    corpus = {"a": {"title": "A", "text": "one"}, "b": {"title": "B", "text": None}}
    with pytest.raises(DataError, match="'b' has no 'text'; it is None"):
        beir.to_dataset(corpus, {"q": "one"}, {"q": {"a": 1}})


def test_a_reranking_dataset_cannot_be_converted_to_a_triple(small):
    candidates = {query: [small.corpus.ids[0]] for query in small.queries.ids}
    with pytest.raises(DataError, match="candidates"):
        beir.to_triple(replace(small, candidates=candidates))
