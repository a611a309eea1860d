"""Tests of harness/interop/irds.py: datasets of ir_datasets by id, over local files."""

import pytest
from support.datasets import DOCUMENTS, QRELS, QUERIES

from harness.cli.run import main as run
from harness.errors import ConfigError, DataError
from harness.interop.irds import load
from harness.store import Store

irds = pytest.importorskip("ir_datasets")


@pytest.fixture
def local_ids(tmp_path):
    """Register a dataset with ir_datasets under three ids: whole, its documents alone, and with scoreddocs."""
    from ir_datasets.formats import TrecScoredDocs

    tmp_path.mkdir(exist_ok=True)
    docs, queries, qrels, scoreddocs = (tmp_path / name for name in ("docs.tsv", "queries.tsv", "qrels", "run"))
    docs.write_text("".join(f"{key}\t{title} {text}\n" for key, (title, text) in DOCUMENTS.items()))
    queries.write_text("".join(f"{key}\t{text}\n" for key, text in QUERIES.items()))
    qrels.write_text("".join(f"{q} 0 {d} {g}\n" for q, docs in QRELS.items() for d, g in docs.items()))
    scoreddocs.write_text("".join(f"{q} Q0 {d} 1 1.0 run\n" for q in QUERIES for d in ("d2", "d4")))
    whole = irds.create_dataset(str(docs), str(queries), str(qrels))
    candidates = TrecScoredDocs(irds.util.LocalDownload(str(scoreddocs)))
    datasets = {
        "local/tiny/test": whole,
        "local/tiny": irds.create_dataset(str(docs)),
        "local/tiny/rerank": irds.datasets.base.Dataset(whole, candidates),
    }
    for name, dataset in datasets.items():
        irds.registry.register(name, dataset)
    yield
    for name in datasets:
        del irds.registry._registered[name]


def test_a_dataset_is_loaded_by_its_id(local_ids):
    dataset = load("local/tiny/test")
    assert list(dataset.corpus.ids) == list(DOCUMENTS)
    assert dataset.corpus.texts[2] == "The moon orbits the earth once a month."
    assert list(dataset.queries.texts) == list(QUERIES.values())
    assert {query: dict(docs) for query, docs in dataset.qrels.items()} == QRELS
    assert (dataset.name, dataset.split) == ("local/tiny/test", "test")
    assert dataset.metadata.source == "ir_datasets"


def test_scoreddocs_are_loaded_as_candidates(local_ids):
    dataset = load("local/tiny/rerank", candidates=True)
    assert dataset.candidates == {query: ["d2", "d4"] for query in QUERIES}
    with pytest.raises(ConfigError, match=r"dataset\.id='local/tiny/test' has no scoreddocs"):
        load("local/tiny/test", candidates=True)


def test_the_command_line_evaluates_it(local_ids, tmp_path, capsys):
    words = ["retriever=bm25", "dataset=irds", "dataset.id=local/tiny/test", f"results_dir={tmp_path / 'results'}"]
    assert run([*words, "timing.latency_queries=0"]) == 0
    (record,) = Store(tmp_path / "results").records()
    assert record.dataset.label == "local/tiny/test"
    assert record.metrics["ndcg@10"] > 0.9
    assert "bm25 on irds local/tiny/test" in capsys.readouterr().err


def test_an_id_without_queries_or_an_unknown_id_is_an_error_with_the_choices(local_ids):
    with pytest.raises(ConfigError, match=r"has no queries and no qrels; choices: local/tiny/test, local/tiny/rerank"):
        load("local/tiny")
    with pytest.raises(ConfigError, match=r"ir_datasets has no dataset\.id='beir/scifac'; did you mean 'beir/scifact'"):
        load("beir/scifac")


def test_a_dataset_that_cannot_be_downloaded_is_an_error(tmp_path, monkeypatch):
    unavailable = irds.create_dataset(str(tmp_path / "none.tsv"), str(tmp_path / "none"), str(tmp_path / "none"))
    monkeypatch.setattr(irds, "load", lambda name: unavailable)
    with pytest.raises(DataError, match="local/unavailable cannot be loaded by ir_datasets: FileNotFoundError"):
        load("local/unavailable")


@pytest.mark.parametrize(
    ("name", "dropped"), [("beir/arguana", True), ("beir/quora/test", True), ("beir/scifact", False)]
)
def test_self_hits_are_dropped_for_the_datasets_for_which_beir_drops_them(name, dropped, local_ids, monkeypatch):
    whole = irds.load("local/tiny/test")
    monkeypatch.setattr(irds, "load", lambda _: whole)
    assert load(name).drop_self_hits is dropped
    assert load(name, drop_self_hits=False).drop_self_hits is False
