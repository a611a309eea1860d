"""The nouns: StringColumn, Corpus, Queries, Qrels, Dataset, Run and TREC run files."""

import gzip
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError, RunError
from harness.types import Corpus, Dataset, Fingerprint, Qrels, Queries, Run, StringColumn, trec
from harness.types.run import ids_at

# ids whose order by bytes differs from most other orders: case, accents, scripts, an astral plane
IDS = ["a", "B", "b", "10", "9", "é", "e\u0301", "ß", "Ω", "文", "\uffff", "\U0001f600", "a0", "A"]


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


# ----------------------------------------------------------------------------------------------------- StringColumn


def test_strings_give_what_they_were_made_of() -> None:
    strings = StringColumn(iter(IDS))
    assert list(strings) == IDS
    assert len(strings) == len(IDS)
    assert [strings[i] for i in range(len(IDS))] == IDS
    assert strings[-1] == IDS[-1]
    assert strings[np.int64(2)] == IDS[2]
    assert strings.take(np.array([3, 0, 3])) == [IDS[3], IDS[0], IDS[3]]
    assert "Ω" in strings
    assert "nowhere" not in strings


def test_a_string_outside_strings_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        StringColumn(["a"])[1]


@given(st.lists(st.text(max_size=3), max_size=8), st.builds(slice, *[st.none() | st.integers(-9, 9).filter(bool)] * 3))
@settings(deadline=None, max_examples=200)
def test_strings_are_sliced_as_lists_are(values: list[str], part: slice) -> None:
    sliced = StringColumn(values)[part]
    assert isinstance(sliced, StringColumn)
    assert list(sliced) == values[part]
    assert len(sliced) == len(values[part])


def test_strings_are_held_in_arrow_whatever_they_come_from() -> None:
    chunked = pa.chunked_array([pa.array(["x"]), pa.array(["y", "z"])])
    for source in (["x", "y", "z"], pa.array(["x", "y", "z"], pa.string()), chunked, StringColumn(chunked)):
        strings = StringColumn(source)
        assert strings.arrow.type == pa.large_string()
        assert list(strings) == ["x", "y", "z"]
        assert strings == StringColumn(["x", "y", "z"])
    assert StringColumn(["x"]) != StringColumn(["y"])
    assert StringColumn(["x"]) != ["x"]


def test_strings_come_in_batches_in_order_and_none_is_lost() -> None:
    values = [str(i) for i in range(25)]
    batches = list(StringColumn(values).batches(10))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert [value for batch in batches for value in batch] == values
    assert list(StringColumn([]).batches()) == []


def test_ids_are_taken_from_strings_and_from_lists_alike() -> None:
    picked = np.array([2, 0, 2], np.int32)
    assert ids_at(IDS, picked) == ids_at(StringColumn(IDS), picked) == ["b", "a", "b"]


# -------------------------------------------------------------------------------------------------- Corpus and Queries


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Corpus(["a"], ["x", "y"]), "1 document ids but 2 texts: one text for each id"),
        (lambda: Queries(["a", "b"], ["x"]), "2 query ids but 1 texts: one text for each id"),
        (lambda: Corpus(pa.array(["a", None, "b"]), ["x", "y", "z"]), "document number 2 has no id"),
        (lambda: Queries(["a", "b"], pa.array(["x", None])), "query number 2 has no text"),
        (lambda: Corpus(["a", "b", ""], ["x", "y", "z"]), "document number 3 has an empty id"),
        (lambda: Queries([""], ["x"]), "query number 1 has an empty id"),
        (
            lambda: Corpus(["a", "b", "c", "b"], ["w", "x", "y", "z"]),
            "document id 'b' occurs more than once: ids must be unique",
        ),
        (lambda: Queries(["ü", "ü"], ["x", "x"]), "query id 'ü' occurs more than once: ids must be unique"),
    ],
)
def test_a_missing_empty_or_repeated_id_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=exactly(message)):
        make()


def test_an_empty_text_keeps_its_id() -> None:
    corpus = Corpus(["a", "b"], ["", "text"])
    assert list(corpus.ids) == ["a", "b"]
    assert list(corpus.texts) == ["", "text"]


def test_ids_that_differ_only_in_case_accent_form_or_space_are_different() -> None:
    assert len(Corpus(["a", "A", "a ", "é", "e\u0301"], [""] * 5)) == 5


