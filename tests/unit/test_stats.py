"""Statistics against references: SciPy's bootstrap and permutation test, full enumeration, statsmodels, simulation."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from harness import stats


def drawn(seed, *shape):
    """Scores like nDCG's: many zeros, some ones, the rest between."""
    rng = np.random.default_rng(seed)
    values = rng.beta(0.8, 1.2, shape)
    values[rng.random(shape) < 0.25] = 0.0
    values[rng.random(shape) < 0.1] = 1.0
    return values


@pytest.mark.parametrize("n", [30, 50, 323, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_intervals_are_scipys_within_the_noise_of_the_draws(n, seed):
    values = drawn(seed, n)
    (low,), (high,) = stats.confidence_intervals([(1.0, values[:, None])])
    theirs = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(9)
    ).confidence_interval
    # the standard error of a 2.5 % quantile from 10,000 draws is 2.7 % of the bootstrap's own standard deviation
    slack = 5 * 0.027 * values.std() / n**0.5
    assert abs(low - theirs.low) < slack
    assert abs(high - theirs.high) < slack


def test_an_interval_over_strata_is_that_of_their_weighted_means():
    first, second = drawn(0, 40), drawn(1, 400)
    (low,), (high,) = stats.confidence_intervals([(0.5, first[:, None]), (0.5, second[:, None])])

    def both(a, b, axis):
        return (a.mean(axis=axis) + b.mean(axis=axis)) / 2

    theirs = bootstrap((first, second), both, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.004)
    assert high == pytest.approx(theirs.high, abs=0.004)
    assert stats.mean([(0.5, first[:, None]), (0.5, second[:, None])])[0] == pytest.approx(both(first, second, 0))


def enumerated(values, weights, side):
    """The p-value by going through every assignment of signs."""
    observed = sum(w * v for w, v in zip(weights, values, strict=True))
    hits = total = 0
    for signs in itertools.product([-1, 1], repeat=len(values)):
        flipped = sum(s * w * v for s, w, v in zip(signs, weights, values, strict=True))
        total += 1
        if side == "two":
            hits += abs(flipped) >= abs(observed) - 1e-12
        elif side == "greater":
            hits += flipped >= observed - 1e-12
        else:
            hits += flipped <= observed + 1e-12
    return hits / total


@pytest.mark.parametrize("side", ["two", "greater", "less"])
@pytest.mark.parametrize("differing", [1, 2, 5, 11])
def test_few_differing_queries_are_enumerated(side, differing):
    rng = np.random.default_rng(differing)
    values = np.zeros((60, 1))
    values[rng.permutation(60)[:differing], 0] = rng.normal(0.1, 0.3, differing)
    (p,) = stats.p_values([(1.0, values)], side=side)
    own = values[values[:, 0] != 0, 0]
    assert p == pytest.approx(enumerated(own, [1.0] * len(own), side), abs=1e-12)


def test_sixteen_are_enumerated_and_seventeen_are_drawn():
    values = np.zeros((40, 1))
    values[:16] = 0.5
    assert stats.p_values([(1.0, values)])[0] == 2 / 2**16
    values[:17] = 0.5
    assert stats.p_values([(1.0, values)])[0] == 1 / (stats.DRAWS + 1)


@pytest.mark.parametrize("side", ["two", "greater", "less"])
def test_few_differing_queries_of_several_strata_are_enumerated_with_their_weights(side):
    rng = np.random.default_rng(5)
    first, second = np.zeros((7, 1)), np.zeros((50, 1))
    first[:4, 0], second[:6, 0] = rng.normal(0.1, 0.3, 4), rng.normal(0.2, 0.3, 6)
    (p,) = stats.p_values([(0.5, first), (0.5, second)], side=side)
    weights = [0.5 / 7] * 4 + [0.5 / 50] * 6
    assert p == pytest.approx(enumerated([*first[:4, 0], *second[:6, 0]], weights, side), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.03])
@pytest.mark.parametrize(("side", "theirs"), [("two", "two-sided"), ("greater", "greater"), ("less", "less")])
def test_many_differing_queries_agree_with_scipys_permutation_test(shift, side, theirs):
    values = np.random.default_rng(3).normal(shift, 0.2, 300)
    (p,) = stats.p_values([(1.0, values[:, None])], side=side)
    reference = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, alternative=theirs, rng=4
    ).pvalue
    assert abs(p - reference) < 5 * (max(p * (1 - p), 1e-4) / 10_000) ** 0.5


def test_ties_by_rounding_count_as_equal():
    values = np.array([0.1, 0.2, -0.3, 0.0])[:, None]
    assert stats.p_values([(1.0, values)])[0] == 1.0


def test_equal_columns_and_one_query_are_never_significant():
    assert stats.p_values([(1.0, np.zeros((100, 3)))]).tolist() == [1.0, 1.0, 1.0]
    assert stats.p_values([(1.0, np.array([[0.7]]))]).tolist() == [1.0]
    low, high = stats.confidence_intervals([(1.0, np.array([[0.7]]))])
    assert (low[0], high[0]) == (0.7, 0.7)


