"""Tests of the run_file retriever: a TREC run of another system is scored and compared, without throughput."""

import gzip
import re

import numpy as np
import pytest
from support.datasets import write_beir

from harness.cli import read
from harness.cli.run import main as run
from harness.config import build
from harness.errors import ConfigError, RunError
from harness.evaluation.timing import TimingPlan, measure
from harness.metrics import parse, score
from harness.retrievers.hybrid import Hybrid, rrf
from harness.retrievers.rerank import Rerank
from harness.retrievers.run_file import RunFile
from harness.store import Store
from harness.types import Corpus, Dataset, Qrels, Queries, trec

RUN_LINES = """\
q1 Q0 d2 1 3.5 lucene
q1 Q0 d1 2 3.5 lucene
q3 Q0 d4 7 9.25 lucene
q3 Q0 elsewhere 1 8.0 lucene
other Q0 d1 1 1.0 lucene
"""


@pytest.fixture
def files(tmp_path):
    """Return the folder of a small dataset and the path of a run of it."""
    path = tmp_path / "lucene.trec.gz"
    path.write_bytes(gzip.compress(RUN_LINES.encode()))
    return write_beir(tmp_path / "tiny"), path


def test_run_is_a_leaderboard_row_without_throughput(files, tmp_path, capsys):
    folder, path = files
    root = tmp_path / "results"
    arguments = ["dataset=folder", f"dataset.path={folder}", f"results_dir={root}", "timing.latency_queries=0"]
    assert run(["retriever=run_file", f"retriever.path={path}", *arguments]) == 0
    assert run(["retriever=bm25", *arguments]) == 0
    record = next(record for record in Store(root).records() if record.retriever.name == "run_file")
    assert record.timing is None
    assert record.metrics["mrr@10"] == pytest.approx((0.5 + 0 + 1) / 3)
    capsys.readouterr()
    assert read.main(["report", "--results", str(root), "--baseline", "bm25"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "run_file" in line)
    assert row.split()[-4:] == ["-", "-", "-", "-"] or row.split()[-3:] == ["-", "-", "-"]
    assert read.main(["compare", "bm25", "run_file", "--results", str(root)]) == 0
    assert re.search(r"p=0\.1[123]\d\d ", capsys.readouterr().out), (
        "two of the sixteen ways to flip four signs are as extreme"
    )
    assert read.main(["report", "--results", str(root), "--only", "html"]) == 0


def test_scores_order_the_hits_and_a_missing_query_has_none(files):
    retriever = RunFile(str(files[1]))
    retriever.index(Corpus(["d1", "d2", "d3", "d4"], ["a", "b", "c", "d"]))
    ranking = retriever.search(Queries(["q3", "q2", "q1"], ["x", "y", "z"]), 10)
    assert [ranking.hits(row)[0] for row in range(3)] == [["d4", "elsewhere"], [], ["d2", "d1"]]
    assert ranking.top(1).hits(0)[0] == ["d4"]
    assert retriever.nbytes() > 0


def test_exported_run_read_again_has_the_same_scores(real_dataset, tmp_path):
    dataset = real_dataset("nfcorpus")
    bm25 = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    bm25.index(dataset.corpus)
    exported = bm25.search(dataset.queries, 100)
    trec.write(exported, tmp_path / "bm25.trec.gz", "bm25")
    retriever = RunFile(str(tmp_path / "bm25.trec.gz"))
    retriever.index(dataset.corpus)
    metrics = [parse("ndcg@10"), parse("map@100")]
    read_scores = score(retriever.search(dataset.queries, 100), dataset.qrels, metrics)[1]
    for name, values in score(exported, dataset.qrels, metrics)[1].items():
        assert read_scores[name].tolist() == values.tolist()


def test_run_of_another_dataset_or_other_queries_is_refused(files):
    retriever = RunFile(str(files[1]))
    with pytest.raises(RunError, match=r"none of its 4 documents is in the corpus .*another dataset"):
        retriever.index(Corpus(["x1"], ["text"]))
    retriever.index(Corpus(["d1"], ["text"]))
    with pytest.raises(RunError, match=r"it has none of the queries .*another dataset or split"):
        retriever.search(Queries(["unknown"], ["text"]), 5)


def test_hybrid_and_reranker_of_a_run_drop_unknown_documents_and_have_no_timing(files):
    corpus = Corpus(["d4", "d3", "d2", "d1"], ["bread", "moon", "dogs", "cats"])
    queries = Queries(["q1", "q3"], ["cats dogs", "bread"])
    bm25 = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    hybrid = Hybrid({"lucene": RunFile(str(files[1])), "bm25": bm25}, rrf)
    hybrid.index(corpus)
    ranking = hybrid.search(queries, 10)
    assert sorted(ranking.hits(0)[0]) == ["d1", "d2"]
    assert ranking.hits(1)[0] == ["d4"]
    scorer = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    reranker = Rerank(RunFile(str(files[1])), scorer)
    reranker.index(corpus)
    assert sorted(reranker.search(queries, 10).hits(0)[0]) == ["d1", "d2"]
    qrels = Qrels({"q1": {"d1": 1}, "q3": {"d4": 1}})
    for retriever in (hybrid, reranker):
        measured = measure(
            retriever, Dataset("tiny", "test", corpus, queries, qrels), k=5, metrics=["mrr@5"], plan=TimingPlan()
        )
        assert measured.timing is None


def test_candidates_have_the_scores_of_the_run(files):
    retriever = RunFile(str(files[1]))
    retriever.index(Corpus(["d1", "d2", "d3", "d4"], ["a", "b", "c", "d"]))
    candidates = np.array([[1, 3, -1], [2, 3, 0]], np.int32)
    scores = retriever.score(Queries(["q1", "q3"], ["x", "y"]), candidates)
    assert scores.tolist() == [[3.5, -np.inf, -np.inf], [-np.inf, 9.25, -np.inf]]


def test_runs_of_one_name_are_one_row_over_all_datasets(files, tmp_path):
    folder, path = files
    other = tmp_path / "other.trec"
    other.write_text(RUN_LINES)
    for number, run_path in enumerate((path, other)):
        arguments = ["retriever=run_file", "retriever.name=lucene", f"retriever.path={run_path}", "dataset=folder"]
        arguments += [f"dataset.path={folder}", f"dataset.name=dataset{number}", f"results_dir={tmp_path / 'results'}"]
        assert run(arguments) == 0
    assert {record.retriever.label for record in Store(tmp_path / "results").records()} == {"run_file [name=lucene]"}


def test_missing_run_file_is_named():
    with pytest.raises(ConfigError, match=r"no file '/nowhere\.trec'; give a TREC run: retriever\.path=FILE"):
        RunFile("/nowhere.trec")


def test_changed_run_file_is_another_evaluation(files, tmp_path):
    folder, path = files
    arguments = ["retriever=run_file", f"retriever.path={path}", "dataset=folder", f"dataset.path={folder}"]
    arguments += [f"results_dir={tmp_path / 'results'}", "timing.latency_queries=0"]
    assert run(arguments) == run(arguments) == 0
    path.write_bytes(gzip.compress(RUN_LINES.replace("3.5 lucene\nq1 Q0 d1", "3.5 lucene\nq1 Q0 d3").encode()))
    assert run(arguments) == 0
    records = list(Store(tmp_path / "results").records())
    assert len({record.id for record in records}) == len(records) == 2
