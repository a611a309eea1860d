"""Tests of harness/api/results.py and scoring.py: frames, comparisons, plots, tables and scores of a run."""

import pandas as pd
import pytest
from support.datasets import PET_TEXTS, fruit_dataset
from support.functions import UNTIMED

import harness
from harness.errors import ConfigError, DataError, UndecidedError


def test_results_are_frames_by_evaluation_query_and_hit(two_results, data):
    frame = two_results.to_pandas()
    assert list(frame["retriever"]) == ["terms", "worse"]
    assert {"ndcg@10", "latency_p95_ms", "queries_per_s", "index_mb", "id"} <= set(frame.columns)
    queries = two_results.to_pandas("query")
    assert list(queries.columns) == ["retriever", "dataset", "query_id", "metric", "value"]
    means = queries[queries["metric"] == "ndcg@10"].groupby("retriever")["value"].mean()
    assert means["terms"] == pytest.approx(frame["ndcg@10"][0])
    hits = two_results.to_pandas("hit")
    first = hits[(hits["retriever"] == "terms") & (hits["query_id"] == "q1") & (hits["rank"] == 1)]
    assert (first["doc_id"].item(), first["grade"].item()) == ("d2", 1)
    assert two_results.to_polars("hit").shape == hits.shape
    with pytest.raises(ConfigError, match="level='row'; choices: evaluation, query, hit"):
        two_results.to_pandas("row")


def test_opened_results_give_the_same_frames(data, tmp_path):
    results = harness.evaluate("bm25", data, results_dir=tmp_path)
    opened = harness.open_results(tmp_path)
    pd.testing.assert_frame_equal(opened.to_pandas(), results.to_pandas())
    pd.testing.assert_frame_equal(opened.to_pandas("query"), results.to_pandas("query"))
    with pytest.raises(ConfigError, match="no records in"):
        harness.open_results(tmp_path / "nowhere")


def test_a_metric_that_was_not_measured_is_computed_from_the_runs(data, tmp_path):
    rows = {"terms": "bm25", "worse": "bm25 k1=0.0 b=0.0"}
    measured = harness.evaluate(rows, data, timing=None, metrics=["map@3(rel=2)"])
    in_memory = harness.evaluate(rows, data, timing=None, metrics=["ndcg@10"], baseline="terms")
    harness.evaluate(rows, data, timing=None, metrics=["ndcg@10"], results_dir=tmp_path)
    opened = harness.open_results(tmp_path, metric="AP(rel=2)@3", baseline="terms")
    assert opened.metric == "map@3(rel=2)"
    assert opened.leaderboard.metric == "map@3(rel=2)"
    expected = measured.to_pandas("query")
    for results in (in_memory, opened):
        frame = results.to_pandas("query", metric="AP(rel=2)@3")
        pd.testing.assert_frame_equal(frame, expected)
        columns = results.to_pandas(metric="map@3(rel=2)")
        assert "ndcg@10" not in columns
        assert list(columns["map@3(rel=2)"]) == list(measured.to_pandas()["map@3(rel=2)"])
        difference = results.compare("terms", "worse", metric="map@3(rel=2)").difference("pets")
        assert difference.delta == pytest.approx(measured.paired("terms", "worse")["difference"].mean())
        assert {"ndcg@10", "map@3(rel=2)"} <= {*results.leaderboards()}
    assert list(harness.open_results(tmp_path).records[0].metrics) == ["ndcg@10"], "records are not edited"


def test_a_metric_that_cannot_be_computed_names_the_evaluation_and_how_to_measure_it(data):
    results = harness.evaluate({"terms": "bm25"}, data, timing=None, metrics=["ndcg@3"], k=3)
    message = r"terms on pets: its run has 3 documents.*harness.evaluate\(..., k=5, metrics=\['ndcg@5'\]\)"
    with pytest.raises(UndecidedError, match=message):
        results.to_pandas(metric="ndcg@5")
    with pytest.raises(ConfigError, match="did you mean ndcg@10"):
        results.compare("terms", "terms", metric="ndgc@10")


def test_opening_results_by_a_metric_that_cannot_be_computed_names_the_command(data, tmp_path):
    harness.evaluate({"terms": "bm25"}, data, timing=None, metrics=["ndcg@3"], k=3, results_dir=tmp_path)
    message = r"no evaluation has ndcg@200 .*terms on pets: its run has 3 documents.*harness.evaluate\(..., k=200, "
    with pytest.raises(UndecidedError, match=message):
        harness.open_results(tmp_path, metric="ndcg@200")
    assert harness.open_results(tmp_path).metric == "ndcg@3", "no metric was asked for"
    assert len(harness.open_results(tmp_path).leaderboard.rows) == 1


def test_rows_that_lack_a_metric_are_named_in_a_warning(data, tmp_path):
    for retriever, k in (("bm25", 5), ("bm25 k1=0.0", 3)):
        harness.evaluate(retriever, data, timing=None, metrics=["ndcg@3"], k=k, results_dir=tmp_path)
    results = harness.open_results(tmp_path, metric="ndcg@3")
    with pytest.warns(RuntimeWarning, match=r"without ndcg@5: bm25 \[k1=0.0\] on pets: its run has 3 documents"):
        frame = results.to_pandas(metric="ndcg@5")
    assert frame["ndcg@5"].isna().tolist() == [False, True]


