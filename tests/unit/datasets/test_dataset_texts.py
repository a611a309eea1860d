"""Tests of reading texts by id: titles, invalid ids and texts, and large files, which are memory-mapped."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.dataset_files import (
    DOCUMENTS,
    FORMATS,
    HEADER,
    QUERIES,
    QUERY_COLUMNS,
    corpus_error,
    load_error,
    load_folder,
    read_corpus,
    write_dataset,
    write_jsonl,
    write_rows,
)

from harness.datasets import texts
from harness.types import Corpus


@pytest.mark.parametrize("row", [{}, {"title": None}, {"title": ""}], ids=["missing", "null", "empty"])
def test_missing_title_is_empty(tmp_path: Path, row: dict[str, Any]):
    corpus = read_corpus(write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "text": "a bottle", **row}]))
    assert list(corpus.texts) == ["a bottle"]


def test_title_and_text_are_joined_by_one_space(tmp_path: Path):
    corpus = read_corpus(write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "Green", "text": "a bottle"}]))
    assert list(corpus.texts) == ["Green a bottle"]


def test_numeric_ids_become_strings(tmp_path: Path):
    folder_path = write_dataset(
        tmp_path, [{"_id": 7, "text": "green"}], [{"_id": 1, "text": "green"}], f"{HEADER}1\t7\t1\n"
    )
    dataset = load_folder(folder_path)
    assert list(dataset.corpus.ids) == ["7"]
    assert list(dataset.queries.ids) == ["1"]
    pq.write_table(pa.table({"_id": [7], "text": ["green"]}), tmp_path / "corpus.parquet")
    assert read_corpus(tmp_path / "corpus.parquet").fingerprint == dataset.corpus.fingerprint


def test_empty_document_keeps_its_id(tmp_path: Path):
    corpus = read_corpus(
        write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "", "text": ""}, *DOCUMENTS[1:]])
    )
    assert list(corpus.ids) == ["d1", "d2", "d3"]
    assert corpus.texts[0] == ""


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("large", [False, True], ids=["in memory", "mapped"])
def test_fingerprint_does_not_depend_on_format_or_memory_mapping(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, form: str, large: bool
):
    expected = Corpus(["d1", "d2", "d3"], ["Green a green bottle", "a red bottle", "Empty"]).fingerprint
    monkeypatch.setattr(texts, "_LARGE", 0 if large else 1 << 40)
    corpus = read_corpus(write_rows(tmp_path / f"corpus.{form}", DOCUMENTS))
    assert corpus.fingerprint == expected
    assert empty_cache.exists() is large
    assert Corpus(corpus.ids, corpus.texts).fingerprint == expected  # the recorded fingerprint is that of the content


def test_large_file_is_parsed_once_and_then_memory_mapped(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = write_jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    first = read_corpus(path)
    assert [file.suffix for file in (empty_cache / "texts").iterdir()] == [".arrow"]

    def parsed_again(path: Path) -> None:
        raise AssertionError(f"{path} was parsed again")

    monkeypatch.setattr(texts, "rows", parsed_again)
    second = read_corpus(path)
    assert second.ids == first.ids
    assert list(second.texts) == list(first.texts)
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize("max_in_memory", [64 << 20, 1000])
def test_large_stream_is_kept_in_a_deleted_file(empty_cache: Path, monkeypatch: pytest.MonkeyPatch, max_in_memory: int):
    monkeypatch.setattr(texts, "_MAX_IN_MEMORY", max_in_memory)
    pairs = [(f"d{number}", f"text {number} " * 9) for number in range(40_000)]
    before = pa.total_allocated_bytes()
    corpus = texts.from_stream(Corpus, pairs)
    assert (pa.total_allocated_bytes() - before < 1 << 20) is (max_in_memory == 1000)
    assert not [file for file in empty_cache.rglob("*") if file.is_file()]
    assert list(zip(corpus.ids, corpus.texts, strict=True)) == pairs
    assert corpus.fingerprint == Corpus(*zip(*pairs, strict=True)).fingerprint


def test_changed_large_file_is_parsed_again(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = write_jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    first = read_corpus(path)
    write_jsonl(path, [*DOCUMENTS, {"_id": "d4", "text": "a blue bottle"}])
    changed = read_corpus(path)
    assert list(changed.ids) == ["d1", "d2", "d3", "d4"]
    assert changed.fingerprint != first.fingerprint


def test_large_file_of_the_same_size_and_later_time_is_parsed_again(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = write_jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    read_corpus(path)
    state = path.stat()
    path.write_text(path.read_text().replace("a red", "a tan"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert "a tan bottle" in list(read_corpus(path).texts)


def test_large_file_is_parsed_again_for_other_columns(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(texts, "_LARGE", 0)
    path = write_jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    assert read_corpus(path).texts[0] == "Green a green bottle"
    assert read_corpus(path, QUERY_COLUMNS).texts[0] == "a green bottle"


@pytest.mark.parametrize("value", [None, "", True, 1.5], ids=repr)
def test_invalid_document_id_is_named_with_its_line(tmp_path: Path, value: Any):
    path = write_jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], {"_id": value, "text": "a"}])
    assert corpus_error(path) == f"{path}:2: document has no id: column '_id' has {value!r}"


def test_missing_id_column_is_named_with_the_existing_columns(tmp_path: Path):
    path = write_jsonl(tmp_path / "corpus.jsonl", [{"docno": "d1", "text": "a"}])
    message = corpus_error(path)
    assert message.startswith(f"{path}:1: document has no id")
    assert "column '_id' is not among 'docno', 'text'" in message


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "mapped"])
def test_missing_text_is_named_with_line_id_and_columns(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, large: bool
):
    monkeypatch.setattr(texts, "_LARGE", 0 if large else 1 << 40)
    path = write_jsonl(tmp_path / "corpus.jsonl", [DOCUMENTS[0], {"_id": "d2", "body": "a"}])
    message = corpus_error(path)
    assert message.startswith(f"{path}:2: document 'd2' has no text")
    assert "column 'text' is not among '_id', 'body'" in message
    assert not [file for file in empty_cache.rglob("*") if file.is_file()]


def test_title_that_is_not_text_is_refused(tmp_path: Path):
    path = write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": 7, "text": "a"}])
    assert corpus_error(path).startswith(f"{path}:1: document 'd1' has a title")


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "mapped"])
def test_repeated_id_is_named_with_both_lines_and_not_cached(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, large: bool
):
    monkeypatch.setattr(texts, "_LARGE", 0 if large else 1 << 40)
    path = write_jsonl(tmp_path / "corpus.jsonl", [*DOCUMENTS, {"_id": "d2", "text": "again"}])
    assert corpus_error(path).startswith(f"{path}:4: document id 'd2' is on line 2")
    assert not [file for file in empty_cache.rglob("*") if file.is_file()]


def test_repeated_query_id_is_named_as_a_query(tmp_path: Path):
    folder_path = write_dataset(tmp_path, queries=[QUERIES[0], QUERIES[0]])
    assert load_error(folder_path).startswith(f"{folder_path / 'queries.jsonl'}:2: query id 'q1' is on line 1")