def test_a_slice_of_a_corpus_is_a_corpus() -> None:
    corpus = Corpus(["a", "b", "c"], ["x", "y", "z"])
    part = corpus[1:]
    assert type(part) is Corpus
    assert (list(part.ids), list(part.texts)) == (["b", "c"], ["y", "z"])
    assert part.fingerprint == Corpus(["b", "c"], ["y", "z"]).fingerprint != corpus.fingerprint
    assert type(Queries(["a"], ["x"])[:0]) is Queries


def test_a_slice_does_not_inherit_a_fingerprint_that_was_given() -> None:
    given_one = Corpus(["a", "b"], ["x", "y"], fingerprint="f" * 32)
    assert given_one.fingerprint == "f" * 32
    assert given_one[:1].fingerprint == Corpus(["a"], ["x"]).fingerprint


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), unique=True, max_size=20))
@settings(deadline=None, max_examples=200)
def test_ranks_are_places_by_bytes_highest_first(ids: list[str]) -> None:
    corpus = Corpus(ids, ids)
    highest_first = sorted(range(len(ids)), key=lambda i: ids[i].encode(), reverse=True)
    assert np.argsort(corpus.ranks).tolist() == highest_first
    assert sorted(corpus.ranks.tolist()) == list(range(len(ids)))
    assert corpus.ranks.dtype == np.int32


def test_ranks_put_non_ascii_ids_by_their_bytes() -> None:
    # first bytes: "Z" 5a, "a" 61, "é" c3, "文" e6, U+FFFF ef, U+1F600 f0 (UTF-16 would put it before U+FFFF)
    assert Corpus(["é", "\uffff", "Z", "\U0001f600", "文", "a"], [""] * 6).ranks.tolist() == [3, 1, 5, 0, 2, 4]


def test_ranks_of_a_corpus_in_several_chunks_are_those_of_one() -> None:
    chunks = pa.chunked_array([pa.array(IDS[:5]), pa.array(IDS[5:])])
    assert Corpus(chunks, IDS).ranks.tolist() == Corpus(IDS, IDS).ranks.tolist()


rows = st.dictionaries(st.text("ab 1", max_size=3), st.text("ab 1", max_size=3), max_size=5)


def fingerprint(content: dict[str, str]) -> str:
    digest = Fingerprint()
    digest.add(content.keys(), content.values())
    return str(digest)


