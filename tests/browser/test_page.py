"""The leaderboard page in a real browser: what it shows, how it is worked, and that nothing leaves it."""

import json
import os
import re
import shutil
from functools import partial
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from support.records import make_record, make_timing

from harness import stats
from harness.leaderboard import build
from harness.leaderboard.page import html
from harness.store import Store
from harness.types import EncoderInfo, PerQuery, RecordFiles, RetrieverInfo

HOSTILE = "<img src=x onerror=alert(1)>"
REMARK = "Its weights were not trained for late interaction"
# name, differences, family, quality, seconds
ROWS = [
    ("bm25", {}, "bm25", 0.50, 0.02),
    ("minilm", {}, "dense", 0.55, 0.2),
    ("minilm", {"dtype": "int8"}, "dense", 0.54, 0.15),
    ("splade_tiny", {}, "splade", 0.45, 0.4),
    ("colbert_minilm", {}, "colbert", 0.58, 0.9),
    ("hybrid", {}, "hybrid", 0.62, 0.3),
    (HOSTILE, {}, "dense", 0.30, 0.21),
]
METRICS = ("ndcg@10", "recall@100")
WORDS = [
    "how",
    "does",
    "the",
    "flow",
    "of",
    "heat",
    "over",
    "a",
    "thin",
    "plate",
    "change",
    "with",
    "pressure",
    "and",
    "speed",
    "near",
    "its",
    "edge",
    "at",
]


def sentence(number, words):
    return " ".join(WORDS[(number * 7 + place * (1 + number % 5)) % len(WORDS)] for place in range(words))


def record(name, differences, family, dataset, seconds, values, started, environment="e1" * 8, **changed):
    timing = make_timing(
        seconds, latencies_s=[seconds / 20, seconds / 10], documents=1000, queries=40, index_bytes=int(seconds * 9e6)
    )
    config = {"_target_": f"harness.retrievers.{family}.Retriever", "name": name, "encoder": {"dtype": "float32"}}
    return make_record(
        RetrieverInfo(name=name, differences=differences, config=config | differences),
        dataset,
        minutes=started / 60,
        id=f"{abs(hash_of(name, differences, dataset)):016x}",
        fingerprint="f" * 16,
        documents=1000,
        queries=40,
        metrics={metric: float(own.mean()) for metric, own in values.items()},
        timing=timing,
        encoders={"": EncoderInfo(remark=REMARK)} if family == "colbert" else {},
        environment=environment,
        command=f"harness 'retriever={name}' dataset={dataset}",
    ).model_copy(update=changed)


def hash_of(*parts):
    return int.from_bytes(repr(parts).encode()[-7:], "big")


def scores_of(generator, difficulty, quality):
    noise = generator.normal(0, 0.2, len(difficulty))
    return {metric: np.clip(difficulty + quality + noise + 0.1 * n, 0, 1) for n, metric in enumerate(METRICS)}


def asked_of(ids, words=8):
    return pa.table(
        {
            "query_id": ids,
            "text": [sentence(number, words) for number in range(len(ids))],
            "words": pa.array([words + number % 4 for number in range(len(ids))], pa.int32()),
            "relevant": pa.array([1 + number % 3 for number in range(len(ids))], pa.int32()),
            "overlap": [number % 10 / 10 for number in range(len(ids))],
        }
    )


def ranked_of(ids, shift, words=12):
    docs = [
        [f"d{number * 3 + (place + shift * (number % 2)) % 10}" for place in range(10)] for number in range(len(ids))
    ]
    grades = [[[2, 0, None][(number + place + shift) % 3] for place in range(10)] for number in range(len(ids))]
    firsts = [sentence(int(own[0][1:]), words)[:100] for own in docs]
    return pa.table(
        {
            "query_id": ids,
            "docs": pa.array(docs, pa.list_(pa.string())),
            "grades": pa.array(grades, pa.list_(pa.int32())),
            "first": firsts,
        }
    )


