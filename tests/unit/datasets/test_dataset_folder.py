"""Tests of datasets in a folder: BEIR's layout, configured files and columns, splits, and their errors."""

from pathlib import Path

import pytest
from support.dataset_files import DOCUMENTS, FILES, HEADER, JUDGED, QUERIES, load_error, load_folder, write_dataset


def test_folder_in_beir_layout_is_loaded(tmp_path: Path):
    dataset = load_folder(write_dataset(tmp_path / "tiny"))
    assert (dataset.name, dataset.split) == ("tiny", "test")
    assert list(dataset.corpus.ids) == ["d1", "d2", "d3"]
    assert dict(zip(dataset.queries.ids, dataset.queries.texts, strict=True)) == {"q1": "green", "q2": "red"}
    assert {query: dict(docs) for query, docs in dataset.qrels.items()} == {"q1": {"d1": 1}, "q2": {"d2": 2}}


def test_query_without_a_relevant_document_is_left_out(tmp_path: Path):
    dataset = load_folder(write_dataset(tmp_path, judged=f"{HEADER}q1\td1\t1\nq2\td2\t0\nq2\td1\t-1\n"))
    assert list(dataset.queries.ids) == ["q1"]


def test_configured_columns_are_read_in_beir_layout(tmp_path: Path):
    folder_path = write_dataset(tmp_path, [{"docno": "d1", "contents": "green"}], judged=f"{HEADER}q1\td1\t1\n")
    dataset = load_folder(folder_path, columns={"id": "docno", "title": None, "text": "contents"})
    assert list(dataset.corpus.texts) == ["green"]


def test_fingerprint_depends_on_content_and_not_on_row_order(tmp_path: Path):
    first = load_folder(write_dataset(tmp_path / "a"))
    reversed_rows = load_folder(write_dataset(tmp_path / "b", DOCUMENTS[::-1], QUERIES[::-1]))
    other_text = load_folder(write_dataset(tmp_path / "c", [{**DOCUMENTS[0], "text": "a green bottl"}, *DOCUMENTS[1:]]))
    other_grade = load_folder(write_dataset(tmp_path / "d", judged=JUDGED.replace("q2\td2\t2", "q2\td2\t1")))
    assert first.fingerprint == reversed_rows.fingerprint
    assert len({first.fingerprint, other_text.fingerprint, other_grade.fingerprint}) == 3


def test_empty_corpus_is_refused(tmp_path: Path):
    assert load_error(write_dataset(tmp_path / "tiny", documents=[])) == "tiny: the corpus is empty"


def test_unknown_split_is_refused_with_the_choices(tmp_path: Path):
    folder_path = write_dataset(tmp_path / "tiny")
    write_dataset(folder_path, split="dev")
    assert load_error(folder_path, split="nope") == "tiny has no split 'nope'; choices: dev, test"


def test_missing_judgements_are_named_with_their_expected_folder(tmp_path: Path):
    folder_path = write_dataset(tmp_path / "tiny")
    (folder_path / "qrels" / "test.tsv").unlink()
    assert str(folder_path / "qrels") in load_error(folder_path)


@pytest.mark.parametrize("role", FILES)
def test_missing_configured_file_is_named(tmp_path: Path, role: str):
    folder_path = write_dataset(tmp_path)
    files = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv", role: "gone.jsonl"}
    assert load_error(folder_path, **files) == f"{folder_path / 'gone.jsonl'}: no such file"


def test_missing_folder_is_named_with_its_setting(tmp_path: Path):
    message = load_error(tmp_path / "gone")
    assert message.startswith(f"no folder {str(tmp_path / 'gone')!r}")
    assert message.endswith("dataset.path=FOLDER")


def test_folder_in_unknown_layout_is_refused_with_the_settings(tmp_path: Path):
    message = load_error(tmp_path)
    assert message.startswith(f"{tmp_path} is not in BEIR's layout (no corpus.jsonl)")
    assert message.endswith("dataset.corpus=FILE dataset.queries=FILE dataset.qrels=FILE")


def test_unset_file_settings_are_named(tmp_path: Path):
    message = load_error(write_dataset(tmp_path), corpus="corpus.jsonl")
    assert message.startswith(f"{tmp_path}: dataset.queries, dataset.qrels")
    assert message.endswith("name all three files or none")
