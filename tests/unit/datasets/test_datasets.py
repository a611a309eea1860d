"""Collections from files: every layout that is read, the words of every refusal, and the embedded collection."""

import csv
import gzip
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import metrics
from harness.config import build
from harness.datasets import beir, folder, judgements, rows, stdlib, texts
from harness.errors import ConfigError, DataError
from harness.types import Corpus, Dataset, Run

FILES = ("corpus", "queries", "qrels")
COLUMNS = {"id": "_id", "title": "title", "text": "text"}
QUERY_COLUMNS = {"id": "_id", "text": "text"}
QRELS_COLUMNS = {"query": "query-id", "document": "corpus-id", "grade": "score"}
DOCUMENTS = [
    {"_id": "d1", "title": "Green", "text": "a green bottle"},
    {"_id": "d2", "title": "", "text": "a red bottle"},
    {"_id": "d3", "title": "Empty", "text": ""},
]
QUERIES = [{"_id": "q1", "text": "green"}, {"_id": "q2", "text": "red"}]
HEADER = "query-id\tcorpus-id\tscore\n"
JUDGED = f"{HEADER}q1\td1\t1\nq2\td2\t2\n"


def jsonl(path: Path, items: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(item)}\n" for item in items), encoding="utf-8")
    return path


def collection(
    place: Path,
    documents: Iterable[Any] = DOCUMENTS,
    queries: Iterable[Any] = QUERIES,
    judged: str = JUDGED,
    split: str = "test",
) -> Path:
    """A collection in BEIR's layout."""
    jsonl(place / "corpus.jsonl", documents)
    jsonl(place / "queries.jsonl", queries)
    (place / "qrels").mkdir(exist_ok=True)
    (place / "qrels" / f"{split}.tsv").write_bytes(judged.encode())
    return place


def load(place: Path, **settings: Any) -> Dataset:
    columns = {"columns": COLUMNS, "query_columns": QUERY_COLUMNS, "qrels_columns": QRELS_COLUMNS}
    return folder.load(str(place), **{**columns, **settings})


def corpus_of(path: Path, columns: Mapping[str, str | None] = COLUMNS) -> Corpus:
    return texts.read(Corpus, path, columns)


def refusal(path: Path, columns: Mapping[str, str | None] = COLUMNS) -> str:
    with pytest.raises((DataError, ConfigError)) as error:
        corpus_of(path, columns)
    return str(error.value)


def judged_refusal(path: Path, content: str) -> str:
    path.write_text(content)
    with pytest.raises((DataError, ConfigError)) as error:
        judgements.read(path)
    return str(error.value)


def load_refusal(place: Path, **settings: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as error:
        load(place, **settings)
    return str(error.value)


# ---- good input


def test_a_folder_in_beirs_layout_is_read_whole(tmp_path: Path):
    dataset = load(collection(tmp_path / "tiny"))
    assert (dataset.name, dataset.split) == ("tiny", "test")
    assert list(dataset.corpus.ids) == ["d1", "d2", "d3"]
    assert dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True)) == {"q1": "green", "q2": "red"}
    assert {query: dict(docs) for query, docs in dataset.qrels.items()} == {"q1": {"d1": 1}, "q2": {"d2": 2}}


def test_qrels_with_crlf_line_ends_hold_no_carriage_return(tmp_path: Path):
    plain = load(collection(tmp_path / "a"))
    windows = load(collection(tmp_path / "b", judged=JUDGED.replace("\n", "\r\n")))
    assert dict(windows.qrels) == dict(plain.qrels)
    assert windows.fingerprint == plain.fingerprint


def test_the_first_judgement_of_a_headerless_file_counts(tmp_path: Path):
    dataset = load(collection(tmp_path, judged=JUDGED.removeprefix(HEADER)))
    assert dict(dataset.qrels) == {"q1": {"d1": 1}, "q2": {"d2": 2}}


@pytest.mark.parametrize("space", [" ", "\t", "   "], ids=["one space", "tab", "three spaces"])
def test_qrels_in_trecs_four_columns_are_read(tmp_path: Path, space: str):
    path = tmp_path / "test.tsv"
    path.write_text("".join(space.join(line) + "\n" for line in (["q1", "0", "d1", "1"], ["q1", "0", "d2", "0"])))
    judged = judgements.read(path)
    assert dict(judged.qrels) == {"q1": {"d1": 1, "d2": 0}}
    assert judged.first_line["q1"] == 1


