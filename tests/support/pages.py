"""Results and pages of a small leaderboard, and the page in a browser."""

from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from harness.leaderboard import build
from harness.leaderboard.page import html
from harness.store import Store
from harness.types import EncoderInfo, PerQuery, RecordFiles, RetrieverInfo
from support.records import make_record, make_timing

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
SENTENCE = "how does the flow of heat over a thin plate change with pressure and speed near its edge at"
WORDS = SENTENCE.split()


def sentence(number, words):
    """Return a sentence of `words` words that differs by `number`."""
    return " ".join(WORDS[(number * 7 + position * (1 + number % 5)) % len(WORDS)] for position in range(words))


def page_record(name, differences, family, dataset, seconds, values, started, environment="e1" * 8, **changed):
    """Return a record whose scores by query are `values` and that started `started` seconds after START."""
    timing = make_timing(
        seconds,
        latencies_s=np.linspace(seconds / 21, seconds / 9, 100).tolist(),
        documents=1000,
        queries=40,
        index_bytes=int(seconds * 9e6),
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
        metrics={metric: float(by_query.mean()) for metric, by_query in values.items()},
        timing=timing,
        encoders={"": EncoderInfo(remark=REMARK)} if family == "colbert" else {},
        environment=environment,
        command=f"harness 'retriever={name}' dataset={dataset}",
    ).model_copy(update=changed)


def hash_of(*parts):
    """Return a number that depends on `parts` and, unlike `hash`, not on the process."""
    return int.from_bytes(repr(parts).encode()[-7:], "big")


def make_scores(generator, difficulty, quality):
    """Return scores by query for each of METRICS."""
    noise = generator.normal(0, 0.2, len(difficulty))
    return {metric: np.clip(difficulty + quality + noise + 0.1 * n, 0, 1) for n, metric in enumerate(METRICS)}


def queries_table(ids, words=8):
    """Return the table of queries that a store keeps."""
    return pa.table(
        {
            "query_id": ids,
            "text": [sentence(number, words) for number in range(len(ids))],
            "words": pa.array([words + number % 4 for number in range(len(ids))], pa.int32()),
            "relevant": pa.array([1 + number % 3 for number in range(len(ids))], pa.int32()),
            "overlap": [number % 10 / 10 for number in range(len(ids))],
        }
    )


def rankings_table(ids, shift, words=12):
    """Return the table of first hits that a store keeps; `shift` moves their documents."""
    docs = [[f"d{number * 3 + (rank + shift * (number % 2)) % 10}" for rank in range(10)] for number in range(len(ids))]
    grades = [[[2, 0, None][(number + rank + shift) % 3] for rank in range(10)] for number in range(len(ids))]
    firsts = [sentence(int(ranking[0][1:]), words)[:100] for ranking in docs]
    return pa.table(
        {
            "query_id": ids,
            "docs": pa.array(docs, pa.list_(pa.string())),
            "grades": pa.array(grades, pa.list_(pa.int32())),
            "first": firsts,
        }
    )


def make_store(root, environments=("e1" * 8,)):
    """Return a store of seven retrievers on three datasets, with one gap and one failure on the third."""
    store, generator = Store(root), np.random.default_rng(0)
    for column, dataset in enumerate(("alpha", "beta", "gamma")):
        ids = [f"{dataset}-{number}" for number in range(40)]
        difficulty = generator.uniform(-0.4, 0.4, len(ids))
        for row, (name, differences, family, quality, seconds) in enumerate(ROWS):
            values = make_scores(generator, difficulty, quality)
            environment = environments[row % len(environments)]
            record = page_record(name, differences, family, dataset, seconds, values, row + 10 * column, environment)
            if dataset == "gamma" and name == "splade_tiny":
                continue
            if dataset == "gamma" and name == HOSTILE:
                changes = {"status": "failed", "error": "no", "metrics": {}, "timing": None}
                store.append(record.model_copy(update=changes), {})
                continue
            tables = {"rankings": rankings_table(ids, row), "queries": queries_table(ids)}
            store.append(record, {}, None, PerQuery(ids, values), tables)
    return store


