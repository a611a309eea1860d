"""Tests of the page's view of one evaluation in a browser: its queries, parts, commands and means."""

import re

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from support.pages import (
    ROWS,
    leaderboards_of,
    make_scores,
    no_table,
    page_record,
    queries_table,
    rankings_table,
    render,
)

from harness.leaderboard import build
from harness.leaderboard.page import html
from harness.store import Store
from harness.types import PerQuery

pytestmark = pytest.mark.browser


def test_clicking_a_score_opens_its_queries(page, results):
    page.choose("#base", "bm25")
    page.cell("hybrid", "beta").find_element(By.TAG_NAME, "button").click()
    dialog = page.find("#evaluation")
    leaderboards, _ = leaderboards_of(results, "bm25")
    evaluation = next(row for row in leaderboards["ndcg@10"].rows if row.label == "hybrid").evaluations["beta"]
    assert page.find("#evaluation-title").text == "hybrid on beta"
    assert f"{evaluation.versus.won} won, {evaluation.versus.tied} tied, {evaluation.versus.lost} lost" in dialog.text
    assert "harness 'retriever=hybrid' dataset=beta" in dialog.text
    queries = page.find_all("#evaluation details")
    assert 4 <= len(queries) <= 6
    assert "heat" in dialog.text
    queries[0].find_element(By.TAG_NAME, "summary").click()
    rows = queries[0].find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(rows) == len(ROWS)
    assert rows[0].text.startswith("hybrid ")
    assert re.fullmatch(r"hybrid [01]\.\d{4} (2|0|not judged) d\d+ [a-z ]+", rows[0].text)


def test_the_queries_shown_are_those_furthest_from_the_mean_of_the_other_rows(page, results):
    page.open(row="bm25", col="alpha")
    leaderboards, scores = leaderboards_of(results)
    by_row = {}
    for row in leaderboards["ndcg@10"].rows:
        path = row.evaluations["alpha"].records[0].files.per_query
        by_row[row.label] = scores[path].values["ndcg@10"]
    values = by_row.pop("bm25")
    mean_of_others = np.mean(list(by_row.values()), axis=0)
    order = np.argsort(values - mean_of_others, kind="stable")
    summaries = [summary.text.splitlines()[-1] for summary in page.find_all("#evaluation summary")]
    expected = [*order[:3], *order[::-1][:3]]
    assert [text.split()[0] for text in summaries] == [f"{values[position]:.4f}" for position in expected]


def test_without_stored_queries_the_page_shows_their_ids(page, results, tmp_path):
    path = tmp_path / "leaderboard.html"
    path.write_text(render(results, tables=False), encoding="utf-8")
    page.open(path, row="bm25", col="alpha")
    assert "query alpha-" in page.find("#evaluation").text
    page.find("#evaluation summary").click()
    assert "not stored" in page.find("#evaluation details").text
    assert not page.find("#slices").is_displayed()


def test_a_page_of_one_evaluation_works(page, tmp_path):
    ids = ["a", "b", "c"]
    values = {"ndcg@10": np.array([0.0, 0.5, 1.0])}
    store = Store(tmp_path / "results")
    store.append(page_record("bm25", {}, "bm25", "alpha", 0.1, values, 0), {}, per_query=PerQuery(ids, values))
    records = store.latest()
    path = tmp_path / "leaderboard.html"
    scores = store.scores(records)
    path.write_text(html.render({"ndcg@10": build(records, "ndcg@10", scores)}, scores, no_table), encoding="utf-8")
    page.open(path, row="bm25", col="alpha")
    assert page.find_all("#evaluation summary")[0].text.startswith("query a")


def test_a_group_of_datasets_shows_queries_and_commands_of_all_parts(page, tmp_path):
    store, generator = Store(tmp_path / "results"), np.random.default_rng(0)
    for part in ("one", "two"):
        ids = [f"{part}-{number}" for number in range(20)]
        for row, (name, _, family, quality, seconds) in enumerate(ROWS[:2]):
            values = make_scores(generator, generator.uniform(-0.4, 0.4, len(ids)), quality)
            record = page_record(name, {}, family, f"forums/{part}", seconds, values, row)
            info = record.dataset.model_copy(update={"group": "forums", "parts": 2})
            record = record.model_copy(update={"dataset": info, "id": f"{row}{part:a>8}"[:8]})
            tables = {"rankings": rankings_table(ids, row), "queries": queries_table(ids)}
            store.append(record, {}, None, PerQuery(ids, values), tables)
    path = tmp_path / "leaderboard.html"
    path.write_text(render(store, "bm25"), encoding="utf-8")
    page.open(path, row="minilm", col="forums")
    leaderboard = leaderboards_of(store, "bm25")[0]["ndcg@10"]
    versus = next(row for row in leaderboard.rows if row.label == "minilm").evaluations["forums"].versus
    text = page.find("#evaluation").text
    assert "2 parts, 80 queries, 2,000 documents" in text
    assert f"{versus.won} won, {versus.tied} tied, {versus.lost} lost" in text
    assert "dataset=forums/one\nharness" in text
    for details in page.find_all("#evaluation details"):
        details.find_element(By.TAG_NAME, "summary").click()
    captions = page.find_all("#evaluation details caption")
    assert {caption.text.split("-")[0] for caption in captions} == {"Query one", "Query two"}


def test_a_mean_opens_with_its_datasets(page):
    page.open(row="bm25", col="@mean", base="minilm")
    text = page.find("#evaluation").text
    assert "The mean over alpha, beta." in text
    assert re.search(r"\d+ won, \d+ tied, \d+ lost", text)


def test_a_page_without_per_query_scores_works(page, results, tmp_path):
    path = tmp_path / "leaderboard.html"
    path.write_text(html.render({"ndcg@10": build(results.latest())}, {}, no_table), encoding="utf-8")
    page.open(path, base="bm25", row="hybrid", col="alpha", a="bm25", b="hybrid")
    assert "cannot be paired" in page.find("#evaluation").text
    assert "None: per-query scores are not stored" in page.find("#methods").get_attribute("textContent")