def test_qrels_columns_stand_where_the_header_says(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text("score\tcorpus-id\tquery-id\n3\td1\tq1\n")
    assert dict(judgements.read(path).qrels) == {"q1": {"d1": 3}}


def test_blank_lines_in_qrels_and_corpus_are_passed_over(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}\nq1\td1\t1\n\n")
    assert dict(judgements.read(path).qrels) == {"q1": {"d1": 1}}
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n\n\n{"_id": "d2", "text": "b"}\n')
    assert list(corpus_of(tmp_path / "corpus.jsonl").ids) == ["d1", "d2"]


@pytest.mark.parametrize("row", [{}, {"title": None}, {"title": ""}], ids=["missing", "null", "empty"])
def test_a_title_that_is_not_there_is_never_the_word_none(tmp_path: Path, row: dict[str, Any]):
    corpus = corpus_of(jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "text": "a bottle", **row}]))
    assert list(corpus.texts) == ["a bottle"]


def test_title_and_text_are_joined_by_one_space(tmp_path: Path):
    corpus = corpus_of(jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "Green", "text": "a bottle"}]))
    assert list(corpus.texts) == ["Green a bottle"]


def test_numeric_ids_become_strings_that_the_qrels_match(tmp_path: Path):
    place = collection(tmp_path, [{"_id": 7, "text": "green"}], [{"_id": 1, "text": "green"}], f"{HEADER}1\t7\t1\n")
    dataset = load(place)
    assert list(dataset.corpus.ids) == ["7"]
    assert list(dataset.queries.ids) == ["1"]
    pq.write_table(pa.table({"_id": [7], "text": ["green"]}), tmp_path / "corpus.parquet")
    assert corpus_of(tmp_path / "corpus.parquet").fingerprint == dataset.corpus.fingerprint


def test_an_empty_document_keeps_its_id(tmp_path: Path):
    corpus = corpus_of(jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "", "text": ""}, *DOCUMENTS[1:]]))
    assert list(corpus.ids) == ["d1", "d2", "d3"]
    assert corpus.texts[0] == ""


def test_grades_may_be_written_as_whole_decimals_and_below_zero(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}q1\td1\t1.0\nq1\td2\t-2\nq1\td3\t2.0\n")
    judged = judgements.read(path)
    assert dict(judged.qrels["q1"]) == {"d1": 1, "d2": -2, "d3": 2}
    assert all(type(grade) is int for grade in judged.qrels["q1"].values())


def test_a_query_with_no_grade_above_zero_is_left_out(tmp_path: Path):
    dataset = load(collection(tmp_path, judged=f"{HEADER}q1\td1\t1\nq2\td2\t0\nq2\td1\t-1\n"))
    assert list(dataset.queries.ids) == ["q1"]


def test_the_same_pair_with_the_same_grade_twice_is_one_judgement(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}q1\td1\t1\nq1\td1\t1.0\n")
    assert judgements.read(path).qrels.judgements() == 1


def _as_separated(path: Path, items: list[dict[str, Any]], separator: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, items[0].keys(), delimiter=separator)
        table.writeheader()
        table.writerows(items)
    return path


def write_as(path: Path, items: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the path's name says."""
    inner = path.with_suffix("") if path.suffix == ".gz" else path
    if inner.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(items), inner)
    elif inner.suffix == ".jsonl":
        jsonl(inner, items)
    else:
        _as_separated(inner, items, "\t" if inner.suffix == ".tsv" else ",")
    if path != inner:
        path.write_bytes(gzip.compress(inner.read_bytes()))
        inner.unlink()
    return path


