"""Tests of metrics that were not requested when measuring: computed from stored runs, or an error with the command."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.command_line import harness

from harness.api import evaluate as evaluate_call
from harness.cli import record_options
from harness.config.conf import CONF
from harness.errors import StoreError
from harness.evaluation.evaluate import Settings, evaluate
from harness.evaluation.timing import TimingPlan
from harness.metrics import parse, score
from harness.store import Store
from harness.store.rescore import describe
from harness.types import Corpus, Dataset, Qrels, Queries, Run
from harness.types.record import DEFAULT_K

PLAN = TimingPlan(warmup_documents=2, repeats=1, latency_queries=1)
NAMES = ("ndcg@3", "map@10(rel=2)", "P@5", "bpref", "recip_rank", "judged@7")


class Shuffled:
    """A retriever that ranks documents at random, with ties, and finds nothing for the last query."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def index(self, corpus):
        self.corpus = corpus

    def search(self, queries, k):
        rng = np.random.default_rng(self.seed)
        k = min(k, len(self.corpus))
        docs = np.stack([rng.permutation(len(self.corpus))[:k] for _ in queries.ids])
        docs[-1] = -1
        return Run(queries.ids, self.corpus.ids, docs, rng.integers(0, 4, docs.shape) / 3)

    def nbytes(self):
        return 1


def make_dataset(name="shuffled", **settings):
    """Return a dataset of 40 documents and 12 queries with grades of -1 to 3; some queries have a document's id."""
    rng = np.random.default_rng(5)
    ids = [f"d{number}" for number in range(40)]
    queries = [*ids[:3], *(f"q{number}" for number in range(9))]
    grades = {query: {doc: int(rng.integers(-1, 4)) for doc in rng.choice(ids, 12, replace=False)} for query in queries}
    corpus = Corpus(ids, [f"text {doc}" for doc in ids])
    return Dataset(name, "test", corpus, Queries(queries, ["words"] * 12), Qrels(grades), **settings)


def evaluated(dataset, *metrics, k=20, seed=1, name="mine", root=Path("results")):
    """Evaluate a shuffled retriever, store the record in the results folder and return it."""
    settings = Settings(k=k, metrics=metrics or ("ndcg@10",), timing=PLAN)
    return evaluate(Shuffled(seed), dataset, name=name, settings=settings, store=Store(root))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a new folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("drop_self_hits", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_computed_metric_equals_the_measured_one_bit_for_bit(name, drop_self_hits):
    dataset = make_dataset(drop_self_hits=drop_self_hits)
    stored = evaluated(dataset, "ndcg@10")
    name = str(parse(name))
    store = Store(Path("results"))
    rescored = store.with_metric([stored], name)
    measured = evaluated(dataset, name, root=Path("measured"))
    assert rescored.missing == []
    assert rescored.records[0].metrics == {"ndcg@10": stored.metrics["ndcg@10"], **measured.metrics}
    computed = store.scores([stored])[stored.files.per_query]
    expected = Store(Path("measured")).scores([measured])[measured.files.per_query]
    assert list(computed.query_ids) == list(expected.query_ids)
    assert computed.values[name].tolist() == expected.values[name].tolist()
    assert list(computed.values) == ["ndcg@10", name]


def test_the_records_on_disk_and_measured_values_stay_as_they_are():
    stored = evaluated(make_dataset())
    before = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    store = Store(Path("results"))
    assert store.with_metric([stored], "ndcg@10").records == [stored]
    store.with_metric([stored], "map@5")
    assert {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()} == before
    assert list(Store(Path("results")).records()) == [stored]


def test_judgements_are_stored_once_for_each_content_of_a_dataset():
    dataset = make_dataset()
    first, second = evaluated(dataset, seed=1), evaluated(dataset, seed=2, name="other")
    assert first.files.qrels == second.files.qrels == f"qrels/shuffled/{dataset.fingerprint[:16]}.parquet"
    assert len(list(Path("results/qrels").rglob("*.parquet"))) == 1
    qrels = Store(Path("results")).qrels(first)
    assert {query: dict(docs) for query, docs in qrels.items()} == {
        query: dict(docs) for query, docs in dataset.qrels.items()
    }
    assert list(qrels) == list(dataset.qrels)


def test_older_records_without_judgements_use_those_of_a_newer_one():
    dataset = make_dataset()
    evaluated(dataset, seed=2, name="newer")
    older = evaluated(dataset, seed=1)
    older = older.model_copy(update={"files": older.files.model_copy(update={"qrels": None})})
    assert "map@5" in Store(Path("results")).with_metric([older], "map@5").records[0].metrics


def test_report_computes_a_metric_and_shows_its_significance(monkeypatch, capsys):
    dataset = make_dataset()
    record = evaluated(dataset, seed=1)
    evaluated(dataset, "map@3", seed=2, name="other")
    run = Store(Path("results")).run(record)
    assert harness(monkeypatch, "report", "--metric", "nDCG@7", "--baseline", "mine") == 0
    out, error = capsys.readouterr()
    mean = score(run, dataset.qrels, [parse("ndcg@7")])[1]["ndcg@7"].mean()
    assert f"{mean:.4f}" in out
    assert "ndcg@7" in out
    assert "without" not in error
    rows = [line.split(",") for line in Path("results/leaderboard.csv").read_text().splitlines()]
    assert {row[0] for row in rows if "ndcg@7" in row} == {"mine", "other"}
    assert '"ndcg@7"' in Path("results/leaderboard.html").read_text()
    for command in (("compare", "mine", "other"), ("recommend",)):
        assert harness(monkeypatch, *command, "--metric", "ndcg@7", "--json") == 0
        assert "ndcg@7" in capsys.readouterr().out


def test_report_names_the_evaluations_that_lack_the_metric(monkeypatch, capsys):
    dataset = make_dataset()
    evaluated(dataset, seed=1)
    evaluated(dataset, seed=2, k=10, name="shallow")
    assert harness(monkeypatch, "report", "--metric", "ndcg@15") == 0
    out, error = capsys.readouterr()
    assert "without ndcg@15: shallow on shuffled: its run has 10 documents for each query" in error
    assert "harness.evaluate(..., k=15, metrics=['ndcg@15'])" in error
    assert "shallow" not in out
    assert harness(monkeypatch, "report", "--metric", "ndcg@15", "--retriever", "shallow") == 3
    assert "no evaluation has ndcg@15 (they have ndcg@10)" in capsys.readouterr().err
    assert harness(monkeypatch, "compare", "mine", "shallow", "--metric", "ndcg@15") == 3
    assert "shallow on shuffled: its run has 10 documents" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "metric", "k", "expected"),  # of `command` and `expected` all but the word harness
    [
        (
            "retriever=bm25 dataset=mine",
            "ndcg@200",
            100,
            "retriever=bm25 dataset=mine k=200 metrics=[ndcg@200]",
        ),
        (
            "--config-dir=conf retriever=a retriever.k1=2 k=50 'metrics=[ndcg@10,map@5]'",
            "map@60(rel=2)",
            50,
            "--config-dir=conf retriever=a retriever.k1=2 k=60 'metrics=['\"'\"'map@60(rel=2)'\"'\"']'",
        ),
        (
            "experiment=deep hydra.mode=RUN",
            "bpref",
            1000,
            "experiment=deep hydra.mode=RUN k=1000 metrics=[bpref]",
        ),
    ],
)
def test_the_command_that_measures_a_metric_is_the_evaluations_own(command, metric, k, expected):
    record = evaluated(make_dataset()).model_copy(update={"command": f"harness {command}", "k": k})
    Path("results", record.files.run).unlink()
    missing = Store(Path("results")).with_metric([record], metric).missing
    assert describe(metric, missing).endswith(f"measure it: harness {expected}")