@given(rows, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_fingerprint_does_not_depend_on_the_order_of_rows(content: dict[str, str], random: Random) -> None:
    shuffled = list(content.items())
    random.shuffle(shuffled)
    assert fingerprint(dict(shuffled)) == fingerprint(content)


@given(rows, rows)
@settings(deadline=None, max_examples=300)
def test_fingerprints_of_different_rows_differ(one: dict[str, str], other: dict[str, str]) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (["a", "c"], ["x", "y"]),  # another id
        (["a", "b"], ["x", "y "]),  # another text, by a space
        (["a", "b"], ["X", "y"]),  # case
        (["a", "b"], ["y", "x"]),  # texts swapped
        (["a"], ["x"]),  # a row less
        (["a", "b", "c"], ["x", "y", ""]),  # a row more
    ],
)
def test_any_change_of_a_corpus_changes_its_fingerprint(ids: list[str], texts: list[str]) -> None:
    assert Corpus(ids, texts).fingerprint != Corpus(["a", "b"], ["x", "y"]).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a b", "c"), ("a", "b c")),
        (("a 1", "x"), ("a", "1 x")),
        (("1", "1 1"), ("1 1", "1")),
    ],
)
def test_moving_the_boundary_of_id_and_text_changes_the_fingerprint(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert Corpus([one[0]], [one[1]]).fingerprint != Corpus([other[0]], [other[1]]).fingerprint


def test_a_corpus_has_the_fingerprint_of_its_rows_over_several_batches() -> None:
    content = {f"d{i}": f"text {i}" for i in range(9000)}
    assert Corpus(content.keys(), content.values()).fingerprint == fingerprint(content)
    assert re.fullmatch("[0-9a-f]{32}", fingerprint(content))
    assert Corpus([], []).fingerprint == "0" * 32


def test_a_row_twice_is_not_no_row() -> None:
    digest = Fingerprint()
    digest.add(["a", "a"], ["x", "x"])
    assert str(digest) != str(Fingerprint())
    assert str(digest) != fingerprint({"a": "x"})


def arrow_file(path: Path, ids: list[str], texts: list[str]) -> None:
    table = pa.table({"id": pa.array(ids, pa.large_string()), "text": pa.array(texts, pa.large_string())})
    with pa.ipc.new_file(str(path), table.schema) as sink:
        sink.write_table(table, max_chunksize=3)


def test_a_corpus_is_opened_from_an_arrow_file(tmp_path: Path) -> None:
    arrow_file(tmp_path / "corpus.arrow", IDS, [f"text of {key}" for key in IDS])
    made = Corpus(IDS, [f"text of {key}" for key in IDS])
    opened = Corpus.open(tmp_path / "corpus.arrow", made.fingerprint)
    assert type(opened) is Corpus
    assert list(opened.ids) == IDS
    assert list(opened.texts) == list(made.texts)
    assert opened.fingerprint == made.fingerprint
    assert opened.ranks.tolist() == made.ranks.tolist()
    assert opened[:4].fingerprint == made[:4].fingerprint
    assert type(Queries.open(tmp_path / "corpus.arrow", "f")) is Queries


def test_an_opened_corpus_is_mapped_and_not_copied(tmp_path: Path) -> None:
    arrow_file(tmp_path / "corpus.arrow", [str(i) for i in range(30)], ["x" * 100_000] * 30)
    before = pa.total_allocated_bytes()
    opened = Corpus.open(tmp_path / "corpus.arrow", "f")
    assert len(opened[:5].texts) == 5
    assert pa.total_allocated_bytes() - before < 100_000


# ------------------------------------------------------------------------------------------------------------- Qrels


def test_qrels_read_as_a_mapping() -> None:
    qrels = Qrels({"q1": {"a": 2, "b": 0}, "q2": {"c": -1}, "q3": {}})
    assert list(qrels) == ["q1", "q2", "q3"]
    assert len(qrels) == 3
    assert qrels["q1"] == {"a": 2, "b": 0}
    assert "q4" not in qrels
    assert qrels.judgements() == 3
    with pytest.raises(KeyError):
        qrels["q4"]


def test_a_query_is_answerable_when_a_document_of_it_has_a_positive_grade() -> None:
    qrels = Qrels({"z": {"a": 0, "b": 1}, "none": {}, "zero": {"a": 0}, "negative": {"a": -1, "b": 0}, "a": {"x": 3}})
    assert qrels.queries_with_relevant() == ["z", "a"]


def test_qrels_do_not_change_with_the_dict_they_came_from() -> None:
    source = {"q": {"a": 1}}
    qrels = Qrels(source)
    source["q"]["b"] = 1
    source["p"] = {"a": 1}
    assert dict(qrels) == {"q": {"a": 1}}


# ----------------------------------------------------------------------------------------------------------- Dataset


def dataset(
    grades: dict[str, dict[str, int]], texts: tuple[str, str] = ("x", "y"), query: str = "?", drop: bool = False
) -> Dataset:
    corpus, queries = Corpus(["a", "b"], texts), Queries(["q", "p"], [query, ""])
    return Dataset("name", "test", corpus, queries, Qrels(grades), drop_self_hits=drop)


def test_a_dataset_is_its_texts_judgements_and_self_hits_in_any_order() -> None:
    base = dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}})
    assert base.fingerprint == dataset({"p": {"a": 2}, "q": {"b": 0, "a": 1}}).fingerprint
    others = [
        dataset({"q": {"a": 2, "b": 0}, "p": {"a": 2}}),
        dataset({"q": {"a": 1}, "p": {"a": 2}}),
        dataset({"q": {"a": 1, "b": 0}, "p": {"b": 2}}),
        dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}}, texts=("x", "z")),
        dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}}, query="!"),
        dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}}, drop=True),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


# --------------------------------------------------------------------------------------------------------------- Run


def run_of(*rankings: dict[str, float], doc_ids: list[str] | None = None) -> Run:
    """A run of queries q0, q1, ... from their {document: score}, in the order given."""
    ids = doc_ids or sorted({doc for ranking in rankings for doc in ranking})
    depth = max(map(len, rankings), default=0)
    docs, scores = np.full((len(rankings), depth), -1), np.zeros((len(rankings), depth))
    for row, ranking in enumerate(rankings):
        docs[row, : len(ranking)] = [ids.index(doc) for doc in ranking]
        scores[row, : len(ranking)] = list(ranking.values())
    return Run([f"q{row}" for row in range(len(rankings))], ids, docs, scores)


