"""Tests of TREC run files: what is written, and what is read or refused."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.errors import mentions
from support.runs import make_run

from harness.errors import DataError, RunError
from harness.types import Run, trec


def hits_by_query(run: Run) -> dict[str, list[tuple[str, float]]]:
    """Return the hits of each query that has any, as ids and scores in order of rank."""
    hits = {query: run.hits(row) for row, query in enumerate(run.query_ids)}
    return {query: list(zip(names, values.tolist(), strict=True)) for query, (names, values) in hits.items() if names}


words = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "Cc", "Cs"]), min_size=1, max_size=4)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.dictionaries(words, st.dictionaries(words, float32s, min_size=1, max_size=6), min_size=1, max_size=3),
    st.sampled_from(["run.trec", "run.trec.gz"]),
)
@settings(deadline=None, max_examples=200)
def test_a_run_survives_a_round_trip_through_a_file(hits: dict[str, dict[str, float]], name: str) -> None:
    run = make_run(*hits.values())
    run = Run(list(hits), run.doc_ids, run.docs, run.scores)
    with tempfile.TemporaryDirectory() as folder:
        trec.write(run, Path(folder) / name, "tag")
        read_back = trec.read(Path(folder) / name)
    assert hits_by_query(read_back) == hits_by_query(run)
    assert list(read_back.query_ids) == list(run.query_ids)


def test_a_run_file_has_six_columns_in_rank_order_and_the_shortest_exact_scores(tmp_path: Path) -> None:
    run = make_run({"a": 0.1, "b": 2.0, "c": 2.0}, {}, {"c": -1e-10})
    trec.write(run, tmp_path / "run.trec", "bm25 [k1=1.2]")
    assert (tmp_path / "run.trec").read_text() == (
        "q0 Q0 c 1 2.0 bm25_[k1=1.2]\n"
        "q0 Q0 b 2 2.0 bm25_[k1=1.2]\n"
        "q0 Q0 a 3 0.1 bm25_[k1=1.2]\n"
        "q2 Q0 c 1 -1e-10 bm25_[k1=1.2]\n"
    )


def test_an_empty_tag_is_written_as_run(tmp_path: Path) -> None:
    trec.write(make_run({"a": 1.0}), tmp_path / "run.trec", "")
    assert (tmp_path / "run.trec").read_text() == "q0 Q0 a 1 1.0 run\n"


def test_a_gzipped_run_file_has_the_content_of_the_plain_one(tmp_path: Path) -> None:
    run = make_run({"a": 1.0, "ü": 2.5})
    trec.write(run, tmp_path / "run.trec", "t")
    trec.write(run, tmp_path / "run.trec.gz", "t")
    assert gzip.decompress((tmp_path / "run.trec.gz").read_bytes()) == (tmp_path / "run.trec").read_bytes()


@pytest.mark.parametrize("suffix", ["trec", "trec.gz"])
def test_the_same_run_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    trec.write(make_run({"a": 1.0, "b": 1.0, "c": 3.0}), tmp_path / f"one.{suffix}", "t")
    trec.write(make_run({"b": 1.0, "c": 3.0, "a": 1.0}, doc_ids=["c", "a", "b"]), tmp_path / f"two.{suffix}", "t")
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


@pytest.mark.parametrize("key", ["a b", "a\tb", "a\n", "a\u00a0b", "\u3000"])
def test_an_id_with_white_space_is_refused_on_writing(tmp_path: Path, key: str) -> None:
    message = mentions(repr(key), "white space", "replace it")
    with pytest.raises(RunError, match=message):
        trec.write(make_run({"a": 2.0, key: 1.0}), tmp_path / "run.trec", "t")
    with pytest.raises(RunError, match=message):
        trec.write(Run([key], ["a"], np.array([[0]]), np.ones((1, 1))), tmp_path / "run.trec", "t")
    assert not (tmp_path / "run.trec").exists()


@pytest.mark.parametrize("line", ["q Q0 b 2 1.5", "q Q0 b 2 high tag", "q", "q,Q0,b,2,1.5,tag"])
def test_a_malformed_line_is_reported_with_file_and_line_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.trec"
    path.write_text(f"q Q0 a 1 2.5 tag\n\n{line}\n")
    with pytest.raises(DataError, match=mentions(f"{path}:3: ", repr(line), "query Q0 document rank score tag")):
        trec.read(path)


def test_a_run_file_without_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.trec"
    path.write_text("\n")
    with pytest.raises(DataError, match=mentions(str(path), "no run lines")):
        trec.read(path)


def test_a_run_file_is_sorted_by_score_and_not_by_rank_or_order(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q\tQ0  a 1 1.5 t\np Q0 a 9 1 t\r\nq 0 b 1 3 t\nq Q0 c 0 1.5e0 t")
    assert hits_by_query(trec.read(path)) == {"q": [("b", 3.0), ("c", 1.5), ("a", 1.5)], "p": [("a", 1.0)]}


def test_words_after_the_tag_of_a_line_are_ignored_as_in_trec_eval(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q Q0 a 1 1.5 tag and more words\n")
    assert hits_by_query(trec.read(path)) == {"q": [("a", 1.5)]}


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ("q Q0 a 1 1 t\nq Q0 a 2 0.5 t\n", ("query 'q'", "document 'a'", "more than once")),
        ("p Q0 a 1 1 t\nq Q0 a 1 nan t\n", ("query 'q'", "nan", "finite")),
        ("p Q0 a 1 inf t\n", ("query 'p'", "inf", "finite")),
    ],
)
def test_a_run_file_with_repeated_documents_or_scores_that_are_not_finite_is_refused(
    tmp_path: Path, lines: str, parts: tuple[str, ...]
) -> None:
    (tmp_path / "run.trec").write_text(lines)
    with pytest.raises(RunError, match=mentions(*parts)):
        trec.read(tmp_path / "run.trec")


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