FORMS = ["jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "tsv.gz", "parquet"]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_is_read_by_named_columns_and_gives_the_same_dataset(tmp_path: Path, form: str):
    own_columns = {
        "columns": {"id": "docno", "title": "head", "text": "body"},
        "query_columns": {"id": "number", "text": "question"},
        "qrels_columns": {"query": "number", "document": "docno", "grade": "rel"},
    }
    write_as(
        tmp_path / f"docs.{form}",
        [{"body": row["text"], "head": row["title"], "docno": row["_id"]} for row in DOCUMENTS],
    )
    write_as(tmp_path / f"asked.{form}", [{"number": row["_id"], "question": row["text"]} for row in QUERIES])
    judged = [{"rel": 1, "number": "q1", "docno": "d1"}, {"rel": 2, "number": "q2", "docno": "d2"}]
    write_as(tmp_path / f"judged.{form}", judged)
    files = {role: f"{file}.{form}" for role, file in zip(FILES, ("docs", "asked", "judged"), strict=True)}
    dataset = folder.load(str(tmp_path), **own_columns, **files)
    assert dataset.fingerprint == load(collection(tmp_path / "beir")).fingerprint


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("large", [False, True], ids=["in memory", "mapped"])
def test_the_fingerprint_is_the_same_whichever_way_a_corpus_was_read(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, form: str, large: bool
):
    expected = Corpus(["d1", "d2", "d3"], ["Green a green bottle", "a red bottle", "Empty"]).fingerprint
    monkeypatch.setattr(texts, "_LARGE", 0 if large else 1 << 40)
    corpus = corpus_of(write_as(tmp_path / f"corpus.{form}", DOCUMENTS))
    assert corpus.fingerprint == expected
    assert empty_cache.exists() is large
    assert Corpus(corpus.ids, corpus.texts).fingerprint == expected  # what was promised is what is there


def test_line_breaks_inside_a_quoted_csv_field_are_kept(tmp_path: Path):
    rows_ = [{"_id": "d1", "title": "", "text": "one\r\ntwo\nthree"}]
    assert list(corpus_of(write_as(tmp_path / "corpus.csv", rows_)).texts) == ["one\r\ntwo\nthree"]


def test_quotes_in_a_tsv_file_are_text(tmp_path: Path):
    (tmp_path / "corpus.tsv").write_text('_id\ttitle\ttext\nd1\t\t"half a quotation\nd2\t\tb\n')
    assert list(corpus_of(tmp_path / "corpus.tsv").texts) == ['"half a quotation', "b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("corpus.csv", "_id,title,text\nd1,,a bottle\n"),
        ("corpus.jsonl", '{"_id": "d1", "text": "a bottle"}\n'),
    ],
)
def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert list(corpus_of(tmp_path / name).ids) == ["d1"]


def test_a_csv_field_longer_than_the_csv_modules_default_is_read(tmp_path: Path):
    long = "word " * 40_000 + "end"
    path = write_as(tmp_path / "corpus.csv", [{"_id": "d1", "title": "", "text": long}])
    before = csv.field_size_limit(131072)
    try:
        assert list(corpus_of(path).texts) == [long]
    finally:
        csv.field_size_limit(before)


def test_columns_named_for_a_folder_in_beirs_layout_are_the_columns_that_are_read(tmp_path: Path):
    place = collection(tmp_path, [{"docno": "d1", "contents": "green"}], judged=f"{HEADER}q1\td1\t1\n")
    dataset = load(place, columns={"id": "docno", "title": None, "text": "contents"})
    assert list(dataset.corpus.texts) == ["green"]


def test_the_order_of_rows_does_not_change_the_fingerprint_but_their_content_does(tmp_path: Path):
    one = load(collection(tmp_path / "a"))
    turned = load(collection(tmp_path / "b", DOCUMENTS[::-1], QUERIES[::-1]))
    other = load(collection(tmp_path / "c", [{**DOCUMENTS[0], "text": "a green bottl"}, *DOCUMENTS[1:]]))
    graded = load(collection(tmp_path / "d", judged=JUDGED.replace("q2\td2\t2", "q2\td2\t1")))
    assert one.fingerprint == turned.fingerprint
    assert len({one.fingerprint, other.fingerprint, graded.fingerprint}) == 3


# ---- large files


