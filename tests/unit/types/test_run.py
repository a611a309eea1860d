"""Tests of Run: its order, refused scores and ids, its hits, and runs from hits by id."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.errors import mentions
from support.runs import make_run

from harness.errors import DataError, RunError
from harness.types import Corpus, Run, StringColumn


def test_a_run_puts_the_highest_score_first() -> None:
    run = make_run({"a": -2.0, "b": 3.5, "c": 0.0})
    assert run.hits(0)[0] == ["b", "c", "a"]
    assert run.hits(0)[1].tolist() == [3.5, 0.0, -2.0]


def test_a_run_puts_equal_scores_in_descending_order_of_id() -> None:
    run = make_run({"10": 1.0, "9": 1.0, "a": 2.0, "B": 1.0, "b": 1.0, "é": 1.0, "z": 1.0})
    assert run.hits(0)[0] == ["a", "é", "z", "b", "B", "9", "10"]


def test_a_run_orders_ids_by_bytes_and_not_by_utf_16_units() -> None:
    assert make_run({"\uffff": 1.0, "\U0001f600": 1.0}).hits(0)[0] == ["\U0001f600", "\uffff"]


def test_scores_that_are_equal_as_float32_are_a_tie() -> None:
    assert make_run({"a": 1.0 + 1e-9, "b": 1.0}).hits(0)[0] == ["b", "a"]
    assert make_run({"a": 16777217.0, "b": 16777216.0}).hits(0)[0] == ["b", "a"]
    assert make_run({"a": 1.0 + 1e-6, "b": 1.0}).hits(0)[0] == ["a", "b"]


def test_minus_zero_equals_zero() -> None:
    assert make_run({"a": 0.0, "b": -0.0, "c": 0.0}).hits(0)[0] == ["c", "b", "a"]
    assert make_run({"a": -0.0, "b": 1.0, "c": 0.0, "d": -0.0}).hits(0)[0] == ["b", "d", "c", "a"]


def test_padding_is_moved_to_the_end_whatever_its_score() -> None:
    docs = np.array([[-1, 0, -1, 1], [-1, -1, -1, -1]])
    scores = np.array([[np.nan, -5.0, np.inf, -4.0], [1.0, 2.0, np.nan, -np.inf]])
    run = Run(["q", "without hits"], ["a", "b"], docs, scores)
    assert run.docs.tolist() == [[1, 0, -1, -1], [-1, -1, -1, -1]]
    assert run.hits(0)[1].tolist() == [-4.0, -5.0]
    assert run.hits(1)[0] == []
    assert run.hits(1)[1].tolist() == []


SCORES = [-3.0, -1.0, -0.0, 0.0, 1e-40, 0.5, 1.0, 1.0 + 1e-9, 16777216.0, 16777217.0]


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Draw document ids, document numbers of shape [queries, k] with -1 among them, and scores with many ties."""
    ids = draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=3), unique=True, max_size=9))
    depth = draw(st.integers(0, 12))
    docs = []
    for _ in range(draw(st.integers(0, 4))):
        positions = draw(st.permutations([*range(len(ids)), *[-1] * depth]))
        docs.append(positions[:depth])
    shape = (len(docs), depth)
    scores = draw(st.lists(st.sampled_from(SCORES), min_size=len(docs) * depth, max_size=len(docs) * depth))
    return ids, np.array(docs, np.int64).reshape(shape), np.array(scores, np.float64).reshape(shape)


def sorted_hits(ids: list[str], docs: np.ndarray, scores: np.ndarray) -> list[tuple[float, str]]:
    """Return the scores and ids of one query's hits, sorted by Python: highest score, then highest id, first."""
    hits = [(float(np.float32(score)), ids[doc]) for doc, score in zip(docs, scores, strict=True) if doc >= 0]
    return sorted(hits, key=lambda hit: (hit[0], hit[1].encode()), reverse=True)


@given(rankings(), st.booleans())
@settings(deadline=None, max_examples=500)
def test_a_run_is_ordered_like_sorted_tuples(
    columns: tuple[list[str], np.ndarray, np.ndarray], as_strings: bool
) -> None:
    ids, docs, scores = columns
    run = Run([f"q{row}" for row in range(len(docs))], StringColumn(ids) if as_strings else ids, docs, scores)
    assert run.docs.shape == run.scores.shape == docs.shape
    assert (run.docs.dtype, run.scores.dtype) == (np.int32, np.float32)
    for row in range(len(docs)):
        names, values = run.hits(row)
        assert list(zip(values.tolist(), names, strict=True)) == sorted_hits(ids, docs[row], scores[row])
        assert (run.docs[row, len(names) :] == -1).all()


