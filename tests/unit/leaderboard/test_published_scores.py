"""Tests of published scores: each equals its source and stands beside the right rows."""

import csv
import json

import pytest
from support.records import make_record

from harness.config.conf import options_of
from harness.errors import ConfigError
from harness.leaderboard import build, writers
from harness.leaderboard.frame import leaderboards_data, to_csv, to_frame, to_json
from harness.leaderboard.page import html
from harness.leaderboard.published import published_rows, published_scores
from harness.leaderboard.tables.leaderboard import tables
from harness.types import PublishedFigures

TASKS = {
    "arguana": "ArguAna",
    "fiqa": "FiQA2018",
    "nfcorpus": "NFCorpus",
    "quora": "QuoraRetrieval",
    "scidocs": "SCIDOCS",
    "scifact": "SciFact",
    "trec-covid": "TRECCOVID",
    "webis-touche2020": "Touche2020",
}


def mteb_scores(figure, rows):
    """Return the scores in a table of MTEB results that a published figure refers to."""
    model = figure.source.removeprefix("MTEB results, ")
    task, subset, split = TASKS.get(figure.dataset), "default", "test"
    if figure.dataset.startswith("xquad/"):
        task, subset, split = "XQuADRetrieval", figure.dataset.removeprefix("xquad/"), "validation"
    return [
        float(row["ndcg_at_10"])
        for row in rows
        if f"{row['model']} at {row['revision']}" == model
        and (row["task"], row["subset"], row["split"]) == (task, subset, split)
    ]


def pyserini_scores(figure, rows):
    """Return the mean score in a table of Pyserini reproductions that a published figure refers to."""
    condition = figure.source.removeprefix("Pyserini two-click reproductions, ").partition(";")[0]
    name = figure.dataset
    scores = [
        float(row["nDCG@10"])
        for row in rows
        if row["condition"] == condition and (row["dataset"] == name or row["dataset"].startswith(f"{name}-"))
    ]
    assert len(scores) == (12 if name == "cqadupstack" else 1)
    return [sum(scores) / len(scores)]


def test_every_figure_equals_its_source(reference):
    with (reference / "mteb_results_summary.csv").open(encoding="utf-8", newline="") as file:
        mteb = list(csv.DictReader(file))
    with (reference / "reference_beir_scores.tsv").open(encoding="utf-8", newline="") as file:
        pyserini = list(csv.DictReader(file, delimiter="\t"))
    assert len(published_scores()) > 90
    for figure in published_scores():
        scores = mteb_scores(figure, mteb) if figure.source.startswith("MTEB") else pyserini_scores(figure, pyserini)
        assert scores == pytest.approx([figure.value], abs=6e-5), figure


def test_published_names_are_those_of_configs():
    datasets = {name for name, _ in options_of("dataset")} | {"cqadupstack"}
    retrievers = {name for name, _ in options_of("retriever")} | {""}
    assert {figure.dataset for figure in published_scores()} <= datasets
    assert {figure.config for figure in published_scores()} <= retrievers
    assert len({(figure.retriever, figure.dataset) for figure in published_scores()}) == len(published_scores())


def test_differences_are_to_the_unchanged_config_only():
    changed = make_record("minilm", "nfcorpus", 0.9)
    changed = changed.model_copy(
        update={"retriever": changed.retriever.model_copy(update={"differences": {"encoder.dtype": "bfloat16"}})}
    )
    leaderboard = build([make_record("minilm", "scifact", 0.64), make_record("bm25", "nfcorpus", 0.3), changed])
    published = {each.retriever: each for each in published_rows(leaderboard)}
    assert published["all-MiniLM-L6-v2"].values == {"scifact": 0.64508, "nfcorpus": 0.31594}
    assert published["all-MiniLM-L6-v2"].differences == {"scifact": pytest.approx(-0.00508)}
    assert published["Contriever"].measured_label is None


def test_a_dataset_with_other_content_has_no_published_figure():
    split = make_record("minilm", "scifact", 0.6, differences={"split": "train"})
    old = make_record("minilm", "nfcorpus", 0.6)
    new = make_record("bm25", "nfcorpus", 0.6, 1, fingerprint="0123456789")
    leaderboard = build([split, old, new])
    assert set(leaderboard.datasets) == {"nfcorpus", "nfcorpus (ffffff)", "scifact [split=train]"}
    assert all(set(each.values) == {"nfcorpus"} and not each.differences for each in published_rows(leaderboard))


def test_text_tables_label_published_scores_and_name_their_source():
    leaderboard = build([make_record("minilm", "scifact", 0.65), make_record("minilm", "x|y", 0.5)])
    model = {"model": "a/b", "revision": "r", "family": "", "dataset_revision": "r", "source": "somewhere"}
    published = published_rows(leaderboard, [PublishedFigures(datasets=["x|y"], metrics={"ndcg@10": 0.4}, **model)])
    text, table = (
        writers.terminal(tables(leaderboard, published), 200),
        writers.markdown(tables(leaderboard, published)),
    )
    for shown in (text, table):
        assert "not measured here" in shown
        assert "0.6451 (+0.0049)" in shown
        assert (
            "MTEB results, sentence-transformers/all-MiniLM-L6-v2 at 8b3219a92973c328a8e22fadcfa821b5dc75636a" in shown
        )
    assert r"x\|y" in table
    assert "no published score for these datasets" in writers.terminal(
        tables(build([make_record("minilm", "unpublished", 0.5)]), [])
    )


def test_csv_json_latex_and_page_label_published_scores():
    leaderboard = build([make_record("minilm", "scifact", 0.65), make_record("bm25", "scifact", 0.5)])
    published = published_rows(leaderboard)
    rows = list(csv.DictReader(to_csv(to_frame({"ndcg@10": leaderboard}, published)).splitlines()))
    minilm = next(row for row in rows if row["retriever"] == "all-MiniLM-L6-v2")
    assert (minilm["value"], minilm["status"], minilm["record"]) == ("0.64508", "published", "")
    assert "MTEB results" in minilm["source"]
    assert float(minilm["ours_minus_published"]) == pytest.approx(0.00492)
    rows_of_json = json.loads(to_json(leaderboards_data({"ndcg@10": leaderboard}, published)))["ndcg@10"]["published"]
    assert {each["retriever"]: each["values"] for each in rows_of_json}["all-MiniLM-L6-v2"] == {"scifact": 0.64508}
    table = writers.latex(tables(leaderboard, published))
    assert "Published, not measured here; in brackets: ours minus the published score." in table
    assert r"all-MiniLM-L6-v2 & 0.6451 (+0.0049) & minilm \\" in table
    assert "MTEB results, sentence-transformers/all-MiniLM-L6-v2" in table
    page = html.render({"ndcg@10": leaderboard}, {}, lambda record, kind: None, published)
    assert "Published, not measured here" in page
    assert '<span class="figure">0.6451</span><small>+0.0049</small>' in page
    assert "Published" not in html.render({"ndcg@10": leaderboard}, {}, lambda record, kind: None)


def test_another_metric_is_refused():
    with pytest.raises(ConfigError, match=r"published scores are ndcg@10, this leaderboard is map@100: harness"):
        published_rows(build([make_record("minilm", "scifact", 0.5)], "map@100"))