def test_a_large_file_is_parsed_once_and_mapped_from_then_on(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    first = corpus_of(path)
    assert [file.suffix for file in (empty_cache / "texts").iterdir()] == [".arrow"]

    def parsed_again(path: Path) -> None:
        raise AssertionError(f"{path} was parsed again")

    monkeypatch.setattr(texts, "rows", parsed_again)
    second = corpus_of(path)
    assert second.ids == first.ids
    assert list(second.texts) == list(first.texts)
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize("held", [64 << 20, 1000])
def test_a_large_stream_lies_in_a_file_that_is_gone_with_it(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, held: int
):
    monkeypatch.setattr(texts, "_MAX_IN_MEMORY", held)
    pairs = [(f"d{number}", f"text {number} " * 9) for number in range(40_000)]
    before = pa.total_allocated_bytes()
    corpus = texts.from_stream(Corpus, pairs)
    assert (pa.total_allocated_bytes() - before < 1 << 20) is (held == 1000)
    assert not [file for file in empty_cache.rglob("*") if file.is_file()]
    assert list(zip(corpus.ids, corpus.texts, strict=True)) == pairs
    assert corpus.fingerprint == Corpus(*zip(*pairs, strict=True)).fingerprint


def test_a_large_file_that_changed_is_parsed_again(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    first = corpus_of(path)
    jsonl(path, [*DOCUMENTS, {"_id": "d4", "text": "a blue bottle"}])
    changed = corpus_of(path)
    assert list(changed.ids) == ["d1", "d2", "d3", "d4"]
    assert changed.fingerprint != first.fingerprint


def test_a_large_file_of_the_same_size_and_a_later_time_is_parsed_again(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    corpus_of(path)
    state = path.stat()
    path.write_text(path.read_text().replace("a red", "a tan"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert "a tan bottle" in list(corpus_of(path).texts)


def test_a_large_file_is_parsed_again_for_other_columns(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    assert corpus_of(path).texts[0] == "Green a green bottle"
    assert corpus_of(path, QUERY_COLUMNS).texts[0] == "a green bottle"


# ---- wrong input


def test_a_line_that_is_no_json_is_named_with_its_number(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "d1", "text": "a"}\n{"_id": "d2", "text"\n')
    said = refusal(path)
    assert said.startswith(f"{path}:2: not JSON")
    assert """'{"_id": "d2", "text"'""" in said
    assert "each line must be one JSON object" in said


def test_a_line_that_is_no_object_is_named_with_its_number(tmp_path: Path):
    path = jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], ["d2", "text"]])
    assert refusal(path) == f"""{path}:2: not a JSON object: '["d2", "text"]'"""


@pytest.mark.parametrize("value", [None, "", True, 1.5], ids=repr)
def test_a_document_without_a_usable_id_is_named_with_its_line(tmp_path: Path, value: Any):
    path = jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], {"_id": value, "text": "a"}])
    assert refusal(path) == f"{path}:2: document has no id: column '_id' has {value!r}"


def test_a_missing_id_column_lists_the_columns_that_are_there(tmp_path: Path):
    path = jsonl(tmp_path / "corpus.jsonl", [{"docno": "d1", "text": "a"}])
    said = refusal(path)
    assert said == (f"{path}:1: document has no id: column '_id' is not among 'docno', 'text'; set it in the config")


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "mapped"])
def test_a_missing_text_is_named_with_line_id_and_columns(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, large: bool
):
    monkeypatch.setattr(texts, "_LARGE", 0 if large else 1 << 40)
    path = jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], {"_id": "d2", "body": "a"}])
    said = refusal(path)
    assert said == (
        f"{path}:2: document 'd2' has no text: column 'text' is not among '_id', 'body'; set it in the config"
    )
    assert not [file for file in empty_cache.rglob("*") if file.is_file()]


def test_a_title_that_is_no_text_is_refused(tmp_path: Path):
    path = jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": 7, "text": "a"}])
    assert refusal(path) == f"{path}:1: document 'd1' has a title that is not text: 7"


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "mapped"])
def test_a_repeated_id_is_named_with_both_lines_and_leaves_nothing_in_the_cache(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, large: bool
):
    monkeypatch.setattr(texts, "_LARGE", 0 if large else 1 << 40)
    path = jsonl(tmp_path / "corpus.jsonl", [*DOCUMENTS, {"_id": "d2", "text": "again"}])
    assert refusal(path) == f"{path}:4: document id 'd2' is on line 2 already: ids must be unique"
    assert not [file for file in empty_cache.rglob("*") if file.is_file()]


def test_a_repeated_query_id_is_called_a_query(tmp_path: Path):
    place = collection(tmp_path, queries=[QUERIES[0], QUERIES[0]])
    assert load_refusal(place) == f"{place / 'queries.jsonl'}:2: query id 'q1' is on line 1 already: ids must be unique"