def test_compare_paired_and_recommend_take_labels(two_results):
    comparison = two_results.compare("terms", "worse")
    assert (comparison.a, comparison.b) == ("terms", "worse")
    assert comparison.difference("pets") is not None
    paired = two_results.paired("terms", "worse")
    assert list(paired["query_id"]) == ["q0", "q1", "q2"]
    assert comparison.difference("pets").delta == pytest.approx(paired["difference"].mean())
    assert two_results.recommend(max_latency_ms=1e6).best.label in two_results.labels
    with pytest.raises(ConfigError, match="no limit is called 'max_latency'; choices: 'min_queries_per_s', "):
        two_results.recommend(max_latency=5)
    with pytest.raises(ConfigError, match="no row is called 'other'; choices: 'terms', 'worse'"):
        two_results.compare("terms", "other")
    assert harness.compare("bm25", "bm25 k1=0.0", fruit_dataset(), timing=None).b == "bm25 [k1=0.0]"


def test_the_worst_queries_have_their_missed_documents(data):
    def irrelevant(queries, k):
        return {query: {"d3": 1.0} for query in queries.ids}

    worst = harness.evaluate({"bad": irrelevant}, data, **UNTIMED).worst("bad", 2)
    assert len(worst) == 2
    assert worst["score"].tolist() == [0.0, 0.0]
    assert worst["query"][0] == "cats"
    assert worst["first"][0] == PET_TEXTS["d3"]
    missed = worst["relevant"][0][0]
    assert missed == {"doc_id": "d1", "grade": 2, "rank": None, "text": PET_TEXTS["d1"]}


def test_plots_have_axes_named_after_their_columns(two_results):
    pytest.importorskip("matplotlib")
    figure = two_results.plot_pareto(x="latency_p95_ms")
    assert figure.axes[0].get_xlabel() == "latency_p95_ms"
    assert two_results.plot_differences("terms", "worse").axes[0].get_ylabel() == "ndcg@10: worse - terms"
    with pytest.raises(ConfigError, match="x='speed' is not a cost; choices: queries_per_s, "):
        two_results.plot_pareto(x="speed")


def test_the_table_is_shown_as_text_and_as_html(two_results):
    text = repr(two_results)
    assert text.splitlines()[0].startswith("ndcg@10")
    assert "Against terms" in text
    html = two_results._repr_html_()
    assert "<script" not in html
    assert "best of its column" in html
    assert 'scope="row">terms</th>' in html


def test_names_are_escaped_in_html(data):
    html = harness.evaluate({"<b>bold</b>": "bm25"}, data, **UNTIMED)._repr_html_()
    assert "<b>bold</b>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html


@pytest.mark.parametrize(
    ("name", "start"), [("csv", "metric,"), ("md", "| "), ("latex", "\\begin"), ("html", "<!doctype")]
)
def test_the_leaderboard_is_saved_in_every_format(two_results, tmp_path, monkeypatch, name, start):
    monkeypatch.chdir(tmp_path)
    path = two_results.save(name)
    content = path.read_text(encoding="utf-8")
    assert "terms" in content
    assert start in content
    assert two_results.save(tmp_path / f"leaderboard{path.suffix}").read_text(encoding="utf-8") == content
    with pytest.raises(ConfigError, match="is not a known format"):
        two_results.save("table.docx")


def test_score_returns_means_or_scores_by_query_of_a_run(data):
    run = {"q0": {"d1": 2.0, "d0": 1.0}, "q1": {"d2": 1.0}}
    assert harness.score(run, data.qrels, ["ndcg@10", "recall@10"]) == pytest.approx(
        {"ndcg@10": 2 / 3, "recall@10": 2 / 3}
    )
    per_query = harness.score(run, {"q0": {"d1": 1}}, ["ndcg@10"], per_query=True)
    assert per_query == {"ndcg@10": {"q0": 1.0}}
    with pytest.raises(ConfigError, match="is a string; give a list"):
        harness.score(run, data, "ndcg@10")
    with pytest.raises(DataError, match="no query in common: the run has 'x'"):
        harness.score({"x": {"d1": 1.0}}, data)
    with pytest.raises(DataError, match="no query of the qrels has a relevant document"):
        harness.score(run, {"q0": {"d1": 0}})


def test_a_comparison_and_a_recommendation_are_printed_as_tables():
    data = harness.load_dataset("stdlib", documents=60, queries=20)
    results = harness.evaluate(["bm25", "bm25 k1=0.9"], data)
    comparison = repr(results.compare("bm25", "bm25 [k1=0.9]"))
    assert comparison.startswith("A: bm25, B: bm25 [k1=0.9], ndcg@10\n")
    assert "won/tied/lost" in comparison
    recommendation = repr(results.recommend(max_index_mb=100))
    assert recommendation.startswith("take bm25")
    assert "mean over stdlib" in recommendation
    by_config = results.compare("bm25", "bm25 k1=0.9")
    assert repr(by_config) == comparison


def test_a_row_is_found_by_its_config_and_settings():
    data = harness.load_dataset("stdlib", documents=60, queries=20)
    results = harness.evaluate(["bm25", "bm25 tokenizer.stemmer=null b=1"], data, timing=None)
    difference = results.compare("bm25", "bm25 b=1 tokenizer.stemmer=null").difference("stdlib")
    assert difference is not None
    with pytest.raises(ConfigError, match="no row is called 'bm25 b=2'"):
        results.compare("bm25", "bm25 b=2")