def leaderboards_of(store, baseline=None):
    """Return the leaderboards of a store by metric, and its scores."""
    records = store.latest()
    scores = store.scores(records)
    return {metric: build(records, metric, scores, baseline) for metric in METRICS}, scores


def no_table(record, kind):
    """Return no table, like a store without queries and rankings."""


def render(store, baseline=None, tables=True):
    """Return the page of a store, with or without its tables of queries and rankings."""
    leaderboards, scores = leaderboards_of(store, baseline)
    return html.render(leaderboards, scores, store.table if tables else no_table)


class Page:
    """The leaderboard page in a browser."""

    def __init__(self, browser, path):
        self.browser, self.path = browser, path

    def open(self, path=None, **state):
        """Load the page anew with `state` in its address."""
        self.browser.get("about:blank")
        fragment = f"#{urlencode(state)}" if state else ""
        self.browser.get((path or self.path).as_uri() + fragment)
        return self

    def find_all(self, css):
        """Return the elements that a CSS selector selects."""
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def find(self, css):
        """Return the first element that a CSS selector selects."""
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def labels(self):
        """Return the labels of the rows in their order."""
        return [cell.text for cell in self.find_all("#leaderboard tbody th")]

    def column(self, name):
        """Return the table cells of a column by its key."""
        position = [heading.get_attribute("data-key") for heading in self.find_all("#leaderboard thead th")].index(name)
        return self.find_all(f"#leaderboard tbody tr > :nth-child({position + 1})")

    def cell(self, label, name):
        """Return the table cell of a row and a column."""
        return self.column(name)[self.labels().index(label)]

    def table(self, css=""):
        """Return by label and key the text of every cell, or of the element that `css` selects in it."""
        return self.js(
            """
            const keys = [...document.querySelectorAll('#leaderboard thead th')].map((th) => th.dataset.key);
            const text = (td) => (arguments[0] ? td.querySelector(arguments[0]) : td)?.innerText ?? '';
            return Object.fromEntries([...document.querySelectorAll('#leaderboard tbody tr')].map((tr) =>
              [tr.cells[0].innerText, Object.fromEntries([...tr.cells].map((td, i) => [keys[i], text(td)]))]));
            """,
            css,
        )

    def choose(self, css, text):
        """Choose an option of a menu by its text."""
        Select(self.find(css)).select_by_visible_text(text)

    def sort(self, name):
        """Click the heading of a column."""
        self.find(f'#leaderboard th[data-key="{name}"] button').click()

    def js(self, script, *arguments):
        """Return the result of a script in the page."""
        return self.browser.execute_script(script, *arguments)

    def press(self, *keys):
        """Press keys one after the other."""
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def focused(self):
        """Return the element that has the focus."""
        return self.browser.switch_to.active_element

    def resize(self, width, height=1000):
        """Set the size of the window in pixels."""
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def scheme(self, name):
        """Set the preferred colour scheme: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def make_leaderboard_data(rows, columns, metrics, queries=300):
    """Return records, scores and a reader of tables for a large leaderboard."""
    generator, scores, tables, records = np.random.default_rng(1), {}, {}, []
    for column in range(columns):
        ids = [f"{column}{number:05d}" for number in range(queries)]
        difficulty = generator.uniform(-0.4, 0.4, queries)
        tables["queries", column] = queries_table(ids, 20)
        for row in range(rows):
            values = {
                metric: np.round(np.clip(difficulty + 0.4 + row / 50 + generator.normal(0, 0.2, queries), 0, 1), 4)
                for metric in metrics
            }
            files = RecordFiles(per_query=f"{row} {column}", queries=f"{column}", rankings=f"{row} {column}")
            record = page_record(
                f"retriever_{row}", {}, f"family{row % 6}", f"dataset{column}", 0.1 + row, values, row, files=files
            )
            scores[files.per_query] = PerQuery(ids, values)
            tables["rankings", row, column] = rankings_table(ids, row, 20)
            records.append(record)

    def table(record, kind):
        row, column = map(int, record.files.per_query.split())
        return tables["queries", column] if kind == "queries" else tables["rankings", row, column]

    return records, scores, table
