"""Another system's run on the board: scored and tested, with no throughput."""

import gzip

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
from harness.types import Corpus, Dataset, Qrels, Queries

LINES = """\
q1 Q0 d2 1 3.5 lucene
q1 Q0 d1 2 3.5 lucene
q3 Q0 d4 7 9.25 lucene
q3 Q0 elsewhere 1 8.0 lucene
other Q0 d1 1 1.0 lucene
"""


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "lucene.trec.gz"
    path.write_bytes(gzip.compress(LINES.encode()))
    return write_beir(tmp_path / "made"), path


def test_a_run_is_a_row_with_intervals_and_tests_and_no_throughput(files, tmp_path, capsys):
    folder, path = files
    root = tmp_path / "results"
    dataset = ["dataset=folder", f"dataset.path={folder}", f"results_dir={root}", "timing.latency_queries=0"]
    assert run(["retriever=run_file", f"retriever.path={path}", *dataset]) == 0
    assert run(["retriever=bm25", *dataset]) == 0
    record = next(own for own in Store(root).records() if own.retriever.name == "run_file")
    assert record.timing is None
    assert record.metrics["mrr@10"] == pytest.approx((0.5 + 0 + 1) / 3)
    capsys.readouterr()
    assert read.main(["report", "--results", str(root), "--baseline", "bm25"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "run_file" in line)
    assert row.split()[-4:] == ["-", "-", "-", "-"] or row.split()[-3:] == ["-", "-", "-"]
    assert read.main(["compare", "bm25", "run_file", "--results", str(root)]) == 0
    said = capsys.readouterr().out
    assert "p=0.5000" in said
    assert read.main(["report", "--results", str(root), "--only", "html"]) == 0


def test_scores_give_the_order_and_a_query_without_an_answer_is_empty(files):
    retriever = RunFile(str(files[1]))
    retriever.index(Corpus(["d1", "d2", "d3", "d4"], ["a", "b", "c", "d"]))
    found = retriever.search(Queries(["q3", "q2", "q1"], ["x", "y", "z"]), 10)
    assert [found.hits(row)[0] for row in range(3)] == [["d4", "elsewhere"], [], ["d2", "d1"]]
    assert found.top(1).hits(0)[0] == ["d4"]
    assert retriever.nbytes() > 0


def test_our_own_exported_run_comes_back_with_the_records_numbers(real_dataset, tmp_path):
    own = real_dataset("nfcorpus")
    bm25 = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    bm25.index(own.corpus)
    made = bm25.search(own.queries, 100)
    from harness.types import trec

    trec.write(made, tmp_path / "own.trec.gz", "bm25")
    retriever = RunFile(str(tmp_path / "own.trec.gz"))
    retriever.index(own.corpus)
    wanted = [parse("ndcg@10"), parse("map@100")]
    back = score(retriever.search(own.queries, 100), own.qrels, wanted)[1]
    for name, values in score(made, own.qrels, wanted)[1].items():
        assert back[name].tolist() == values.tolist()


def test_a_run_on_another_collection_or_other_queries_is_refused(files):
    retriever = RunFile(str(files[1]))
    with pytest.raises(RunError, match=r"none of its 4 documents is in the corpus .*another dataset"):
        retriever.index(Corpus(["x1"], ["text"]))
    retriever.index(Corpus(["d1"], ["text"]))
    with pytest.raises(RunError, match=r"it has none of the queries .*another dataset or split"):
        retriever.search(Queries(["unknown"], ["text"]), 5)


def test_a_hybrid_and_a_reranker_take_the_corpus_own_documents_of_it_and_have_no_throughput(files):
    corpus = Corpus(["d4", "d3", "d2", "d1"], ["bread", "moon", "dogs", "cats"])
    queries, asked = Queries(["q1", "q3"], ["cats dogs", "bread"]), ["d2", "d1"]
    bm25 = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    hybrid = Hybrid({"other": RunFile(str(files[1])), "bm25": bm25}, rrf)
    hybrid.index(corpus)
    found = hybrid.search(queries, 10)
    assert sorted(found.hits(0)[0]) == sorted(asked)
    assert found.hits(1)[0] == ["d4"]
    again = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    reranker = Rerank(RunFile(str(files[1])), again)
    reranker.index(corpus)
    assert sorted(reranker.search(queries, 10).hits(0)[0]) == sorted(asked)
    qrels = Qrels({"q1": {"d1": 1}, "q3": {"d4": 1}})
    for retriever in (hybrid, reranker):
        measured = measure(
            retriever, Dataset("made", "test", corpus, queries, qrels), k=5, metrics=["mrr@5"], plan=TimingPlan()
        )
        assert measured.timing is None


def test_candidates_have_the_runs_scores_and_others_none(files):
    retriever = RunFile(str(files[1]))
    retriever.index(Corpus(["d1", "d2", "d3", "d4"], ["a", "b", "c", "d"]))
    asked = np.array([[1, 3, -1], [2, 3, 0]], np.int32)
    found = retriever.score(Queries(["q1", "q3"], ["x", "y"]), asked)
    assert found.tolist() == [[3.5, -np.inf, -np.inf], [-np.inf, 9.25, -np.inf]]


def test_a_named_run_is_one_row_over_all_datasets(files, tmp_path):
    folder, path = files
    other = tmp_path / "other.trec"
    other.write_text(LINES)
    for number, own in enumerate((path, other)):
        words = ["retriever=run_file", "retriever.name=lucene", f"retriever.path={own}", "dataset=folder"]
        words += [f"dataset.path={folder}", f"dataset.name=made{number}", f"results_dir={tmp_path / 'results'}"]
        assert run(words) == 0
    assert {own.retriever.label for own in Store(tmp_path / "results").records()} == {"run_file [name=lucene]"}


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(ConfigError, match=r"no file '/nowhere\.trec'; give a TREC run: retriever\.path=FILE"):
        RunFile("/nowhere.trec")


def test_another_content_under_the_same_path_is_another_cell(files, tmp_path):
    folder, path = files
    words = ["retriever=run_file", f"retriever.path={path}", "dataset=folder", f"dataset.path={folder}"]
    words += [f"results_dir={tmp_path / 'results'}", "timing.latency_queries=0"]
    assert run(words) == run(words) == 0
    path.write_bytes(gzip.compress(LINES.replace("3.5 lucene\nq1 Q0 d1", "3.5 lucene\nq1 Q0 d3").encode()))
    assert run(words) == 0
    records = list(Store(tmp_path / "results").records())
    assert len({own.id for own in records}) == len(records) == 2
