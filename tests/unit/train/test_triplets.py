"""Tests of triplet files and of negatives: mined from a run, or random."""

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config import build
from harness.errors import ConfigError, DataError
from harness.train import triplets
from harness.train.negatives import Mined, Random, fill_with_random, pad_with_random
from harness.train.triplets import Triplets
from harness.types import Corpus, Queries, Retriever, Run

TRIPLETS = Triplets(["a", "ü\n2"], ["pa", 'p "b"'], [["n1", "n2"], ["", "日本"]])

# ---- triplets


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.jsonl.gz"])
@pytest.mark.parametrize("width", [0, 1, 2])
def test_triplets_are_read_as_written_also_by_the_datasets_library(name, width, tmp_path):
    written = Triplets(TRIPLETS.anchors, TRIPLETS.positives, [row[:width] for row in TRIPLETS.negatives])
    path = tmp_path / "new" / name
    triplets.write(path, written)
    assert triplets.read(path) == written
    assert triplets.read(path).fingerprint == written.fingerprint
    kind = "parquet" if name.endswith("parquet") else "json"
    rows = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["anchor", "positive", "negative_1", "negative_2"][: 2 + width]
    assert rows["anchor"][:] == TRIPLETS.anchors
    assert [row.get("negative_1") for row in rows] == [next(iter(row), None) for row in written.negatives]


def test_fingerprint_depends_on_content_and_order():
    variants = [
        Triplets(TRIPLETS.anchors[::-1], TRIPLETS.positives[::-1], TRIPLETS.negatives[::-1]),
        Triplets(["a", "x"], TRIPLETS.positives, TRIPLETS.negatives),
        Triplets(TRIPLETS.anchors, TRIPLETS.positives, [["n1n2", ""], ["", "日本"]]),
        Triplets(TRIPLETS.anchors, TRIPLETS.positives, [[], []]),
    ]
    assert len({content.fingerprint for content in [TRIPLETS, *variants]}) == 5


def test_column_named_negative_is_read_and_unknown_columns_are_reported(tmp_path, caplog):
    path = tmp_path / "triplets.jsonl"
    row = {"score": 1, "negative_10": "n10", "negative_2": "n2", "negative": "n", "positive": "p", "anchor": "a"}
    path.write_text(json.dumps(row) + "\n")
    with caplog.at_level(logging.WARNING):
        assert triplets.read(path) == Triplets(["a"], ["p"], [["n", "n2", "n10"]])
    assert caplog.messages == [f"{path}: ignored columns: score; triplets have anchor, positive, negative_1, ..."]


@pytest.mark.parametrize(
    ("rows", "line", "fragments"),
    [
        ([{"query": "a", "positive": "p"}], 1, ("no column 'anchor'", "'query', 'positive'", "rename yours")),
        ([{"anchor": "a"}], 1, ("no column 'positive'", "'anchor'", "rename yours")),
        (
            [{"anchor": "a", "positive": "p"}, {"anchor": "b", "positive": None}],
            2,
            ("column 'positive' has None", "not a string", "fix or remove the row"),
        ),
        (
            [{"anchor": "a", "positive": "p", "negative_1": "n"}, {"anchor": "b", "positive": "p"}],
            2,
            ("column 'negative_1' has None", "not a string"),
        ),
        (
            [{"anchor": "a", "positive": "p"}, {"anchor": "b", "positive": "p", "negative_1": "n"}],
            2,
            ("column 'negative_1'", "give every row the same columns"),
        ),
        ([{"anchor": 3, "positive": "p"}], 1, ("column 'anchor' has 3", "not a string")),
    ],
)
def test_invalid_row_is_named(rows, line, fragments, tmp_path):
    path = tmp_path / "triplets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as error:
        triplets.read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == [], error.value


def test_invalid_row_of_a_parquet_file_is_named(tmp_path):
    path = tmp_path / "triplets.parquet"
    pq.write_table(pa.table({"anchor": ["a", None], "positive": ["p", "q"]}), path)
    with pytest.raises(DataError, match=r"triplets\.parquet:2: column 'anchor' has None"):
        triplets.read(path)


def test_unknown_suffix_is_refused_with_the_choices(tmp_path):
    with pytest.raises(ConfigError) as error:
        triplets.write(Path("new/t.csv"), TRIPLETS)
    assert str(error.value) == "output='new/t.csv' has an unknown suffix; choices: .parquet, .jsonl, .jsonl.gz"


# ---- negatives

CORPUS = Corpus([f"d{number}" for number in range(8)], ["same", "one", "same", "two", "three", "four", "five", "six"])
QUERIES = Queries(["0", "1"], ["x", "y"])


