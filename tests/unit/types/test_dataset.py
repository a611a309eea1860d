"""Tests of Dataset: its fingerprint, and datasets from dicts, data frames and files."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.errors import data_error

from harness.datasets import folder
from harness.types import Corpus, Dataset, Qrels, Queries


def make_dataset(
    grades: dict[str, dict[str, int]], texts: tuple[str, str] = ("x", "y"), query: str = "?", drop: bool = False
) -> Dataset:
    """Return a dataset of two documents and two queries."""
    corpus, queries = Corpus(["a", "b"], texts), Queries(["q", "p"], [query, ""])
    return Dataset("name", "test", corpus, queries, Qrels(grades), drop_self_hits=drop)


def test_a_fingerprint_covers_texts_judgements_and_self_hits_in_any_order() -> None:
    base = make_dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}})
    assert base.fingerprint == make_dataset({"p": {"a": 2}, "q": {"b": 0, "a": 1}}).fingerprint
    changed = [
        make_dataset({"q": {"a": 2, "b": 0}, "p": {"a": 2}}),
        make_dataset({"q": {"a": 1}, "p": {"a": 2}}),
        make_dataset({"q": {"a": 1, "b": 0}, "p": {"b": 2}}),
        make_dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}}, texts=("x", "z")),
        make_dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}}, query="!"),
        make_dataset({"q": {"a": 1, "b": 0}, "p": {"a": 2}}, drop=True),
    ]
    assert len({base.fingerprint, *(variant.fingerprint for variant in changed)}) == len(changed) + 1


CORPUS = {"d1": {"title": "Cats", "text": "purr."}, "d2": {"title": "", "text": "Dogs bark."}, "d3": {"text": "Bread."}}
QUERIES = {"q1": "what purrs", "q2": "what barks", "q3": "nothing"}
QRELS = {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}, "q3": {"d1": 0}}


def test_a_dataset_from_dicts_leaves_out_queries_without_a_relevant_document() -> None:
    dataset = Dataset.from_dicts(CORPUS, QUERIES, QRELS, name="pets", split="dev", drop_self_hits=True, instruction="i")
    assert (dataset.name, dataset.split, dataset.drop_self_hits, dataset.instruction) == ("pets", "dev", True, "i")
    assert dataset.corpus.to_dict() == {"d1": "Cats purr.", "d2": "Dogs bark.", "d3": "Bread."}
    assert dataset.queries.to_dict() == {"q1": "what purrs", "q2": "what barks"}
    assert dataset.qrels == QRELS
    plain = Dataset.from_dicts(CORPUS, QUERIES, QRELS)
    assert (plain.name, plain.split, plain.candidate_matrix) == ("dataset", "test", None)


def test_a_dataset_from_dicts_containers_data_frames_or_files_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    rows = [{"_id": key, "title": doc.get("title", ""), "text": doc["text"]} for key, doc in CORPUS.items()]
    pd.DataFrame(rows).to_json(tmp_path / "corpus.jsonl", orient="records", lines=True)
    queries = pd.DataFrame({"_id": QUERIES.keys(), "text": QUERIES.values()})
    queries.to_json(tmp_path / "queries.jsonl", orient="records", lines=True)
    qrels = Qrels(QRELS).to_pandas().rename(columns={"query_id": "query-id", "doc_id": "corpus-id", "grade": "score"})
    qrels.to_csv(tmp_path / "qrels" / "test.tsv", sep="\t", index=False)
    datasets = [
        folder.read(tmp_path, "name", "test"),
        Dataset.from_dicts(CORPUS, QUERIES, QRELS),
        Dataset.from_dicts(Corpus.from_dict(CORPUS), Queries.from_dict(QUERIES), Qrels(QRELS)),
        Dataset.from_pandas(pd.DataFrame(rows), queries, qrels),
    ]
    assert len({dataset.fingerprint for dataset in datasets}) == 1
    assert all(list(dataset.queries) == ["q1", "q2"] for dataset in datasets)


def test_candidates_of_a_dataset_from_dicts_become_a_matrix_of_positions() -> None:
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
def test_a_dataset_from_inconsistent_dicts_is_refused(changes: dict[str, Any], message: str) -> None:
    with data_error(message):
        Dataset.from_dicts(**{"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS, **changes})