def measure(root, environments=("e1" * 8,)):
    """A store of seven retrievers on three collections, with one gap and one failure on the third."""
    store, generator = Store(root), np.random.default_rng(0)
    for column, dataset in enumerate(("alpha", "beta", "gamma")):
        ids = [f"{dataset}-{number}" for number in range(40)]
        difficulty = generator.uniform(-0.4, 0.4, len(ids))
        for row, (name, differences, family, quality, seconds) in enumerate(ROWS):
            values = scores_of(generator, difficulty, quality)
            environment = environments[row % len(environments)]
            made = record(name, differences, family, dataset, seconds, values, row + 10 * column, environment)
            if dataset == "gamma" and name == "splade_tiny":
                continue
            if dataset == "gamma" and name == HOSTILE:
                store.append(
                    made.model_copy(update={"status": "failed", "error": "no", "metrics": {}, "timing": None}), {}
                )
                continue
            store.append(
                made, {}, None, PerQuery(ids, values), {"rankings": ranked_of(ids, row), "queries": asked_of(ids)}
            )
    return store


def boards_of(store, baseline=None):
    records = store.latest()
    scores = store.scores(records)
    return {metric: build(records, metric, scores, baseline) for metric in METRICS}, scores


def nothing(record, kind):
    """The tables of a store that keeps none."""


