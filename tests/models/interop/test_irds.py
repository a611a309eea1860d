"""Collections of ir_datasets by id: real components of it over local files."""

import pytest
from support.datasets import DOCUMENTS, JUDGED, QUERIES

from harness.cli.run import main as run
from harness.errors import ConfigError, DataError
from harness.interop.irds import load
from harness.store import Store

irds = pytest.importorskip("ir_datasets")


@pytest.fixture
def local(tmp_path):
    """The made collection under an id, with scoreddocs that a first stage would not find."""
    from ir_datasets.formats import TrecScoredDocs

    tmp_path.mkdir(exist_ok=True)
    docs, queries, qrels, scored = (tmp_path / name for name in ("docs.tsv", "queries.tsv", "qrels", "run"))
    docs.write_text("".join(f"{key}\t{title} {text}\n" for key, (title, text) in DOCUMENTS.items()))
    queries.write_text("".join(f"{key}\t{text}\n" for key, text in QUERIES.items()))
    qrels.write_text("".join(f"{q} 0 {d} {g}\n" for q, own in JUDGED.items() for d, g in own.items()))
    scored.write_text("".join(f"{q} Q0 {d} 1 1.0 run\n" for q in QUERIES for d in ("d2", "d4")))
    whole = irds.create_dataset(str(docs), str(queries), str(qrels))
    parts = {
        "local/made/test": whole,
        "local/made": irds.create_dataset(str(docs)),
        "local/made/rerank": irds.datasets.base.Dataset(whole, TrecScoredDocs(irds.util.LocalDownload(str(scored)))),
    }
    for name, own in parts.items():
        irds.registry.register(name, own)
    yield
    for name in parts:
        del irds.registry._registered[name]


def test_a_collection_is_read_by_its_id(local):
    found = load("local/made/test")
    assert list(found.corpus.ids) == list(DOCUMENTS)
    assert found.corpus.texts[2] == "The moon orbits the earth once a month."
    assert list(found.queries.texts) == list(QUERIES.values())
    assert {query: dict(docs) for query, docs in found.qrels.items()} == JUDGED
    assert (found.name, found.split) == ("local/made/test", "test")
    assert found.metadata.source == "ir_datasets"


def test_its_scoreddocs_are_candidates(local):
    found = load("local/made/rerank", candidates=True)
    assert found.candidates == {query: ["d2", "d4"] for query in QUERIES}
    with pytest.raises(ConfigError, match=r"dataset\.id='local/made/test' has no scoreddocs"):
        load("local/made/test", candidates=True)


def test_it_is_measured_like_any_other(local, tmp_path, capsys):
    words = ["retriever=bm25", "dataset=irds", "dataset.id=local/made/test", f"results_dir={tmp_path / 'results'}"]
    assert run([*words, "timing.latency_queries=0"]) == 0
    (record,) = Store(tmp_path / "results").records()
    assert record.dataset.label == "local/made/test"
    assert record.metrics["ndcg@10"] > 0.9
    assert "bm25 on irds local/made/test" in capsys.readouterr().err


def test_an_id_that_cannot_be_measured_says_what_can(local):
    with pytest.raises(ConfigError, match=r"has no queries and no qrels; choices: local/made/test, local/made/rerank"):
        load("local/made")
    with pytest.raises(ConfigError, match=r"ir_datasets has no dataset\.id='beir/scifac'; did you mean 'beir/scifact'"):
        load("beir/scifac")


def test_what_cannot_be_fetched_is_said(tmp_path, monkeypatch):
    broken = irds.create_dataset(str(tmp_path / "none.tsv"), str(tmp_path / "none"), str(tmp_path / "none"))
    monkeypatch.setattr(irds, "load", lambda name: broken)
    with pytest.raises(DataError, match="local/broken cannot be loaded by ir_datasets: FileNotFoundError"):
        load("local/broken")


@pytest.mark.parametrize(
    ("name", "dropped"), [("beir/arguana", True), ("beir/quora/test", True), ("beir/scifact", False)]
)
def test_self_hits_are_dropped_where_beir_says(name, dropped, local, monkeypatch):
    whole = irds.load("local/made/test")
    monkeypatch.setattr(irds, "load", lambda _: whole)
    assert load(name).drop_self_hits is dropped
    assert load(name, drop_self_hits=False).drop_self_hits is False