@given(rankings())
@settings(deadline=None)
def test_a_run_built_from_the_arrays_of_a_run_is_the_same(columns: tuple[list[str], np.ndarray, np.ndarray]) -> None:
    ids, docs, scores = columns
    queries = [f"q{row}" for row in range(len(docs))]
    run = Run(queries, ids, docs, scores)
    copy = Run(run.query_ids, run.doc_ids, run.docs, run.scores)
    assert copy.docs.tolist() == run.docs.tolist()
    assert copy.scores.tolist() == run.scores.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_run_does_not_change_its_input_arrays(order: str) -> None:
    docs = np.array([[0, 1, 2, -1], [2, -1, 0, 1]], np.int32, order=order)
    scores = np.array([[1.0, 1.0, 3.0, 7.0], [1.0, np.nan, 1.0, 1.0]], np.float32, order=order)
    copies = docs.copy(), scores.copy()
    docs.setflags(write=False)
    scores.setflags(write=False)
    run = Run(["p", "q"], ["a", "b", "c"], docs, scores)
    assert run.docs.tolist() == [[2, 1, 0, -1], [2, 1, 0, -1]]
    np.testing.assert_array_equal(docs, copies[0])
    np.testing.assert_array_equal(scores, copies[1])


@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")], ids=["nan", "inf", "minus inf"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_about_a_score_that_is_not_finite_names_the_query(value: float, shown: str, dtype: type) -> None:
    scores = np.array([[3.0, 2.0], [1.0, value]], dtype)
    with pytest.raises(RunError, match=mentions("query 'second'", f" {shown};", "finite")):
        Run(["first", "second"], ["a", "b"], np.array([[0, 1], [0, 1]]), scores)


def test_infinite_scores_of_both_signs_are_refused() -> None:
    with pytest.raises(RunError, match=mentions("query 'q0'", "inf", "finite")):
        make_run({"a": np.inf, "b": -np.inf})


def test_the_error_about_a_score_too_large_for_float32_names_the_query() -> None:
    with pytest.raises(RunError, match=mentions("query 'q1'", "inf", "finite")):
        make_run({"a": 1.0}, {"a": 1e39})


def test_the_largest_float32_scores_are_accepted() -> None:
    largest = float(np.finfo(np.float32).max)
    assert make_run({"a": largest, "b": largest, "c": -largest}).hits(0)[0] == ["b", "a", "c"]


def test_the_error_about_a_repeated_document_names_query_and_document() -> None:
    docs, scores = np.array([[0, 1, -1, -1], [1, 0, 2, 1]]), np.zeros((2, 4))
    with pytest.raises(RunError, match=mentions("query 'second'", "document 'b'", "more than once")):
        Run(["first", "second"], ["a", "b", "c"], docs, scores)


def test_the_error_about_a_repeated_query_names_it() -> None:
    with pytest.raises(RunError, match=mentions("query 'twice'", "more than once")):
        Run(["once", "twice", "twice"], ["a"], np.zeros((3, 1), int), np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("docs", "scores"), [((1, 3), (1, 3)), ((2, 3), (2, 2)), ((2,), (2,)), ((3, 2), (3, 2)), ((2, 1, 1), (2, 1, 1))]
)
def test_arrays_of_mismatched_shapes_are_refused(docs: tuple[int, ...], scores: tuple[int, ...]) -> None:
    with pytest.raises(RunError, match=mentions("2 queries", "[2, k]", f"{list(docs)} and {list(scores)}")):
        Run(["p", "q"], ["a"], np.full(docs, -1), np.zeros(scores))


@pytest.mark.parametrize("doc", [-2, 2, 2**31 - 1, 2**32])
def test_a_document_number_outside_the_ids_is_refused(doc: int) -> None:
    with pytest.raises(RunError, match=mentions("document number", "-1..1")):
        Run(["q"], ["a", "b"], np.array([[1, doc]]), np.zeros((1, 2)))


