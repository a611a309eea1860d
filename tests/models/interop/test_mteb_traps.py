"""Tests that the harness avoids known mistakes of mteb: stale results, unranked queries, invalid scores, ties."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from support.models import write_dense
from support.mteb_tasks import evaluate_with_mteb, scores_of

from harness import metrics
from harness.config import build
from harness.embedding_cache import cache
from harness.encoders.dense import DenseEncoder
from harness.errors import RunError, WeightsError
from harness.interop.mteb import MtebRetriever, SearchModel, task_of
from harness.interop.mteb.registry import quiet
from harness.retrievers.dense import Dense
from harness.retrievers.hybrid import Hybrid, rrf
from harness.types import Corpus, Dataset, Qrels, Queries, Run

WORDS = ["fox", "dog", "bank", "river", "flour", "moon", "cats", "stone", "glass", "paper", "wind", "rain"]


@pytest.fixture
def dataset():
    corpus = Corpus([f"d{n:02}" for n in range(12)], [f"{word} {word[::-1]}" for word in WORDS])
    queries = Queries(["q1", "q2", "q3"], ["fox", "river bank", "paper moon"])
    return Dataset(
        "words", "test", corpus, queries, Qrels({"q1": {"d00": 1}, "q2": {"d03": 2, "d02": 1}, "q3": {"d09": 1}})
    )


class FixedScores:
    """Scores a document by its id, the same for every query, and returns no hits for the queries `without_hits`."""

    def __init__(self, score, without_hits=()):
        self.score_of, self.without_hits = score, set(without_hits)

    def index(self, corpus):
        self.corpus = corpus

    def search(self, queries, k):
        n = len(self.corpus)
        docs = np.tile(np.arange(n, dtype=np.int32), (len(queries), 1))
        docs[[query in self.without_hits for query in queries.ids]] = -1
        scores = np.array([self.score_of(doc) for doc in self.corpus.ids], np.float32)
        return Run(queries.ids, self.corpus.ids, docs, np.tile(scores, (len(queries), 1))).top(k)

    def nbytes(self):
        return 0


def ndcg_in_harness(retriever, dataset):
    retriever.index(dataset.corpus)
    run = retriever.search(dataset.queries, 1000)
    return float(metrics.score(run, dataset.qrels, [metrics.parse("ndcg@10")])[1]["ndcg@10"].mean())


def ndcg_in_mteb(retriever, dataset, **settings):
    result = evaluate_with_mteb(SearchModel(retriever), task_of("SciFact", dataset=dataset), **settings)
    return scores_of(result)["ndcg_at_10"]


def test_embeddings_of_another_model_are_not_used(dataset, tmp_path, empty_cache):
    """Two models with the same name and shape are evaluated in turn on one corpus, with the embedding cache on."""
    folders = [write_dense(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    further = {f"x{n:03}": f"{WORDS[n % 12]} {n}" for n in range(150)}  # enough for a shard in the cache
    corpus = Corpus([*dataset.corpus.ids, *further], [*dataset.corpus.texts, *further.values()])
    dataset = replace(dataset, corpus=corpus)
    with cache.using("off"):
        uncached = [ndcg_in_harness(Dense(DenseEncoder(str(folder), device="cpu")), dataset) for folder in folders]
    assert uncached[0] != pytest.approx(uncached[1], abs=1e-3)
    for _ in range(2):
        for folder, expected in zip(folders, uncached, strict=True):
            retriever = Dense(DenseEncoder(str(folder), device="cpu"))
            assert ndcg_in_mteb(retriever, dataset) == pytest.approx(expected, abs=1e-4)
    assert len([path for path in (empty_cache / "embeddings").rglob("*") if path.is_file()]) >= 2


def ascending(doc):
    return int(doc[1:])


def descending(doc):
    return -int(doc[1:])


def weighted_hybrid(*weights):
    """Return a hybrid of two opposite rankings with these weights."""
    retrievers = {"ascending": FixedScores(ascending), "descending": FixedScores(descending)}
    return Hybrid(retrievers, partial(rrf, weights=list(weights)))


def test_mteb_stores_results_of_hybrids_with_other_weights_apart(dataset, tmp_path):
    import mteb

    settings = {"cache": mteb.ResultCache(cache_path=tmp_path), "overwrite_strategy": "only-missing"}
    all_weights = ((1, 9), (9, 1), (1, 9))
    scores = [ndcg_in_mteb(weighted_hybrid(*weights), dataset, **settings) for weights in all_weights]
    assert scores[0] == scores[2] != scores[1]
    assert scores[1] == pytest.approx(ndcg_in_harness(weighted_hybrid(9, 1), dataset), abs=1e-4)
    metas = [SearchModel(weighted_hybrid(*weights)).mteb_model_meta for weights in all_weights]
    assert metas[0].revision == metas[2].revision != metas[1].revision
    assert len(list(tmp_path.rglob("SciFact.json"))) == 2


def test_a_model_that_cannot_be_identified_always_has_another_revision():
    class WithoutAttributes:
        __slots__ = ()

    class UserRetriever:
        def __init__(self):
            self.inner = WithoutAttributes()

    first, second = (SearchModel(UserRetriever()).mteb_model_meta.revision for _ in range(2))
    assert first != second
    assert SearchModel(UserRetriever(), "org/name", "r1").mteb_model_meta.revision == "r1"


def test_closures_over_other_values_have_other_revisions():
    def hybrid(weights):
        return Hybrid({"part": FixedScores(float)}, lambda runs: rrf(runs, weights=weights))

    assert SearchModel(hybrid([1])).mteb_model_meta.revision != SearchModel(hybrid([2])).mteb_model_meta.revision


@pytest.mark.parametrize("name", ["bm25", "bm25_rank_bm25", "hybrid", "rerank_colbert_minilm", "splade_tiny"])
def test_the_revision_depends_on_the_settings_and_not_on_indexing(name, dataset):
    def make(*overrides):
        return build.construct(build.composed([f"retriever={name}", *overrides])["retriever"], "retriever")

    try:
        retriever, equal_retriever = make(), make()
        revision = SearchModel(retriever).mteb_model_meta.revision
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])
    assert SearchModel(equal_retriever).mteb_model_meta.revision == revision
    if name == "bm25":
        retriever.index(dataset.corpus)
        assert SearchModel(retriever).mteb_model_meta.revision == revision
        for setting in ("k1=0.9", "tokenizer.language=german", "tokenizer.stop_words=null"):
            assert SearchModel(make(f"retriever.{setting}")).mteb_model_meta.revision != revision


def test_changed_weights_in_a_folder_have_another_revision(tmp_path):
    folder = write_dense(tmp_path)
    before = SearchModel(Dense(DenseEncoder(str(folder)))).mteb_model_meta.revision
    assert SearchModel(Dense(DenseEncoder(str(folder)))).mteb_model_meta.revision == before
    write_dense(tmp_path, seed=1)
    assert SearchModel(Dense(DenseEncoder(str(folder)))).mteb_model_meta.revision != before


def test_a_query_without_hits_counts_as_zero(dataset):
    """mteb averages over the queries in the results, so the wrapper returns an empty result for such a query."""
    complete, incomplete = FixedScores(descending), FixedScores(descending, without_hits=["q2"])
    expected = ndcg_in_harness(incomplete, dataset)
    assert expected < ndcg_in_harness(complete, dataset)
    assert ndcg_in_mteb(incomplete, dataset) == pytest.approx(expected, abs=1e-4)
    model = SearchModel(incomplete)
    task = task_of("SciFact", dataset=dataset).dataset["default"]["test"]
    model.index(task["corpus"])
    assert model.search(task["queries"], top_k=5)["q2"] == {}


@pytest.mark.parametrize("invalid", [np.nan, np.inf])
def test_nan_or_infinity_as_a_score_is_an_error_that_names_the_query(invalid, dataset):
    retriever = FixedScores(lambda doc: invalid if doc == "d05" else 1.0)
    with pytest.raises(RunError, match=r"query 'q1': a score is (nan|inf); scores must be finite"):
        ndcg_in_mteb(retriever, dataset)


def test_nan_as_a_similarity_of_mtebs_model_is_an_error(dataset, tmp_path):
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper as Wrapper
    from sentence_transformers import SentenceTransformer

    with quiet():
        model = Wrapper(SentenceTransformer(str(write_dense(tmp_path)), device="cpu"))
    model.similarity = lambda queries, docs: np.full((len(queries), len(docs)), np.nan)
    retriever = MtebRetriever(model)
    retriever.index(dataset.corpus)
    with pytest.raises(RunError, match="a similarity is NaN; scores must be finite"):
        retriever.search(dataset.queries, 3)


def test_the_order_of_ties_does_not_depend_on_the_order_of_the_corpus(dataset):
    """Ties are ordered by document id, descending, as in trec_eval."""
    tied = FixedScores(lambda doc: 1.0 if int(doc[1:]) < 6 else 0.5)
    reversed_dataset = Dataset(
        *("words", "test"),
        Corpus(list(dataset.corpus.ids)[::-1], list(dataset.corpus.texts)[::-1]),
        *(dataset.queries, dataset.qrels),
    )
    expected = ndcg_in_harness(tied, dataset)
    assert expected == ndcg_in_harness(tied, reversed_dataset)
    assert ndcg_in_mteb(tied, dataset) == ndcg_in_mteb(tied, reversed_dataset) == pytest.approx(expected, abs=1e-4)
    tied.index(dataset.corpus)
    assert tied.search(dataset.queries, 4).hits(0)[0] == ["d05", "d04", "d03", "d02"]


def test_a_document_that_is_ranked_twice_is_an_error(dataset):
    class RepeatingDocuments(FixedScores):
        def search(self, queries, k):
            docs = np.zeros((len(queries), 2), np.int32)
            return Run(queries.ids, self.corpus.ids, docs, np.ones(docs.shape, np.float32))

    with pytest.raises(RunError, match="document 'd00' is ranked more than once"):
        ndcg_in_mteb(RepeatingDocuments(lambda doc: 1.0), dataset)


def test_a_candidate_that_is_not_in_the_corpus_is_an_error(dataset):
    model = SearchModel(FixedScores(lambda doc: 1.0))
    split = task_of("SciFact", dataset=dataset).dataset["default"]["test"]
    model.index(split["corpus"])
    with pytest.raises(RunError, match="query 'q1': document 'elsewhere' is not in the corpus of 12 documents"):
        model.search(split["queries"], top_k=5, top_ranked={"q1": ["d01", "elsewhere"]})
