"""Tests of the check of metrics: statuses, significance, macro averages, and error rates by simulation."""

import numpy as np
import pytest
from support.gate import BASE, gate_values, make_evaluations, run_gate, shifted, statuses

from harness.gate import MACRO, policy
from harness.gate.ci import text
from harness.simultaneous import compare_all
from harness.types import PerQuery


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (BASE, "identical"),
        (shifted(-0.004), "pass"),
        (shifted(-0.006), "fail"),  # every query lost a little: small and certain
        (shifted(-0.006, share=0.01), "warn"),  # three queries lost much: above the tolerance, not significant
        (shifted(-0.031, share=0.02), "fail"),  # above the limit, whatever its p
        (shifted(0.006), "improved"),
        (shifted(0.006, share=0.01), "pass"),
        (shifted(0.031, share=0.02), "improved"),
    ],
)
def test_the_status_of_an_evaluation_depends_on_size_and_significance_of_its_difference(after, expected):
    verdict = gate_values({("a", "x"): BASE}, {("a", "x"): after})
    assert statuses(verdict) == {("a", "x"): expected}
    assert verdict.exit_code == (1 if expected == "fail" else 0)


def test_all_tests_are_one_family_with_simultaneous_intervals():
    noise = np.random.default_rng(3).normal(0, 0.05, (2, 300))
    verdict = gate_values(
        {("a", "x"): BASE, ("b", "x"): BASE},
        {("a", "x"): BASE - 0.007 + noise[0], ("b", "x"): BASE + 0.004 + noise[1]},
    )
    first, second = (next(each for each in verdict.findings if each.retriever == name) for name in "ab")
    columns = [[(1.0, np.column_stack([np.zeros(300), d]))] for d in (noise[0] - 0.007, noise[1] + 0.004)]
    for finding, tests in zip((first, second), compare_all(columns, [[0], [0]]), strict=True):
        assert finding.difference.p == pytest.approx(tests.p[0, 1], abs=2e-4)
        assert (finding.difference.low, finding.difference.high) == pytest.approx(tests.interval(0, 1))
    assert first.difference.low < first.difference.delta < first.difference.high
    assert first.difference.won + first.difference.tied + first.difference.lost == 300


def test_identical_scores_take_no_part_in_the_family():
    noise = np.random.default_rng(3).normal(0, 0.05, 300)
    alone = gate_values({("a", "x"): BASE}, {("a", "x"): BASE - 0.007 + noise})
    identical = {(f"r{number}", "x"): BASE for number in range(50)}
    with_identical = gate_values({("a", "x"): BASE, **identical}, {("a", "x"): BASE - 0.007 + noise, **identical})
    assert with_identical.findings[0].difference.p == alone.findings[0].difference.p
    assert len(with_identical.with_status("identical")) == 50


def test_the_macro_average_is_one_more_test_with_its_own_tolerance():
    before = {("a", name): BASE for name in "wxyz"}
    verdict = gate_values(before, {key: shifted(-0.0045, seed=number) for number, key in enumerate(before)})
    assert statuses(verdict) == {**{("a", name): "pass" for name in "wxyz"}, ("a", MACRO): "fail"}
    finding = verdict.findings[0]
    assert (finding.dataset, finding.limit) == (MACRO, 0.003)
    assert finding.difference.delta == pytest.approx(-0.0045)


def test_a_macro_average_over_some_datasets_names_them():
    before = {("a", name): BASE for name in "xyz"}
    verdict = gate_values(before, {("a", "x"): shifted(-0.004), ("a", "y"): shifted(-0.004, seed=2)})
    line = next(text.line(finding) for finding in verdict.findings if finding.dataset == MACRO)
    assert line.startswith("FAIL a/macro average ndcg@10")
    assert line.endswith(" - over x, y alone")


def test_a_stricter_alpha_draws_more_permutations():
    rules = policy.validate({"alpha": 0.001}, "p")
    before = {(f"r{number}", "x"): BASE for number in range(20)}
    verdict = gate_values(before, {key: shifted(-0.02, seed=number) for number, key in enumerate(before)}, rules)
    assert len(verdict.with_status("fail")) == 20


@pytest.mark.parametrize(
    ("values", "message"), [([0.5, float("nan")], "a score is not a number"), ([], "there is no judged query")]
)
def test_scores_that_are_nan_or_missing_are_undecided(values, message):
    records, scores = make_evaluations({("a", "x"): [0.5, 0.5]}, 1)
    scores[records[0].files.per_query] = PerQuery(["q0", "q1"][: len(values)], {"ndcg@10": np.array(values)})
    accepted, accepted_scores = make_evaluations({("a", "x"): [0.5, 0.5]})
    accepted_scores[accepted[0].files.per_query] = PerQuery(
        ["q0", "q1"][: len(values)], {"ndcg@10": np.full(len(values), 0.5)}
    )
    verdict = run_gate(accepted, accepted_scores, records, scores)
    assert (verdict.exit_code, verdict.findings[0].message) == (3, message)


def test_a_retriever_on_one_dataset_has_no_macro_average():
    assert statuses(gate_values({("a", "x"): BASE}, {("a", "x"): shifted(-0.004)})) == {("a", "x"): "pass"}


def harmless_change(rng, values, share=0.1, spread=0.15):
    """Return the values before and after a change without an effect: a tenth differ a little, in either direction."""
    is_changed = rng.random(len(values)) < share
    sides = np.stack([values, values])
    sides[:, is_changed] += rng.normal(0, spread / np.sqrt(2), (2, int(is_changed.sum())))
    return np.clip(sides, 0, 1)


def harmless_changes(rng, names, sizes):
    """Return values before and after a change without an effect, by retriever and dataset."""
    pairs = {(name, data): harmless_change(rng, rng.beta(0.6, 0.6, n)) for name in names for data, n in sizes.items()}
    return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}


@pytest.mark.slow
def test_at_most_seven_percent_of_harmless_changes_fail():
    rng, sizes = np.random.default_rng(0), {"scifact": 300, "nfcorpus": 323, "cranfield": 225, "stdlib": 500}
    failed = 0
    for _ in range(400):
        before, after = harmless_changes(rng, ("bm25", "minilm"), sizes)
        failed += gate_values(before, after).exit_code == 1
    assert failed <= 28, f"{failed} of 400"


@pytest.mark.slow
def test_a_drop_of_0_02_fails_in_nine_of_ten_changes():
    rng, detected = np.random.default_rng(0), 0
    for _ in range(200):
        before, after = harmless_changes(rng, ("bm25", "minilm"), dict.fromkeys("wxyz", 300))
        worse = ("minilm", "x")
        is_worse = rng.random(300) < 0.2
        after[worse][is_worse] -= 0.02 / is_worse.mean()
        detected += any(
            finding.status == "fail" and finding.retriever == "minilm"
            for finding in gate_values(before, after).findings
        )
    assert detected >= 180, f"{detected} of 200"