def test_top_keeps_the_first_hits_of_every_query() -> None:
    run = make_run({"a": 1.0, "b": 3.0, "c": 2.0}, {"c": 1.0})
    top = run.top(2)
    assert (top.depth, len(top)) == (2, 2)
    assert top.query_ids == run.query_ids
    assert top.hits(0)[0] == ["b", "c"]
    assert top.hits(0)[1].tolist() == [3.0, 2.0]
    assert top.hits(1)[0] == ["c"]
    assert run.depth == 3
    assert run.top(3).docs.tolist() == run.top(99).docs.tolist() == run.docs.tolist()
    assert run.top(0).hits(0)[0] == []


def test_top_cuts_ties_in_descending_order_of_id() -> None:
    assert make_run({"a": 1.0, "b": 1.0, "c": 1.0}).top(2).hits(0)[0] == ["c", "b"]


def test_a_run_may_have_no_queries_documents_or_hits() -> None:
    assert len(Run([], [], np.zeros((0, 0), int), np.zeros((0, 0)))) == 0
    assert len(Run([], ["a"], np.zeros((0, 5), int), np.zeros((0, 5)))) == 0
    without_hits = Run(["q"], [], np.full((1, 3), -1), np.zeros((1, 3)))
    assert without_hits.hits(0)[0] == []
    assert Run(["q"], ["a"], np.zeros((1, 0), int), np.zeros((1, 0))).depth == 0


@pytest.mark.slow
def test_a_run_of_ten_thousand_queries_with_a_thousand_hits_each_is_sorted() -> None:
    rng = np.random.default_rng(7)
    ids = [f"doc {number}" for number in rng.permutation(5000)]
    docs = (np.arange(1000, dtype=np.int32) * 3 + rng.integers(0, 5000, (10_000, 1), dtype=np.int32)) % 5000
    scores = rng.integers(-500, 500, docs.shape).astype(np.float32)
    run = Run([str(row) for row in range(10_000)], StringColumn(ids), docs, scores)
    assert (run.scores[:, 1:] <= run.scores[:, :-1]).all()
    for row in (0, 1, 4999, 9999):
        names, values = run.hits(row)
        assert list(zip(values.tolist(), names, strict=True)) == sorted_hits(ids, docs[row], scores[row])


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=10, unique=True), st.randoms(use_true_random=False))
def test_ranks_of_the_corpus_do_not_change_the_order_of_a_run(ids: list[str], rng: Random) -> None:
    corpus = Corpus(ids, [""] * len(ids))
    docs = np.array([rng.sample(range(-1, len(ids)), len(ids))])
    scores = np.array([[rng.choice([1.0, 2.0]) for _ in ids]])
    plain, with_ranks = (Run(["q"], corpus.ids, docs, scores, ranks) for ranks in (None, corpus.ranks))
    assert with_ranks.docs.tolist() == plain.docs.tolist()
    sorted_again = Run(["q"], corpus.ids, plain.docs, plain.scores, corpus.ranks)
    assert sorted_again.docs.tolist() == plain.docs.tolist()


# ------------------------------------------------------------------------------------------------- from_hits


LETTERS = Corpus.from_dict({"b": "two", "a": "one", "c": "three"})


def test_from_hits_returns_a_run_over_the_corpus():
    run = Run.from_hits({"q2": {"c": 1, "a": 2.5}, "other": {"x": 1.0}}, ["q1", "q2"], LETTERS)
    assert run.to_dict() == {"q1": {}, "q2": {"a": 2.5, "c": 1.0}}
    assert run.doc_ids is LETTERS.ids
    assert run.docs.tolist() == [[-1, -1], [1, 2]]
    assert Run.from_hits({}, ["q1"], LETTERS).depth == 0


@pytest.mark.parametrize(
    ("docs", "error", "message"),
    [
        ({"a": 1.0, "gone": 2.0}, RunError, r"query 'q': document 'gone' is not in the corpus of 3 .* 'b'"),
        ({"a": float("nan")}, RunError, "query 'q': a score is nan"),
        ({"a": "1.0"}, DataError, "query 'q': score '1.0' is of type str"),
        ({7: 1.0}, DataError, "query 'q': document id 7 is of type int"),
        ([("a", 1.0)], DataError, "query 'q': a dict"),
    ],
)
def test_an_invalid_hit_is_refused_with_its_query_and_value(docs, error, message):
    with pytest.raises(error, match=message):
        Run.from_hits({"p": {"a": 1.0}, "q": docs}, ["p", "q"], LETTERS)
