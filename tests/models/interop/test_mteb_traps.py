"""What goes wrong in mteb, each as a test that fails if we ever do the same."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from support.models import write_dense
from support.mteb_tasks import evaluated, scores

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
        "made", "test", corpus, queries, Qrels({"q1": {"d00": 1}, "q2": {"d03": 2, "d02": 1}, "q3": {"d09": 1}})
    )


class Given:
    """Gives every query the same scores, by document."""

    def __init__(self, values, silent=()):
        self.values, self.silent = values, set(silent)

    def index(self, corpus):
        self.corpus = corpus

    def search(self, queries, k):
        n = len(self.corpus)
        docs = np.tile(np.arange(n, dtype=np.int32), (len(queries), 1))
        docs[[query in self.silent for query in queries.ids]] = -1
        values = np.array([self.values(doc) for doc in self.corpus.ids], np.float32)
        return Run(queries.ids, self.corpus.ids, docs, np.tile(values, (len(queries), 1))).top(k)

    def nbytes(self):
        return 0


def ndcg(retriever, dataset):
    retriever.index(dataset.corpus)
    run = retriever.search(dataset.queries, 1000)
    return float(metrics.score(run, dataset.qrels, [metrics.parse("ndcg@10")])[1]["ndcg@10"].mean())


def mtebs(retriever, dataset, **settings):
    result = evaluated(SearchModel(retriever), task_of("SciFact", dataset=dataset), **settings)
    return scores(result)["ndcg_at_10"]


def test_another_models_cached_vectors_are_never_used(dataset, tmp_path, empty_cache):
    """Two models of one name and shape, one after the other over one corpus, with the cache on."""
    folders = [write_dense(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    more = {f"x{n:03}": f"{WORDS[n % 12]} {n}" for n in range(150)}  # so many are worth a file of the cache
    corpus = Corpus([*dataset.corpus.ids, *more], [*dataset.corpus.texts, *more.values()])
    dataset = replace(dataset, corpus=corpus)
    with cache.using("off"):
        alone = [ndcg(Dense(DenseEncoder(str(folder), device="cpu")), dataset) for folder in folders]
    assert alone[0] != pytest.approx(alone[1], abs=1e-3)
    for _ in range(2):
        for folder, own in zip(folders, alone, strict=True):
            assert mtebs(Dense(DenseEncoder(str(folder), device="cpu")), dataset) == pytest.approx(own, abs=1e-4)
    assert len([path for path in (empty_cache / "embeddings").rglob("*") if path.is_file()]) >= 2


def rising(doc):
    return int(doc[1:])


def falling(doc):
    return -int(doc[1:])


def weighted(*weights):
    parts = {"up": Given(rising), "down": Given(falling)}
    return Hybrid(parts, partial(rrf, weights=list(weights)))


def test_a_hybrids_weights_are_a_part_of_what_mteb_files_its_results_by(dataset, tmp_path):
    import mteb

    kept = mteb.ResultCache(cache_path=tmp_path)
    filed = {"cache": kept, "overwrite_strategy": "only-missing"}
    found = [mtebs(weighted(*own), dataset, **filed) for own in ((1, 9), (9, 1), (1, 9))]
    assert found[0] == found[2] != found[1]
    assert found[1] == pytest.approx(ndcg(weighted(9, 1), dataset), abs=1e-4)
    metas = [SearchModel(weighted(*own)).mteb_model_meta for own in ((1, 9), (9, 1), (1, 9))]
    assert metas[0].revision == metas[2].revision != metas[1].revision
    assert len(list(tmp_path.rglob("SciFact.json"))) == 2


def test_what_cannot_be_told_apart_is_never_taken_for_another():
    class Closed:
        __slots__ = ()

    class Mine:
        def __init__(self):
            self.inner = Closed()

    assert SearchModel(Mine()).mteb_model_meta.revision != SearchModel(Mine()).mteb_model_meta.revision
    assert SearchModel(Mine(), "org/mine", "r1").mteb_model_meta.revision == "r1"


def test_functions_that_hold_values_are_told_apart():
    def hybrid(weights):
        return Hybrid({"one": Given(float)}, lambda runs: rrf(runs, weights=weights))

    assert SearchModel(hybrid([1])).mteb_model_meta.revision != SearchModel(hybrid([2])).mteb_model_meta.revision


@pytest.mark.parametrize("name", ["bm25", "bm25_rank_bm25", "hybrid", "rerank_colbert_minilm", "splade_tiny"])
def test_the_same_settings_are_the_same_model_before_and_after_it_has_indexed(name, dataset):
    def made(*overrides):
        return build.construct(build.composed([f"retriever={name}", *overrides])["retriever"], "retriever")

    try:
        one, other = made(), made()
        revision = SearchModel(one).mteb_model_meta.revision
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])
    assert SearchModel(other).mteb_model_meta.revision == revision
    if name == "bm25":
        one.index(dataset.corpus)
        assert SearchModel(one).mteb_model_meta.revision == revision
        for setting in ("k1=0.9", "tokenizer.language=german", "tokenizer.stop_words=null"):
            assert SearchModel(made(f"retriever.{setting}")).mteb_model_meta.revision != revision


def test_weights_changed_in_their_folder_are_another_model(tmp_path):
    folder = write_dense(tmp_path)
    before = SearchModel(Dense(DenseEncoder(str(folder)))).mteb_model_meta.revision
    assert SearchModel(Dense(DenseEncoder(str(folder)))).mteb_model_meta.revision == before
    write_dense(tmp_path, seed=1)
    assert SearchModel(Dense(DenseEncoder(str(folder)))).mteb_model_meta.revision != before


def test_a_query_that_the_run_misses_counts_as_zero(dataset):
    """mteb takes its mean over the queries that a model answers: the adapter answers all, if only by nothing."""
    whole, silent = Given(lambda doc: -int(doc[1:])), Given(lambda doc: -int(doc[1:]), silent=["q2"])
    own = ndcg(silent, dataset)
    assert own < ndcg(whole, dataset)
    assert mtebs(silent, dataset) == pytest.approx(own, abs=1e-4)
    model = SearchModel(silent)
    task = task_of("SciFact", dataset=dataset).dataset["default"]["test"]
    model.index(task["corpus"])
    assert model.search(task["queries"], top_k=5)["q2"] == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_an_error_that_names_the_query(bad, dataset):
    retriever = Given(lambda doc: bad if doc == "d05" else 1.0)
    with pytest.raises(RunError, match=r"query 'q1': a score is (nan|inf); scores must be finite"):
        mtebs(retriever, dataset)


def test_a_similarity_that_is_no_number_is_an_error(dataset, tmp_path):
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper as Wrapper
    from sentence_transformers import SentenceTransformer

    with quiet():
        model = Wrapper(SentenceTransformer(str(write_dense(tmp_path)), device="cpu"))
    model.similarity = lambda one, other: np.full((len(one), len(other)), np.nan)
    retriever = MtebRetriever(model)
    retriever.index(dataset.corpus)
    with pytest.raises(RunError, match="a similarity is NaN; scores must be finite"):
        retriever.search(dataset.queries, 3)


def test_ties_have_one_order_whatever_order_the_corpus_came_in(dataset):
    """By document id, descending, as trec_eval has them."""
    tied = Given(lambda doc: 1.0 if int(doc[1:]) < 6 else 0.5)
    backwards = Dataset(
        *("made", "test"),
        Corpus(list(dataset.corpus.ids)[::-1], list(dataset.corpus.texts)[::-1]),
        *(dataset.queries, dataset.qrels),
    )
    own = ndcg(tied, dataset)
    assert own == ndcg(tied, backwards)
    assert mtebs(tied, dataset) == mtebs(tied, backwards) == pytest.approx(own, abs=1e-4)
    tied.index(dataset.corpus)
    assert tied.search(dataset.queries, 4).hits(0)[0] == ["d05", "d04", "d03", "d02"]


def test_a_document_twice_is_an_error_and_not_a_longer_list(dataset):
    class Twice(Given):
        def search(self, queries, k):
            docs = np.zeros((len(queries), 2), np.int32)
            return Run(queries.ids, self.corpus.ids, docs, np.ones(docs.shape, np.float32))

    with pytest.raises(RunError, match="document 'd00' is ranked more than once"):
        mtebs(Twice(lambda doc: 1.0), dataset)


def test_a_candidate_that_is_not_in_the_corpus_is_an_error(dataset):
    model = SearchModel(Given(lambda doc: 1.0))
    split = task_of("SciFact", dataset=dataset).dataset["default"]["test"]
    model.index(split["corpus"])
    with pytest.raises(RunError, match="query 'q1': document 'elsewhere' is not in the corpus of 12 documents"):
        model.search(split["queries"], top_k=5, top_ranked={"q1": ["d01", "elsewhere"]})
