"""Tests of stored queries and rankings, and of scores by slices of the queries."""

import numpy as np
import pyarrow as pa
import pytest
from support.records import make_record

from harness.config.build import composed, construct
from harness.leaderboard import build
from harness.leaderboard.slices import compute_slices
from harness.metrics import parse, score
from harness.store import tables as store_tables
from harness.types import Corpus, Dataset, PerQuery, Qrels, Queries, RecordFiles, Run

CORPUS = Corpus(["d1", "d2", "d3"], ["The quick brown fox", "lazy dogs " + "sleep " * 100, ""])
QUERIES = Queries(["q1", "q2", "q3", "q4"], ["Quick FOX quick", "dogs or cats a", "?", "nothing relevant"])
QRELS = Qrels({"q1": {"d1": 2, "d2": 1, "gone": 1}, "q2": {"d2": 1, "d1": 0}, "q3": {"d3": 1}, "q4": {"d1": 0}})


@pytest.fixture
def dataset():
    """Return a dataset of three documents and four queries, one without a relevant document."""
    return Dataset("made", "test", CORPUS, QUERIES, QRELS)


def test_queries_are_stored_with_words_relevant_documents_and_overlap(dataset):
    rows = store_tables.queries(dataset).to_pylist()
    assert [row["query_id"] for row in rows] == ["q1", "q2", "q3"], "a query without a relevant document has no score"
    assert [row["words"] for row in rows] == [3, 3, 0]
    assert [row["relevant"] for row in rows] == [3, 1, 1]
    assert rows[0]["overlap"] == pytest.approx((1 + 0) / 2), (
        "of d1 both words, of d2 none; the document `gone` is not in the corpus"
    )
    assert rows[1]["overlap"] == pytest.approx(1 / 3)
    assert rows[2]["overlap"] is None
    assert rows[0]["text"] == "Quick FOX quick"


def test_rankings_are_stored_with_grades_and_the_text_of_the_first_hit(dataset):
    run = Run(
        ["q2", "q1"], CORPUS.ids, np.array([[1, 0, 2], [0, -1, -1]]), np.array([[3, 2, 1], [1, 0, 0]], np.float32)
    )
    rows = {row["query_id"]: row for row in store_tables.rankings(run, dataset).to_pylist()}
    assert (rows["q2"]["docs"], rows["q2"]["grades"]) == (["d2", "d1", "d3"], [1, 0, None])
    assert len(rows["q2"]["first"]) == 100
    assert rows["q2"]["first"].startswith("lazy dogs sleep")
    assert (rows["q1"]["docs"], rows["q1"]["first"]) == (["d1"], "The quick brown fox")
    assert (rows["q3"]["docs"], rows["q3"]["first"]) == ([], None)


def evaluation_with_tables(label, values, tables, properties, grades):
    """Return a record with its scores, and add its queries and rankings to `tables`."""
    record = make_record(label, "x", 0)
    path = f"{label}/x"
    ids = [f"q{place}" for place in range(len(values))]
    record = record.model_copy(
        update={"metrics": {"ndcg@10": float(np.mean(values))}, "files": RecordFiles(per_query=path, record=path)}
    )
    tables[path, "queries"] = pa.table({"query_id": ids, **properties})
    tables[path, "rankings"] = pa.table({"query_id": ids, "grades": pa.array(grades, pa.list_(pa.int32()))})
    return record, {path: PerQuery(ids, {"ndcg@10": np.asarray(values, float)})}


def test_queries_are_sliced_into_thirds_and_by_unjudged_share():
    values = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    properties = {
        "words": pa.array([1, 1, 5, 5, 9, 9], pa.int32()),
        "relevant": pa.array([1] * 6, pa.int32()),
        "overlap": pa.array([None, 0.0, 0.25, 0.5, 0.75, 1.0], pa.float64()),
    }
    grades = [[1, 0], [1, None], [None, None], [1, 1], [1, None], [None, None]]
    tables = {}
    first, first_scores = evaluation_with_tables("a", values, tables, properties, grades)
    second, second_scores = evaluation_with_tables("b", values[::-1], tables, properties, grades)
    scores = first_scores | second_scores
    leaderboard = build([first, second], "ndcg@10", scores)

    def read_table(record, kind):
        return tables.get((record.files.record, kind))

    slices = {each.by: each for each in compute_slices(leaderboard, scores, read_table)}
    words = slices["words in the query"].bins
    assert [(each.name, each.queries) for each in words] == [("1", 2), ("5", 2), ("9", 2)]
    assert [each.means["a"] for each in words] == pytest.approx([0.05, 0.25, 0.45])
    assert [each.means["b"] for each in words] == pytest.approx([0.45, 0.25, 0.05])
    assert "relevant documents" not in slices, "every query has the same number"
    assert sum(each.queries for each in slices["share of the query's words in relevant documents"].bins) == 5
    unjudged = slices["unjudged share of the first ten"].bins
    assert [(each.name, each.queries) for each in unjudged] == [("0%", 2), ("50%", 2), ("100%", 2)]
    alone = compute_slices(leaderboard, scores, read_table, ["a"])
    assert set(alone[0].bins[0].means) == {"a"}


def test_without_tables_or_scores_there_are_no_slices():
    record, scores = evaluation_with_tables("a", [0.1, 0.2], {}, {"words": [1, 2]}, [[], []])
    leaderboard = build([record], "ndcg@10", scores)
    assert compute_slices(leaderboard, scores, lambda *_: None) == []
    assert compute_slices(leaderboard, {}, lambda *_: None) == []


@pytest.mark.slow
def test_slices_of_a_real_dataset_average_to_its_mean(real_dataset):
    dataset = real_dataset("scifact")
    retriever = construct(composed(["retriever=bm25"])["retriever"], "retriever")
    retriever.index(dataset.corpus)
    run = retriever.search(dataset.queries, 10)
    ids, values = score(run, dataset.qrels, [parse("ndcg@10")])
    record = make_record("bm25", "scifact", 0)
    record = record.model_copy(
        update={
            "metrics": {"ndcg@10": float(values["ndcg@10"].mean())},
            "files": RecordFiles(per_query="p", record="p"),
        }
    )
    tables = store_tables.excerpts(run, dataset)
    scores = {"p": PerQuery(ids, values)}
    slices = compute_slices(build([record], "ndcg@10", scores), scores, lambda _, kind: tables[kind])
    assert {by_property.by for by_property in slices} >= {
        "words in the query",
        "share of the query's words in relevant documents",
    }
    for by_property in slices:
        assert sum(bin_.queries for bin_ in by_property.bins) == 300
        total = sum(bin_.means["bm25"] * bin_.queries for bin_ in by_property.bins) / 300
        assert total == pytest.approx(record.metrics["ndcg@10"])
    by_overlap = next(by_property for by_property in slices if by_property.by.startswith("share of the query's words"))
    assert by_overlap.bins[0].means["bm25"] < by_overlap.bins[-1].means["bm25"], "BM25 needs shared words"
