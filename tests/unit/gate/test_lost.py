"""Tests of the check of queries that fell to 0: the exact test, its correction, and its error rates by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest
from support.gate import BASE, gate_values, make_evaluations, run_gate, shifted

from harness.gate import policy
from harness.gate.lost import adjusted_p
from harness.types import PerQuery


def lost_findings(verdict):
    """Return the findings on lost queries by retriever."""
    return {finding.retriever: finding for finding in verdict.findings if finding.check == "lost queries"}


def with_zeros(values, n, begin=0):
    """Return the values with `n` of them at 0."""
    after = values.copy()
    after[begin : begin + n] = 0
    return after


@pytest.mark.parametrize(("lost", "risen"), [(6, 0), (5, 1), (3, 3), (0, 4), (40, 20), (900, 800)])
def test_p_of_one_evaluation_is_that_of_the_exact_binomial_test(lost, risen):
    exact = binomtest(lost, lost + risen, alternative="greater").pvalue
    assert adjusted_p([(lost, risen)])[0] == pytest.approx(exact if lost > risen else 1.0)


@pytest.mark.parametrize(
    ("remaining", "p"),
    [
        ([(0, 0)] * 99, 1 / 64),
        ([(2, 3)] * 99, 1 / 64),  # five changes cannot reach the statistic of six lost queries
        ([(3, 3)], 2 / 64),
        ([(5, 5)] * 19, 1 / 64 + 19 / 1024),  # ten can by ten lost queries alone: nine and one are less unlikely
        ([(4, 7)], 1 / 64 + 12 / 2048),  # eleven by ten or eleven
        ([(20, 0)], 1 / 64),  # step-down: it has a larger statistic
    ],
)
def test_six_lost_queries_are_adjusted_over_the_evaluations_that_could_reach_their_statistic(remaining, p):
    assert adjusted_p([(6, 0), *remaining])[0] == pytest.approx(p)


def test_the_p_values_have_the_order_of_the_statistics():
    counts = [(6, 0), (6, 0), (30, 4), (5, 1), (9, 1), (3, 8)]
    p_values = adjusted_p(counts)
    assert p_values[2] < p_values[0] == p_values[1] == p_values[4] < p_values[3] < p_values[5] == 1
    assert adjusted_p([]) == []


def test_six_lost_queries_fail_and_three_do_not():
    failed = lost_findings(gate_values({("a", "x"): BASE}, {("a", "x"): with_zeros(BASE, 6)}))["a"]
    assert failed.status == "fail"
    assert failed.message == (
        "6 of 300 queries fell to 0 in ndcg@10, 0 rose from 0 (p=0.0156 adjusted, limit 3): "
        "q0, q1, q2, q3, q4 and 1 more"
    )
    passed = lost_findings(gate_values({("a", "x"): BASE}, {("a", "x"): with_zeros(BASE, 3)}))["a"]
    assert passed.status == "pass"
    assert not lost_findings(gate_values({("a", "x"): BASE}, {("a", "x"): shifted(-0.02)}))


def test_queries_that_rose_from_zero_outweigh_lost_ones():
    before = with_zeros(BASE, 6, 100)
    assert lost_findings(gate_values({("a", "x"): before}, {("a", "x"): with_zeros(BASE, 6)}))["a"].status == "pass"


def test_a_query_is_lost_where_all_gated_metrics_are_zero():
    sides = []
    for minutes, ndcg, recall in ((0, BASE, BASE), (1, with_zeros(BASE, 9), with_zeros(BASE, 6))):
        records, scores = make_evaluations({("a", "x"): ndcg}, minutes)
        path = records[0].files.per_query
        scores[path] = PerQuery(scores[path].query_ids, {"ndcg@10": ndcg, "recall@100": recall})
        sides += [records, scores]
    message = lost_findings(run_gate(*sides))["a"].message
    assert message.startswith("6 of 300 queries fell to 0 in ndcg@10 and recall@100")


def test_the_policy_sets_the_number_or_turns_the_check_off():
    change = {("a", "x"): BASE}, {("a", "x"): with_zeros(BASE, 6)}
    assert lost_findings(gate_values(*change, policy.validate({"lost_queries": 6}, "p")))["a"].status == "pass"
    assert not lost_findings(gate_values(*change, policy.validate({"lost_queries": None}, "p")))


def flipped_evaluations(rng, evaluations, rate):
    """Return counts of lost and risen queries after changes without an effect, `rate` of each on average."""
    return [(int(rng.poisson(rate)), int(rng.poisson(rate))) for _ in range(evaluations)]


@pytest.mark.parametrize("rate", [0.5, 2.0, 5.0, 20.0])
@pytest.mark.parametrize("evaluations", [1, 20, 100])
def test_at_most_five_percent_of_sweeps_without_an_effect_raise_a_false_alarm(evaluations, rate):
    rng, alarms, sweeps = np.random.default_rng(0), 0, 400
    for _ in range(sweeps):
        counts = flipped_evaluations(rng, evaluations, rate)
        alarms += any(lost > 3 and p < 0.05 for (lost, _), p in zip(counts, adjusted_p(counts), strict=True))
    assert alarms <= 0.05 * sweeps, f"{alarms} of {sweeps}"


@pytest.mark.parametrize(("evaluations", "rate"), [(99, 0.5), (8, 2.0), (6, 5.0), (14, 20.0)])
def test_six_broken_queries_are_detected_in_a_sweep(evaluations, rate):
    """`rate` queries fall and as many rise in each of the other evaluations."""
    rng, detected, sweeps = np.random.default_rng(0), 0, 200
    for _ in range(sweeps):
        detected += adjusted_p([(6, 0), *flipped_evaluations(rng, evaluations, rate)])[0] < 0.05
    assert detected >= 0.9 * sweeps, f"{detected} of {sweeps}"


def test_a_p_value_of_alpha_is_not_significant():
    rules = policy.validate({"alpha": 1 / 64}, "p")
    after = {("a", "x"): with_zeros(BASE, 6)}
    assert lost_findings(gate_values({("a", "x"): BASE}, after, rules))["a"].status == "pass"
