"""Tests of the confidence intervals of times: sizes that samples need, and coverage under a fixed seed."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from harness.types.intervals import (
    LEVEL,
    Interval,
    median_interval,
    quantile_interval,
    sum_interval,
    total_interval,
    weighted_quantile,
)


@pytest.mark.parametrize(("share", "smallest"), [(0.5, 6), (0.95, 59), (0.99, 299)])
def test_a_quantile_has_an_interval_from_the_smallest_sample_that_carries_it(share, smallest):
    assert quantile_interval(range(smallest - 1), share) is None
    low, high = quantile_interval(range(smallest), share)
    assert 0 <= low < high < smallest


@pytest.mark.parametrize("n", [6, 20, 100, 300, 5000])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_the_order_statistics_are_the_nearest_that_enclose_the_quantile(n, share):
    interval = quantile_interval(range(n), share)
    binomial = stats.binom(n, share)

    def probability(low, high):
        """Probability that the quantile lies between the values of two ranks, counted from 0."""
        return binomial.cdf(high) - binomial.cdf(low)

    if interval is None:
        assert probability(0, n - 1) < LEVEL
        return
    low, high = map(int, interval)
    assert probability(low, high) >= LEVEL
    assert all(probability(start, start + high - low - 1) < LEVEL for start in range(n - (high - low) + 1))


@pytest.mark.parametrize(("n", "share"), [(100, 0.95), (300, 0.99), (20, 0.5)])
def test_quantile_intervals_cover_the_quantile_of_latencies_with_a_heavy_tail(n, share):
    rng = np.random.default_rng(0)
    truth = stats.lognorm(1.0).ppf(share)
    intervals = [quantile_interval(rng.lognormal(0, 1.0, n).tolist(), share) for _ in range(2000)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.94 <= covered <= 0.99


@pytest.mark.parametrize("n", [2, 3, 5, 6, 50])
def test_median_intervals_cover_the_median_of_repeats(n):
    rng = np.random.default_rng(1)
    samples = 0.2 * rng.lognormal(0, 0.05, (2000, n))
    intervals = [median_interval(row.tolist()) for row in samples]
    assert np.mean([low <= 0.2 <= high for low, high in intervals]) >= 0.94
    assert all(low <= np.median(row) <= high for row, (low, high) in zip(samples, intervals, strict=True))


def test_one_sample_has_no_interval():
    assert median_interval([1.0]) is None
    assert median_interval([]) is None
    assert total_interval({"": [(100, 1.0)]}, 1.0) is None


@pytest.mark.parametrize("n", [2, 4, 12])
def test_the_interval_of_a_total_covers_it_when_shards_have_different_lengths(n):
    rng = np.random.default_rng(2)
    work = rng.integers(1000, 9000, n)
    expected = work.sum() * 0.001 + 3.0  # with three seconds of other work
    covered = 0
    for _ in range(2000):
        noise = rng.normal(0, 0.05 * np.sqrt(work * 0.001))
        seconds = work * 0.001 + noise
        low, high = total_interval({"": list(zip(work, seconds, strict=True))}, seconds.sum() + 3.0)
        covered += low <= expected <= high
    assert covered / 2000 >= 0.93


def test_shards_that_are_a_small_part_of_the_time_give_no_interval():
    shards = {"dense": [(10, 1.0), (10, 1.1)]}
    assert total_interval(shards, 4.0) is not None
    assert total_interval(shards, 4.3) is None


def test_a_quantile_of_one_group_or_of_equal_groups_is_that_of_the_pool():
    samples = stats.lognorm(1.0).rvs(300, random_state=0).tolist()
    for groups in ([samples], [samples[:150], samples[150:]], [samples[:100], samples[100:200], samples[200:]]):
        value, _ = weighted_quantile(groups, 0.95)
        assert value == pytest.approx(np.percentile(samples, 95))
    assert weighted_quantile([samples], 0.95).interval == quantile_interval(samples, 0.95)


def test_the_size_of_a_group_does_not_change_a_quantile():
    fast, slow = np.linspace(0, 1, 101).tolist(), np.linspace(2, 3, 101).tolist()
    value, (low, high) = weighted_quantile([fast, slow], 0.95)
    assert value == pytest.approx(2.9, abs=0.01), "a tenth of the slow group is above"
    assert low < value < high
    more_value, (more_low, more_high) = weighted_quantile([fast * 20, slow], 0.95)
    assert more_value == pytest.approx(value, abs=0.01)
    assert (more_low, more_high) == pytest.approx((low, high), abs=0.03)
    assert np.percentile(fast * 20 + slow, 95) <= 1, "the quantile of the pool depends on the sizes"


@pytest.mark.parametrize(
    ("sizes", "is_known"), [((58,), False), ((59,), True), ((59, 59), True), ((10, 200), False), ((0, 200), False)]
)
def test_a_quantile_of_groups_needs_enough_samples_of_each(sizes, is_known):
    groups = [np.arange(n).tolist() for n in sizes]
    assert (weighted_quantile(groups, 0.95) is not None) == is_known


@pytest.mark.parametrize(("sizes", "scales"), [((100, 300), (1, 1)), ((60, 300), (1, 5)), ((300, 60), (1, 5))])
def test_the_interval_of_a_quantile_of_groups_covers_that_of_their_mixture(sizes, scales):
    generator = np.random.default_rng(0)
    reference = [scale * generator.lognormal(0, 1, 500_000) for scale in scales]
    truth = np.percentile(np.concatenate(reference), 95)
    covered = 0
    for _ in range(500):
        groups = [(s * generator.lognormal(0, 1, n)).tolist() for n, s in zip(sizes, scales, strict=True)]
        low, high = weighted_quantile(groups, 0.95).interval
        covered += low <= truth <= high
    assert covered / 500 >= 0.93


def test_an_interval_of_a_sum_adds_variances():
    assert sum_interval([10, 20], [Interval(7, 14), Interval(16, 23)]) == Interval(30 - 5, 30 + 5)
    assert sum_interval([3.0], [Interval(2.0, 5.0)]) == Interval(2.0, 5.0)


def test_two_repeats_use_the_t_distribution_of_the_logarithms():
    low, high = median_interval([1.0, 1.1])
    half = 12.706 * np.log([1.0, 1.1]).std(ddof=1) / sqrt(2)
    assert np.log(high / low) / 2 == pytest.approx(half, rel=1e-4)
