"""Tests of StringColumn, Corpus and Queries: content, ids, order of ids, fingerprints, Arrow files."""

import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.errors import mentions

from harness.errors import DataError
from harness.types import Corpus, Fingerprint, Queries, StringColumn
from harness.types.run import ids_at

# ids whose order by bytes differs from most other orders: case, accents, scripts, an astral plane
IDS = ["a", "B", "b", "10", "9", "é", "e\u0301", "ß", "Ω", "文", "\uffff", "\U0001f600", "a0", "A"]


# ----------------------------------------------------------------------------------------------------- StringColumn


def test_a_string_column_has_its_strings_in_order() -> None:
    strings = StringColumn(iter(IDS))
    assert list(strings) == IDS
    assert len(strings) == len(IDS)
    assert [strings[i] for i in range(len(IDS))] == IDS
    assert strings[-1] == IDS[-1]
    assert strings[np.int64(2)] == IDS[2]
    assert strings.take(np.array([3, 0, 3])) == [IDS[3], IDS[0], IDS[3]]
    assert "Ω" in strings
    assert "nowhere" not in strings


def test_a_position_outside_a_string_column_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        StringColumn(["a"])[1]


@given(st.lists(st.text(max_size=3), max_size=8), st.builds(slice, *[st.none() | st.integers(-9, 9).filter(bool)] * 3))
@settings(deadline=None, max_examples=200)
def test_a_string_column_is_sliced_like_a_list(values: list[str], part: slice) -> None:
    sliced = StringColumn(values)[part]
    assert isinstance(sliced, StringColumn)
    assert list(sliced) == values[part]
    assert len(sliced) == len(values[part])


def test_a_string_column_is_a_large_arrow_array_whatever_its_source() -> None:
    chunked = pa.chunked_array([pa.array(["x"]), pa.array(["y", "z"])])
    for source in (["x", "y", "z"], pa.array(["x", "y", "z"], pa.string()), chunked, StringColumn(chunked)):
        strings = StringColumn(source)
        assert strings.arrow.type == pa.large_string()
        assert list(strings) == ["x", "y", "z"]
        assert strings == StringColumn(["x", "y", "z"])
    assert StringColumn(["x"]) != StringColumn(["y"])
    assert StringColumn(["x"]) != ["x"]


def test_batches_of_a_string_column_hold_every_string_in_order() -> None:
    values = [str(i) for i in range(25)]
    batches = list(StringColumn(values).batches(10))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert [value for batch in batches for value in batch] == values
    assert list(StringColumn([]).batches()) == []


def test_ids_at_reads_string_columns_and_lists() -> None:
    picked = np.array([2, 0, 2], np.int32)
    assert ids_at(IDS, picked) == ids_at(StringColumn(IDS), picked) == ["b", "a", "b"]


# -------------------------------------------------------------------------------------------------- Corpus and Queries


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Corpus(["a"], ["x", "y"]), ("1 document ids", "2 texts")),
        (lambda: Queries(["a", "b"], ["x"]), ("2 query ids", "1 texts")),
        (lambda: Corpus(pa.array(["a", None, "b"]), ["x", "y", "z"]), ("document number 2", "no id")),
        (lambda: Queries(["a", "b"], pa.array(["x", None])), ("query number 2", "no text")),
        (lambda: Corpus(["a", "b", ""], ["x", "y", "z"]), ("document number 3", "empty id")),
        (lambda: Queries([""], ["x"]), ("query number 1", "empty id")),
        (
            lambda: Corpus(["a", "b", "c", "b"], ["w", "x", "y", "z"]),
            ("document id 'b'", "more than once"),
        ),
        (lambda: Queries(["ü", "ü"], ["x", "x"]), ("query id 'ü'", "more than once")),
    ],
)
def test_a_missing_empty_or_repeated_id_is_refused(make: Callable[[], object], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=mentions(*parts)):
        make()


def test_an_empty_text_keeps_its_id() -> None:
    corpus = Corpus(["a", "b"], ["", "text"])
    assert list(corpus.ids) == ["a", "b"]
    assert list(corpus.texts) == ["", "text"]


def test_ids_are_compared_exactly() -> None:
    assert len(Corpus(["a", "A", "a ", "é", "e\u0301"], [""] * 5)) == 5


def test_a_slice_of_a_corpus_is_a_corpus() -> None:
    corpus = Corpus(["a", "b", "c"], ["x", "y", "z"])
    part = corpus[1:]
    assert type(part) is Corpus
    assert (list(part.ids), list(part.texts)) == (["b", "c"], ["y", "z"])
    assert part.fingerprint == Corpus(["b", "c"], ["y", "z"]).fingerprint != corpus.fingerprint
    assert type(Queries(["a"], ["x"])[:0]) is Queries


