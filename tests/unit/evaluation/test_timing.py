"""Tests of measuring an evaluation: samples, stages, counters, self-hits and refused runs."""

import time

import numpy as np
import pytest

from harness import instrument
from harness.errors import ConfigError, RunError
from harness.evaluation.timing import TimingPlan, drop_self_hits, measure
from harness.types import Corpus, Counters, Dataset, EncoderInfo, Qrels, Queries, Run, StringColumn

PLAN = TimingPlan(warmup_documents=2, repeats=3, min_search_s=0, latency_queries=2)


class CorpusOrder:
    """A retriever that ranks documents in corpus order and records its calls."""

    def __init__(self, score=lambda rank: 1.0 / (1 + rank)):
        self.indexed, self.searched, self.score = [], [], score

    def index(self, corpus):
        with instrument.stage("encode"):
            instrument.count("tokens", 7 * len(corpus))
        instrument.describe_encoder(device="cpu")
        self.corpus = corpus
        self.indexed.append(len(corpus))

    def search(self, queries, k):
        self.searched.append((list(queries.ids), k))
        k = min(k, len(self.corpus))
        docs = np.tile(np.arange(k, dtype=np.int32), (len(queries), 1))
        scores = np.tile([self.score(rank) for rank in range(k)], (len(queries), 1))
        return Run(queries.ids, self.corpus.ids, docs, scores.astype(np.float32))

    def nbytes(self):
        return 123


def make_dataset(**settings):
    """Return a dataset of four documents and two queries, one of which has the id of a document."""
    corpus = Corpus(["a", "b", "c", "d"], ["w", "x", "y", "z"])
    queries = Queries(["a", "q"], ["one", "two"])
    return Dataset("letters", "test", corpus, queries, Qrels({"a": {"b": 1}, "q": {"a": 2, "c": 1}}), **settings)


def test_every_sample_is_recorded():
    retriever = CorpusOrder()
    measured = measure(retriever, make_dataset(), k=4, metrics=["ndcg@3"], plan=PLAN)
    timing = measured.timing
    assert retriever.indexed == [2, 4], "a warm-up on two documents, then the corpus once"
    assert len(timing.searches) == 3
    assert len(timing.latencies_s) == 6, "two queries, three times"
    warm_up, one_untimed, timed = [2, 1, 1], [1], [1] * 6
    assert [len(ids) for ids, _ in retriever.searched] == [*warm_up, 2, 2, 2, *one_untimed, *timed]
    assert timing.index.counters == {"": Counters(tokens=28)}
    assert timing.index_bytes == 123
    assert timing.documents == 4
    assert timing.docs_per_s == 4 / timing.index.wall_s
    assert timing.tokens_per_s == 28 / timing.index.wall_s
    assert timing.queries_per_s == 2 / np.median([search.wall_s for search in timing.searches])
    p50 = pytest.approx(np.median(timing.latencies_s) * 1e3)
    assert timing.latency_ms == {"p50": p50, "p95": None, "p99": None}, "six searches carry only the median"
    assert len(timing.references) == len(timing.reference_walls) == 2 + len(timing.searches)
    for kernels in timing.references:
        assert set(kernels) == {"dict_loop", "blas_product", "random_gather"}
        assert min(kernels.values()) > 0
    assert measured.description.encoders == {"": EncoderInfo(device="cpu")}


def test_metadata_is_not_recorded_while_single_queries_are_timed():
    calls = []

    class MetadataRetriever(CorpusOrder):
        def search(self, queries, k):
            if self.indexed[-1] == 4:  # no longer the warm-up
                calls.append((len(queries), instrument.wants_metadata()))
            instrument.describe("queries", len(queries))
            return super().search(queries, k)

    measured = measure(MetadataRetriever(), make_dataset(), k=2, metrics=["ndcg@2"], plan=PLAN)
    assert {wants_metadata for n, wants_metadata in calls if n == 2} == {True}
    assert {wants_metadata for n, wants_metadata in calls if n == 1} == {False}
    assert measured.description.metadata["queries"] == 2


