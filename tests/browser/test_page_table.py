"""Tests of the page's table in a browser: sorting, filters, metrics, baselines, comparison, slices, address."""

import re

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from support.pages import METRICS, ROWS, Page, leaderboards_of, render

from harness import stats
from harness.leaderboard.slices import compute_slices

pytestmark = pytest.mark.browser


def test_clicking_a_heading_sorts_the_table(page):
    assert page.labels()[0] == "hybrid"
    assert page.find("#leaderboard thead [aria-sort]").get_attribute("data-key") == "@mean"
    page.sort("alpha")
    assert page.find("#leaderboard thead [aria-sort]").get_attribute("data-key") == "alpha"
    assert page.find("#leaderboard thead [aria-sort]").get_attribute("aria-sort") == "descending"
    values = [float(cell.text[:6]) for cell in page.column("alpha")]
    assert values == sorted(values, reverse=True)
    page.sort("alpha")
    assert [float(cell.text[:6]) for cell in page.column("alpha")] == values[::-1]
    assert page.find("#status").text == "7 of 7 retrievers, ndcg@10, sorted by alpha, ascending"
    page.sort("@label")
    assert page.labels() == sorted(page.labels())


def test_gaps_are_last_in_either_sort_order(page):
    for _ in range(2):
        page.sort("gamma")
        assert {cell.text.split()[0] for cell in page.column("gamma")[-2:]} == {"\N{EN DASH}", "failed"}


def test_search_and_family_filter_the_rows(page):
    page.find("#q").send_keys("MINILM")
    assert sorted(page.labels()) == ["colbert_minilm", "minilm", "minilm [dtype=int8]"]
    page.choose("#family", "dense")
    assert sorted(page.labels()) == ["minilm", "minilm [dtype=int8]"]
    assert page.find("#status").text.startswith("2 of 7 retrievers")
    assert len(page.find_all("#picture .target")) == 2
    page.find("#q").send_keys("nothing")
    assert page.labels() == []
    assert page.find("#status").text.startswith("No retriever matches")


def test_choosing_a_metric_shows_its_figures_and_marks(page, results):
    page.choose("#metric", "recall@100")
    leaderboards, _ = leaderboards_of(results)
    assert page.find("caption").text == "recall@100 and costs of each retriever"
    shown = page.table()
    for row in leaderboards["recall@100"].rows:
        for name, evaluation in row.evaluations.items():
            mark = "*" if evaluation.best else "=" if evaluation.tied_with_best else ""
            assert shown[row.label][name].startswith(f"{evaluation.value:.4f}{mark}")


@pytest.mark.parametrize("baseline", [None, "minilm"])
def test_the_static_table_equals_the_one_drawn_by_the_script(chromium, results, tmp_path, baseline):
    path = tmp_path / "page.html"
    path.write_text(render(results, baseline), encoding="utf-8")
    page = Page(chromium, path)
    page.open()
    texts = [row.text.split() for row in page.find_all("#leaderboard tbody tr")]
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open()
        assert [row.text.split() for row in page.find_all("#leaderboard tbody tr")] == texts
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("metric", METRICS)
def test_differences_to_the_baseline_equal_those_of_the_leaderboard(page, results, metric):
    page.open(metric=metric, base="minilm")
    leaderboards, _ = leaderboards_of(results, "minilm")
    checked, smalls = 0, page.table("small")
    for row in leaderboards[metric].rows:
        for name, evaluation in [*row.evaluations.items(), ("@mean", row.overall)]:
            shown = smalls[row.label][name].replace("\N{MINUS SIGN}", "-")
            if evaluation.versus is None:
                assert shown == "baseline"
                continue
            mark = "" if evaluation.versus.p >= stats.ALPHA else "▲" if evaluation.versus.delta > 0 else "▼"
            assert shown.startswith(f"{evaluation.versus.delta:+.4f}{mark}"), (row.label, name)
            checked += 1
    assert checked == 22


def test_the_static_table_shows_differences_to_the_baseline(results):
    text = render(results, "minilm")
    assert re.search(r"<small>[+\u2212]0\.\d{4}<", text)
    assert "difference to minilm" in text