def test_a_slice_does_not_inherit_a_given_fingerprint() -> None:
    corpus = Corpus(["a", "b"], ["x", "y"], fingerprint="f" * 32)
    assert corpus.fingerprint == "f" * 32
    assert corpus[:1].fingerprint == Corpus(["a"], ["x"]).fingerprint


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), unique=True, max_size=20))
@settings(deadline=None, max_examples=200)
def test_ranks_order_ids_by_their_bytes_descending(ids: list[str]) -> None:
    corpus = Corpus(ids, ids)
    highest_first = sorted(range(len(ids)), key=lambda i: ids[i].encode(), reverse=True)
    assert np.argsort(corpus.ranks).tolist() == highest_first
    assert sorted(corpus.ranks.tolist()) == list(range(len(ids)))
    assert corpus.ranks.dtype == np.int32


def test_ranks_order_non_ascii_ids_by_their_bytes() -> None:
    # first bytes: "Z" 5a, "a" 61, "é" c3, "文" e6, U+FFFF ef, U+1F600 f0 (UTF-16 would put it before U+FFFF)
    assert Corpus(["é", "\uffff", "Z", "\U0001f600", "文", "a"], [""] * 6).ranks.tolist() == [3, 1, 5, 0, 2, 4]


def test_ranks_do_not_depend_on_chunks() -> None:
    chunks = pa.chunked_array([pa.array(IDS[:5]), pa.array(IDS[5:])])
    assert Corpus(chunks, IDS).ranks.tolist() == Corpus(IDS, IDS).ranks.tolist()


rows = st.dictionaries(st.text("ab 1", max_size=3), st.text("ab 1", max_size=3), max_size=5)


def fingerprint(content: dict[str, str]) -> str:
    """Return the fingerprint of {id: text}."""
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
def test_fingerprints_of_different_rows_differ(first: dict[str, str], second: dict[str, str]) -> None:
    assert (fingerprint(first) == fingerprint(second)) == (first == second)


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
    ("first", "second"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a b", "c"), ("a", "b c")),
        (("a 1", "x"), ("a", "1 x")),
        (("1", "1 1"), ("1 1", "1")),
    ],
)
def test_moving_the_boundary_between_id_and_text_changes_the_fingerprint(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert Corpus([first[0]], [first[1]]).fingerprint != Corpus([second[0]], [second[1]]).fingerprint


def test_a_fingerprint_does_not_depend_on_batches() -> None:
    content = {f"d{i}": f"text {i}" for i in range(9000)}
    assert Corpus(content.keys(), content.values()).fingerprint == fingerprint(content)
    assert re.fullmatch("[0-9a-f]{32}", fingerprint(content))
    assert Corpus([], []).fingerprint == "0" * 32


def test_two_equal_rows_do_not_cancel_out_in_a_fingerprint() -> None:
    digest = Fingerprint()
    digest.add(["a", "a"], ["x", "x"])
    assert str(digest) != str(Fingerprint())
    assert str(digest) != fingerprint({"a": "x"})


def write_arrow(path: Path, ids: list[str], texts: list[str]) -> None:
    """Write ids and texts to an Arrow file in batches of three rows."""
    table = pa.table({"id": pa.array(ids, pa.large_string()), "text": pa.array(texts, pa.large_string())})
    with pa.ipc.new_file(str(path), table.schema) as sink:
        sink.write_table(table, max_chunksize=3)


def test_a_corpus_is_opened_from_an_arrow_file(tmp_path: Path) -> None:
    write_arrow(tmp_path / "corpus.arrow", IDS, [f"text of {key}" for key in IDS])
    corpus = Corpus(IDS, [f"text of {key}" for key in IDS])
    opened = Corpus.open(tmp_path / "corpus.arrow", corpus.fingerprint)
    assert type(opened) is Corpus
    assert list(opened.ids) == IDS
    assert list(opened.texts) == list(corpus.texts)
    assert opened.fingerprint == corpus.fingerprint
    assert opened.ranks.tolist() == corpus.ranks.tolist()
    assert opened[:4].fingerprint == corpus[:4].fingerprint
    assert type(Queries.open(tmp_path / "corpus.arrow", "f")) is Queries


def test_an_opened_corpus_is_memory_mapped(tmp_path: Path) -> None:
    write_arrow(tmp_path / "corpus.arrow", [str(i) for i in range(30)], ["x" * 100_000] * 30)
    before = pa.total_allocated_bytes()
    opened = Corpus.open(tmp_path / "corpus.arrow", "f")
    assert len(opened[:5].texts) == 5
    assert pa.total_allocated_bytes() - before < 100_000


LETTERS = Corpus.from_dict({"b": "two", "a": "one", "c": "three"})


def test_positions_of_ids_are_minus_one_where_an_id_is_missing():
    assert LETTERS.ids.positions(["c", "x", "b", "c"]).tolist() == [2, -1, 0, 2]
    assert LETTERS.ids.positions([]).tolist() == []
    assert Corpus([], []).ids.positions(["a"]).tolist() == [-1]
