"""Tests of Corpus, Queries, Run and Qrels as mappings, from and to dicts and DataFrames, and of refused types."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.errors import data_error

from harness.errors import RunError
from harness.types import Corpus, Qrels, Queries, Run, StringColumn, Texts
from harness.types.containers import IndexedMapping

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
slices = st.builds(slice, *[st.none() | st.integers(-9, 9).filter(bool)] * 3)
nested_scores = st.dictionaries(ids, st.dictionaries(ids, float32s, max_size=5), max_size=5)
nested_grades = st.dictionaries(ids, st.dictionaries(ids, st.integers(-(2**31), 2**31 - 1), max_size=5), max_size=5)


def check_container(rows: IndexedMapping[Any], expected: Mapping[str, Any]) -> None:
    """Check every operation of a mapping with positions against a dict in the same order."""
    names, values = list(expected), list(expected.values())
    assert (list(rows), len(rows), bool(rows)) == (names, len(names), bool(names))
    assert list(rows.keys()) == names
    assert list(rows.values()) == values
    assert list(rows.items()) == list(expected.items())
    assert rows == rows.to_dict() == dict(rows) == dict(expected)
    assert [rows[name] for name in names] == values
    assert [rows[at] for at in range(len(names))] == values
    assert [rows[at - len(names)] for at in range(len(names))] == values
    assert all(name in rows and rows.get(name) == expected[name] for name in names)
    assert "not there" not in rows
    assert 0 not in rows
    assert None not in rows
    assert rows.get("not there") is None
    with pytest.raises(KeyError, match="'not there'"):
        rows["not there"]
    for outside in (len(names), -len(names) - 1):
        with pytest.raises(IndexError, match=f"position {outside}"):
            rows[outside]
    with pytest.raises(TypeError):
        rows[0.5]  # type: ignore[call-overload]


def check_slice(rows: IndexedMapping[Any], positions: slice) -> None:
    """Check that a slice has the container's type and the items that a list's slice would have."""
    sliced = rows[positions]
    assert type(sliced) is type(rows)
    assert list(sliced.items()) == list(rows.items())[positions]


# ------------------------------------------------------------------------------------------------------ mappings


@given(st.dictionaries(ids, st.text(st.characters(codec="utf-8"), max_size=4), max_size=9), slices)
@settings(deadline=None, max_examples=100)
def test_texts_are_a_mapping_with_positions(texts: dict[str, str], part: slice) -> None:
    for kind in (Corpus, Queries):
        rows = kind(texts.keys(), texts.values())
        check_container(rows, texts)
        check_slice(rows, part)


@given(nested_scores, slices)
@settings(deadline=None, max_examples=100)
def test_a_run_is_a_mapping_with_positions(scores: dict[str, dict[str, float]], part: slice) -> None:
    def order(hits: dict[str, float]) -> dict[str, float]:
        ranked = sorted(hits.items(), key=lambda hit: (hit[1], hit[0].encode()), reverse=True)
        return dict(ranked)

    run = Run.from_dict(scores)
    check_container(run, scores)
    assert [list(hits) for hits in run.values()] == [list(order(hits)) for hits in scores.values()]
    check_slice(run, part)


@given(nested_grades, slices)
@settings(deadline=None, max_examples=100)
def test_qrels_are_a_mapping_with_positions(grades: dict[str, dict[str, int]], part: slice) -> None:
    qrels = Qrels.from_dict(grades)
    check_container(qrels, grades)
    check_slice(qrels, part)


def test_numpy_integers_are_positions() -> None:
    corpus = Corpus(["7", "a"], ["x", "y"])
    assert corpus[np.int64(1)] == corpus[np.int32(-1)] == "y"
    assert corpus["7"] == "x"
    assert np.int64(1) not in corpus


def test_ids_are_looked_up_in_any_order_and_across_chunks() -> None:
    rng = np.random.default_rng(3)
    names = [f"doc {number}" for number in rng.permutation(3000)]
    chunks = pa.chunked_array([pa.array(names[first : first + 700]) for first in range(0, 3000, 700)])
    corpus = Corpus(chunks, [name.upper() for name in names])
    assert all(corpus[name] == name.upper() for name in names)
    assert [corpus.position(name) for name in names[:50]] == list(range(50))
    assert not any(name in corpus for name in ("", "doc", "doc 3000", "doc 1 ", "zzz", "\ud800"))


def test_the_index_of_ids_is_built_on_the_first_lookup() -> None:
    corpus = Corpus(["a", "b"], ["x", "y"])
    assert (list(corpus), corpus[1], len(corpus[:1])) == (["a", "b"], "y", 1)
    assert not {"_sorted", "ranks"} & set(vars(corpus))
    assert "b" in corpus
    assert {"_sorted", "ranks"} <= set(vars(corpus))


def test_containers_of_equal_content_are_equal() -> None:
    assert Corpus(["a", "b"], ["x", "y"]) == Corpus(["b", "a"], ["y", "x"]) != Corpus(["a"], ["x"])
    assert Run.from_dict({"q": {"a": 1.0}}) == Run.from_dict({"q": {"a": 1.0}}) != Run.from_dict({"q": {"a": 2.0}})


# ------------------------------------------------------------------------------------------------------ from_dict


def test_a_corpus_of_beir_dicts_joins_title_and_text_with_one_space() -> None:
    rows = {
        "a": {"title": "Cats", "text": "purr."},
        "b": {"title": "", "text": " bark "},
        "c": {"text": "neither"},
        "d": {"title": None, "text": "", "url": 3},
        "e": " as it is ",
    }
    expected = {"a": "Cats purr.", "b": "bark", "c": "neither", "d": "", "e": " as it is "}
    assert Corpus.from_dict(rows).to_dict() == expected


def test_a_run_from_a_dict_keeps_queries_without_hits_and_sorts_hits_by_score() -> None:
    run = Run.from_dict({"q2": {}, "q1": {"a": 1, "c": np.float32(0.5), "b": 1.0}})
    assert (list(run), run.depth) == (["q2", "q1"], 3)
    assert run["q2"] == {}
    assert list(run["q1"].items()) == [("b", 1.0), ("a", 1.0), ("c", 0.5)]
    assert run.top(1).to_dict() == {"q2": {}, "q1": {"b": 1.0}}


def test_an_empty_dict_is_an_empty_container() -> None:
    assert [len(kind.from_dict({})) for kind in (Corpus, Queries, Run, Qrels)] == [0, 0, 0, 0]
    assert Run.from_dict({}).depth == 0


@given(nested_scores)
@settings(deadline=None, max_examples=100)
def test_a_run_survives_a_round_trip_through_a_dict_or_columns(scores: dict[str, dict[str, float]]) -> None:
    run = Run.from_dict(scores)
    assert Run.from_dict(run.to_dict()) == run
    rows = [(query, doc, value) for query, hits in scores.items() for doc, value in hits.items()]
    interleaved = rows[::2] + rows[1::2]  # hits of one query need not be adjacent
    columns = [list(column) for column in zip(*interleaved, strict=True)] or [[], [], []]
    assert Run.from_columns(*columns) == {query: hits for query, hits in run.items() if hits}


# ------------------------------------------------------------------------------------------------------ DataFrames


@given(st.dictionaries(ids, st.text(st.characters(codec="utf-8"), max_size=4), min_size=1, max_size=9))
@settings(deadline=None, max_examples=50)
def test_texts_survive_a_round_trip_through_a_data_frame(texts: dict[str, str]) -> None:
    for kind, column in ((Corpus, "doc_id"), (Queries, "query_id")):
        rows = kind(texts.keys(), texts.values())
        frame = rows.to_pandas()
        assert list(frame.columns) == [column, "text"]
        read_back = kind.from_pandas(frame)
        assert list(read_back.items()) == list(rows.items())
        assert read_back.fingerprint == rows.fingerprint


@given(nested_scores, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_a_run_survives_a_round_trip_through_a_shuffled_data_frame(
    scores: dict[str, dict[str, float]], random: Any
) -> None:
    run = Run.from_dict(scores)
    frame = run.to_pandas()
    assert list(frame.columns) == ["query_id", "doc_id", "rank", "score"]
    for query, hits in run.items():
        rows = frame[frame["query_id"] == query]
        assert rows["doc_id"].tolist() == list(hits)
        assert rows["rank"].tolist() == list(range(1, len(hits) + 1))
        assert rows["score"].tolist() == list(hits.values())
    shuffled = frame.iloc[random.sample(range(len(frame)), len(frame))]
    assert Run.from_pandas(shuffled) == {query: hits for query, hits in run.items() if hits}


@given(nested_grades)
@settings(deadline=None, max_examples=50)
def test_qrels_survive_a_round_trip_through_a_data_frame(grades: dict[str, dict[str, int]]) -> None:
    frame = Qrels(grades).to_pandas()
    assert list(frame.columns) == ["query_id", "doc_id", "grade"]
    assert Qrels.from_pandas(frame) == {query: docs for query, docs in grades.items() if docs}


@pytest.mark.parametrize(
    ("query", "doc", "grade"),
    [
        ("query_id", "doc_id", "relevance"),  # ir_measures, ir_datasets
        ("qid", "docno", "label"),  # PyTerrier
        ("query-id", "corpus-id", "score"),  # BEIR
        ("query", "document", "grade"),
    ],
)
def test_column_names_of_other_tools_are_accepted(query: str, doc: str, grade: str) -> None:
    qrels = pd.DataFrame({query: ["q", "q"], doc: ["a", "b"], grade: [2.0, 0.0]})
    assert Qrels.from_pandas(qrels) == {"q": {"a": 2, "b": 0}}
    run = pd.DataFrame({query: ["q", "q"], doc: ["a", "b"], "rank": [9, 9], "score": [1, 2]})
    if grade != "score":
        assert list(Run.from_pandas(run)["q"]) == ["b", "a"]


def test_the_column_qid_is_preferred_to_a_column_query_with_the_text() -> None:
    topics = pd.DataFrame({"qid": ["1"], "query": ["what purrs"]})
    assert Queries.from_pandas(topics) == {"1": "what purrs"}
    results = topics.assign(docid=[0], docno=["d"], score=[1.5])
    assert Run.from_pandas(results) == {"1": {"d": 1.5}}


def test_titles_of_a_data_frame_are_joined_with_texts_and_may_be_missing() -> None:
    frame = pd.DataFrame({"_id": ["a", "b"], "title": ["Cats", None], "text": ["purr.", "bark."]})
    assert Corpus.from_pandas(frame) == {"a": "Cats purr.", "b": "bark."}


FRAME = pd.DataFrame({"query_id": ["q"], "doc_id": ["d"], "grade": [1], "score": [1.0], "text": ["t"]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Run.from_pandas(FRAME.drop(columns="score")), "no column 'score', only query_id, doc_id, grade, text"),
        (lambda: Qrels.from_pandas(FRAME.drop(columns="doc_id")), "accepted names: doc_id, docno, corpus-id, document"),
        (lambda: Corpus.from_pandas(FRAME[["text"]]), "frame.rename(columns={'NAME': 'doc_id'})"),
        (lambda: Queries.from_pandas({"query_id": ["q"]}), "takes a pandas DataFrame, not dict"),
        (lambda: Qrels.from_pandas(FRAME.assign(grade=None)), "column 'grade' has no value in row 0"),
        (lambda: Qrels.from_pandas(pd.concat([FRAME, FRAME.assign(grade=2)])), "have grade 1 already, now 2"),
        (lambda: Qrels.from_pandas(FRAME.assign(grade=0.5)), "row 0: grade 0.5 must be a whole number"),
        (lambda: Qrels.from_pandas(FRAME.assign(query_id=7)), "query id 7 is of type int and must be a string"),
        (lambda: Run.from_pandas(FRAME.assign(doc_id=7)), "document id 7 is of type int and must be a string"),
        (lambda: Run.from_pandas(FRAME.assign(score="1.0")), "score '1.0' is of type str and must be a number"),
        (lambda: Corpus.from_pandas(FRAME.assign(doc_id=7)), "document id 7 is of type int and must be a string"),
        (lambda: Corpus.from_pandas(FRAME.assign(text=None)), "document number 1 has no text"),
        (lambda: Corpus.from_pandas(FRAME.assign(title=5)), "document title or text 5 is of type int"),
        (lambda: Run.from_columns(["q"], ["a", "b"], [1.0]), "1 query ids, 2 document ids and 1 scores"),
        (lambda: Run.from_columns(pa.array(["q", None]), ["a", "b"], [1.0, 2.0]), "query id number 2 is missing"),
    ],
)
def test_a_data_frame_with_missing_columns_or_bad_values_is_refused(make: Callable[[], object], message: str) -> None:
    with data_error(message):
        make()


def test_a_document_that_occurs_twice_in_a_data_frame_is_refused() -> None:
    frame = pd.DataFrame({"query_id": ["q", "q"], "doc_id": ["a", "a"], "score": [1.0, 2.0]})
    with pytest.raises(RunError, match="query 'q': document 'a' is ranked more than once"):
        Run.from_pandas(frame)


# ------------------------------------------------------------------------------------------------------ wrong types


class Name(StrEnum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "advice"), [(7, ": pass str(7)"), (b"b", ": pass str(b'b')"), (True, ": pass str(True)"), (1.5, "")]
)
def test_the_first_id_or_text_that_is_not_a_string_is_named(value: Any, advice: str) -> None:
    message = f"{value!r} is of type {type(value).__name__} and must be a string{advice}"
    docs = np.array([[0, 1]])
    for make in (
        lambda: StringColumn(["a", value, 9]),
        lambda: Corpus(["a", value, 9], ["x", "y", "z"]),
        lambda: Queries(["a", "b", "c"], ["x", value, 9]),
        lambda: Corpus.from_dict({"a": "x", value: "y"}),
        lambda: Corpus.from_dict({"a": value}),
        lambda: Corpus.from_dict({"a": {"text": value}}),
        lambda: Corpus.from_dict({"a": {"text": "x", "title": value}}),
        lambda: Qrels({"q": {"a": 1}, value: {"a": 1}}),
        lambda: Qrels({"q": {"a": 1, value: 1}}),
        lambda: Run.from_dict({"q": {"a": 1.0}, value: {}}),
        lambda: Run.from_dict({"q": {"a": 1.0, value: 2.0}}),
        lambda: Run(["q", value], ["a", "b"], np.array([[0], [1]]), np.ones((2, 1))),
        lambda: Run(["q"], ["a", value], docs, np.ones((1, 2))),
    ):
        with data_error(message):
            make()


def test_arrow_arrays_of_another_type_are_refused_and_not_cast() -> None:
    with data_error("document id 7 is of type int and must be a string: pass str(7)"):
        Corpus(pa.array([None, 7, 8]), ["x", "y", "z"])
    with data_error("document text b'x' is of type bytes"):
        Corpus(["a"], pa.array([b"x"]))


def test_every_kind_of_string_is_accepted() -> None:
    for values in (
        ["a"],
        [np.str_("a")],
        np.array(["a"]),
        pd.Series(["a"]),
        [Name.A],
        pa.array(["a"]).dictionary_encode(),
    ):
        assert list(StringColumn(values)) == ["a"]
    assert Qrels({Name.A: {np.str_("d"): 1}})["a"] == {"d": 1}
    assert list(StringColumn(pa.array([], pa.int64()))) == list(StringColumn([])) == []


def test_half_a_surrogate_pair_is_refused() -> None:
    with data_error("document text 'x\\ud800' has half a surrogate pair"):
        Corpus(["a"], ["x\ud800"])


def test_a_document_that_is_not_ranked_may_have_any_id() -> None:
    """Only ids of ranked documents are checked, which keeps a run of few hits on many documents cheap."""
    assert Run(["q"], ["a", 7], np.array([[0]]), np.ones((1, 1))).to_dict() == {"q": {"a": 1.0}}


@pytest.mark.parametrize("shape", [["a", "b"], {"a"}, "a", 1, None])
def test_hits_and_judgements_must_be_dicts(shape: Any) -> None:
    for kind, noun in ((Qrels, "grade"), (Run, "score")):
        with data_error(f"query 'q': a dict {{query id: {{document id: {noun}}}}} is needed"):
            kind.from_dict({"q": shape})
        with data_error(f"a dict {{query id: {{document id: {noun}}}}} is needed, not {type(shape).__name__}"):
            kind.from_dict(shape)
    with data_error(f"Corpus.from_dict takes a dict from ids to texts, not {type(shape).__name__}"):
        Corpus.from_dict(shape)


def test_a_document_without_a_text_is_refused() -> None:
    with data_error("document 'a' has no 'text'; its keys are body"):
        Corpus.from_dict({"a": {"body": "x"}})


@pytest.mark.parametrize("value", ["1.0", None, b"1", [1.0]])
def test_scores_that_are_not_numbers_are_refused(value: Any) -> None:
    with data_error(f"score {value!r} is of type {type(value).__name__} and must be a number"):
        Run.from_dict({"q": {"a": 1.0, "b": value}})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_the_query_of_a_score_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(RunError, match="query 'q': a score is"):
        Run.from_dict({"p": {"a": 1.0}, "q": {"a": value}})


def test_texts_is_a_container_too() -> None:
    check_container(Texts(["a"], ["x"]), {"a": "x"})