def test_a_run_puts_the_highest_score_first() -> None:
    run = run_of({"a": -2.0, "b": 3.5, "c": 0.0})
    assert run.hits(0)[0] == ["b", "c", "a"]
    assert run.hits(0)[1].tolist() == [3.5, 0.0, -2.0]


def test_a_run_puts_equal_scores_in_descending_order_of_id() -> None:
    run = run_of({"10": 1.0, "9": 1.0, "a": 2.0, "B": 1.0, "b": 1.0, "é": 1.0, "z": 1.0})
    assert run.hits(0)[0] == ["a", "é", "z", "b", "B", "9", "10"]


def test_a_run_orders_ids_by_bytes_and_not_by_utf_16_units() -> None:
    assert run_of({"\uffff": 1.0, "\U0001f600": 1.0}).hits(0)[0] == ["\U0001f600", "\uffff"]


def test_scores_that_are_equal_as_float32_are_a_tie() -> None:
    assert run_of({"a": 1.0 + 1e-9, "b": 1.0}).hits(0)[0] == ["b", "a"]
    assert run_of({"a": 16777217.0, "b": 16777216.0}).hits(0)[0] == ["b", "a"]
    assert run_of({"a": 1.0 + 1e-6, "b": 1.0}).hits(0)[0] == ["a", "b"]


def test_minus_zero_equals_zero() -> None:
    assert run_of({"a": 0.0, "b": -0.0, "c": 0.0}).hits(0)[0] == ["c", "b", "a"]
    assert run_of({"a": -0.0, "b": 1.0, "c": 0.0, "d": -0.0}).hits(0)[0] == ["b", "d", "c", "a"]


def test_empty_places_come_last_whatever_score_stands_there() -> None:
    docs = np.array([[-1, 0, -1, 1], [-1, -1, -1, -1]])
    scores = np.array([[np.nan, -5.0, np.inf, -4.0], [1.0, 2.0, np.nan, -np.inf]])
    run = Run(["q", "silent"], ["a", "b"], docs, scores)
    assert run.docs.tolist() == [[1, 0, -1, -1], [-1, -1, -1, -1]]
    assert run.hits(0)[1].tolist() == [-4.0, -5.0]
    assert run.hits(1)[0] == []
    assert run.hits(1)[1].tolist() == []