def test_a_csv_row_of_another_width_than_the_header_is_named(tmp_path: Path):
    (tmp_path / "corpus.csv").write_text("_id,title,text\nd1,,a\nd2,a, b, c\n")
    assert refusal(tmp_path / "corpus.csv") == (
        f"{tmp_path / 'corpus.csv'}:3: 4 fields where the header has _id, title, text"
    )


def test_a_csv_file_with_broken_quotes_is_named(tmp_path: Path):
    (tmp_path / "corpus.csv").write_text('_id,title,text\nd1,,"a" b\n')
    said = refusal(tmp_path / "corpus.csv")
    assert said.startswith(f"{tmp_path / 'corpus.csv'}:2: ")
    assert "RFC 4180" in said


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes('{"_id": "d1", "text": "café"}\n'.encode("latin-1"))
    said = refusal(path)
    assert str(path) in said
    assert "UTF-8" in said


def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path):
    path = jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], {"_id": "d2", "text": "\ud83d"}])
    assert refusal(path).startswith(f"{path}:2: ")


@pytest.mark.parametrize("name", ["corpus.parquet", "corpus.jsonl.gz"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"these are not the bytes that were promised")
    assert str(tmp_path / name) in refusal(tmp_path / name)


def test_a_gz_file_that_was_cut_off_is_named(tmp_path: Path):
    path = write_as(tmp_path / "corpus.jsonl.gz", DOCUMENTS)
    path.write_bytes(path.read_bytes()[:-12])
    assert str(path) in refusal(path)


def test_judgements_of_a_query_that_is_not_there_are_named_with_their_line(tmp_path: Path):
    place = collection(tmp_path, queries=QUERIES[:1], judged=f"{JUDGED}q9\td1\t1\nq9\td2\t1\n")
    said = load_refusal(place)
    assert said == (
        f"{place / 'qrels' / 'test.tsv'}:3: judgements of query 'q2', which is not among the 1 queries (such as 'q1'): "
        "add the query or remove its lines"
    )


def test_judgements_of_nothing_in_the_corpus_are_an_error_that_shows_both_kinds_of_id(tmp_path: Path):
    place = collection(tmp_path, judged=f"{HEADER}q1\t1\t1\nq2\t2\t1\n")
    said = load_refusal(place)
    assert said.startswith(f"{place / 'qrels' / 'test.tsv'}: 2 of 2 relevant documents are not in the corpus")
    assert "the first '1' of query 'q1'" in said
    assert "the corpus has ids such as 'd1'" in said


def test_a_relevant_document_that_is_not_in_the_corpus_is_a_warning_and_stays_in_the_ideal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        dataset = load(collection(tmp_path, judged=f"{HEADER}q1\td1\t1\nq1\tgone\t1\n"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages == [
        f"{tmp_path / 'qrels' / 'test.tsv'}: 1 of 2 relevant documents are not in the corpus, the first 'gone' "
        "of query 'q1'; they count as relevant and cannot be found"
    ]
    run = Run(["q1"], dataset.corpus.ids, np.array([[0]]), np.array([[1.0]]))
    _, scores = metrics.score(run, dataset.qrels, [metrics.parse("ndcg@10"), metrics.parse("recall@10")])
    assert scores["recall@10"].tolist() == [0.5]
    assert scores["ndcg@10"].tolist() == pytest.approx([1 / (1 + 1 / np.log2(3))])


def test_no_warning_is_given_for_a_document_that_is_judged_not_relevant_and_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        load(collection(tmp_path, judged=f"{JUDGED}q1\tgone\t0\n"))
    assert caplog.messages == []


def test_an_empty_corpus_is_refused(tmp_path: Path):
    assert load_refusal(collection(tmp_path / "tiny", documents=[])) == "tiny: the corpus is empty"


@pytest.mark.parametrize("judged", [HEADER, f"{HEADER}q1\td1\t0\nq2\td2\t-1\n"], ids=["none", "none above 0"])
def test_judgements_without_a_relevant_document_are_refused(tmp_path: Path, judged: str):
    place = collection(tmp_path, judged=judged)
    assert load_refusal(place) == (
        f"{place / 'qrels' / 'test.tsv'}: no query has a relevant document (a grade above 0)"
    )


@pytest.mark.parametrize("grade", ["0.5", "x", "nan", "inf", "2147483648", "-2147483649", "1e400"])
def test_a_grade_that_is_not_a_whole_number_of_32_bits_is_named_with_its_line(tmp_path: Path, grade: str):
    path = tmp_path / "test.tsv"
    message = judged_refusal(path, f"{HEADER}q1\td1\t1\nq1\td2\t{grade}\n")
    assert message.startswith(f"{path}:3: grade ")
    assert "must be a whole number from -2147483648 to 2147483647" in message


def test_a_grade_of_json_is_refused_as_one_of_text(tmp_path: Path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"query-id": "q", "corpus-id": "d", "score": 3000000000}')
    with pytest.raises(DataError, match=f"{path}:1: grade 3000000000 must be a whole number"):
        judgements.read(path)


def test_whole_grades_are_read_up_to_32_bits(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}q\ta\t2147483647\nq\tb\t-2147483648\nq\tc\t2.0\n")
    assert judgements.read(path).qrels["q"] == {"a": 2147483647, "b": -2147483648, "c": 2}


def test_a_pair_with_two_grades_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "test.tsv"
    assert judged_refusal(path, f"{HEADER}q1\td1\t1\nq1\td1\t2\n") == (
        f"{path}:3: query 'q1' and document 'd1' have grade 1 already, now 2: keep one line"
    )


@pytest.mark.parametrize("line", ["q1\td1", "q1\t\t1", "q1"])
def test_a_line_that_is_no_judgement_is_named_with_what_is_needed(tmp_path: Path, line: str):
    path = tmp_path / "test.tsv"
    said = judged_refusal(path, f"{HEADER}q1\td2\t1\n{line}\n")
    assert said.startswith(f"{path}:3: not a judgement: {line!r}; expected: query-id, corpus-id and score")


def test_judgements_in_rows_without_a_named_column_list_the_columns(tmp_path: Path):
    path = tmp_path / "judged.csv"
    said = judged_refusal(path, "qid,docid,rel\nq1,d1,1\n")
    assert said == f"{path}:2: no 'query-id'; columns here: qid, docid, rel"


def test_an_unknown_split_lists_the_choices(tmp_path: Path):
    place = collection(tmp_path / "tiny")
    collection(place, split="dev")
    assert load_refusal(place, split="nope") == "tiny has no split 'nope'; choices: dev, test"


def test_a_folder_without_judgements_says_where_they_were_looked_for(tmp_path: Path):
    place = collection(tmp_path / "tiny")
    (place / "qrels" / "test.tsv").unlink()
    assert str(place / "qrels") in load_refusal(place)


def test_an_unknown_file_format_lists_the_choices(tmp_path: Path):
    (tmp_path / "corpus.xlsx").write_bytes(b"")
    with pytest.raises((DataError, ConfigError)) as error:
        rows.format_of(tmp_path / "corpus.xlsx")
    assert str(error.value) == (
        f"{tmp_path / 'corpus.xlsx'}: unknown format '.xlsx'; choices: .jsonl, .csv, .tsv, .parquet; "
        "all but .parquet also .gz"
    )


@pytest.mark.parametrize("role", FILES)
def test_a_named_file_that_is_not_there_is_named(tmp_path: Path, role: str):
    place = collection(tmp_path)
    files = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv", role: "gone.jsonl"}
    assert load_refusal(place, **files) == f"{place / 'gone.jsonl'}: no such file"


def test_a_folder_that_is_not_there_is_named_with_the_setting(tmp_path: Path):
    assert load_refusal(tmp_path / "gone") == f"no folder {str(tmp_path / 'gone')!r}; give one: dataset.path=FOLDER"


def test_a_folder_in_no_known_layout_says_which_settings_name_its_files(tmp_path: Path):
    said = load_refusal(tmp_path)
    assert said.startswith(f"{tmp_path} is not in BEIR's layout (no corpus.jsonl)")
    assert said.endswith("dataset.corpus=FILE dataset.queries=FILE dataset.qrels=FILE")


def test_naming_some_of_the_files_says_which_are_missing(tmp_path: Path):
    assert load_refusal(collection(tmp_path), corpus="corpus.jsonl") == (
        f"{tmp_path}: dataset.queries, dataset.qrels is not set; name all three files or none"
    )


# ---- the public sets


def published(name: str, data: Path, *overrides: str) -> Dataset:
    config = build.composed(["retriever=bm25", f"dataset={name}", f"data_dir={data}", *overrides])["dataset"]
    loaded: Dataset = build.construct(config, "dataset")
    return loaded


@pytest.mark.parametrize(
    ("name", "split", "documents", "queries"),
    [
        ("scifact", "test", 5183, 300),
        ("scifact", "train", 5183, 809),
        ("nfcorpus", "test", 3633, 323),
        ("nfcorpus", "dev", 3633, 324),
        ("nfcorpus", "train", 3633, 2590),
    ],
)
def test_a_public_set_has_its_published_counts(
    data: Path, empty_cache: Path, name: str, split: str, documents: int, queries: int
):
    dataset = published(name, data, f"dataset.split={split}")
    assert (len(dataset.corpus), len(dataset.queries)) == (documents, queries)
    assert (dataset.name, dataset.split) == (name, split)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset.documents=3634", "3633 documents in split 'test', the published nfcorpus has 3634"),
        ("dataset.queries.test=322", "323 queries in split 'test', the published nfcorpus has 322"),
    ],
)
def test_counts_other_than_the_published_ones_are_an_error_that_offers_dataset_folder(
    data: Path, empty_cache: Path, override: str, said: str
):
    with pytest.raises((DataError, ConfigError)) as error:
        published("nfcorpus", data, override)
    assert said in str(error.value)
    assert f"dataset=folder dataset.path={data / 'nfcorpus'}" in str(error.value)


def test_a_public_set_is_taken_from_the_cache_when_the_data_folder_has_none(tmp_path: Path, empty_cache: Path):
    collection(empty_cache / "datasets" / "tiny")
    dataset = beir.load("tiny", "test", "http://127.0.0.1:9/tiny.zip", "0" * 32, data_dir=str(tmp_path))
    assert len(dataset.corpus) == 3


# ---- the embedded collection


@pytest.fixture(scope="module")
def embedded() -> Dataset:
    return stdlib.load()


def test_the_embedded_collection_is_the_same_in_another_process(embedded: Dataset):
    code = "from harness.datasets import stdlib; print(stdlib.load().fingerprint)"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
    )
    assert done.stdout.strip() == embedded.fingerprint, done.stderr


