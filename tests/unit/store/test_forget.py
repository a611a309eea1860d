"""Tests of `harness forget`, which moves records out of the way."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.command_line import harness
from support.records import make_record

from harness.store import Store
from harness.types import PerQuery, Run


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of two rows on two datasets, an older version of one of them, and a failure."""
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    run = Run.from_dict({"q": {"d": 1.0}})
    scores = PerQuery(["q"], {"ndcg@10": np.array([1.0])})
    records = [make_record(name, dataset, 1.0) for name in ("bm25", "minilm") for dataset in ("x", "y")]
    records.append(make_record("bm25", "x", 1.0, -60, fingerprint="1" * 16, id="1" * 16))
    for record in records:
        store.append(record, {}, run, scores)
    store.append(make_record("minilm", "z", 0, status="failed", error="no memory"), {})
    return store


def labels(store):
    return sorted((r.retriever.label, r.dataset.label, r.status) for r in store.records())


@pytest.mark.parametrize(
    ("arguments", "n_moved"),
    [
        (("--failed",), 1),
        (("--dataset", "y"), 2),
        (("--dataset", "x"), 3),
        (("--dataset", "x (111111)"), 1),
        (("--retriever", "minilm", "--dataset", "x", "z"), 2),
        (("11111111",), 1),
        (("--dataset", "x", "--failed"), 0),
    ],
)
def test_selected_records_are_moved_and_can_be_moved_back(store, monkeypatch, capsys, arguments, n_moved):
    before = {path.relative_to(store.root): path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert harness(monkeypatch, "forget", *arguments, "--dry-run") == 0
    assert len(labels(store)) == 6
    assert harness(monkeypatch, "forget", *arguments) == 0
    assert f"{n_moved} record{'' if n_moved == 1 else 's'} moved to results/forgotten/" in capsys.readouterr().out
    assert len(labels(store)) == 6 - n_moved
    forgotten = store.root / "forgotten"
    for path in [path for path in forgotten.rglob("*") if path.is_file()]:
        target = store.root / path.relative_to(forgotten)
        assert not target.exists()
        path.rename(target)
    after = {path.relative_to(store.root): path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert after == before


def test_files_that_other_records_use_stay(store, monkeypatch):
    assert harness(monkeypatch, "forget", "--dataset", "y") == 0
    assert {
        path.parts[0] for path in (p.relative_to("results/forgotten") for p in Path("results/forgotten").rglob("*.*"))
    } == {
        "records",
        "runs",
        "per_query",
    }
    assert list(Path("results/environments").iterdir())


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ((), ("--failed", "--dataset NAME", "harness list records")),
        (("1111",), ("'1111'", "at least 6 digits", "harness list records")),
        (("abcdef12",), ("'abcdef12'", "harness list records")),
        (("--dataset", "nope"), ("'nope'", "x (111111)")),
        (("--retriever", "nope"), ("'nope'", "bm25, minilm")),
    ],
)
def test_a_selection_without_a_record_is_refused(store, monkeypatch, capsys, arguments, fragments):
    assert harness(monkeypatch, "forget", *arguments) == 2
    message = capsys.readouterr().err
    assert [fragment for fragment in fragments if fragment not in message] == []
    assert len(labels(store)) == 6


def test_moved_records_are_listed_as_json(store, monkeypatch, capsys):
    assert harness(monkeypatch, "forget", "--failed", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [Path(path).exists() for path in content["moved"]] == [True]
    assert len(content["records"]) == 1
