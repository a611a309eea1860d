"""Tests of reading rows from JSONL, CSV, TSV and Parquet files, also compressed, and of damaged files."""

import csv
from pathlib import Path

import pytest
from support.dataset_files import (
    DOCUMENTS,
    FILES,
    FORMATS,
    QUERIES,
    corpus_error,
    load_folder,
    read_corpus,
    write_dataset,
    write_jsonl,
    write_rows,
)

from harness.datasets import folder, rows
from harness.errors import ConfigError, DataError


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_with_renamed_columns_gives_the_same_dataset(tmp_path: Path, form: str):
    columns = {
        "columns": {"id": "docno", "title": "head", "text": "body"},
        "query_columns": {"id": "number", "text": "question"},
        "qrels_columns": {"query": "number", "document": "docno", "grade": "rel"},
    }
    write_rows(
        tmp_path / f"docs.{form}",
        [{"body": row["text"], "head": row["title"], "docno": row["_id"]} for row in DOCUMENTS],
    )
    write_rows(tmp_path / f"questions.{form}", [{"number": row["_id"], "question": row["text"]} for row in QUERIES])
    judged = [{"rel": 1, "number": "q1", "docno": "d1"}, {"rel": 2, "number": "q2", "docno": "d2"}]
    write_rows(tmp_path / f"judged.{form}", judged)
    files = {role: f"{file}.{form}" for role, file in zip(FILES, ("docs", "questions", "judged"), strict=True)}
    dataset = folder.load(str(tmp_path), **columns, **files)
    assert dataset.fingerprint == load_folder(write_dataset(tmp_path / "beir")).fingerprint


def test_line_breaks_inside_a_quoted_csv_field_are_kept(tmp_path: Path):
    documents = [{"_id": "d1", "title": "", "text": "one\r\ntwo\nthree"}]
    assert list(read_corpus(write_rows(tmp_path / "corpus.csv", documents)).texts) == ["one\r\ntwo\nthree"]


def test_quotes_in_a_tsv_file_are_text(tmp_path: Path):
    (tmp_path / "corpus.tsv").write_text('_id\ttitle\ttext\nd1\t\t"half a quotation\nd2\t\tb\n')
    assert list(read_corpus(tmp_path / "corpus.tsv").texts) == ['"half a quotation', "b"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("corpus.csv", "_id,title,text\nd1,,a bottle\n"),
        ("corpus.jsonl", '{"_id": "d1", "text": "a bottle"}\n'),
    ],
)
def test_byte_order_mark_is_not_part_of_the_first_line(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert list(read_corpus(tmp_path / name).ids) == ["d1"]


def test_csv_field_above_the_default_size_limit_is_read(tmp_path: Path):
    long = "word " * 40_000 + "end"
    path = write_rows(tmp_path / "corpus.csv", [{"_id": "d1", "title": "", "text": long}])
    before = csv.field_size_limit(131072)
    try:
        assert list(read_corpus(path).texts) == [long]
    finally:
        csv.field_size_limit(before)


def test_invalid_json_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "d1", "text": "a"}\n{"_id": "d2", "text"\n')
    message = corpus_error(path)
    assert message.startswith(f"{path}:2: not JSON")
    assert """'{"_id": "d2", "text"'""" in message
    assert "each line must be one JSON object" in message


def test_json_line_that_is_not_an_object_is_named_with_its_line(tmp_path: Path):
    path = write_jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], ["d2", "text"]])
    assert corpus_error(path) == f"""{path}:2: not a JSON object: '["d2", "text"]'"""


def test_csv_row_of_another_width_than_the_header_is_named(tmp_path: Path):
    (tmp_path / "corpus.csv").write_text("_id,title,text\nd1,,a\nd2,a, b, c\n")
    message = corpus_error(tmp_path / "corpus.csv")
    assert message.startswith(f"{tmp_path / 'corpus.csv'}:3: 4 fields")
    assert "_id, title, text" in message


def test_csv_file_with_broken_quotes_is_named(tmp_path: Path):
    (tmp_path / "corpus.csv").write_text('_id,title,text\nd1,,"a" b\n')
    message = corpus_error(tmp_path / "corpus.csv")
    assert message.startswith(f"{tmp_path / 'corpus.csv'}:2: ")
    assert "RFC 4180" in message


def test_file_that_is_not_utf8_is_named(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes('{"_id": "d1", "text": "café"}\n'.encode("latin-1"))
    message = corpus_error(path)
    assert str(path) in message
    assert "UTF-8" in message


def test_lone_surrogate_is_refused_with_its_line(tmp_path: Path):
    path = write_jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], {"_id": "d2", "text": "\ud83d"}])
    assert corpus_error(path).startswith(f"{path}:2: ")


@pytest.mark.parametrize("name", ["corpus.parquet", "corpus.jsonl.gz"])
def test_damaged_file_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"neither Parquet nor gzip")
    assert str(tmp_path / name) in corpus_error(tmp_path / name)


def test_truncated_gz_file_is_named(tmp_path: Path):
    path = write_rows(tmp_path / "corpus.jsonl.gz", DOCUMENTS)
    path.write_bytes(path.read_bytes()[:-12])
    assert str(path) in corpus_error(path)


def test_unknown_file_format_is_refused_with_the_choices(tmp_path: Path):
    (tmp_path / "corpus.xlsx").write_bytes(b"")
    with pytest.raises((DataError, ConfigError)) as error:
        rows.format_of(tmp_path / "corpus.xlsx")
    assert str(error.value).startswith(f"{tmp_path / 'corpus.xlsx'}: unknown format '.xlsx'")
    assert "choices: .jsonl, .csv, .tsv, .parquet" in str(error.value)
