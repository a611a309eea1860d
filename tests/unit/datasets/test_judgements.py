"""Tests of reading judgements: formats, grades, and judgements that do not match the dataset."""

import logging
from pathlib import Path

import numpy as np
import pytest
from support.dataset_files import (
    HEADER,
    JUDGED,
    QUERIES,
    judgements_error,
    load_error,
    load_folder,
    read_corpus,
    write_dataset,
)

from harness import metrics
from harness.datasets import judgements
from harness.errors import DataError
from harness.types import Run


def test_qrels_with_crlf_line_ends_are_read_like_lf(tmp_path: Path):
    plain = load_folder(write_dataset(tmp_path / "a"))
    windows = load_folder(write_dataset(tmp_path / "b", judged=JUDGED.replace("\n", "\r\n")))
    assert dict(windows.qrels) == dict(plain.qrels)
    assert windows.fingerprint == plain.fingerprint


def test_first_line_of_a_headerless_file_is_a_judgement(tmp_path: Path):
    dataset = load_folder(write_dataset(tmp_path, judged=JUDGED.removeprefix(HEADER)))
    assert dict(dataset.qrels) == {"q1": {"d1": 1}, "q2": {"d2": 2}}


@pytest.mark.parametrize("space", [" ", "\t", "   "], ids=["one space", "tab", "three spaces"])
def test_qrels_in_trec_format_are_read(tmp_path: Path, space: str):
    path = tmp_path / "test.tsv"
    path.write_text("".join(space.join(line) + "\n" for line in (["q1", "0", "d1", "1"], ["q1", "0", "d2", "0"])))
    judged = judgements.read(path)
    assert dict(judged.qrels) == {"q1": {"d1": 1, "d2": 0}}
    assert judged.first_line["q1"] == 1


def test_qrels_columns_are_in_the_order_of_the_header(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text("score\tcorpus-id\tquery-id\n3\td1\tq1\n")
    assert dict(judgements.read(path).qrels) == {"q1": {"d1": 3}}


def test_blank_lines_are_skipped(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}\nq1\td1\t1\n\n")
    assert dict(judgements.read(path).qrels) == {"q1": {"d1": 1}}
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n\n\n{"_id": "d2", "text": "b"}\n')
    assert list(read_corpus(tmp_path / "corpus.jsonl").ids) == ["d1", "d2"]


def test_grades_may_be_negative_or_whole_decimals(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}q1\td1\t1.0\nq1\td2\t-2\nq1\td3\t2.0\n")
    judged = judgements.read(path)
    assert dict(judged.qrels["q1"]) == {"d1": 1, "d2": -2, "d3": 2}
    assert all(type(grade) is int for grade in judged.qrels["q1"].values())


def test_repeated_judgement_with_the_same_grade_is_counted_once(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}q1\td1\t1\nq1\td1\t1.0\n")
    assert judgements.read(path).qrels.judgements() == 1


def test_judgement_of_an_unknown_query_is_named_with_its_line(tmp_path: Path):
    folder_path = write_dataset(tmp_path, queries=QUERIES[:1], judged=f"{JUDGED}q9\td1\t1\nq9\td2\t1\n")
    message = load_error(folder_path)
    assert message.startswith(f"{folder_path / 'qrels' / 'test.tsv'}:3: judgements of query 'q2'")
    assert "the 1 queries (such as 'q1')" in message
    assert message.endswith("add the query or remove its lines")


def test_judgements_of_unknown_documents_only_are_an_error_with_example_ids(tmp_path: Path):
    folder_path = write_dataset(tmp_path, judged=f"{HEADER}q1\t1\t1\nq2\t2\t1\n")
    message = load_error(folder_path)
    assert message.startswith(f"{folder_path / 'qrels' / 'test.tsv'}: 2 of 2 relevant documents are not in the corpus")
    assert "the first '1' of query 'q1'" in message
    assert "the corpus has ids such as 'd1'" in message


def test_relevant_document_outside_the_corpus_is_warned_about_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        dataset = load_folder(write_dataset(tmp_path, judged=f"{HEADER}q1\td1\t1\nq1\tgone\t1\n"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'qrels' / 'test.tsv'}: 1 of 2 relevant documents are not in the corpus")
    assert "'gone' of query 'q1'" in message
    run = Run(["q1"], dataset.corpus.ids, np.array([[0]]), np.array([[1.0]]))
    _, scores = metrics.score(run, dataset.qrels, [metrics.parse("ndcg@10"), metrics.parse("recall@10")])
    assert scores["recall@10"].tolist() == [0.5]
    assert scores["ndcg@10"].tolist() == pytest.approx([1 / (1 + 1 / np.log2(3))])


def test_irrelevant_document_outside_the_corpus_is_not_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        load_folder(write_dataset(tmp_path, judged=f"{JUDGED}q1\tgone\t0\n"))
    assert caplog.messages == []


@pytest.mark.parametrize("judged", [HEADER, f"{HEADER}q1\td1\t0\nq2\td2\t-1\n"], ids=["none", "none above 0"])
def test_judgements_without_a_relevant_document_are_refused(tmp_path: Path, judged: str):
    folder_path = write_dataset(tmp_path, judged=judged)
    assert load_error(folder_path).startswith(f"{folder_path / 'qrels' / 'test.tsv'}: no query has a relevant document")


@pytest.mark.parametrize("grade", ["0.5", "x", "nan", "inf", "2147483648", "-2147483649", "1e400"])
def test_grade_that_is_not_a_32_bit_integer_is_named_with_its_line(tmp_path: Path, grade: str):
    path = tmp_path / "test.tsv"
    message = judgements_error(path, f"{HEADER}q1\td1\t1\nq1\td2\t{grade}\n")
    assert message.startswith(f"{path}:3: grade ")
    assert "must be a whole number from -2147483648 to 2147483647" in message


def test_grade_outside_32_bits_in_json_is_refused(tmp_path: Path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"query-id": "q", "corpus-id": "d", "score": 3000000000}')
    with pytest.raises(DataError, match=f"{path}:1: grade 3000000000 must be a whole number"):
        judgements.read(path)


def test_grades_of_up_to_32_bits_are_read(tmp_path: Path):
    path = tmp_path / "test.tsv"
    path.write_text(f"{HEADER}q\ta\t2147483647\nq\tb\t-2147483648\nq\tc\t2.0\n")
    assert judgements.read(path).qrels["q"] == {"a": 2147483647, "b": -2147483648, "c": 2}


def test_contradicting_grades_are_named_with_their_line(tmp_path: Path):
    path = tmp_path / "test.tsv"
    message = judgements_error(path, f"{HEADER}q1\td1\t1\nq1\td1\t2\n")
    assert message.startswith(f"{path}:3: query 'q1' and document 'd1' have grade 1 already, now 2")
    assert message.endswith("keep one line")


@pytest.mark.parametrize("line", ["q1\td1", "q1\t\t1", "q1"])
def test_invalid_judgement_is_named_with_the_required_columns(tmp_path: Path, line: str):
    path = tmp_path / "test.tsv"
    message = judgements_error(path, f"{HEADER}q1\td2\t1\n{line}\n")
    assert message.startswith(f"{path}:3: not a judgement: {line!r}; expected: query-id, corpus-id and score")


def test_missing_judgement_column_is_named_with_the_existing_columns(tmp_path: Path):
    path = tmp_path / "judged.csv"
    message = judgements_error(path, "qid,docid,rel\nq1,d1,1\n")
    assert message.startswith(f"{path}:2: no 'query-id'")
    assert message.endswith("qid, docid, rel")