def test_columns_of_one_call_are_tested_as_if_each_were_alone():
    values = drawn(0, 80, 5) - drawn(1, 80, 5)
    values[12:, 2] = 0.0
    together = stats.p_values([(1.0, values)])
    alone = [stats.p_values([(1.0, values[:, [column]])])[0] for column in range(5)]
    np.testing.assert_allclose(together, alone, atol=1e-12)
    low, _ = stats.confidence_intervals([(1.0, values)])
    np.testing.assert_allclose(
        low, [stats.confidence_intervals([(1.0, values[:, [c]])])[0][0] for c in range(5)], atol=1e-12
    )


@pytest.mark.parametrize("n", [1, 2, 7, 30, 200])
def test_holm_is_statsmodels(n):
    rng = np.random.default_rng(n)
    for p in (rng.random(n), rng.random(n) ** 6, rng.choice([0.0, 0.01, 0.05, 1.0], n)):
        np.testing.assert_allclose(stats.holm(p.tolist()), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_of_nothing_is_nothing():
    assert stats.holm([]) == []


def test_effect_and_counts_are_their_formulas():
    values = np.array([0.2, -0.1, 0.0, 0.3])
    assert stats.effect_size(values) == pytest.approx(values.mean() / np.sqrt(((values - 0.1) ** 2).sum() / 3))
    assert stats.effect_size(np.zeros(4)) is None
    assert stats.effect_size(np.full(37, 1 / 3)) is None
    assert stats.effect_size(np.array([0.5])) is None
    assert stats.count_wins(values) == (2, 1, 1)


def test_the_detectable_difference_has_the_power_that_it_says():
    n, deviation = 300, 0.25
    error = stats.standard_errors([(1.0, np.random.default_rng(0).normal(0, deviation, (n, 400)))]).mean()
    assert error == pytest.approx(deviation / n**0.5, rel=0.02)
    smallest = stats.minimum_detectable_effect(float(error))
    assert TTestPower().power(smallest / deviation, n, stats.ALPHA) == pytest.approx(stats.POWER, abs=0.01)
    p = stats.p_values([(1.0, np.random.default_rng(1).normal(smallest, deviation, (n, 1000)))])
    assert np.mean(p < stats.ALPHA) == pytest.approx(stats.POWER, abs=0.04)


def test_the_error_over_strata_adds_up():
    first, second = drawn(0, 30, 1), drawn(1, 90, 1)
    expected = (0.25 * first.var(ddof=1) / 30 + 0.25 * second.var(ddof=1) / 90) ** 0.5
    assert stats.standard_errors([(0.5, first), (0.5, second)])[0] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["normal", "swapped", "few", "strata"])
def test_without_an_effect_a_test_at_five_percent_fires_in_three_to_seven(kind):
    """2,000 trials; under `swapped` two real-looking systems' labels are exchanged at random for each query."""
    rng = np.random.default_rng(8)
    if kind == "normal":
        strata = [(1.0, rng.normal(0, 0.2, (200, 2000)))]
    elif kind == "swapped":
        differences = (drawn(1, 300) - drawn(2, 300))[:, None]
        strata = [(1.0, differences * rng.choice([-1.0, 1.0], (300, 2000)))]
    elif kind == "few":
        values = np.zeros((100, 2000))
        values[:12] = rng.normal(0, 0.2, (12, 2000))
        strata = [(1.0, values)]
    else:
        strata = [(0.5, rng.normal(0, 0.3, (50, 2000))), (0.5, rng.normal(0, 0.1, (400, 2000)))]
    assert 0.03 <= np.mean(stats.p_values(strata) < 0.05) <= 0.07


def test_an_interval_holds_the_true_mean_as_often_as_it_says():
    low, high = stats.confidence_intervals([(1.0, np.random.default_rng(2).beta(0.8, 1.2, (200, 2000)))])
    assert np.mean((low <= 0.4) & (high >= 0.4)) == pytest.approx(0.95, abs=0.015)


PROGRAM = """
import numpy as np
from harness import stats
values = np.random.default_rng(0).random((97, 4)) - 0.48
print([a.tolist() for a in stats.confidence_intervals([(1.0, values)])], stats.p_values([(1.0, values)]).tolist())
"""


def test_two_processes_give_the_same_bytes():
    said = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_the_draws_are_those_of_this_version():
    """Figures that were committed may not move: another generator would change them all."""
    values = np.arange(40)[:, None] / 40 - 0.4
    low, high = stats.confidence_intervals([(1.0, values)])
    assert (low[0], high[0]) == (pytest.approx(-0.003750000000000017, abs=1e-12), pytest.approx(0.1775, abs=1e-12))
    assert stats.p_values([(1.0, values)])[0] == pytest.approx(0.06769323067693231, abs=1e-12)


def test_many_queries_take_bounded_memory(monkeypatch):
    """The draws come in blocks: never [draws, queries] at once."""
    drawn_at_once = []
    real = stats._random_bits

    def watched(draws, n, seed):
        for rows, bits in real(draws, n, seed):
            drawn_at_once.append(bits.size)
            yield rows, bits

    monkeypatch.setattr(stats, "_random_bits", watched)
    values = np.random.default_rng(0).normal(0.0, 0.3, (7000, 2))
    assert (stats.p_values([(1.0, values)]) > 0.001).all()
    assert max(drawn_at_once) <= stats._BLOCK_SIZE
    assert sum(drawn_at_once) == stats.DRAWS * 7000
