"""Tests of the gate's policy: limits of a dataset, policy files and their errors."""

import re
from pathlib import Path

import pytest
from support.command_line import harness
from support.gate import BASE, gate_values, shifted, statuses, store_evaluations

from harness.config.conf import CONF
from harness.gate import Policy, policy


def test_limits_of_a_dataset_apply_to_its_splits():
    rules = policy.validate({"datasets": {"x": {"tolerance": 0.01}}}, "p")
    assert rules.limits_for(["x [split=dev]", "x"]).tolerance == 0.01
    assert rules.limits_for(["y"]).tolerance == 0.005


def test_a_dataset_may_have_its_own_limits():
    rules = policy.validate({"datasets": {"x": {"tolerance": 0.01}, "y": {"limit": 0.004, "tolerance": 0.004}}}, "p")
    verdict = gate_values(
        {("a", "x"): BASE, ("b", "y"): BASE}, {("a", "x"): shifted(-0.006), ("b", "y"): shifted(-0.0045)}, rules
    )
    assert statuses(verdict) == {("a", "x"): "pass", ("b", "y"): "fail"}


def test_a_policy_file_changes_only_the_rules_that_it_names(accepted_results, monkeypatch, capsys):
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.006)}, 5)
    Path("custom.yaml").write_text("tolerance: 0.01\n")
    assert harness(monkeypatch, "gate") == 1
    assert harness(monkeypatch, "gate", "--policy", "custom.yaml") == 0
    rules = policy.read([Path("custom.yaml")])
    assert (rules.tolerance, rules.limit) == (0.01, 0.03)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tolerence: 1", "custom.yaml has no rule 'tolerence'; choices: tolerance, limit, .*; did you mean tolerance?"),
        ("datasets: {x: {alpha: 1}}", "custom.yaml has no rule 'datasets.x.alpha'; choices: tolerance, limit"),
        ("alpha: 2", "custom.yaml: alpha=2: Input should be less than 1"),
        ("cpu: .inf", "custom.yaml: cpu=inf: Input should be a finite number"),
        ("tolerance: 0.05", "custom.yaml: a tolerance is above its limit, 0.03; raise the limit too"),
        ("datasets: {x: {limit: 0.001}}", "custom.yaml: a tolerance of x is above its limit, 0.001"),
        ("datasets: [x]", "custom.yaml: datasets="),
        ("datasets: {scifcat: {limit: 0.1}}", "rules for 'scifcat', which the baseline lacks; it has x"),
        ("metrics: [ndgc@10]", "ndgc@10"),
        ("- a", "custom.yaml must hold KEY: VALUE lines; keys: tolerance"),
        ("a: [", "custom.yaml is not valid YAML"),
    ],
)
def test_an_invalid_policy_is_refused(accepted_results, monkeypatch, capsys, content, message):
    Path("custom.yaml").write_text(content)
    assert harness(monkeypatch, "gate", "--policy", "custom.yaml") == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_policy_in_conf_is_the_default():
    assert policy.read([CONF / "gate.yaml"]) == Policy()
