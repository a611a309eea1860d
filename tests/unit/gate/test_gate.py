"""Tests of the command `harness gate`: output, exit codes and errors."""

import json
import re
from pathlib import Path

import pytest
from junitparser import JUnitXml
from support.command_line import harness
from support.gate import BASE, gate_timing, shifted, store_evaluations

from harness.errors import ConfigError, UndecidedError
from harness.gate import baseline, policy


def test_findings_are_printed_worst_first_with_a_summary(accepted_results, monkeypatch, capsys):
    assert harness(monkeypatch, "gate") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "Nothing got worse: 2 identical, 12 within the limits."
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.02)}, 5)
    assert harness(monkeypatch, "gate") == 1
    out = capsys.readouterr().out.splitlines()
    mean = BASE.mean()
    assert re.fullmatch(
        rf"FAIL b/x ndcg@10 {mean:.4f} -> {mean - 0.02:.4f} \(-0\.0200 \[-0\.0200, -0\.0200\], p=0\.0001, "
        r"limit 0\.005\) W0 T0 L300",
        out[0],
    )
    assert out[-1] == "Worse than the baseline: b/x ndcg@10."
    assert harness(monkeypatch, "gate", "--retriever", "a") == 0


def test_json_has_every_finding(accepted_results, monkeypatch, capsys):
    assert harness(monkeypatch, "gate", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["exit_code"] == 0
    assert {finding["status"] for finding in verdict["findings"]} == {"identical", "pass"}
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.02)}, 5)
    assert harness(monkeypatch, "gate", "--json", "--annotations") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["summary"] == "Worse than the baseline: b/x ndcg@10."
    assert "\n::error title=" in f"\n{err}"


def test_scores_that_cannot_be_read_are_undecided(accepted_results, monkeypatch, capsys):
    newest = store_evaluations(accepted_results, {("a", "x"): BASE}, 5)
    path = accepted_results / next(record for record in newest.records() if record.started.minute == 5).files.per_query
    path.write_bytes(b"trash")
    assert harness(monkeypatch, "gate", "--retriever", "b") == 0
    assert harness(monkeypatch, "gate") == 3
    assert f"{path}: " in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.parquet"])
def test_a_path_outside_the_folder_is_refused(accepted_results, monkeypatch, capsys, path):
    manifest = accepted_results / "baseline" / "baseline.json"
    content = json.loads(manifest.read_text())
    content["evaluations"][0]["files"]["per_query"] = path
    manifest.write_text(json.dumps(content))
    assert harness(monkeypatch, "gate") == 3
    assert "leads out of results/baseline/" in capsys.readouterr().err
    file = next((accepted_results / "records").rglob("*.json"))
    file.write_text(re.sub(r'"per_query": "[^"]+"', f'"per_query": "{path}"', file.read_text()))
    assert harness(monkeypatch, "report") == 2
    assert "a file's path leads out of the results folder" in capsys.readouterr().err


def test_a_slow_evaluation_is_measured_again_only_in_its_own_environment(accepted_results, monkeypatch, capsys):
    store_evaluations(accepted_results, {("a", "x"): BASE}, 5, timing=gate_timing(cpu=2.0))
    assert harness(monkeypatch, "gate") == 1
    out, err = capsys.readouterr()
    assert out.startswith("FAIL a/x cpu/")
    assert "not measured again: it was measured on another machine or with other packages: harness retriever=a" in err


def test_the_command_writes_junit_summary_and_annotations(accepted_results, monkeypatch, capsys):
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.02)}, 5)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "new/env.md")
    assert harness(monkeypatch, "gate", "--junit", "out/gate.xml", "--summary", "summary.md", "--annotations") == 1
    assert JUnitXml.fromfile("out/gate.xml").failures == 1
    assert "b on x" in Path("summary.md").read_text()
    assert not Path("new/env.md").exists()
    assert "::error title=b/x ndcg@10::FAIL b/x" in capsys.readouterr().out
    assert harness(monkeypatch, "gate", "--retriever", "a") == 0
    assert "Nothing got worse" in Path("new/env.md").read_text()


def test_errors_list_the_existing_retrievers_and_datasets(accepted_results, monkeypatch, capsys):
    for command in (["gate"], ["accept", "--reason", "r"]):
        assert harness(monkeypatch, *command, "--retriever", "a", "nobody") == 2
        assert "no record of retriever 'nobody'; there are a, b" in capsys.readouterr().err
        assert harness(monkeypatch, *command, "--dataset", "xx") == 2
        assert "no record of dataset 'xx'; there are x; did you mean 'x'?" in capsys.readouterr().err
    store_evaluations(accepted_results, {("c", "y"): BASE}, 5)
    assert harness(monkeypatch, "gate", "--retriever", "c") == 3
    assert "the baseline has none of these evaluations; it has a/x, b/x" in capsys.readouterr().err
    assert harness(monkeypatch, "gate", "--summary", "results") == 2
    assert "results cannot be written: Is a directory" in capsys.readouterr().err
    with pytest.raises(UndecidedError, match="there is no baseline"):
        baseline.read(Path("nowhere"))
    with pytest.raises(ConfigError, match="has no rule"):
        policy.validate({"a": 1}, "p")