def test_the_keyboard_sorts_the_table_and_opens_and_closes_an_evaluation(page):
    def tab_to(is_target):
        for _ in range(80):
            page.press(Keys.TAB)
            if is_target(page.focused()):
                return page.focused()
        raise AssertionError("no tab leads there")

    tab_to(lambda element: element.text.startswith("beta")).send_keys(Keys.ENTER)
    assert page.find("#leaderboard thead [aria-sort]").get_attribute("data-key") == "beta"
    button = tab_to(lambda element: element.get_attribute("class") == "open")
    button.send_keys(Keys.ENTER)
    assert page.find("#evaluation").get_attribute("open") is not None
    assert page.js("return document.getElementById('evaluation').contains(document.activeElement)")
    page.press(Keys.ESCAPE)
    assert page.find("#evaluation").get_attribute("open") is None
    assert page.focused() == button
    point = tab_to(lambda element: element.get_attribute("class") == "target")
    assert page.find("#tip").is_displayed()
    assert page.find("#tip strong").text in point.get_attribute("aria-label")
    page.press(Keys.ESCAPE)
    assert not page.find("#tip").is_displayed()


def test_the_address_restores_the_state_of_the_page(page):
    page.choose("#metric", "recall@100")
    page.choose("#base", "minilm")
    page.choose("#axis", "p95 ms")
    page.choose("#family", "dense")
    page.sort("beta")
    page.find("#q").send_keys("minilm")
    page.cell("minilm", "alpha").find_element(By.TAG_NAME, "button").click()
    address, text = page.browser.current_url, page.find("#leaderboard").text
    page.browser.get("about:blank")
    page.browser.get(address)
    assert page.find("#leaderboard").text == text
    assert page.find("#evaluation-title").text == "minilm on alpha"
    shown = [Select(page.find(css)).first_selected_option.text for css in ("#metric", "#base", "#axis", "#family")]
    assert shown == ["recall@100", "minilm", "p95 ms", "dense"]
    assert page.find("#q").get_attribute("value") == "minilm"


def test_back_undoes_a_step_and_an_invalid_address_is_ignored(page):
    page.choose("#metric", "recall@100")
    page.cell("minilm", "alpha").find_element(By.TAG_NAME, "button").click()
    page.browser.back()
    assert page.find("#evaluation").get_attribute("open") is None
    assert page.find("caption").text.startswith("recall@100")
    page.browser.back()
    assert page.find("caption").text.startswith("ndcg@10")
    page.open(metric="no", base="no", sort="up.no", row="no", col="no", axis="no", a="no", slice="no")
    assert page.find("caption").text.startswith("ndcg@10")
    assert len(page.labels()) == len(ROWS)


def test_two_rows_are_compared_by_scores_and_config(page):
    page.choose("#a", "minilm [dtype=int8]")
    page.choose("#b", "minilm")
    scores, config = page.find_all("#compared table")
    labels = [row.text.split()[0] for row in scores.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert labels == ["mean", "alpha", "beta", "gamma"]
    assert re.search(r"\d+ / \d+ / \d+ p = [01]\.\d{4}", scores.text)
    assert [row.text for row in config.find_elements(By.CSS_SELECTOR, "tbody tr")] == ["dtype int8 \N{EN DASH}"]


def test_the_page_compares_with_the_sign_and_p_of_the_leaderboard(page, results):
    leaderboards, _ = leaderboards_of(results)
    page.choose("#a", "bm25")
    page.choose("#b", "hybrid")
    scores, config = page.find_all("#compared table")
    rows = [row.text for row in scores.find_elements(By.CSS_SELECTOR, "tbody tr")]
    for text, dataset in zip(rows, ["", "alpha", "beta", "gamma"], strict=True):
        difference = leaderboards["ndcg@10"].difference("bm25", "hybrid", dataset)
        assert f"{difference.delta:+.4f}".replace("-", "\N{MINUS SIGN}") in text
        assert f"{difference.won} / {difference.tied} / {difference.lost}" in text
        assert ("p < 0.0001" if difference.p < 0.00005 else f"p = {difference.p:.4f}") in text
    keys = [row.text.split()[0] for row in config.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert keys == ["_target_"], "the keys of two classes are not compared"


def test_slices_equal_those_of_the_leaderboard(page, results):
    leaderboards, scores = leaderboards_of(results)
    page.choose("#slice", "beta")
    expected = [
        by_property
        for by_property in compute_slices(leaderboards["ndcg@10"], scores, results.table)
        if by_property.dataset == "beta"
    ]
    tables = page.find_all("#sliced table")
    captions = [table.find_element(By.TAG_NAME, "caption").text for table in tables]
    assert captions == [f"ndcg@10 by {by_property.by}" for by_property in expected]
    assert f"{expected[0].bins[0].means['bm25']:.4f}" in tables[0].text
