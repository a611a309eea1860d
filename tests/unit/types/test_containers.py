"""Corpus, Queries, Run and Qrels as Python containers, to and from dicts and DataFrames; wrong types are refused."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.datasets import folder
from harness.errors import DataError, RunError
from harness.metrics import parse, score
from harness.types import Corpus, Dataset, Qrels, Queries, Run, StringColumn, Texts
from harness.types.containers import IndexedMapping

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
slices = st.builds(slice, *[st.none() | st.integers(-9, 9).filter(bool)] * 3)
nested_scores = st.dictionaries(ids, st.dictionaries(ids, float32s, max_size=5), max_size=5)
nested_grades = st.dictionaries(ids, st.dictionaries(ids, st.integers(-(2**31), 2**31 - 1), max_size=5), max_size=5)


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=re.escape(message))


def check_container(rows: IndexedMapping[Any], expected: Mapping[str, Any]) -> None:
    """Check everything that a mapping with positions can do against a dict in the same order."""
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


def check_slice(rows: IndexedMapping[Any], part: slice) -> None:
    sliced = rows[part]
    assert type(sliced) is type(rows)
    assert list(sliced.items()) == list(rows.items())[part]


# ------------------------------------------------------------------------------------------------------ as containers


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


def test_numpys_integers_are_positions() -> None:
    corpus = Corpus(["7", "a"], ["x", "y"])
    assert corpus[np.int64(1)] == corpus[np.int32(-1)] == "y"
    assert corpus["7"] == "x"
    assert np.int64(1) not in corpus


def test_ids_are_found_in_any_order_and_across_chunks() -> None:
    rng = np.random.default_rng(3)
    names = [f"doc {number}" for number in rng.permutation(3000)]
    chunks = pa.chunked_array([pa.array(names[first : first + 700]) for first in range(0, 3000, 700)])
    corpus = Corpus(chunks, [name.upper() for name in names])
    assert all(corpus[name] == name.upper() for name in names)
    assert [corpus.position(name) for name in names[:50]] == list(range(50))
    assert not any(name in corpus for name in ("", "doc", "doc 3000", "doc 1 ", "zzz", "\ud800"))


def test_an_index_of_ids_is_made_only_when_an_id_is_looked_up() -> None:
    corpus = Corpus(["a", "b"], ["x", "y"])
    assert (list(corpus), corpus[1], len(corpus[:1])) == (["a", "b"], "y", 1)
    assert not {"_sorted", "ranks"} & set(vars(corpus))
    assert "b" in corpus
    assert {"_sorted", "ranks"} <= set(vars(corpus))


def test_containers_of_equal_content_are_equal() -> None:
    assert Corpus(["a", "b"], ["x", "y"]) == Corpus(["b", "a"], ["y", "x"]) != Corpus(["a"], ["x"])
    assert Run.from_dict({"q": {"a": 1.0}}) == Run.from_dict({"q": {"a": 1.0}}) != Run.from_dict({"q": {"a": 2.0}})


# ------------------------------------------------------------------------------------------------------ from_dict


def test_a_corpus_of_beirs_dicts_joins_title_and_text_by_one_space() -> None:
    rows = {
        "a": {"title": "Cats", "text": "purr."},
        "b": {"title": "", "text": " bark "},
        "c": {"text": "neither"},
        "d": {"title": None, "text": "", "url": 3},
        "e": " as it is ",
    }
    expected = {"a": "Cats purr.", "b": "bark", "c": "neither", "d": "", "e": " as it is "}
    assert Corpus.from_dict(rows).to_dict() == expected


def test_a_run_from_a_dict_keeps_queries_without_hits_and_ranks_the_others() -> None:
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
def test_a_run_of_its_own_dict_or_columns_is_the_same_run(scores: dict[str, dict[str, float]]) -> None:
    run = Run.from_dict(scores)
    assert Run.from_dict(run.to_dict()) == run
    rows = [(query, doc, value) for query, hits in scores.items() for doc, value in hits.items()]
    interleaved = rows[::2] + rows[1::2]  # hits of one query need not stand together
    columns = [list(column) for column in zip(*interleaved, strict=True)] or [[], [], []]
    assert Run.from_columns(*columns) == {query: hits for query, hits in run.items() if hits}


# ------------------------------------------------------------------------------------------------------ DataFrames


@given(st.dictionaries(ids, st.text(st.characters(codec="utf-8"), max_size=4), min_size=1, max_size=9))
@settings(deadline=None, max_examples=50)
def test_texts_come_back_from_a_data_frame(texts: dict[str, str]) -> None:
    for kind, column in ((Corpus, "doc_id"), (Queries, "query_id")):
        rows = kind(texts.keys(), texts.values())
        frame = rows.to_pandas()
        assert list(frame.columns) == [column, "text"]
        again = kind.from_pandas(frame)
        assert list(again.items()) == list(rows.items())
        assert again.fingerprint == rows.fingerprint


@given(nested_scores, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_a_run_comes_back_from_a_data_frame_in_any_order(scores: dict[str, dict[str, float]], random: Any) -> None:
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
def test_qrels_come_back_from_a_data_frame(grades: dict[str, dict[str, int]]) -> None:
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
def test_columns_are_read_by_the_names_of_the_fields_tools(query: str, doc: str, grade: str) -> None:
    qrels = pd.DataFrame({query: ["q", "q"], doc: ["a", "b"], grade: [2.0, 0.0]})
    assert Qrels.from_pandas(qrels) == {"q": {"a": 2, "b": 0}}
    run = pd.DataFrame({query: ["q", "q"], doc: ["a", "b"], "rank": [9, 9], "score": [1, 2]})
    if grade != "score":
        assert list(Run.from_pandas(run)["q"]) == ["b", "a"]


def test_a_frame_with_the_query_id_beside_its_text_is_read_by_the_id() -> None:
    topics = pd.DataFrame({"qid": ["1"], "query": ["what purrs"]})
    assert Queries.from_pandas(topics) == {"1": "what purrs"}
    results = topics.assign(docid=[0], docno=["d"], score=[1.5])
    assert Run.from_pandas(results) == {"1": {"d": 1.5}}


def test_titles_of_a_data_frame_are_joined_and_may_be_missing() -> None:
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
def test_a_data_frame_that_cannot_be_read_is_refused(make: Callable[[], object], message: str) -> None:
    with refused(message):
        make()


def test_a_document_twice_in_a_run_is_refused_wherever_it_comes_from() -> None:
    frame = pd.DataFrame({"query_id": ["q", "q"], "doc_id": ["a", "a"], "score": [1.0, 2.0]})
    with pytest.raises(RunError, match="query 'q': document 'a' is ranked more than once"):
        Run.from_pandas(frame)


# ------------------------------------------------------------------------------------------------------ wrong types


class Name(StrEnum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "advice"), [(7, ": pass str(7)"), (b"b", ": pass str(b'b')"), (True, ": pass str(True)"), (1.5, "")]
)
def test_ids_and_texts_that_are_not_strings_are_refused_by_the_first(value: Any, advice: str) -> None:
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
        with refused(message):
            make()


def test_arrow_arrays_of_another_type_are_refused_and_not_cast() -> None:
    with refused("document id 7 is of type int and must be a string: pass str(7)"):
        Corpus(pa.array([None, 7, 8]), ["x", "y", "z"])
    with refused("document text b'x' is of type bytes"):
        Corpus(["a"], pa.array([b"x"]))


def test_strings_of_every_kind_are_taken() -> None:
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
    with refused("document text 'x\\ud800' has half a surrogate pair"):
        Corpus(["a"], ["x\ud800"])


def test_a_document_that_is_not_ranked_may_have_any_id() -> None:
    """Only the ids that count are looked at, which keeps a run of few hits on many documents cheap."""
    assert Run(["q"], ["a", 7], np.array([[0]]), np.ones((1, 1))).to_dict() == {"q": {"a": 1.0}}


@pytest.mark.parametrize("shape", [["a", "b"], {"a"}, "a", 1, None])
def test_hits_or_judgements_that_are_no_dict_are_refused(shape: Any) -> None:
    for kind, noun in ((Qrels, "grade"), (Run, "score")):
        with refused(f"query 'q': a dict {{query id: {{document id: {noun}}}}} is needed"):
            kind.from_dict({"q": shape})
        with refused(f"a dict {{query id: {{document id: {noun}}}}} is needed, not {type(shape).__name__}"):
            kind.from_dict(shape)
    with refused(f"Corpus.from_dict takes a dict from ids to texts, not {type(shape).__name__}"):
        Corpus.from_dict(shape)


def test_a_document_without_a_text_is_refused() -> None:
    with refused("document 'a' has no 'text'; its keys are body"):
        Corpus.from_dict({"a": {"body": "x"}})


@pytest.mark.parametrize("value", ["1.0", None, b"1", [1.0]])
def test_scores_that_are_no_numbers_are_refused(value: Any) -> None:
    with refused(f"score {value!r} is of type {type(value).__name__} and must be a number"):
        Run.from_dict({"q": {"a": 1.0, "b": value}})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_scores_that_are_not_finite_are_refused_by_the_query(value: float) -> None:
    with pytest.raises(RunError, match="query 'q': a score is"):
        Run.from_dict({"p": {"a": 1.0}, "q": {"a": value}})


# ------------------------------------------------------------------------------------------------------ grades


@pytest.mark.parametrize(
    "grade",
    [0.5, 1.9, -0.1, np.nan, np.inf, -np.inf, 2**31, -(2**31) - 1, 3e9, 10**400, "1", None, Fraction(1, 2), [1]],
)
def test_a_grade_that_is_not_a_whole_number_of_32_bits_is_refused(grade: Any) -> None:
    with refused(f"query 'q', document 'b': grade {grade!r} must be a whole number from -2147483648 to 2147483647"):
        Qrels({"p": {"a": 1}, "q": {"a": 1, "b": grade, "c": 0.25}})


@pytest.mark.parametrize(
    ("grade", "expected"),
    [
        (2.0, 2),
        (np.int64(2), 2),
        (np.uint8(2), 2),
        (np.float32(2.0), 2),
        (-0.0, 0),
        (True, 1),
        (False, 0),
        (np.True_, 1),
        (Fraction(4, 2), 2),
        (2**31 - 1, 2**31 - 1),
        (-(2**31), -(2**31)),
    ],
)
def test_a_whole_grade_of_any_type_is_taken_as_int(grade: Any, expected: int) -> None:
    value = Qrels({"q": {"a": grade}})["q"]["a"]
    assert (value, type(value)) == (expected, int)


def test_whole_float_grades_score_as_the_same_integers() -> None:
    run = Run.from_dict({"q": {"a": 3.0, "b": 2.0, "c": 1.0}})
    found = [score(run, Qrels({"q": grades}), [parse("ndcg@3")])[1]["ndcg@3"][0] for grades in ({"b": 3.0}, {"b": 3})]
    assert found[0] == found[1] == pytest.approx(1 / np.log2(3))


def test_the_largest_grade_is_scored() -> None:
    run = Run.from_dict({"q": {"a": 2.0, "b": 1.0}})
    _, scores = score(run, Qrels({"q": {"b": 2**31 - 1}}), [parse("ndcg@2")])
    assert scores["ndcg@2"][0] == pytest.approx(1 / np.log2(3))


# ------------------------------------------------------------------------------------------------------ Dataset

CORPUS = {"d1": {"title": "Cats", "text": "purr."}, "d2": {"title": "", "text": "Dogs bark."}, "d3": {"text": "Bread."}}
QUERIES = {"q1": "what purrs", "q2": "what barks", "q3": "nothing"}
QRELS = {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}, "q3": {"d1": 0}}


def test_a_dataset_of_dicts_leaves_out_queries_without_a_relevant_document() -> None:
    dataset = Dataset.from_dicts(CORPUS, QUERIES, QRELS, name="pets", split="dev", drop_self_hits=True, instruction="i")
    assert (dataset.name, dataset.split, dataset.drop_self_hits, dataset.instruction) == ("pets", "dev", True, "i")
    assert dataset.corpus.to_dict() == {"d1": "Cats purr.", "d2": "Dogs bark.", "d3": "Bread."}
    assert dataset.queries.to_dict() == {"q1": "what purrs", "q2": "what barks"}
    assert dataset.qrels == QRELS
    plain = Dataset.from_dicts(CORPUS, QUERIES, QRELS)
    assert (plain.name, plain.split, plain.candidate_matrix) == ("dataset", "test", None)


def test_a_dataset_of_dicts_containers_frames_or_files_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    rows = [{"_id": key, "title": doc.get("title", ""), "text": doc["text"]} for key, doc in CORPUS.items()]
    pd.DataFrame(rows).to_json(tmp_path / "corpus.jsonl", orient="records", lines=True)
    queries = pd.DataFrame({"_id": QUERIES.keys(), "text": QUERIES.values()})
    queries.to_json(tmp_path / "queries.jsonl", orient="records", lines=True)
    judged = Qrels(QRELS).to_pandas().rename(columns={"query_id": "query-id", "doc_id": "corpus-id", "grade": "score"})
    judged.to_csv(tmp_path / "qrels" / "test.tsv", sep="\t", index=False)
    made = [
        folder.read(tmp_path, "name", "test"),
        Dataset.from_dicts(CORPUS, QUERIES, QRELS),
        Dataset.from_dicts(Corpus.from_dict(CORPUS), Queries.from_dict(QUERIES), Qrels(QRELS)),
        Dataset.from_pandas(pd.DataFrame(rows), queries, judged),
    ]
    assert len({dataset.fingerprint for dataset in made}) == 1
    assert all(list(dataset.queries) == ["q1", "q2"] for dataset in made)


def test_candidates_of_a_dataset_of_dicts_are_checked_and_numbered() -> None:
    dataset = Dataset.from_dicts(CORPUS, QUERIES, QRELS, candidates={"q1": ["d3", "d1"], "q2": ["d2"]})
    assert dataset.candidate_matrix is not None
    assert dataset.candidate_matrix.tolist() == [[2, 0], [1, -1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": {}}, "dataset: the corpus is empty"),
        ({"corpus": {"d 1": "x"}}, "document id 'd 1' has white space"),
        ({"queries": {"q\t1": "x"}}, "query id 'q\\t1' has white space"),
        ({"qrels": {"q1": {"d1": 0}}}, "qrels: no query has a relevant document"),
        ({"qrels": {"q9": {"d1": 1}}}, "qrels: judgements of query 'q9', which is not among the 3 queries"),
        ({"qrels": {"q1": {"d9": 1}}}, "the ids do not match; the corpus has ids such as 'd1'"),
        ({"qrels": {"q1": {1: 1}}}, "query 'q1': document id 1 is of type int and must be a string: pass str(1)"),
        ({"qrels": {"q1": {"d1": 0.5}}}, "grade 0.5 must be a whole number"),
        ({"queries": {1: "x"}}, "query id 1 is of type int and must be a string: pass str(1)"),
        ({"candidates": {"q1": ["d9"]}}, "dataset: candidate 'd9' of query 'q1' is not in the corpus"),
        ({"candidates": {"q1": ["d1", "d1"]}}, "a document occurs twice among the candidates of query 'q1'"),
    ],
)
def test_a_dataset_of_dicts_that_do_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with refused(message):
        Dataset.from_dicts(**{"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS, **changes})


def test_a_base_class_of_texts_is_a_container_too() -> None:
    check_container(Texts(["a"], ["x"]), {"a": "x"})


# ------------------------------------------------------------------------------------------------- runs of hits


LETTERS = Corpus.from_dict({"b": "two", "a": "one", "c": "three"})


def test_hits_by_id_are_a_run_over_the_corpus():
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
def test_hits_that_cannot_be_name_the_query_and_the_value(docs, error, message):
    with pytest.raises(error, match=message):
        Run.from_hits({"p": {"a": 1.0}, "q": docs}, ["p", "q"], LETTERS)


def test_positions_of_ids_in_a_column():
    assert LETTERS.ids.positions(["c", "x", "b", "c"]).tolist() == [2, -1, 0, 2]
    assert LETTERS.ids.positions([]).tolist() == []
    assert Corpus([], []).ids.positions(["a"]).tolist() == [-1]
