"""Tests of simultaneous comparisons: against a plain implementation, single tests, and by simulation."""

import numpy as np
import pytest

from harness import stats
from harness.simultaneous import compare_all

DRAWS = 2000
DATASETS = [[0], [1], [0, 1]]
"""Two datasets and their mean."""


def matrix(seed, n=60, rows=4, shift=0.0):
    generator = np.random.default_rng(seed)
    values = generator.random((n, 1)) + 0.3 * generator.standard_normal((n, rows))
    values[:, -1] += shift
    return values


def plain_p_values(columns, datasets, draws):
    """Step-down max-T written out: for each pair, the largest statistic of all pairs that are not more extreme."""
    statistics, drawn = {}, {}
    for number, (strata, numbers) in enumerate(zip(columns, datasets, strict=True)):
        flipped = stats.flipped_means(strata, numbers, draws)
        rows = strata[0][1].shape[1]
        for b in range(rows):
            for a in range(b):
                squares = sum((w / len(v)) ** 2 * ((v[:, b] - v[:, a]) ** 2).sum() for w, v in strata)
                mean = sum(w * (v[:, b] - v[:, a]).mean() for w, v in strata)
                statistics[number, a, b] = abs(mean) / squares**0.5
                drawn[number, a, b] = np.abs(flipped[b] - flipped[a]) / squares**0.5
    p, largest_p = {}, 0.0
    for pair in sorted(statistics, key=statistics.get, reverse=True):
        remaining = [drawn[other] for other in statistics if statistics[other] <= statistics[pair]]
        count = np.count_nonzero(np.max(remaining, axis=0) >= statistics[pair] - 1e-12)
        largest_p = max(largest_p, (count + 1) / (draws + 1))
        p[pair] = largest_p
    return p


def test_p_values_are_those_of_a_plain_implementation():
    first, second = matrix(0, shift=0.15), matrix(1, n=40)
    columns = [[(1.0, first)], [(1.0, second)], [(0.5, first), (0.5, second)]]
    tests = compare_all(columns, DATASETS, DRAWS)
    for (column, a, b), p in plain_p_values(columns, DATASETS, DRAWS).items():
        assert tests[column].p[a, b] == tests[column].p[b, a] == pytest.approx(p)


def test_a_family_of_one_pair_is_the_paired_randomisation_test():
    values = matrix(2, rows=2, shift=0.08)
    (tests,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
    assert tests.p[0, 1] == stats.p_values([(1.0, values[:, [1]] - values[:, [0]])], DRAWS)[0]
    assert tests.delta[0, 1] == pytest.approx(values[:, 1].mean() - values[:, 0].mean())


@pytest.mark.parametrize("seed", range(6))
def test_an_interval_excludes_zero_exactly_where_p_is_below_alpha(seed):
    first, second = matrix(seed, rows=6, shift=0.1), matrix(seed + 100, n=25, rows=6, shift=0.2)
    for tests in compare_all([[(1.0, first)], [(1.0, second)], [(0.5, first), (0.5, second)]], DATASETS, DRAWS):
        off_diagonal = ~np.eye(6, dtype=bool)
        excludes = (tests.low > 0) | (tests.high < 0)
        assert (excludes == (tests.p < stats.ALPHA))[off_diagonal].all()
        assert (tests.low <= tests.delta).all()
        assert (tests.delta <= tests.high).all()
        assert (tests.low == -tests.high.T).all()


def test_the_interval_of_one_pair_is_that_of_the_t_test_with_the_randomised_critical_value():
    values = matrix(3, rows=2)
    (tests,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
    differences = values[:, 1] - values[:, 0]
    half = (tests.high[0, 1] - tests.low[0, 1]) / 2
    error = differences.std(ddof=1) / len(differences) ** 0.5
    assert tests.delta[0, 1] == pytest.approx((tests.high[0, 1] + tests.low[0, 1]) / 2)
    assert half / error == pytest.approx(2.0, abs=0.12), "Student's t of 59 degrees of freedom has 2.00 at 95 %"


def test_equal_rows_do_not_differ_and_do_not_widen_the_family():
    values = matrix(4, rows=3, shift=0.1)
    (plain,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
    (repeated,) = compare_all([[(1.0, values[:, [0, 1, 2, 2]])]], [[0]], DRAWS)
    assert (repeated.p[:3, :3] == plain.p).all()
    assert (repeated.p[2, 3], repeated.low[2, 3], repeated.high[2, 3]) == (1.0, 0.0, 0.0)


def test_a_few_queries_have_no_finite_interval():
    (tests,) = compare_all([[(1.0, matrix(5, n=4, rows=2, shift=3.0))]], [[0]], DRAWS)
    assert tests.p[0, 1] > stats.ALPHA
    assert (tests.low[0, 1], tests.high[0, 1]) == (-np.inf, np.inf)


@pytest.mark.parametrize("rows", [3, 9])
def test_without_a_difference_at_most_six_percent_of_families_have_one(rows):
    generator, false = np.random.default_rng(0), 0
    for _ in range(200):
        values = generator.random((80, 1)) * generator.random((80, rows))
        (tests,) = compare_all([[(1.0, values)]], [[0]], 400)
        false += bool((tests.p < stats.ALPHA).any())
    assert false <= 0.06 * 200 + 2 * (200 * 0.05 * 0.95) ** 0.5


def test_a_difference_on_four_of_many_queries_is_not_significant():
    """Sixteen assignments of signs are possible, two of which are as extreme: p is 0.125."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        values = np.repeat(generator.random((3000, 1)), 2, axis=1)
        values[:4, 1] += 1e-3 * generator.random(4)
        (tests,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
        assert tests.p[0, 1] == pytest.approx(0.125, abs=0.03)
        assert -1 < tests.low[0, 1] <= 0 < tests.high[0, 1] < 1


def test_datasets_have_signs_of_their_own_which_their_mean_shares():
    first, second = matrix(6), matrix(7)
    alone = [stats.flipped_means([(1.0, values)], [number]) for number, values in enumerate((first, second))]
    mean = stats.flipped_means([(0.5, first), (0.5, second)], [0, 1])
    assert np.allclose(mean, (alone[0] + alone[1]) / 2)
    same = stats.flipped_means([(1.0, second)], [0])
    assert abs(np.corrcoef(alone[0][0], alone[1][0])[0, 1]) < 0.05
    assert abs(np.corrcoef(alone[0][0], same[0])[0, 1]) > 0.3
