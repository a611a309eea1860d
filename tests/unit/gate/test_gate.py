"""Tests of the command `harness gate`: output, exit codes and errors."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from junitparser import JUnitXml
from support.command_line import harness
from support.gate import BASE, gate_timing, gate_values, shifted, store_evaluations

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
    assert out[-1] == "Worse than the baseline: b/x ndcg@10. Adjusted over 1 test."
    assert harness(monkeypatch, "gate", "--retriever", "a") == 0


def test_json_has_every_finding(accepted_results, monkeypatch, capsys):
    assert harness(monkeypatch, "gate", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["exit_code"] == 0
    assert {finding["status"] for finding in verdict["findings"]} == {"identical", "pass"}
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.02)}, 5)
    assert harness(monkeypatch, "gate", "--json", "--annotations") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["summary"] == "Worse than the baseline: b/x ndcg@10. Adjusted over 1 test."
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


WORSE = BASE + (noise := np.random.default_rng(2).normal(0, 0.05, 300)) - noise.mean() - 0.0082
"""Values that are significantly worse in one test, and not in a family of twenty tests."""


@pytest.fixture
def changed_sweep(results, monkeypatch, capsys):
    """Return the results of a sweep of twenty retrievers: `r0` got worse, the others changed a little."""
    shutil.rmtree("results")
    keys = [(f"r{number}", "x") for number in range(20)]
    store_evaluations(results, dict.fromkeys(keys, BASE))
    assert harness(monkeypatch, "accept", "--reason", "first") == 0
    rng = np.random.default_rng(0)
    after = {key: BASE + rng.normal(0, 0.05, 300) for key in keys}
    store_evaluations(results, {**after, ("r0", "x"): WORSE}, 5)
    capsys.readouterr()
    return results


def gate_json(monkeypatch, capsys, *arguments):
    """Return the exit code of the gate and its verdict."""
    code = harness(monkeypatch, "gate", "--json", *arguments)
    return code, json.loads(capsys.readouterr().out)


def test_a_selection_of_evaluations_changes_no_finding(changed_sweep, monkeypatch, capsys):
    code, whole = gate_json(monkeypatch, capsys)
    selections = [["--retriever", "r0"], ["--retriever", "r0", "r5"], ["--dataset", "x"], ["--retriever", "r7"]]
    for arguments in selections:
        selected_code, verdict = gate_json(monkeypatch, capsys, *arguments)
        shown = arguments[1:] if arguments[0] == "--retriever" else [f"r{number}" for number in range(20)]
        assert verdict["findings"] == [each for each in whole["findings"] if each["retriever"] in shown]
        assert verdict["tests"] == whole["tests"] == 20
        assert verdict["summary"].endswith(" Adjusted over 20 tests.")
        assert selected_code == (code if "r7" not in arguments else 0)
    (finding,) = [each for each in whole["findings"] if (each["retriever"], each["check"]) == ("r0", "ndcg@10")]
    assert (code, finding["status"], finding["difference"]["p"] > 0.05) == (0, "warn", True)
    assert gate_values({("r0", "x"): BASE}, {("r0", "x"): WORSE}).exit_code == 1, "in a family of one test"


def test_every_format_names_the_number_of_tests(changed_sweep, monkeypatch, capsys):
    assert harness(monkeypatch, "gate", "--retriever", "r0", "--junit", "gate.xml", "--summary", "summary.md") == 0
    assert capsys.readouterr().out.endswith(" Adjusted over 20 tests.\n")
    assert "| p adjusted over 20 tests |" in Path("summary.md").read_text()
    assert '<property name="adjusted_over_tests" value="20" />' in Path("gate.xml").read_text()
    with_family = "Adjusted over 20 tests."
    assert with_family in Path("summary.md").read_text()


def test_evaluations_that_are_not_selected_do_not_make_the_gate_undecided(changed_sweep, monkeypatch, capsys):
    for path in (changed_sweep / "records").rglob("*.json"):
        if "r3" in path.read_text():
            path.unlink()
    store_evaluations(changed_sweep, {("r4", "x"): BASE}, 6, status="failed", error="WeightsError: gone", timing=None)
    code, verdict = gate_json(monkeypatch, capsys, "--retriever", "r0", "r1")
    assert (code, verdict["tests"]) == (0, 18)
    assert {each["retriever"] for each in verdict["findings"]} == {"r0", "r1"}
    assert gate_json(monkeypatch, capsys)[0] == 1
    assert gate_json(monkeypatch, capsys, "--retriever", "r3")[0] == 3


def test_the_mean_of_a_retriever_is_reported_if_all_its_evaluations_are_selected(results, monkeypatch, capsys):
    keys = [("m", name) for name in "xyz"]
    store_evaluations(results, dict.fromkeys(keys, BASE))
    assert harness(monkeypatch, "accept", "--reason", "first") == 0
    store_evaluations(results, {key: shifted(-0.004, seed=number) for number, key in enumerate(keys)}, 5)
    capsys.readouterr()
    for arguments, code in ((["--retriever", "m"], 1), (["--retriever", "m", "--dataset", "x", "y"], 0)):
        assert gate_json(monkeypatch, capsys, *arguments)[0] == code
        _, verdict = gate_json(monkeypatch, capsys, *arguments)
        assert verdict["tests"] == 4
        assert ("macro average" in {each["dataset"] for each in verdict["findings"]}) == bool(code)
