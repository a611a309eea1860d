"""Tests of harness/interop/mteb/search_model.py and retriever.py: equal scores in both evaluators."""

import functools

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from support.datasets import with_random_candidates
from support.models import write_dense, write_masked
from support.mteb_tasks import evaluate_with_mteb, scores_of

from harness.config import build
from harness.errors import ConfigError, WeightsError
from harness.evaluation.timing import TimingPlan, measure
from harness.interop.mteb import MtebRetriever, SearchModel, load, names, task_of
from harness.metrics import parse, score
from harness.types import Corpus, Dataset, Qrels, Queries

PLAN = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)
METRICS = ["ndcg@10", "map@1000", "recall@100", "mrr@10", "precision@5", "hit@1"]
FAMILIES = ["bm25", "minilm", "splade_tiny", "colbert_minilm", "hybrid", "rerank_colbert_minilm"]


def build_retriever(name, *overrides):
    """Construct the retriever of a config with k=1000."""
    return build.construct(build.composed([f"retriever={name}", "k=1000", *overrides])["retriever"], "retriever")


@pytest.fixture(scope="module")
def small(real_dataset):
    """Return the beginnings of Cranfield's first 130 documents, enough for the embedding cache, and fifteen queries."""
    whole, n = real_dataset("cranfield"), 130
    ids, texts = list(whole.corpus.ids)[:n], [text[:250] for text in whole.corpus.texts[:n]]
    judgements = {
        query: {doc: grade for doc, grade in docs.items() if doc in set(ids)} for query, docs in whole.qrels.items()
    }
    with_relevant = [query for query, docs in judgements.items() if any(grade > 0 for grade in docs.values())][:15]
    qrels = Qrels({query: judgements[query] for query in with_relevant})
    query_texts = dict(zip(whole.queries.ids, whole.queries.texts, strict=True))
    queries = Queries(list(qrels), [query_texts[query] for query in qrels])
    return Dataset("small", "test", Corpus(ids, texts), queries, qrels)


@pytest.fixture(scope="module")
def family():
    """Return a function that constructs the retriever of a config, once."""
    return functools.cache(build_retriever)


def harness_means(retriever, dataset, k=1000):
    """Return the means that the harness measures; skip where the weights are not installed."""
    try:
        return measure(retriever, dataset, k=k, metrics=METRICS, plan=PLAN).means
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


