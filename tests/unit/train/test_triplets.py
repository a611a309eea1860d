"""Triplets in files, and the negatives in them: mined from a run, or random."""

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

MADE = Triplets(["a", "ü\n2"], ["pa", 'p "b"'], [["n1", "n2"], ["", "日本"]])

# ---- triplets


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.jsonl.gz"])
@pytest.mark.parametrize("width", [0, 1, 2])
def test_triplets_come_back_as_they_were_written_and_datasets_loads_them(name, width, tmp_path):
    made = Triplets(MADE.anchors, MADE.positives, [row[:width] for row in MADE.negatives])
    path = tmp_path / "new" / name
    triplets.write(path, made)
    assert triplets.read(path) == made
    assert triplets.read(path).fingerprint == made.fingerprint
    kind = "parquet" if name.endswith("parquet") else "json"
    rows = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["anchor", "positive", "negative_1", "negative_2"][: 2 + width]
    assert rows["anchor"][:] == MADE.anchors
    assert [row.get("negative_1") for row in rows] == [next(iter(row), None) for row in made.negatives]


def test_a_fingerprint_tells_contents_and_orders_apart():
    others = [
        Triplets(MADE.anchors[::-1], MADE.positives[::-1], MADE.negatives[::-1]),
        Triplets(["a", "x"], MADE.positives, MADE.negatives),
        Triplets(MADE.anchors, MADE.positives, [["n1n2", ""], ["", "日本"]]),
        Triplets(MADE.anchors, MADE.positives, [[], []]),
    ]
    assert len({one.fingerprint for one in [MADE, *others]}) == 5


def test_a_plain_negative_is_read_and_columns_of_other_names_are_said(tmp_path, caplog):
    path = tmp_path / "mine.jsonl"
    row = {"score": 1, "negative_10": "n10", "negative_2": "n2", "negative": "n", "positive": "p", "anchor": "a"}
    path.write_text(json.dumps(row) + "\n")
    with caplog.at_level(logging.WARNING):
        assert triplets.read(path) == Triplets(["a"], ["p"], [["n", "n2", "n10"]])
    assert caplog.messages == [f"{path}: ignored columns: score; triplets have anchor, positive, negative_1, ..."]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"query": "a", "positive": "p"}],
            "1: no column 'anchor' among 'query', 'positive'; triplets have anchor, positive and, where there are "
            "negatives, negative_1, negative_2, ...: rename yours",
        ),
        ([{"anchor": "a"}], "1: no column 'positive' among 'anchor'; triplets have anchor, positive and, where"),
        (
            [{"anchor": "a", "positive": "p"}, {"anchor": "b", "positive": None}],
            "2: column 'positive' has None, which is not a string; fix or remove the row",
        ),
        (
            [{"anchor": "a", "positive": "p", "negative_1": "n"}, {"anchor": "b", "positive": "p"}],
            "2: column 'negative_1' has None, which is not a string",
        ),
        (
            [{"anchor": "a", "positive": "p"}, {"anchor": "b", "positive": "p", "negative_1": "n"}],
            "2: column 'negative_1' is not in the first row; give every row the same columns",
        ),
        ([{"anchor": 3, "positive": "p"}], "1: column 'anchor' has 3, which is not a string"),
    ],
)
def test_a_row_that_is_no_triplet_is_named(rows, said, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as error:
        triplets.read(path)
    assert str(error.value).startswith(f"{path}:{said}")


def test_a_row_of_a_parquet_file_is_named_too(tmp_path):
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"anchor": ["a", None], "positive": ["p", "q"]}), path)
    with pytest.raises(DataError, match=r"mine\.parquet:2: column 'anchor' has None"):
        triplets.read(path)


def test_triplets_are_written_under_names_that_can_be_read(tmp_path):
    with pytest.raises(ConfigError) as error:
        triplets.write(Path("made/t.csv"), MADE)
    assert str(error.value) == "output='made/t.csv' has an unknown suffix; choices: .parquet, .jsonl, .jsonl.gz"


# ---- negatives

CORPUS = Corpus([f"d{number}" for number in range(8)], ["same", "one", "same", "two", "three", "four", "five", "six"])
ASKED = Queries(["0", "1"], ["x", "y"])


class Fixed:
    """Ranks d0, d1, ... for every query, with these scores."""

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
    retriever = Fixed(scores or [10, 9.5, 9, 8, 7, 6, 5, 4])
    return Mined(retriever, n, window, margin).choose(ASKED[:1], CORPUS, [known])[0]