def page_of(store, baseline=None, tables=True):
    boards, scores = boards_of(store, baseline)
    return html.render(boards, scores, store.table if tables else nothing)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    return measure(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def written(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(page_of(results), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        said = "chromium and chromedriver are not installed: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        "window-size=1400,1000",
    ]:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


class Page:
    """The page in the browser, in the words of these tests."""

    def __init__(self, browser, path):
        self.browser, self.path = browser, path

    def open(self, path=None, **state):
        self.browser.get("about:blank")
        given = f"#{urlencode(state)}" if state else ""
        self.browser.get((path or self.path).as_uri() + given)
        return self

    def all(self, css):
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def labels(self):
        return [own.text for own in self.all("#leaderboard tbody th")]

    def column(self, name):
        place = [own.get_attribute("data-key") for own in self.all("#leaderboard thead th")].index(name)
        return self.all(f"#leaderboard tbody tr > :nth-child({place + 1})")

    def cell(self, label, name):
        return self.column(name)[self.labels().index(label)]

    def table(self, css=""):
        """By label and key the text of every cell, or of what `css` finds in it."""
        return self.js(
            """
            const keys = [...document.querySelectorAll('#leaderboard thead th')].map((th) => th.dataset.key);
            const text = (td) => (arguments[0] ? td.querySelector(arguments[0]) : td)?.innerText ?? '';
            return Object.fromEntries([...document.querySelectorAll('#leaderboard tbody tr')].map((tr) =>
              [tr.cells[0].innerText, Object.fromEntries([...tr.cells].map((td, place) => [keys[place], text(td)]))]));
            """,
            css,
        )

    def choose(self, css, text):
        Select(self.one(css)).select_by_visible_text(text)

    def sort(self, name):
        self.one(f'#leaderboard th[data-key="{name}"] button').click()

    def js(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def press(self, *keys):
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def focused(self):
        return self.browser.switch_to.active_element

    def resize(self, width, height=1000):
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def scheme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture
def page(chromium, written):
    """The opened page; afterwards its console must be empty and every request must have stayed in the file."""
    own = Page(chromium, written)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    yield own.open()
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    browsers_own = ("about:", "chrome:", "chrome-untrusted:")  # a new tab's, where the browser is slow to start
    assert [url for url in asked if not url.startswith(("file:", "data:", *browsers_own))] == []
    assert any(url.startswith("file:") for url in asked)
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


ALL = 7


def test_the_table_is_sorted_by_its_headers_and_says_so(page):
    assert page.labels()[0] == "hybrid"
    assert page.one("#leaderboard thead [aria-sort]").get_attribute("data-key") == "@mean"
    page.sort("alpha")
    assert page.one("#leaderboard thead [aria-sort]").get_attribute("data-key") == "alpha"
    assert page.one("#leaderboard thead [aria-sort]").get_attribute("aria-sort") == "descending"
    values = [float(own.text[:6]) for own in page.column("alpha")]
    assert values == sorted(values, reverse=True)
    page.sort("alpha")
    assert [float(own.text[:6]) for own in page.column("alpha")] == values[::-1]
    assert page.one("#status").text == "7 of 7 retrievers, ndcg@10, sorted by alpha, ascending"
    page.sort("@label")
    assert page.labels() == sorted(page.labels())


def test_gaps_are_last_in_either_direction(page):
    for _ in range(2):
        page.sort("gamma")
        assert {own.text.split()[0] for own in page.column("gamma")[-2:]} == {"\N{EN DASH}", "failed"}


def test_search_and_family_narrow_the_rows(page):
    page.one("#q").send_keys("MINILM")
    assert sorted(page.labels()) == ["colbert_minilm", "minilm", "minilm [dtype=int8]"]
    page.choose("#family", "dense")
    assert sorted(page.labels()) == ["minilm", "minilm [dtype=int8]"]
    assert page.one("#status").text.startswith("2 of 7 retrievers")
    assert len(page.all("#picture .target")) == 2
    page.one("#q").send_keys("nothing")
    assert page.labels() == []
    assert page.one("#status").text.startswith("No retriever matches")


def test_another_metric_has_its_own_figures_and_marks(page, results):
    page.choose("#metric", "recall@100")
    boards, _ = boards_of(results)
    assert page.one("caption").text == "recall@100 and costs of each retriever"
    shown = page.table()
    for row in boards["recall@100"].rows:
        for name, cell in row.evaluations.items():
            mark = "*" if cell.best else "=" if cell.tied_with_best else ""
            assert shown[row.label][name].startswith(f"{cell.value:.4f}{mark}")


@pytest.mark.parametrize("baseline", [None, "minilm"])
def test_the_first_table_and_the_scripts_say_the_same(chromium, results, tmp_path, baseline):
    path = tmp_path / "page.html"
    path.write_text(page_of(results, baseline), encoding="utf-8")
    page = Page(chromium, path)
    page.open()
    texts = [own.text.split() for own in page.all("#leaderboard tbody tr")]
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open()
        assert [own.text.split() for own in page.all("#leaderboard tbody tr")] == texts
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_without_a_script_the_table_and_the_notes_are_whole(page):
    page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.open()
    assert len(page.labels()) == ALL
    assert "0." in page.cell("bm25", "alpha").text
    assert "needs JavaScript" in page.one("main").text or "need JavaScript" in page.one("main").text
    assert not page.one("#controls").is_displayed()
    assert not any(own.is_displayed() for own in page.all("button"))
    assert "bootstrap" in page.one("#methods").text


@pytest.mark.parametrize("metric", METRICS)
def test_every_difference_to_a_baseline_is_the_boards_own(page, results, metric):
    page.open(metric=metric, base="minilm")
    boards, _ = boards_of(results, "minilm")
    checked, smalls = 0, page.table("small")
    for row in boards[metric].rows:
        for name, cell in [*row.evaluations.items(), ("@mean", row.overall)]:
            shown = smalls[row.label][name].replace("\N{MINUS SIGN}", "-")
            if cell.versus is None:
                assert shown == "baseline"
                continue
            mark = "" if cell.versus.p >= stats.ALPHA else "▲" if cell.versus.delta > 0 else "▼"
            assert shown.startswith(f"{cell.versus.delta:+.4f}{mark}"), (row.label, name)
            checked += 1
    assert checked == 22


def test_a_chosen_baseline_stands_in_the_first_table_too(results):
    text = page_of(results, "minilm")
    assert re.search(r"<small>[+\u2212]0\.\d{4}<", text)
    assert "difference to minilm" in text


def test_a_cell_opens_its_queries(page, results):
    page.choose("#base", "bm25")
    page.cell("hybrid", "beta").find_element(By.TAG_NAME, "button").click()
    dialog = page.one("#evaluation")
    boards, _ = boards_of(results, "bm25")
    cell = next(row for row in boards["ndcg@10"].rows if row.label == "hybrid").evaluations["beta"]
    assert page.one("#evaluation-title").text == "hybrid on beta"
    assert f"{cell.versus.won} won, {cell.versus.tied} tied, {cell.versus.lost} lost" in dialog.text
    assert "harness 'retriever=hybrid' dataset=beta" in dialog.text
    queries = page.all("#evaluation details")
    assert 4 <= len(queries) <= 6
    assert "heat" in dialog.text
    queries[0].find_element(By.TAG_NAME, "summary").click()
    rows = queries[0].find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(rows) == ALL
    assert rows[0].text.startswith("hybrid ")
    assert re.fullmatch(r"hybrid [01]\.\d{4} (2|0|not judged) d\d+ [a-z ]+", rows[0].text)


def test_the_worst_and_best_queries_are_those_furthest_from_the_other_rows(page, results):
    page.open(row="bm25", col="alpha")
    boards, scores = boards_of(results)
    rows = {row.label: scores[row.evaluations["alpha"].records[0].files.per_query] for row in boards["ndcg@10"].rows}
    own = rows["bm25"].values["ndcg@10"]
    others = np.mean([held.values["ndcg@10"] for label, held in rows.items() if label != "bm25"], axis=0)
    order = np.argsort(own - others, kind="stable")
    told = [one.text.splitlines()[-1] for one in page.all("#evaluation summary")]
    expected = [*order[:3], *order[::-1][:3]]
    assert [text.split()[0] for text in told] == [f"{own[place]:.4f}" for place in expected]


def test_without_tables_the_page_has_ids_and_says_so(page, results, tmp_path):
    path = tmp_path / "board.html"
    path.write_text(page_of(results, tables=False), encoding="utf-8")
    page.open(path, row="bm25", col="alpha")
    assert "query alpha-" in page.one("#evaluation").text
    page.one("#evaluation summary").click()
    assert "not stored" in page.one("#evaluation details").text
    assert not page.one("#slices").is_displayed()


def test_the_keyboard_alone_sorts_opens_and_closes(page):
    def tab_to(found):
        for _ in range(80):
            page.press(Keys.TAB)
            if found(page.focused()):
                return page.focused()
        raise AssertionError("no tab leads there")

    tab_to(lambda own: own.text.startswith("beta")).send_keys(Keys.ENTER)
    assert page.one("#leaderboard thead [aria-sort]").get_attribute("data-key") == "beta"
    button = tab_to(lambda own: own.get_attribute("class") == "open")
    button.send_keys(Keys.ENTER)
    assert page.one("#evaluation").get_attribute("open") is not None
    assert page.js("return document.getElementById('evaluation').contains(document.activeElement)")
    page.press(Keys.ESCAPE)
    assert page.one("#evaluation").get_attribute("open") is None
    assert page.focused() == button
    point = tab_to(lambda own: own.get_attribute("class") == "target")
    assert page.one("#tip").is_displayed()
    assert page.one("#tip strong").text in point.get_attribute("aria-label")
    page.press(Keys.ESCAPE)
    assert not page.one("#tip").is_displayed()


def test_focus_is_seen(page):
    page.press(Keys.TAB)
    for _ in range(12):
        style = page.js("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
        assert style[0] != "none"
        assert style[1] == "2px"
        page.press(Keys.TAB)


def test_the_table_tells_a_screen_reader_what_it_shows(page):
    assert page.one("#leaderboard caption").text
    assert {own.get_attribute("scope") for own in page.all("#leaderboard thead th")} == {"col"}
    assert {own.get_attribute("scope") for own in page.all("#leaderboard tbody th")} == {"row"}
    assert page.one("#status").get_attribute("role") == "status"
    best = page.one("#leaderboard td.best")
    assert best.find_element(By.CSS_SELECTOR, ".visually-hidden").get_attribute("textContent").strip() == "best"
    assert best.text.splitlines()[0].split()[0].endswith("*")
    assert (
        page.js("return getComputedStyle(arguments[0]).fontWeight", best.find_element(By.CLASS_NAME, "figure")) == "700"
    )
    gap = page.cell("splade_tiny", "gamma")
    assert gap.find_element(By.CLASS_NAME, "visually-hidden").get_attribute("textContent").strip() == "not measured"
    assert page.cell(HOSTILE, "gamma").text == "failed"
    nameless = """
        return [...document.querySelectorAll('button, select, input')]
          .filter((one) => !(one.labels?.length || one.textContent.trim()));
    """
    assert page.js(nameless) == []


def test_the_address_brings_back_what_was_seen(page):
    page.choose("#metric", "recall@100")
    page.choose("#base", "minilm")
    page.choose("#axis", "p95 ms")
    page.choose("#family", "dense")
    page.sort("beta")
    page.one("#q").send_keys("minilm")
    page.cell("minilm", "alpha").find_element(By.TAG_NAME, "button").click()
    address, text = page.browser.current_url, page.one("#leaderboard").text
    page.browser.get("about:blank")
    page.browser.get(address)
    assert page.one("#leaderboard").text == text
    assert page.one("#evaluation-title").text == "minilm on alpha"
    shown = [Select(page.one(css)).first_selected_option.text for css in ("#metric", "#base", "#axis", "#family")]
    assert shown == ["recall@100", "minilm", "p95 ms", "dense"]
    assert page.one("#q").get_attribute("value") == "minilm"


def test_back_undoes_a_step_and_a_wrong_address_is_harmless(page):
    page.choose("#metric", "recall@100")
    page.cell("minilm", "alpha").find_element(By.TAG_NAME, "button").click()
    page.browser.back()
    assert page.one("#evaluation").get_attribute("open") is None
    assert page.one("caption").text.startswith("recall@100")
    page.browser.back()
    assert page.one("caption").text.startswith("ndcg@10")
    page.open(metric="no", base="no", sort="up.no", row="no", col="no", axis="no", a="no", slice="no")
    assert page.one("caption").text.startswith("ndcg@10")
    assert len(page.labels()) == ALL


def test_a_hostile_name_is_text_everywhere(page):
    page.open(a=HOSTILE, b="bm25", base=HOSTILE, row=HOSTILE, col="alpha", q="<img")
    assert page.labels() == [HOSTILE]
    assert page.one("#evaluation-title").text == f"{HOSTILE} on alpha"
    for summary in page.all("#evaluation summary"):
        summary.click()
    assert HOSTILE in page.one("#evaluation details").text
    page.press(Keys.ESCAPE)
    for css in ("#base", "#a", "#b"):
        assert HOSTILE in [own.text for own in Select(page.one(css)).options]
    assert HOSTILE in page.one("#compared").text
    ActionChains(page.browser).move_to_element(page.one("#picture .target")).perform()
    assert page.one("#tip strong").text == HOSTILE
    assert page.all("img") == []


def test_a_hostile_name_cannot_end_the_data(results):
    text = page_of(results)
    assert HOSTILE not in text
    assert "<img" not in text
    assert text.count("</script>") == 2


def test_two_rows_are_compared_in_scores_and_configuration(page):
    page.choose("#a", "minilm [dtype=int8]")
    page.choose("#b", "minilm")
    scores, config = page.all("#compared table")
    assert [own.text.split()[0] for own in scores.find_elements(By.CSS_SELECTOR, "tbody tr")] == [
        "mean",
        "alpha",
        "beta",
        "gamma",
    ]
    assert re.search(r"\d+ / \d+ / \d+ p = [01]\.\d{4}", scores.text)
    assert [own.text for own in config.find_elements(By.CSS_SELECTOR, "tbody tr")] == ["dtype int8 \N{EN DASH}"]


def test_slices_are_those_of_the_board(page, results):
    from harness.leaderboard.slices import compute_slices

    boards, scores = boards_of(results)
    page.choose("#slice", "beta")
    expected = [own for own in compute_slices(boards["ndcg@10"], scores, results.table) if own.dataset == "beta"]
    tables = page.all("#sliced table")
    assert [own.find_element(By.TAG_NAME, "caption").text for own in tables] == [
        f"ndcg@10 by {own.by}" for own in expected
    ]
    assert f"{expected[0].bins[0].means['bm25']:.4f}" in tables[0].text


@pytest.mark.parametrize("width", [400, 1400])
def test_names_in_the_picture_overlap_no_other_name(page, width):
    page.resize(width)
    for axis in ("queries_per_s", "docs_per_s", "latency_ms", "index_mb"):
        page.open(axis=axis)
        boxes = page.js(
            "return [...document.querySelectorAll('#picture .name')].map((o) => o.getBoundingClientRect().toJSON())"
        )
        assert len(boxes) >= (5 if width > 1000 else 3)
        for place, one in enumerate(boxes):
            for other in boxes[place + 1 :]:
                apart = one["right"] <= other["left"] or other["right"] <= one["left"]
                assert apart or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
        svg = page.js("return document.querySelector('#picture svg').getBoundingClientRect().toJSON()")
        assert all(svg["left"] <= own["left"] and own["right"] <= svg["right"] for own in boxes)


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


CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = (o) => { for (; o; o = o.parentElement) { const c = parse(getComputedStyle(o).backgroundColor);
  if (c.length < 4 || c[3] > 0.99) return c; } return [255, 255, 255]; };
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
while (walk.nextNode()) { const o = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !o.checkVisibility() || o.closest('svg, script')) continue;
  const [a, b] = [light(parse(getComputedStyle(o).color)), light(ground(o))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) low.push([o.className, walk.currentNode.data]); }
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(page, scheme):
    page.scheme(scheme)
    for state in ({"a": "bm25", "b": "hybrid"}, {"base": "minilm", "row": "bm25", "col": "alpha"}):
        page.open(**state)
        assert page.js(CONTRAST) == []
    lightness = page.js("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(lightness) < 150) == (scheme == "dark")


def test_the_theme_can_be_chosen(page):
    ground = "return getComputedStyle(document.body).backgroundColor"
    page.scheme("light")
    before = page.js(ground)
    page.one("#theme").click()
    assert page.js(ground) != before
    page.one("#theme").click()
    assert page.js(ground) == before
    page.js("localStorage.clear()")


def test_environments_that_do_not_compare_are_said_and_drawn_apart(page, tmp_path):
    store = measure(tmp_path / "results", ("e1" * 8, "e2" * 8))
    path = tmp_path / "board.html"
    path.write_text(page_of(store), encoding="utf-8")
    page.open(path)
    assert "2 environments (e1e1e1e1, e2e2e2e2) and do not compare" in page.one(".warning").text
    assert page.all("#picture circle.point")
    assert page.all("#picture polygon.point")
    assert "squares: environment e2e2e2e2" in page.one("#plotted").text


def test_one_environment_has_no_warning(written):
    assert 'class="warning">' not in re.sub(r"<noscript>.*?</noscript>", "", written.read_text(encoding="utf-8"))


def test_the_methods_are_those_of_the_records(page, results):
    text = page.one("#methods").text
    boards, _ = boards_of(results)
    for said in (
        "ndcg@10, recall@100; version 1",
        "up to 100 documents per query",
        "alpha, beta.",
        "10,000 draws",
        "exact where 16 or fewer",
        f"({boards['ndcg@10'].tests} for ndcg@10, {boards['recall@100'].tests} for recall@100)",
        f"{REMARK}: colbert_minilm.",
        "e1e1e1e1: ",
        f"gamma {boards['ndcg@10'].detectable['gamma']:.4f} {boards['recall@100'].detectable['gamma']:.4f}",
    ):
        assert said in text


def test_one_retriever_on_one_dataset_is_a_page(page, tmp_path):
    ids = ["a", "b", "c"]
    values = {"ndcg@10": np.array([0.0, 0.5, 1.0])}
    store = Store(tmp_path / "results")
    store.append(record("bm25", {}, "bm25", "alpha", 0.1, values, 0), {}, per_query=PerQuery(ids, values))
    records = store.latest()
    path = tmp_path / "board.html"
    scores = store.scores(records)
    path.write_text(html.render({"ndcg@10": build(records, "ndcg@10", scores)}, scores, nothing), encoding="utf-8")
    page.open(path, row="bm25", col="alpha")
    assert page.all("#evaluation summary")[0].text.startswith("query a")


def test_a_dataset_in_parts_has_the_queries_and_commands_of_all(page, tmp_path):
    store, generator = Store(tmp_path / "results"), np.random.default_rng(0)
    for part in ("one", "two"):
        ids = [f"{part}-{number}" for number in range(20)]
        for row, (name, _, family, quality, seconds) in enumerate(ROWS[:2]):
            values = scores_of(generator, generator.uniform(-0.4, 0.4, len(ids)), quality)
            made = record(name, {}, family, f"forums/{part}", seconds, values, row)
            info = made.dataset.model_copy(update={"group": "forums", "parts": 2})
            made = made.model_copy(update={"dataset": info, "id": f"{row}{part:a>8}"[:8]})
            store.append(
                made, {}, None, PerQuery(ids, values), {"rankings": ranked_of(ids, row), "queries": asked_of(ids)}
            )
    path = tmp_path / "board.html"
    path.write_text(page_of(store, "bm25"), encoding="utf-8")
    page.open(path, row="minilm", col="forums")
    board = boards_of(store, "bm25")[0]["ndcg@10"]
    versus = next(row for row in board.rows if row.label == "minilm").evaluations["forums"].versus
    text = page.one("#evaluation").text
    assert "2 parts, 80 queries, 2,000 documents" in text
    assert f"{versus.won} won, {versus.tied} tied, {versus.lost} lost" in text
    assert "dataset=forums/one\nharness" in text
    for details in page.all("#evaluation details"):
        details.find_element(By.TAG_NAME, "summary").click()
    assert {own.text.split("-")[0] for own in page.all("#evaluation details caption")} == {"Query one", "Query two"}


def test_the_mean_opens_too(page):
    page.open(row="bm25", col="@mean", base="minilm")
    text = page.one("#evaluation").text
    assert "The mean over alpha, beta." in text
    assert re.search(r"\d+ won, \d+ tied, \d+ lost", text)


def test_a_board_without_scores_by_query_is_a_page(page, results, tmp_path):
    path = tmp_path / "board.html"
    path.write_text(html.render({"ndcg@10": build(results.latest())}, {}, nothing), encoding="utf-8")
    page.open(path, base="bm25", row="hybrid", col="alpha", a="bm25", b="hybrid")
    assert "cannot be paired" in page.one("#evaluation").text
    assert "None: per-query scores are not stored" in page.one("#methods").get_attribute("textContent")


def in_memory(rows, columns, metrics, queries=300):
    """Records, scores and tables of a large board."""
    generator, scores, tables, records = np.random.default_rng(1), {}, {}, []
    for column in range(columns):
        ids = [f"{column}{number:05d}" for number in range(queries)]
        difficulty = generator.uniform(-0.4, 0.4, queries)
        tables["queries", column] = asked_of(ids, 20)
        for row in range(rows):
            values = {
                metric: np.round(np.clip(difficulty + 0.4 + row / 50 + generator.normal(0, 0.2, queries), 0, 1), 4)
                for metric in metrics
            }
            files = RecordFiles(per_query=f"{row} {column}", queries=f"{column}", rankings=f"{row} {column}")
            made = record(
                f"retriever_{row}", {}, f"family{row % 6}", f"dataset{column}", 0.1 + row, values, row, files=files
            )
            scores[files.per_query] = PerQuery(ids, values)
            tables["rankings", row, column] = ranked_of(ids, row, 20)
            records.append(made)

    def table(made, kind):
        row, column = map(int, made.files.per_query.split())
        return tables["queries", column] if kind == "queries" else tables["rankings", row, column]

    return records, scores, table


SEVEN = ("ndcg@10", "map@100", "recall@100", "mrr@10", "precision@10", "hit@10", "judged@10")


@pytest.fixture
def quick(monkeypatch):
    """Intervals and p-values that take as many digits, and no time."""
    monkeypatch.setattr(
        stats, "confidence_intervals", lambda strata: (stats.mean(strata) - 0.0211, stats.mean(strata) + 0.0222)
    )
    monkeypatch.setattr(stats, "p_values", lambda strata: np.exp(-30 * np.abs(stats.mean(strata))))


def test_ten_retrievers_on_fifteen_datasets_take_less_than_500_kb(quick, tmp_path, page):
    records, scores, tables = in_memory(10, 15, SEVEN)
    text = html.render({metric: build(records, metric, scores) for metric in SEVEN}, scores, tables)
    assert len(text.encode()) < 500_000
    path = tmp_path / "board.html"
    path.write_text(text, encoding="utf-8")
    page.open(path, row="retriever_3", col="dataset4", base="retriever_0")
    assert len(page.all("#evaluation summary")) >= 2


def test_a_large_board_compares_with_one_row_and_keeps_the_queries_of_the_first(quick, tmp_path, page):
    records, scores, tables = in_memory(25, 2, ("ndcg@10",), 60)
    board = build(records, "ndcg@10", scores, "retriever_7")
    path = tmp_path / "board.html"
    path.write_text(html.render({"ndcg@10": board}, scores, tables), encoding="utf-8")
    page.open(path)
    assert [own.text for own in Select(page.one("#base")).options] == ["none", "retriever_7"]
    versus = next(row for row in board.rows if row.label == "retriever_3").evaluations["dataset1"].versus
    assert f"{versus.delta:+.4f}".replace("-", "\N{MINUS SIGN}") in page.cell("retriever_3", "dataset1").text
    page.open(path, row=board.rows[-1].label, col="dataset1")
    assert "This page has no single queries of this evaluation" in page.one("#evaluation").text


def test_the_same_records_give_the_same_bytes(results):
    boards, scores = boards_of(results)
    again = {metric: build(results.latest()[::-1], metric, scores) for metric in METRICS}
    render = partial(html.render, scores=scores, tables=results.table)
    assert render(boards) == render(again)


def test_the_page_allows_no_request_and_only_its_own_script(written):
    text = written.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)=["']""", text)
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", text)
