"""Tests of the statistics against SciPy, statsmodels, full enumeration and simulation."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, permutation_test
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from support.randomisation import p_values

from harness import random_weights, stats


def make_scores(seed, *shape):
    """Return scores distributed like nDCG: many zeros, some ones, the rest between."""
    rng = np.random.default_rng(seed)
    values = rng.beta(0.8, 1.2, shape)
    values[rng.random(shape) < 0.25] = 0.0
    values[rng.random(shape) < 0.1] = 1.0
    return values


@pytest.mark.parametrize("n", [323, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_intervals_of_many_queries_are_those_of_the_bootstrap(n, seed):
    values = make_scores(seed, n)
    (low,), (high,), _ = stats.resample([(1.0, values[:, None])])
    expected = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(9)
    ).confidence_interval
    # the standard error of a 2.5 % quantile from 10,000 draws is 2.7 % of the bootstrap's own standard deviation; the
    # score that is added moves an end by less than 1 / n
    slack = 5 * 0.027 * values.std() / n**0.5
    assert expected.low - 1 / n - slack < low < expected.low + slack
    assert expected.high - slack < high < expected.high + 1 / n + slack


@pytest.mark.parametrize("n", [5, 10, 20, 100])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_intervals_of_zeros_and_ones_are_those_of_clopper_and_pearson(n, share):
    ones = round(share * n)
    values = np.zeros((n, 1))
    values[:ones] = 1.0
    (low,), (high,), _ = stats.resample([(1.0, values)])
    expected = binomtest(ones, n).proportion_ci(0.95, method="exact")
    assert low == pytest.approx(expected.low, abs=0.01)
    assert high == pytest.approx(expected.high, abs=0.01)


def test_an_interval_over_strata_is_of_their_weighted_mean():
    first, second = make_scores(0, 400), make_scores(1, 4000)
    (low,), (high,), _ = stats.resample([(0.5, first[:, None]), (0.5, second[:, None])])

    def weighted_mean(a, b, axis):
        return (a.mean(axis=axis) + b.mean(axis=axis)) / 2

    expected = bootstrap(
        (first, second), weighted_mean, method="percentile", n_resamples=5000, rng=1
    ).confidence_interval
    assert low == pytest.approx(expected.low, abs=0.004)
    assert high == pytest.approx(expected.high, abs=0.004)
    assert stats.mean([(0.5, first[:, None]), (0.5, second[:, None])])[0] == pytest.approx(
        weighted_mean(first, second, 0)
    )


def test_scores_above_one_are_bounded_by_the_highest():
    values = make_scores(0, 50)[:, None]
    plain, larger = stats.resample([(1.0, values)]), stats.resample([(1.0, 10 * values)])
    assert larger.high[0] == pytest.approx(10 * plain.high[0], rel=0.02)


def test_the_share_of_being_the_best_is_shared_by_equal_columns():
    values = make_scores(0, 60, 1)
    shares = stats.resample([(1.0, np.hstack([values, values, values - 0.5]))]).best_share
    assert shares.tolist() == [0.5, 0.5, 0.0]


def test_the_share_of_being_the_best_is_that_of_bootstrap_samples():
    values = make_scores(3, 200, 3) + np.array([0.0, 0.02, 0.03])
    generator = np.random.default_rng(0)
    best = [values[generator.integers(200, size=200)].mean(axis=0).argmax() for _ in range(4000)]
    shares = stats.resample([(1.0, values)]).best_share
    np.testing.assert_allclose(shares, np.bincount(best, minlength=3) / 4000, atol=0.03)
    assert shares.sum() == pytest.approx(1.0)


def enumerate_p_value(values, weights, side):
    """Return the p-value by enumerating every assignment of signs."""
    observed = sum(w * v for w, v in zip(weights, values, strict=True))
    extreme = total = 0
    for signs in itertools.product([-1, 1], repeat=len(values)):
        flipped = sum(s * w * v for s, w, v in zip(signs, weights, values, strict=True))
        total += 1
        if side == "two":
            extreme += abs(flipped) >= abs(observed) - 1e-12
        elif side == "greater":
            extreme += flipped >= observed - 1e-12
        else:
            extreme += flipped <= observed + 1e-12
    return extreme / total


@pytest.mark.parametrize("side", ["two", "greater", "less"])
@pytest.mark.parametrize("differing", [1, 2, 5, 11])
def test_few_differing_queries_are_enumerated(side, differing):
    rng = np.random.default_rng(differing)
    values = np.zeros((60, 1))
    values[rng.permutation(60)[:differing], 0] = rng.normal(0.1, 0.3, differing)
    (p,) = p_values([(1.0, values)], side=side)
    nonzero = values[values[:, 0] != 0, 0]
    assert p == pytest.approx(enumerate_p_value(nonzero, [1.0] * len(nonzero), side), abs=1e-12)


def test_up_to_sixteen_differing_queries_are_enumerated():
    values = np.zeros((40, 1))
    values[:16] = 0.5
    assert p_values([(1.0, values)])[0] == 2 / 2**16
    values[:17] = 0.5
    assert p_values([(1.0, values)])[0] == 1 / (stats.DRAWS + 1)


@pytest.mark.parametrize("side", ["two", "greater", "less"])
def test_few_differing_queries_of_strata_are_enumerated_with_weights(side):
    rng = np.random.default_rng(5)
    first, second = np.zeros((7, 1)), np.zeros((50, 1))
    first[:4, 0], second[:6, 0] = rng.normal(0.1, 0.3, 4), rng.normal(0.2, 0.3, 6)
    (p,) = p_values([(0.5, first), (0.5, second)], side=side)
    weights = [0.5 / 7] * 4 + [0.5 / 50] * 6
    assert p == pytest.approx(enumerate_p_value([*first[:4, 0], *second[:6, 0]], weights, side), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.03])
@pytest.mark.parametrize(("side", "alternative"), [("two", "two-sided"), ("greater", "greater"), ("less", "less")])
def test_p_values_of_many_differing_queries_agree_with_scipy(shift, side, alternative):
    values = np.random.default_rng(3).normal(shift, 0.2, 300)
    (p,) = p_values([(1.0, values[:, None])], side=side)
    reference = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, alternative=alternative, rng=4
    ).pvalue
    assert abs(p - reference) < 5 * (max(p * (1 - p), 1e-4) / 10_000) ** 0.5


def test_sums_that_differ_only_by_rounding_count_as_equal():
    values = np.array([0.1, 0.2, -0.3, 0.0])[:, None]
    assert p_values([(1.0, values)])[0] == 1.0


def test_equal_columns_and_single_queries_are_not_significant():
    assert p_values([(1.0, np.zeros((100, 3)))]).tolist() == [1.0, 1.0, 1.0]
    assert p_values([(1.0, np.array([[0.7]]))]).tolist() == [1.0]
    low, high, _ = stats.resample([(1.0, np.array([[0.7]]))])
    assert low[0] < 0.05
    assert high[0] > 0.95


def test_columns_are_tested_independently():
    values = make_scores(0, 80, 5) - make_scores(1, 80, 5)
    values[12:, 2] = 0.0
    together = p_values([(1.0, values)])
    alone = [p_values([(1.0, values[:, [column]])])[0] for column in range(5)]
    np.testing.assert_allclose(together, alone, atol=1e-12)
    scores = make_scores(0, 80, 5)
    low = stats.resample([(1.0, scores)]).low
    np.testing.assert_allclose(low, [stats.resample([(1.0, scores[:, [c]])]).low[0] for c in range(5)], atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 30, 200])
def test_holm_equals_statsmodels(n):
    rng = np.random.default_rng(n)
    for p in (rng.random(n), rng.random(n) ** 6, rng.choice([0.0, 0.01, 0.05, 1.0], n)):
        np.testing.assert_allclose(stats.holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_of_an_empty_list_is_empty():
    assert stats.holm(np.array([])).tolist() == []


def test_effect_size_and_wins_equal_their_formulas():
    values = np.array([0.2, -0.1, 0.0, 0.3])
    assert stats.effect_size(values) == pytest.approx(values.mean() / np.sqrt(((values - 0.1) ** 2).sum() / 3))
    assert stats.effect_size(np.zeros(4)) is None
    assert stats.effect_size(np.full(37, 1 / 3)) is None
    assert stats.effect_size(np.array([0.5])) is None
    assert stats.count_wins(values) == (2, 1, 1)


def test_the_minimum_detectable_effect_has_the_stated_power():
    n, deviation = 300, 0.25
    error = stats.standard_errors([(1.0, np.random.default_rng(0).normal(0, deviation, (n, 400)))]).mean()
    assert error == pytest.approx(deviation / n**0.5, rel=0.02)
    smallest = stats.minimum_detectable_effect(float(error))
    assert TTestPower().power(smallest / deviation, n, stats.ALPHA) == pytest.approx(stats.POWER, abs=0.01)
    p = p_values([(1.0, np.random.default_rng(1).normal(smallest, deviation, (n, 1000)))])
    assert np.mean(p < stats.ALPHA) == pytest.approx(stats.POWER, abs=0.04)


def test_the_standard_error_over_strata_equals_its_formula():
    first, second = make_scores(0, 30, 1), make_scores(1, 90, 1)
    expected = (0.25 * first.var(ddof=1) / 30 + 0.25 * second.var(ddof=1) / 90) ** 0.5
    assert stats.standard_errors([(0.5, first), (0.5, second)])[0] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["normal", "swapped", "few", "strata"])
def test_the_false_positive_rate_at_alpha_0_05_is_within_0_03_and_0_07(kind):
    """Simulate 2,000 trials; under `swapped` the labels of two systems are exchanged at random for each query."""
    rng = np.random.default_rng(8)
    if kind == "normal":
        strata = [(1.0, rng.normal(0, 0.2, (200, 2000)))]
    elif kind == "swapped":
        differences = (make_scores(1, 300) - make_scores(2, 300))[:, None]
        strata = [(1.0, differences * rng.choice([-1.0, 1.0], (300, 2000)))]
    elif kind == "few":
        values = np.zeros((100, 2000))
        values[:12] = rng.normal(0, 0.2, (12, 2000))
        strata = [(1.0, values)]
    else:
        strata = [(0.5, rng.normal(0, 0.3, (50, 2000))), (0.5, rng.normal(0, 0.1, (400, 2000)))]
    assert 0.03 <= np.mean(p_values(strata) < 0.05) <= 0.07


@pytest.mark.parametrize(
    ("n", "saturated"), [(10, False), (20, False), (50, False), (300, False), (10, True), (20, True)]
)
def test_an_interval_covers_the_mean_at_least_as_often_as_stated(n, saturated):
    """Draw samples of queries from 2,000; under `saturated`, 85 % of the scores are 1."""
    population = make_scores(1, 2000)
    if saturated:
        population[np.random.default_rng(2).random(2000) < 0.85] = 1.0
    samples = np.random.default_rng(3).choice(population, (n, 1000))
    low, high, _ = stats.resample([(1.0, samples)], draws=2000)
    covers = (low <= population.mean()) & (high >= population.mean())
    assert covers.mean() >= 0.95 - 2 * (0.05 * 0.95 / 1000) ** 0.5


PROGRAM = """
import numpy as np
from harness import stats
values = np.random.default_rng(0).random((97, 4)) - 0.48
print([a.tolist() for a in stats.resample([(1.0, values)])], stats.flipped_means([(1.0, values)], [0]).tolist())
"""


def test_two_processes_give_the_same_bytes():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_draws_have_not_changed():
    """Committed figures must not change, as they would with another random generator."""
    values = np.arange(40)[:, None] / 40 - 0.4
    low, high, _ = stats.resample([(1.0, values + 0.4)])
    assert (low[0], high[0]) == (pytest.approx(0.386276885573, abs=1e-12), pytest.approx(0.587314286603, abs=1e-12))
    assert p_values([(1.0, values)])[0] == pytest.approx(0.06769323067693231, abs=1e-12)


def test_many_queries_take_bounded_memory(monkeypatch):
    """Permutations are drawn in blocks and never as one array [draws, queries]."""
    block_sizes = []
    random_bits = random_weights._random_bits

    def record_size(draws, n, seed):
        for rows, bits in random_bits(draws, n, seed):
            block_sizes.append(bits.size)
            yield rows, bits

    monkeypatch.setattr(random_weights, "_random_bits", record_size)
    values = np.random.default_rng(0).normal(0.0, 0.3, (7000, 2))
    assert (p_values([(1.0, values)]) > 0.001).all()
    assert max(block_sizes) <= random_weights._BLOCK_SIZE
    assert sum(block_sizes) == stats.DRAWS * 7000