SCORES = [-3.0, -1.0, -0.0, 0.0, 1e-40, 0.5, 1.0, 1.0 + 1e-9, 16777216.0, 16777217.0]


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Document ids, documents [queries, k] with empty places among them, and scores with heavy ties."""
    ids = draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=3), unique=True, max_size=9))
    depth = draw(st.integers(0, 12))
    found = []
    for _ in range(draw(st.integers(0, 4))):
        places = draw(st.permutations([*range(len(ids)), *[-1] * depth]))
        found.append(places[:depth])
    shape = (len(found), depth)
    scores = draw(st.lists(st.sampled_from(SCORES), min_size=len(found) * depth, max_size=len(found) * depth))
    return ids, np.array(found, np.int64).reshape(shape), np.array(scores, np.float64).reshape(shape)


def naive(ids: list[str], docs: np.ndarray, scores: np.ndarray) -> list[tuple[float, str]]:
    hits = [(float(np.float32(score)), ids[doc]) for doc, score in zip(docs, scores, strict=True) if doc >= 0]
    return sorted(hits, key=lambda hit: (hit[0], hit[1].encode()), reverse=True)


@given(rankings(), st.booleans())
@settings(deadline=None, max_examples=500)
def test_a_run_has_the_order_of_a_plain_sort(
    columns: tuple[list[str], np.ndarray, np.ndarray], as_strings: bool
) -> None:
    ids, docs, scores = columns
    run = Run([f"q{row}" for row in range(len(docs))], StringColumn(ids) if as_strings else ids, docs, scores)
    assert run.docs.shape == run.scores.shape == docs.shape
    assert (run.docs.dtype, run.scores.dtype) == (np.int32, np.float32)
    for row in range(len(docs)):
        names, values = run.hits(row)
        assert list(zip(values.tolist(), names, strict=True)) == naive(ids, docs[row], scores[row])
        assert (run.docs[row, len(names) :] == -1).all()


@given(rankings())
@settings(deadline=None)
def test_a_run_of_a_runs_columns_is_the_same_run(columns: tuple[list[str], np.ndarray, np.ndarray]) -> None:
    ids, docs, scores = columns
    queries = [f"q{row}" for row in range(len(docs))]
    run = Run(queries, ids, docs, scores)
    again = Run(run.query_ids, run.doc_ids, run.docs, run.scores)
    assert again.docs.tolist() == run.docs.tolist()
    assert again.scores.tolist() == run.scores.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_run_does_not_change_the_arrays_it_is_given(order: str) -> None:
    docs = np.array([[0, 1, 2, -1], [2, -1, 0, 1]], np.int32, order=order)
    scores = np.array([[1.0, 1.0, 3.0, 7.0], [1.0, np.nan, 1.0, 1.0]], np.float32, order=order)
    kept = docs.copy(), scores.copy()
    docs.setflags(write=False)
    scores.setflags(write=False)
    run = Run(["p", "q"], ["a", "b", "c"], docs, scores)
    assert run.docs.tolist() == [[2, 1, 0, -1], [2, 1, 0, -1]]
    np.testing.assert_array_equal(docs, kept[0])
    np.testing.assert_array_equal(scores, kept[1])


@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")], ids=["nan", "inf", "minus inf"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_score_that_is_not_finite_is_an_error_naming_the_query(value: float, shown: str, dtype: type) -> None:
    scores = np.array([[3.0, 2.0], [1.0, value]], dtype)
    with pytest.raises(RunError, match=exactly(f"query 'second': a score is {shown}; scores must be finite")):
        Run(["first", "second"], ["a", "b"], np.array([[0, 1], [0, 1]]), scores)


def test_infinite_scores_of_both_signs_do_not_hide_each_other() -> None:
    with pytest.raises(RunError, match=exactly("query 'q0': a score is inf; scores must be finite")):
        run_of({"a": np.inf, "b": -np.inf})


def test_a_score_too_large_for_float32_is_an_error_naming_the_query() -> None:
    with pytest.raises(RunError, match=exactly("query 'q1': a score is inf; scores must be finite")):
        run_of({"a": 1.0}, {"a": 1e39})


def test_many_large_scores_are_fine() -> None:
    largest = float(np.finfo(np.float32).max)
    assert run_of({"a": largest, "b": largest, "c": -largest}).hits(0)[0] == ["b", "a", "c"]


def test_a_document_twice_is_an_error_naming_query_and_document() -> None:
    docs, scores = np.array([[0, 1, -1, -1], [1, 0, 2, 1]]), np.zeros((2, 4))
    with pytest.raises(RunError, match=exactly("query 'second': document 'b' is ranked more than once")):
        Run(["first", "second"], ["a", "b", "c"], docs, scores)


def test_a_query_twice_is_an_error_naming_it() -> None:
    with pytest.raises(RunError, match=exactly("query 'twice' is in the run more than once")):
        Run(["once", "twice", "twice"], ["a"], np.zeros((3, 1), int), np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("docs", "scores"), [((1, 3), (1, 3)), ((2, 3), (2, 2)), ((2,), (2,)), ((3, 2), (3, 2)), ((2, 1, 1), (2, 1, 1))]
)
def test_arrays_that_do_not_fit_are_an_error(docs: tuple[int, ...], scores: tuple[int, ...]) -> None:
    message = f"a run of 2 queries needs docs and scores of shape [2, k], not {list(docs)} and {list(scores)}"
    with pytest.raises(RunError, match=exactly(message)):
        Run(["p", "q"], ["a"], np.full(docs, -1), np.zeros(scores))


@pytest.mark.parametrize("doc", [-2, 2, 2**31 - 1, 2**32])
def test_a_document_number_outside_the_ids_is_an_error(doc: int) -> None:
    with pytest.raises(RunError, match=exactly("a document number lies outside -1..1")):
        Run(["q"], ["a", "b"], np.array([[1, doc]]), np.zeros((1, 2)))


def test_top_keeps_the_first_places_of_every_query() -> None:
    run = run_of({"a": 1.0, "b": 3.0, "c": 2.0}, {"c": 1.0})
    top = run.top(2)
    assert (top.depth, len(top)) == (2, 2)
    assert top.query_ids == run.query_ids
    assert top.hits(0)[0] == ["b", "c"]
    assert top.hits(0)[1].tolist() == [3.0, 2.0]
    assert top.hits(1)[0] == ["c"]
    assert run.depth == 3
    assert run.top(3).docs.tolist() == run.top(99).docs.tolist() == run.docs.tolist()
    assert run.top(0).hits(0)[0] == []


def test_top_cuts_a_tie_in_the_canonical_order() -> None:
    assert run_of({"a": 1.0, "b": 1.0, "c": 1.0}).top(2).hits(0)[0] == ["c", "b"]


def test_a_run_may_be_empty_in_every_way() -> None:
    assert len(Run([], [], np.zeros((0, 0), int), np.zeros((0, 0)))) == 0
    assert len(Run([], ["a"], np.zeros((0, 5), int), np.zeros((0, 5)))) == 0
    nothing_found = Run(["q"], [], np.full((1, 3), -1), np.zeros((1, 3)))
    assert nothing_found.hits(0)[0] == []
    assert Run(["q"], ["a"], np.zeros((1, 0), int), np.zeros((1, 0))).depth == 0


def test_a_run_of_ten_thousand_queries_and_a_thousand_places_is_put_in_order() -> None:
    rng = np.random.default_rng(7)
    ids = [f"doc {number}" for number in rng.permutation(5000)]
    docs = (np.arange(1000, dtype=np.int32) * 3 + rng.integers(0, 5000, (10_000, 1), dtype=np.int32)) % 5000
    scores = rng.integers(-500, 500, docs.shape).astype(np.float32)
    run = Run([str(row) for row in range(10_000)], StringColumn(ids), docs, scores)
    assert (run.scores[:, 1:] <= run.scores[:, :-1]).all()
    for row in (0, 1, 4999, 9999):
        names, values = run.hits(row)
        assert list(zip(values.tolist(), names, strict=True)) == naive(ids, docs[row], scores[row])


# -------------------------------------------------------------------------------------------------------- TREC files


def by_query(run: Run) -> dict[str, list[tuple[str, float]]]:
    """The hits of the queries that have any."""
    hits = {query: run.hits(row) for row, query in enumerate(run.query_ids)}
    return {query: list(zip(names, values.tolist(), strict=True)) for query, (names, values) in hits.items() if names}


words = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "Cc", "Cs"]), min_size=1, max_size=4)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.dictionaries(words, st.dictionaries(words, float32s, min_size=1, max_size=6), min_size=1, max_size=3),
    st.sampled_from(["run.trec", "run.trec.gz"]),
)
@settings(deadline=None, max_examples=200)
def test_a_run_file_read_back_has_the_same_order_and_the_same_scores(
    found: dict[str, dict[str, float]], name: str
) -> None:
    run = run_of(*found.values())
    run = Run(list(found), run.doc_ids, run.docs, run.scores)
    with tempfile.TemporaryDirectory() as folder:
        trec.write(run, Path(folder) / name, "tag")
        again = trec.read(Path(folder) / name)
    assert by_query(again) == by_query(run)
    assert list(again.query_ids) == list(run.query_ids)


def test_a_run_file_has_six_columns_in_rank_order_and_the_shortest_exact_scores(tmp_path: Path) -> None:
    run = run_of({"a": 0.1, "b": 2.0, "c": 2.0}, {}, {"c": -1e-10})
    trec.write(run, tmp_path / "run.trec", "bm25 [k1=1.2]")
    assert (tmp_path / "run.trec").read_text() == (
        "q0 Q0 c 1 2.0 bm25_[k1=1.2]\n"
        "q0 Q0 b 2 2.0 bm25_[k1=1.2]\n"
        "q0 Q0 a 3 0.1 bm25_[k1=1.2]\n"
        "q2 Q0 c 1 -1e-10 bm25_[k1=1.2]\n"
    )


def test_an_empty_tag_is_still_a_column(tmp_path: Path) -> None:
    trec.write(run_of({"a": 1.0}), tmp_path / "run.trec", "")
    assert (tmp_path / "run.trec").read_text() == "q0 Q0 a 1 1.0 run\n"


def test_a_gzipped_run_file_holds_the_text_of_the_plain_one(tmp_path: Path) -> None:
    run = run_of({"a": 1.0, "ü": 2.5})
    trec.write(run, tmp_path / "run.trec", "t")
    trec.write(run, tmp_path / "run.trec.gz", "t")
    assert gzip.decompress((tmp_path / "run.trec.gz").read_bytes()) == (tmp_path / "run.trec").read_bytes()


@pytest.mark.parametrize("suffix", ["trec", "trec.gz"])
def test_the_same_run_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    trec.write(run_of({"a": 1.0, "b": 1.0, "c": 3.0}), tmp_path / f"one.{suffix}", "t")
    trec.write(run_of({"b": 1.0, "c": 3.0, "a": 1.0}, doc_ids=["c", "a", "b"]), tmp_path / f"two.{suffix}", "t")
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


@pytest.mark.parametrize("key", ["a b", "a\tb", "a\n", "a\u00a0b", "\u3000"])
def test_an_id_with_white_space_is_refused_on_writing(tmp_path: Path, key: str) -> None:
    message = exactly(f"id {key!r} has white space, which a TREC run file cannot hold: replace it in the data")
    with pytest.raises(RunError, match=message):
        trec.write(run_of({"a": 2.0, key: 1.0}), tmp_path / "run.trec", "t")
    with pytest.raises(RunError, match=message):
        trec.write(Run([key], ["a"], np.array([[0]]), np.ones((1, 1))), tmp_path / "run.trec", "t")
    assert not (tmp_path / "run.trec").exists()


@pytest.mark.parametrize("line", ["q Q0 b 2 1.5", "q Q0 b 2 high tag", "q", "q,Q0,b,2,1.5,tag"])
def test_a_malformed_line_is_named_with_file_and_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.trec"
    path.write_text(f"q Q0 a 1 2.5 tag\n\n{line}\n")
    message = f"{path}:3: not a run line: {line!r}; six columns are needed: query Q0 document rank score tag"
    with pytest.raises(DataError, match=exactly(message)):
        trec.read(path)


def test_a_file_without_a_run_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.trec"
    path.write_text("\n")
    with pytest.raises(DataError, match=exactly(f"{path}: no run lines in it")):
        trec.read(path)


def test_a_run_file_is_read_by_score_and_not_by_rank_or_order(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q\tQ0  a 1 1.5 t\np Q0 a 9 1 t\r\nq 0 b 1 3 t\nq Q0 c 0 1.5e0 t")
    assert by_query(trec.read(path)) == {"q": [("b", 3.0), ("c", 1.5), ("a", 1.5)], "p": [("a", 1.0)]}


def test_words_behind_the_tag_of_a_run_line_do_not_count_as_in_trec_eval(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q Q0 a 1 1.5 tag and more words\n")
    assert by_query(trec.read(path)) == {"q": [("a", 1.5)]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("q Q0 a 1 1 t\nq Q0 a 2 0.5 t\n", "query 'q': document 'a' is ranked more than once"),
        ("p Q0 a 1 1 t\nq Q0 a 1 nan t\n", "query 'q': a score is nan; scores must be finite"),
        ("p Q0 a 1 inf t\n", "query 'p': a score is inf; scores must be finite"),
    ],
)
def test_a_run_file_that_no_metric_may_score_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "run.trec").write_text(lines)
    with pytest.raises(RunError, match=exactly(message)):
        trec.read(tmp_path / "run.trec")


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=10, unique=True), st.randoms(use_true_random=False))
def test_a_run_that_knows_the_corpus_ranks_has_the_same_order(ids: list[str], rng: Random) -> None:
    corpus = Corpus(ids, [""] * len(ids))
    docs = np.array([rng.sample(range(-1, len(ids)), len(ids))])
    scores = np.array([[rng.choice([1.0, 2.0]) for _ in ids]])
    plain, helped = (Run(["q"], corpus.ids, docs, scores, ranks) for ranks in (None, corpus.ranks))
    assert helped.docs.tolist() == plain.docs.tolist()
    sorted_already = Run(["q"], corpus.ids, plain.docs, plain.scores, corpus.ranks)
    assert sorted_already.docs.tolist() == plain.docs.tolist()
