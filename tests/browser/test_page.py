"""Tests of the leaderboard page as a whole in a browser: size, requests, escaping, accessibility, themes, methods."""

import re
from functools import partial

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from support.pages import HOSTILE, METRICS, REMARK, ROWS, leaderboards_of, make_leaderboard_data, render

from harness.leaderboard import build
from harness.leaderboard.page import html

pytestmark = pytest.mark.browser


def test_without_javascript_table_and_notes_are_complete(page):
    page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.open()
    assert len(page.labels()) == len(ROWS)
    assert "0." in page.cell("bm25", "alpha").text
    assert "needs JavaScript" in page.find("main").text or "need JavaScript" in page.find("main").text
    assert not page.find("#controls").is_displayed()
    assert not any(button.is_displayed() for button in page.find_all("button"))
    assert "Gaffke" in page.find("#methods").text


def test_the_focused_element_has_an_outline(page):
    page.press(Keys.TAB)
    for _ in range(12):
        style = page.js("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
        assert style[0] != "none"
        assert style[1] == "2px"
        page.press(Keys.TAB)


def test_the_table_is_labelled_for_screen_readers(page):
    assert page.find("#leaderboard caption").text
    assert {heading.get_attribute("scope") for heading in page.find_all("#leaderboard thead th")} == {"col"}
    assert {heading.get_attribute("scope") for heading in page.find_all("#leaderboard tbody th")} == {"row"}
    assert page.find("#status").get_attribute("role") == "status"
    best = page.find("#leaderboard td.best")
    assert best.find_element(By.CSS_SELECTOR, ".visually-hidden").get_attribute("textContent").strip() == "best"
    assert best.text.splitlines()[0].split()[0].endswith("*")
    figure = best.find_element(By.CLASS_NAME, "figure")
    assert page.js("return getComputedStyle(arguments[0]).fontWeight", figure) == "700"
    gap = page.cell("splade_tiny", "gamma")
    assert gap.find_element(By.CLASS_NAME, "visually-hidden").get_attribute("textContent").strip() == "not measured"
    assert page.cell(HOSTILE, "gamma").text == "failed"
    unlabelled = """
        return [...document.querySelectorAll('button, select, input')]
          .filter((control) => !(control.labels?.length || control.textContent.trim()));
    """
    assert page.js(unlabelled) == []


def test_markup_in_a_name_is_shown_as_text(page):
    page.open(a=HOSTILE, b="bm25", base=HOSTILE, row=HOSTILE, col="alpha", q="<img")
    assert page.labels() == [HOSTILE]
    assert page.find("#evaluation-title").text == f"{HOSTILE} on alpha"
    for summary in page.find_all("#evaluation summary"):
        summary.click()
    assert HOSTILE in page.find("#evaluation details").text
    page.press(Keys.ESCAPE)
    for css in ("#base", "#a", "#b"):
        assert HOSTILE in [option.text for option in Select(page.find(css)).options]
    assert HOSTILE in page.find("#compared").text
    ActionChains(page.browser).move_to_element(page.find("#picture .target")).perform()
    assert page.find("#tip strong").text == HOSTILE
    assert page.find_all("img") == []


def test_markup_in_a_name_does_not_end_the_embedded_data(results):
    text = render(results)
    assert HOSTILE not in text
    assert "<img" not in text
    assert text.count("</script>") == 2


@pytest.mark.parametrize("width", [320, 400, 1400])
def test_the_body_is_no_wider_than_the_window(page, width):
    page.resize(width)
    for state in ({}, {"row": "bm25", "col": "alpha", "base": "minilm", "a": "bm25", "b": HOSTILE}):
        page.open(**state)
        assert page.js("return document.documentElement.scrollWidth") <= width
        assert page.js("return document.getElementById('evaluation').scrollWidth") <= width
    first = "return document.querySelector('#leaderboard tbody th').getBoundingClientRect().left"
    page.open()
    before = page.js(first)
    page.js("document.querySelector('.scroll').scrollLeft = 200")
    assert page.js(first) == before


TEXTS_OF_LOW_CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const background = (o) => { for (; o; o = o.parentElement) { const c = parse(getComputedStyle(o).backgroundColor);
  if (c.length < 4 || c[3] > 0.99) return c; } return [255, 255, 255]; };
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
while (walk.nextNode()) { const o = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !o.checkVisibility() || o.closest('svg, script')) continue;
  const [a, b] = [luminance(parse(getComputedStyle(o).color)), luminance(background(o))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) low.push([o.className, walk.currentNode.data]); }
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_themes(page, scheme):
    page.scheme(scheme)
    for state in ({"a": "bm25", "b": "hybrid"}, {"base": "minilm", "row": "bm25", "col": "alpha"}):
        page.open(**state)
        assert page.js(TEXTS_OF_LOW_CONTRAST) == []
    lightness = page.js("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(lightness) < 150) == (scheme == "dark")


def test_the_theme_can_be_switched(page):
    background = "return getComputedStyle(document.body).backgroundColor"
    page.scheme("light")
    before = page.js(background)
    page.find("#theme").click()
    assert page.js(background) != before
    page.find("#theme").click()
    assert page.js(background) == before
    page.js("localStorage.clear()")


def test_the_methods_describe_the_records(page, results):
    text = page.find("#methods").text
    leaderboards, _ = leaderboards_of(results)
    for expected in (
        "ndcg@10, recall@100; version 1",
        "up to 100 documents per query",
        "alpha, beta.",
        "10,000 draws",
        "max-T",
        f"(ndcg@10: {leaderboards['ndcg@10'].family}; recall@100: {leaderboards['recall@100'].family})",
        f"{REMARK}: colbert_minilm.",
        "e1e1e1e1: ",
        f"gamma {leaderboards['ndcg@10'].detectable['gamma']:.4f} {leaderboards['recall@100'].detectable['gamma']:.4f}",
    ):
        assert expected in text


ALL_METRICS = ("ndcg@10", "map@100", "recall@100", "mrr@10", "precision@10", "hit@10", "judged@10")


@pytest.mark.slow
def test_a_page_of_ten_retrievers_and_fifteen_datasets_is_below_500_kb(constant_statistics, tmp_path, page):
    records, scores, tables = make_leaderboard_data(10, 15, ALL_METRICS)
    text = html.render({metric: build(records, metric, scores) for metric in ALL_METRICS}, scores, tables)
    assert len(text.encode()) < 500_000
    path = tmp_path / "leaderboard.html"
    path.write_text(text, encoding="utf-8")
    page.open(path, row="retriever_3", col="dataset4", base="retriever_0")
    assert len(page.find_all("#evaluation summary")) >= 2


def test_a_large_page_has_one_baseline_and_queries_of_the_first_rows_only(constant_statistics, tmp_path, page):
    records, scores, tables = make_leaderboard_data(25, 2, ("ndcg@10",), 60)
    leaderboard = build(records, "ndcg@10", scores, "retriever_7")
    path = tmp_path / "leaderboard.html"
    path.write_text(html.render({"ndcg@10": leaderboard}, scores, tables), encoding="utf-8")
    page.open(path)
    assert [option.text for option in Select(page.find("#base")).options] == ["none", "retriever_7"]
    versus = next(row for row in leaderboard.rows if row.label == "retriever_3").evaluations["dataset1"].versus
    assert f"{versus.delta:+.4f}".replace("-", "\N{MINUS SIGN}") in page.cell("retriever_3", "dataset1").text
    page.open(path, row=leaderboard.rows[-1].label, col="dataset1")
    assert "This page has no single queries of this evaluation" in page.find("#evaluation").text


def test_the_same_records_give_the_same_bytes(results):
    leaderboards, scores = leaderboards_of(results)
    of_reversed_records = {metric: build(results.latest()[::-1], metric, scores) for metric in METRICS}
    render_page = partial(html.render, scores=scores, tables=results.table)
    assert render_page(leaderboards) == render_page(of_reversed_records)


def test_the_content_security_policy_allows_only_the_inline_script(page_file):
    text = page_file.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)=["']""", text)
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", text)