class FixedRanking:
    """A retriever that ranks d0, d1, ... for every query, with these scores."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def index(self, corpus: Corpus) -> None:
        self.ids = corpus.ids

    def search(self, queries: Queries, k: int) -> Run:
        scores = np.tile(self.scores[:k], (len(queries), 1))
        return Run(queries.ids, self.ids, np.tile(np.arange(scores.shape[1]), (len(queries), 1)), scores)

    def nbytes(self) -> int:
        return 0


def mined(known: set[int], *, n: int = 8, window: list[int], margin: float | None = None, scores: Any = None) -> Any:
    """Return the mined negatives of one query whose positives are `known`."""
    retriever = FixedRanking(scores or [10, 9.5, 9, 8, 7, 6, 5, 4])
    return Mined(retriever, n, window, margin).choose(QUERIES[:1], CORPUS, [known])[0]


def test_mined_negatives_are_from_the_window_and_differ_from_positives():
    assert mined({1}, window=[1, 8]) == [0, 2, 3, 4, 5, 6, 7]
    assert mined({1}, window=[3, 5]) == [2, 3, 4]
    assert mined({0}, window=[1, 4]) == [1, 3]  # d2 has the text of d0
    assert mined({1, 3}, window=[2, 4]) == [2]
    assert mined({1}, window=[9, 12]) == []


def test_margin_is_relative_to_the_score_of_the_best_positive():
    assert mined({1}, window=[1, 8], margin=0.0) == [2, 3, 4, 5, 6, 7]
    assert mined({1, 4}, window=[1, 8], margin=0.1) == [3, 5, 6, 7]  # at most 8.55
    assert mined({1}, window=[4, 8], margin=0.1) == [3, 4, 5, 6, 7]  # the positive lies before the window
    assert mined({7}, window=[1, 3], margin=0.5) == [0, 1, 2]  # no positive is ranked
    negative = [-1, -1.05, -1.2, -2, -3, -4, -5, -6]
    assert mined({0}, window=[1, 8], margin=0.1, scores=negative) == [3, 4, 5, 6, 7]


def test_mined_negatives_are_seeded_and_in_rank_order():
    def choose(seed: int) -> list[list[int]]:
        return Mined(FixedRanking([8, 7, 6, 5, 4, 3, 2, 1]), 3, [1, 8], None, seed).choose(QUERIES, CORPUS, [{1}, {7}])

    assert choose(0) == choose(0)
    assert len({str(choose(seed)) for seed in range(5)}) > 1
    assert all(row == sorted(row) and len(set(row)) == 3 for seed in range(5) for row in choose(seed))


def test_random_negatives_are_drawn_from_all_other_documents():
    for seed in range(20):
        first, second = Random(3, seed).choose(QUERIES, CORPUS, [{0}, {1, 3}])
        assert len(set(first)) == len(set(second)) == 3
        assert not {0, 2} & set(first)  # d2 has the text of d0
        assert not {1, 3} & set(second)
    first, second = Random(8).choose(QUERIES, CORPUS, [{0}, {1, 3}])
    assert (sorted(first), sorted(second)) == ([1, 3, 4, 5, 6, 7], [0, 2, 4, 5, 6, 7])
    assert Random(0).choose(QUERIES, CORPUS, [{0}, {1}]) == [[], []]


def test_missing_negatives_are_filled_with_random_documents():
    for filled in (
        pad_with_random([[5, 4], []], 3, CORPUS, [{0}, {1}], seed=0),
        fill_with_random([[5, 4], []], 3, QUERIES, CORPUS, [{0}, {1}], seed=0),
    ):
        first, second = filled
        assert first[:2] == [5, 4]
        assert len(set(first)) == len(set(second)) == 3
        assert not set(first) & {0, 2}
        assert 1 not in second
    first, second = pad_with_random([[5, 4], []], 7, CORPUS, [{0}, set(range(8))], seed=0)
    assert first[:2] == [5, 4]
    assert sorted(first) == [1, 3, 4, 5, 6, 7]
    assert second == []
    with pytest.raises(ConfigError) as error:
        fill_with_random([[5, 4], []], 7, QUERIES, CORPUS, [{0}, {1}], seed=0)
    assert str(error.value).startswith("negatives.n=7: of 8 documents only 6")
    assert str(error.value).endswith("negatives.n=6")


def bm25() -> Retriever:
    retriever: Retriever = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    return retriever


def test_negatives_mined_from_a_real_run_respect_positives_and_margin(real_dataset):
    dataset = real_dataset("cranfield")
    positions = {doc: number for number, doc in enumerate(dataset.corpus.ids)}
    known = [{positions[doc] for doc in dataset.qrels[query] if doc in positions} for query in dataset.queries.ids]
    chosen = Mined(bm25(), 5, [2, 50], 0.1).choose(dataset.queries, dataset.corpus, known)
    retriever = bm25()
    retriever.index(dataset.corpus)
    run = retriever.search(dataset.queries, 50)
    for row, (negatives, positives) in enumerate(zip(chosen, known, strict=True)):
        assert not set(negatives) & positives
        ranks = {doc: rank for rank, doc in enumerate(run.docs[row].tolist())}
        assert all(1 <= ranks[doc] < 50 for doc in negatives)
        best = min((ranks[doc] for doc in positives if doc in ranks), default=None)
        assert best is None or all(run.scores[row, ranks[doc]] <= 0.9 * run.scores[row, best] for doc in negatives)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": -1, "window": [1, 2]}, "negatives.n=-1 must be 0 or more"),
        (
            {"n": 1, "window": [0, 2]},
            "negatives.window=[0, 2] must be two ranks, first and last, from 1; such as [2,100]",
        ),
        ({"n": 1, "window": [5, 2]}, "negatives.window=[5, 2] must be two ranks"),
        ({"n": 1, "window": [1, 2], "margin": 1}, "negatives.margin=1 must be a share from 0 to below 1, or null"),
    ],
)
def test_invalid_negatives_settings_are_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        Mined(FixedRanking([]), **settings)
    assert str(error.value).startswith(message)