def assert_equal_scores(means, mteb_scores):
    """Compare every metric by its name in mteb, which rounds to five digits."""
    assert 0.1 < means["ndcg@10"] < 1
    for name in METRICS:
        assert mteb_scores[names.to_score(name)] == pytest.approx(means[name], abs=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_equal_scores_in_mtebs_evaluator(name, family, small):
    means = harness_means(family(name), small)
    task = task_of("SciFact", dataset=small)
    assert_equal_scores(means, scores_of(evaluate_with_mteb(SearchModel(family(name)), task)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SciFact", "NFCorpus"])
def test_bm25_has_equal_scores_in_mtebs_evaluator_on_a_whole_dataset(name, data):
    folder = str(data / name.lower())
    retriever = build_retriever("bm25")
    means = harness_means(retriever, load(name, folder=folder))
    mteb_scores = scores_of(evaluate_with_mteb(SearchModel(retriever), task_of(name, folder)))
    assert_equal_scores(means, mteb_scores)
    assert mteb_scores["main_score"] == mteb_scores["ndcg_at_10"]


@pytest.mark.slow
def test_minilm_in_mtebs_evaluator_has_its_published_score(minilm_index, data, real_dataset):
    """On NFCorpus, whose embeddings are cached by other tests; `make bench` evaluates SciFact."""
    dataset = real_dataset("nfcorpus")
    retriever = minilm_index("nfcorpus")
    run = retriever.search(dataset.queries, 1000)
    ndcg = float(score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean())
    result = evaluate_with_mteb(SearchModel(retriever), task_of("NFCorpus", str(data / "nfcorpus")))
    assert result.get_score() == pytest.approx(ndcg, abs=1e-4)
    assert result.get_score() == pytest.approx(0.31594, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_equal_scores_on_a_reranking_task(name, family, small):
    """The run has the candidates and no other document."""
    retriever, dataset = family(name), with_random_candidates(small)
    means = harness_means(retriever, dataset)
    run = measure(retriever, dataset, k=1000, metrics=["map@1000"], plan=PLAN).run
    for row, query in enumerate(run.query_ids):
        assert set(run.hits(row)[0]) == set(dataset.candidates[query])
    task = task_of("AskUbuntuDupQuestions", dataset=dataset)
    mteb_scores = scores_of(evaluate_with_mteb(SearchModel(retriever), task))
    assert_equal_scores(means, mteb_scores)
    assert mteb_scores["main_score"] == pytest.approx(means["map@1000"], abs=1e-4)


@pytest.mark.parametrize("name", ["bm25", "minilm", "splade_tiny", "colbert_minilm"])
def test_score_gives_a_candidate_the_score_that_search_gives_it(name, family, small):
    retriever, dataset = family(name), with_random_candidates(small)
    harness_means(retriever, small)
    scores = retriever.score(dataset.queries, dataset.candidate_matrix)
    run = retriever.search(dataset.queries, len(dataset.corpus))
    for row in range(len(run)):
        score_by_doc = dict(zip(run.docs[row].tolist(), run.scores[row].tolist(), strict=True))
        for doc, value in zip(dataset.candidate_matrix[row].tolist(), scores[row].tolist(), strict=True):
            assert value == (pytest.approx(score_by_doc.get(doc, 0.0), abs=1e-5) if doc >= 0 else -np.inf)


def test_a_reranker_scores_candidates_that_its_first_stage_does_not_return(family, small):
    reranker = build_retriever("rerank_colbert_minilm", "retriever.depth=1")
    dataset = with_random_candidates(small)
    means = harness_means(reranker, dataset)
    assert means == pytest.approx(harness_means(family("colbert_minilm"), dataset), abs=1e-6)
    assert measure(reranker, small, k=1, metrics=["recall@1"], plan=PLAN).run.depth == 1


@pytest.mark.slow
def test_minilm_reranks_as_in_mteb(family, small, models):
    dataset = with_random_candidates(small)
    means = harness_means(family("minilm"), dataset)
    model = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    mteb_scores = scores_of(evaluate_with_mteb(model, task_of("AskUbuntuDupQuestions", dataset=dataset)))
    assert mteb_scores["main_score"] == pytest.approx(means["map@1000"], abs=5e-4)


def test_a_retriever_without_score_is_an_error_before_it_indexes(small):
    class WithoutScore:
        def index(self, corpus):
            raise AssertionError("index was called")

        def search(self, queries, k): ...

        def nbytes(self):
            return 0

    with pytest.raises(
        ConfigError, match=r"WithoutScore cannot score given documents: it has no method score\(queries, docs\)"
    ):
        measure(WithoutScore(), with_random_candidates(small), k=10, metrics=["ndcg@10"], plan=PLAN)


MODELS = {
    "dense": lambda folder: SentenceTransformer(str(write_dense(folder)), device="cpu"),
    "sparse": lambda folder: SparseEncoder(str(write_masked(folder)), device="cpu"),
    "multi-vector": lambda folder: MultiVectorEncoder(
        modules=[
            Transformer(str(write_dense(folder).parent / "bert")),
            MultiVectorMask(),
            Normalize(module_input_name="token_embeddings"),
        ],
        device="cpu",
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("candidates", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_mteb_has_equal_scores_in_the_harness(kind, candidates, small, tmp_path):
    model = MODELS[kind](tmp_path)
    dataset = with_random_candidates(small) if candidates else small
    means = harness_means(MtebRetriever(model), dataset)
    task = "AskUbuntuDupQuestions" if candidates else "SciFact"
    mteb_scores = scores_of(evaluate_with_mteb(model, task_of(task, dataset=dataset)))
    for name in METRICS:
        assert mteb_scores[names.to_score(name)] == pytest.approx(means[name], abs=1e-4), name


@pytest.mark.slow
def test_a_cross_encoder_of_mteb_reranks_and_cannot_search(small, tmp_path):
    write_dense(tmp_path)
    model = CrossEncoder(str(tmp_path / "bert"), num_labels=1, device="cpu")
    dataset = with_random_candidates(small)
    means = harness_means(MtebRetriever(model), dataset)
    mteb_scores = scores_of(evaluate_with_mteb(model, task_of("AskUbuntuDupQuestions", dataset=dataset)))
    assert mteb_scores["main_score"] == pytest.approx(means["map@1000"], abs=1e-4)
    with pytest.raises(ConfigError, match="is a cross-encoder, which only scores candidates"):
        harness_means(MtebRetriever(model), small)


def test_a_search_model_of_mteb_has_equal_scores_in_the_harness(small):
    """mteb's BM25, by its name in the registry."""
    means = harness_means(MtebRetriever("mteb/baseline-bm25s"), small)
    import mteb

    model = mteb.get_model("mteb/baseline-bm25s")
    mteb_scores = scores_of(evaluate_with_mteb(model, task_of("SciFact", dataset=small)))
    assert_equal_scores(means, mteb_scores)


def test_a_retriever_wrapped_for_mteb_and_back_has_the_same_scores(family, small):
    for dataset in (small, with_random_candidates(small)):
        means = harness_means(family("bm25"), dataset)
        assert harness_means(MtebRetriever(SearchModel(family("bm25"))), dataset) == pytest.approx(means, abs=1e-9)


def test_an_unknown_model_or_another_object_is_an_error():
    with pytest.raises(ConfigError, match=r"retriever\.model='org/none': mteb cannot load it"):
        MtebRetriever("org/none").index(Corpus(["d"], ["text"]))
    with pytest.raises(ConfigError, match="list is not a model of mteb or sentence-transformers"):
        MtebRetriever([1]).index(Corpus(["d"], ["text"]))


def test_a_model_of_mteb_gets_the_language_of_the_subset(monkeypatch):
    """mteb's BM25 chooses its stemmer and stop words by it."""
    from mteb.models.model_implementations import bm25

    languages = []
    constructor = bm25.BM25Tokenizer.__init__

    def log_language(self, language, *args, **kwargs):
        languages.append(language)
        constructor(self, language, *args, **kwargs)

    monkeypatch.setattr(bm25.BM25Tokenizer, "__init__", log_language)
    corpus = Corpus(["d1", "d2"], ["Der schnelle Fuchs springt.", "Die Zinsen steigen."])
    for settings in ({"task": "XQuADRetrieval:de:validation"}, {"task": "XQuADRetrieval", "language": "deu"}, {}):
        MtebRetriever("mteb/baseline-bm25s", **settings).index(corpus)
    assert languages == ["deu", "deu", "eng"]
