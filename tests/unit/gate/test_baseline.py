"""Tests of the baseline on disk: accepting records, damaged and old baselines."""

import json
import re
from pathlib import Path

import pytest
from junitparser import JUnitXml
from support.command_line import harness
from support.gate import BASE, gate_record, shifted, store_evaluations
from support.records import START

from harness.gate import baseline
from harness.store import Store


def test_accept_stores_means_hashes_reason_and_scores_and_prints_the_changes(results, monkeypatch, capsys):
    assert harness(monkeypatch, "accept", "--reason", "first") == 0
    out = capsys.readouterr()
    assert out.out.splitlines() == [f"new     {name}/x ndcg@10 {BASE.mean():.4f}" for name in "ab"]
    assert "wrote results/baseline/; commit it" in out.err
    manifest = json.loads((results / "baseline" / "baseline.json").read_text())
    assert manifest["reason"] == "first"
    assert manifest["evaluations"][0]["metrics"] == {"ndcg@10": pytest.approx(BASE.mean())}
    assert set(manifest["evaluations"][0]["hashes"]) == {"record", "per_query"}
    accepted = baseline.read(results / "baseline")
    assert len(accepted.records) == len(accepted.scores) == 2
    store_evaluations(results, {("a", "x"): shifted(-0.01)}, 5)
    assert harness(monkeypatch, "accept", "--reason", "worse and wanted", "--retriever", "a") == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"changed a/x ndcg@10 {BASE.mean():.4f} -> {BASE.mean() - 0.01:.4f} (-0.0100)",
        "not measured and kept: 1 figure",
    ]
    files = {path.name for path in (results / "baseline").rglob("*.parquet")}
    assert len(files) == 2, "replaced files are removed"


def test_prune_removes_evaluations_that_were_not_measured(accepted_results, monkeypatch, capsys):
    assert harness(monkeypatch, "accept", "--reason", "b is gone", "--retriever", "a", "--prune") == 0
    assert f"removed b/x ndcg@10 {BASE.mean():.4f}" in capsys.readouterr().out
    assert baseline.read(accepted_results / "baseline").names == ["a/x"]


def test_accept_refuses_failed_or_missing_records_and_an_empty_reason(accepted_results, monkeypatch, capsys):
    assert harness(monkeypatch, "accept", "--reason", " ") == 2
    assert "the reason is empty" in capsys.readouterr().err
    Store(accepted_results).append(
        gate_record("a", "x", 9, status="failed", error="WeightsError: gone", timing=None), {}
    )
    assert harness(monkeypatch, "accept", "--reason", "r") == 3
    assert "the newest try of a on x failed: WeightsError: gone; measure it again: harness" in capsys.readouterr().err
    assert harness(monkeypatch, "accept", "--reason", "r", "--results", "nowhere") == 3
    assert "nothing to accept in nowhere/; measure first" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["manifest", "record", "per_query", "missing", "version"])
def test_a_damaged_baseline_is_undecided(accepted_results, monkeypatch, capsys, damage):
    root = accepted_results / "baseline"
    manifest = root / "baseline.json"
    if damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif damage == "version":
        manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 3'))
    elif damage == "missing":
        next(root.rglob("*.parquet")).unlink()
    else:
        path = next((root / ("records" if damage == "record" else "per_query")).rglob("*.*"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    assert harness(monkeypatch, "gate") == 3
    message = r"the baseline is damaged: results/baseline/.*restore it: git checkout -- results/baseline, or measure"
    assert re.search(message, capsys.readouterr().err)
    assert harness(monkeypatch, "gate", "--junit", "gate.xml", "--lenient") == 0
    assert JUnitXml.fromfile("gate.xml").skipped == 1
    assert harness(monkeypatch, "accept", "--prune", "--reason", "anew") == 0
    assert harness(monkeypatch, "gate") == 0


def test_without_a_baseline_the_gate_is_undecided(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store_evaluations(Path("results"), {("a", "x"): BASE})
    assert harness(monkeypatch, "gate") == 3
    message = 'there is no baseline in results/baseline/; make one: harness accept --reason "..."'
    assert message in capsys.readouterr().err


def test_a_baseline_of_version_1_is_read(accepted_results):
    manifest = accepted_results / "baseline" / "baseline.json"
    text = manifest.read_text().replace('"evaluations":', '"cells":').replace('"record_id":', '"cell":')
    new = baseline.read(accepted_results / "baseline")
    manifest.write_text(text.replace('"version": 2', '"version": 1'))
    assert '"cells":' in manifest.read_text()
    old = baseline.read(accepted_results / "baseline")
    assert (old.records, list(old.scores)) == (new.records, list(new.scores))


def test_an_interrupted_accept_leaves_the_old_baseline(accepted_results, monkeypatch):
    before = baseline.read(accepted_results / "baseline")
    store_evaluations(accepted_results, {("a", "x"): shifted(-0.01)}, 5)
    write_atomic, written_paths = baseline.write_atomic, []

    def interrupt(path, content):
        if path.name == "baseline.json":
            raise KeyboardInterrupt
        written_paths.append(path)
        write_atomic(path, content)

    monkeypatch.setattr(baseline, "write_atomic", interrupt)
    with pytest.raises(KeyboardInterrupt):
        baseline.accept(
            accepted_results / "baseline",
            Store(accepted_results),
            list(Store(accepted_results).records()),
            {"accepted": START, "reason": "r", "harness": "0"},
        )
    assert written_paths
    after = baseline.read(accepted_results / "baseline")
    assert after.records == before.records
    assert list(after.scores) == list(before.scores)


def test_accept_refuses_a_results_folder_as_baseline(accepted_results, monkeypatch, capsys):
    before = sorted(accepted_results.rglob("*.json"))
    assert harness(monkeypatch, "accept", "--reason", "r", "--baseline", "results") == 2
    assert "results/ holds results and is not a baseline; name another folder" in capsys.readouterr().err
    assert sorted(accepted_results.rglob("*.json")) == before


def test_accept_writes_nothing_if_a_file_is_missing(results, monkeypatch, capsys):
    next((results / "per_query").rglob("*.parquet")).unlink()
    assert harness(monkeypatch, "accept", "--reason", "r") == 3
    assert "has no per-query scores; measure it again: harness" in capsys.readouterr().err
    assert not (results / "baseline").exists()


def test_accept_prints_that_a_dataset_has_changed(accepted_results, monkeypatch, capsys):
    store_evaluations(accepted_results, {("a", "x"): BASE}, 5, fingerprint="0" * 32)
    assert harness(monkeypatch, "accept", "--reason", "r", "--retriever", "a") == 0
    assert "changed a/x: the dataset has changed, its figures cannot be compared" in capsys.readouterr().out