def test_an_index_that_existed_before_has_no_throughput():
    retriever = CorpusOrder()
    retriever.is_externally_indexed = True
    timing = measure(retriever, make_dataset(), k=2, metrics=["ndcg@2"], plan=PLAN).timing
    assert retriever.indexed == [4, 4], "the warm-up has the whole corpus"
    assert timing.externally_indexed
    assert (timing.docs_per_s, timing.tokens_per_s, timing.intervals["docs_per_s"]) == (None, None, None)
    assert timing.queries_per_s > 0


def test_zero_warmup_documents_skip_the_warm_up():
    retriever = CorpusOrder()
    measure(retriever, make_dataset(), k=2, metrics=["ndcg@2"], plan=TimingPlan(warmup_documents=0, latency_queries=0))
    assert retriever.indexed == [4]


def test_repeats_end_after_max_search_s():
    retriever = CorpusOrder()
    plan = TimingPlan(warmup_documents=0, latency_queries=0, repeats=5, max_search_s=1e-9)
    assert len(measure(retriever, make_dataset(), k=2, metrics=["ndcg@2"], plan=plan).timing.searches) == 1


def test_the_time_of_a_stage_excludes_nested_stages():
    with instrument.recording() as recorder, instrument.stage("outer"):
        time.sleep(0.02)
        with instrument.stage("inner"):
            time.sleep(0.05)
    phase = recorder.phase()
    assert phase.stages["inner"] >= 0.05
    assert phase.stages["outer"] >= 0.02
    assert sum(phase.stages.values()) <= phase.wall_s, "the outer stage does not count the inner one"


def test_drop_self_hits_removes_the_document_with_the_id_of_the_query():
    with_self_hits = measure(CorpusOrder(), make_dataset(), k=2, metrics=["mrr@2"], plan=PLAN)
    without_self_hits = measure(CorpusOrder(), make_dataset(drop_self_hits=True), k=2, metrics=["mrr@2"], plan=PLAN)
    assert with_self_hits.run.hits(0)[0] == ["a", "b"]
    assert without_self_hits.run.hits(0)[0] == ["b", "c"], "one more hit is searched, so that k remain"
    assert without_self_hits.run.hits(1)[0] == ["a", "b"], "other queries keep that document"
    assert with_self_hits.scores["mrr@2"].tolist() == [0.5, 1.0]
    assert without_self_hits.scores["mrr@2"].tolist() == [1.0, 1.0]


def test_self_hits_are_dropped_from_runs_with_a_list_of_ids():
    run = Run(["x", "y"], ["y", "z"], np.array([[0, 1], [0, 1]]), np.array([[2.0, 1.0], [2.0, 1.0]]))
    assert drop_self_hits(run).hits(1)[0] == ["z"]
    assert drop_self_hits(Run(["x"], StringColumn(["y"]), np.array([[0]]), np.array([[1.0]]))).hits(0)[0] == ["y"]


def test_queries_without_hits_count_as_zero_in_the_mean():
    class NoHits(CorpusOrder):
        def search(self, queries, k):
            run = super().search(queries, k)
            return Run(run.query_ids, run.doc_ids, np.full_like(run.docs, -1), run.scores)

    assert measure(NoHits(), make_dataset(), k=2, metrics=["ndcg@2"], plan=PLAN).means == {"ndcg@2": 0.0}


def test_the_error_about_a_nan_score_names_the_query():
    with pytest.raises(RunError, match="query 'a': a score is nan"):
        measure(CorpusOrder(score=lambda rank: float("nan")), make_dataset(), k=2, metrics=["ndcg@2"], plan=PLAN)


def test_a_metric_with_a_cutoff_above_k_is_refused():
    with pytest.raises(ConfigError, match=r"metric recall@100 looks deeper than k=10; set k=100 or more"):
        measure(CorpusOrder(), make_dataset(), k=10, metrics=["recall@100"], plan=PLAN)


def test_components_of_a_retriever_are_recorded_separately():
    with instrument.recording() as recorder:
        for name in ("one", "two"):
            with instrument.component(name), instrument.stage("encode"):
                instrument.count("texts", 4)
                instrument.describe_encoder(device=name)
        with instrument.component("two"):
            instrument.count("truncated", 1)
    assert set(recorder.stages) == {"one/encode", "two/encode"}
    assert recorder.counters == {"one": {"texts": 4}, "two": {"texts": 4, "truncated": 1}}
    assert recorder.encoders == {"one": {"device": "one"}, "two": {"device": "two"}}
    assert recorder.phase().truncated_share == 0.25