def test_mined_negatives_come_from_the_window_and_are_no_positives_nor_their_copies():
    assert mined({1}, window=[1, 8]) == [0, 2, 3, 4, 5, 6, 7]
    assert mined({1}, window=[3, 5]) == [2, 3, 4]
    assert mined({0}, window=[1, 4]) == [1, 3]  # d2 has the text of d0
    assert mined({1, 3}, window=[2, 4]) == [2]
    assert mined({1}, window=[9, 12]) == []


def test_the_margin_is_a_share_of_the_best_positives_score():
    assert mined({1}, window=[1, 8], margin=0.0) == [2, 3, 4, 5, 6, 7]
    assert mined({1, 4}, window=[1, 8], margin=0.1) == [3, 5, 6, 7]  # at most 8.55
    assert mined({1}, window=[4, 8], margin=0.1) == [3, 4, 5, 6, 7]  # the positive lies before the window
    assert mined({7}, window=[1, 3], margin=0.5) == [0, 1, 2]  # no positive is ranked
    negative = [-1, -1.05, -1.2, -2, -3, -4, -5, -6]
    assert mined({0}, window=[1, 8], margin=0.1, scores=negative) == [3, 4, 5, 6, 7]


def test_a_choice_is_seeded_and_best_ranked_first():
    def chosen(seed: int) -> list[list[int]]:
        return Mined(Fixed([8, 7, 6, 5, 4, 3, 2, 1]), 3, [1, 8], None, seed).choose(ASKED, CORPUS, [{1}, {7}])

    assert chosen(0) == chosen(0)
    assert len({str(chosen(seed)) for seed in range(5)}) > 1
    assert all(row == sorted(row) and len(set(row)) == 3 for seed in range(5) for row in chosen(seed))


def test_random_negatives_are_all_others_in_the_end():
    for seed in range(20):
        one, other = Random(3, seed).choose(ASKED, CORPUS, [{0}, {1, 3}])
        assert len(set(one)) == len(set(other)) == 3
        assert not {0, 2} & set(one)  # d2 has the text of d0
        assert not {1, 3} & set(other)
    one, other = Random(8).choose(ASKED, CORPUS, [{0}, {1, 3}])
    assert (sorted(one), sorted(other)) == ([1, 3, 4, 5, 6, 7], [0, 2, 4, 5, 6, 7])
    assert Random(0).choose(ASKED, CORPUS, [{0}, {1}]) == [[], []]


def test_what_is_missing_is_filled_with_random_documents_as_far_as_there_are_any():
    for fill in (
        pad_with_random([[5, 4], []], 3, CORPUS, [{0}, {1}], seed=0),
        fill_with_random([[5, 4], []], 3, ASKED, CORPUS, [{0}, {1}], seed=0),
    ):
        one, other = fill
        assert one[:2] == [5, 4]
        assert len(set(one)) == len(set(other)) == 3
        assert not set(one) & {0, 2}
        assert 1 not in other
    one, other = pad_with_random([[5, 4], []], 7, CORPUS, [{0}, set(range(8))], seed=0)
    assert one[:2] == [5, 4]
    assert sorted(one) == [1, 3, 4, 5, 6, 7]
    assert other == []
    with pytest.raises(ConfigError) as error:
        fill_with_random([[5, 4], []], 7, ASKED, CORPUS, [{0}, {1}], seed=0)
    assert str(error.value) == "negatives.n=7: of 8 documents only 6 can be negatives of 'x'; try: negatives.n=6"


def bm25() -> Retriever:
    retriever: Retriever = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    return retriever


def test_of_a_real_run_no_positive_is_mined_and_the_margin_holds(real_dataset):
    dataset = real_dataset("cranfield")
    place = {doc: number for number, doc in enumerate(dataset.corpus.ids)}
    known = [{place[doc] for doc in dataset.qrels[query] if doc in place} for query in dataset.queries.ids]
    chosen = Mined(bm25(), 5, [2, 50], 0.1).choose(dataset.queries, dataset.corpus, known)
    retriever = bm25()
    retriever.index(dataset.corpus)
    run = retriever.search(dataset.queries, 50)
    for row, (own, positives) in enumerate(zip(chosen, known, strict=True)):
        assert not set(own) & positives
        ranks = {doc: rank for rank, doc in enumerate(run.docs[row].tolist())}
        assert all(1 <= ranks[doc] < 50 for doc in own)
        best = min((ranks[doc] for doc in positives if doc in ranks), default=None)
        assert best is None or all(run.scores[row, ranks[doc]] <= 0.9 * run.scores[row, best] for doc in own)


@pytest.mark.parametrize(
    ("settings", "said"),
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
def test_a_choice_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError) as error:
        Mined(Fixed([]), **settings)
    assert str(error.value).startswith(said)