def test_the_embedded_collection_has_the_size_it_promises(embedded: Dataset):
    assert 1500 <= len(embedded.corpus) <= 2500
    assert len(embedded.queries) == len(embedded.qrels) == 500


def test_hardly_any_embedded_query_stands_word_for_word_in_a_document_that_answers_it(embedded: Dataset):
    documents = dict(zip(embedded.corpus.ids, embedded.corpus.texts, strict=True))
    asked = zip(embedded.queries.ids, embedded.queries.texts, strict=True)
    repeated = [doc for query, text in asked for doc in embedded.qrels[query] if text in documents[doc]]
    assert len(repeated) <= 3, repeated  # 1 in Python 3.11: statistics.correlation says it again in its description


def test_equal_summaries_are_one_embedded_query_with_several_relevant_documents(embedded: Dataset):
    wordings = [" ".join(text.lower().split()) for text in embedded.queries.texts]
    assert len(set(wordings)) == len(wordings)
    assert sum(len(docs) > 1 for docs in embedded.qrels.values()) >= 3
    assert set(embedded.qrels) == set(embedded.queries.ids)


def test_every_embedded_judgement_is_of_a_document_that_is_there(embedded: Dataset):
    ids = set(embedded.corpus.ids)
    assert all(doc in ids and grade == 1 for docs in embedded.qrels.values() for doc, grade in docs.items())


def test_the_embedded_collection_has_nothing_of_tests_idle_or_installed_packages(embedded: Dataset):
    parts = {part for name in embedded.corpus.ids for part in name.split(".")}
    assert not parts & {"test", "tests", "idlelib", "site-packages", "turtledemo", "lib2to3", "numpy", "pip"}
    tops = {name.partition(".")[0] for name in embedded.corpus.ids}
    assert tops <= sys.stdlib_module_names | {"_aix_support"}