@pytest.mark.parametrize(
    ("changes", "lost", "metric", "reason"),
    [
        ({}, "run", "map@5", "its run is not stored"),
        ({}, "qrels", "map@5", "its judgements are not stored"),
        ({"metric_version": 0}, None, "map@5", "older definitions"),
        ({}, None, "p-MRR", "the dataset does not define p-MRR"),
        ({"k": 4}, None, "map@5", "its run has 4 documents"),
    ],
)
def test_the_reason_why_a_metric_cannot_be_computed_is_named(changes, lost, metric, reason):
    record = evaluated(make_dataset()).model_copy(update=changes)
    if lost:
        Path("results", getattr(record.files, lost)).unlink()
    rescored = Store(Path("results")).with_metric([record], metric)
    assert rescored.records == [record]
    assert reason in rescored.missing[0].reason


def test_a_run_without_hits_is_read_as_one_and_a_damaged_file_is_named():
    class Nothing(Shuffled):
        def search(self, queries, k):
            return Run(queries.ids, self.corpus.ids, np.full((len(queries), k), -1), np.zeros((len(queries), k)))

    record = evaluate(Nothing(0), make_dataset(), settings=Settings(timing=None), store=Store(Path("results")))
    store = Store(Path("results"))
    assert store.with_metric([record], "map@5").records[0].metrics["map@5"] == 0.0
    Path("results", record.files.run).write_bytes(b"no gzip")
    with pytest.raises(StoreError, match=r"\.trec\.gz: .*measure again"):
        store.with_metric([record], "map@6")


def test_reading_and_computing_load_neither_torch_nor_hydra():
    evaluated(make_dataset())
    code = (
        "import sys; from harness.cli import read; "
        "assert read.main(['report', '--metric', 'ndcg@5']) == 0; "
        "sys.exit(bool({'torch', 'transformers', 'ir_measures'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_metric_of_a_dataset_keeps_its_name_and_an_unknown_one_is_refused(monkeypatch, capsys):
    record = evaluated(make_dataset())
    assert record_options.canonical("ndcg@10", [record]) == "ndcg@10"
    extra = record.model_copy(update={"metrics": {"p-MRR": 0.5}})
    assert record_options.canonical("p-MRR", [extra]) == "p-MRR"
    assert harness(monkeypatch, "report", "--metric", "ndgc@10") == 2
    assert "did you mean ndcg@10?" in capsys.readouterr().err


def test_the_default_depth_is_that_of_the_command_line():
    config = yaml.safe_load((CONF / "run.yaml").read_text(encoding="utf-8"))
    assert config["k"] == DEFAULT_K
    assert inspect.signature(evaluate_call).parameters["k"].default == DEFAULT_K
