"""Tests of simultaneous comparisons: against a plain implementation, single tests, and by simulation."""

import itertools

import numpy as np
import pytest
from scipy.stats import ttest_rel
from support.randomisation import p_values

from harness import simultaneous, stats
from harness.simultaneous import compare_all, compare_many

DRAWS = 2000
DATASETS = [[0], [1], [0, 1]]
"""Two datasets and their mean."""


def matrix(seed, n=60, rows=4, shift=0.0):
    generator = np.random.default_rng(seed)
    values = generator.random((n, 1)) + 0.3 * generator.standard_normal((n, rows))
    values[:, -1] += shift
    return values


def statistics(strata, numbers, draws):
    """Return the statistic of each pair of rows, observed and drawn."""
    flipped = stats.flipped_means(strata, numbers, draws)
    rows = strata[0][1].shape[1]
    observed, drawn = {}, {}
    for b in range(rows):
        for a in range(b):
            squares = sum((w / len(v)) ** 2 * ((v[:, b] - v[:, a]) ** 2).sum() for w, v in strata)
            observed[a, b] = abs(sum(w * (v[:, b] - v[:, a]).mean() for w, v in strata)) / squares**0.5
            drawn[a, b] = np.abs(flipped[b] - flipped[a]) / squares**0.5
    return observed, drawn


def plain_p_values(columns, datasets, draws):
    """Step-down max-T written out: for each pair, the largest statistic of all pairs that are not more extreme."""
    observed, drawn = {}, {}
    for number, (strata, numbers) in enumerate(zip(columns, datasets, strict=True)):
        of_column, drawn_column = statistics(strata, numbers, draws)
        observed |= {(number, *pair): value for pair, value in of_column.items()}
        drawn |= {(number, *pair): values for pair, values in drawn_column.items()}
    return step_down(observed, lambda pair: [drawn[other] for other in observed if observed[other] <= observed[pair]])


def plain_p_values_against_best(columns, datasets, draws):
    """Step-down against the best of each column: the pairs of the rows that are not yet found worse than the best."""
    observed, everything = {}, {}
    for number, (strata, numbers) in enumerate(zip(columns, datasets, strict=True)):
        of_column, drawn_column = statistics(strata, numbers, draws)
        best = int(np.argmax(sum(w * v.mean(axis=0) for w, v in strata)))
        observed |= {(number, *pair): value for pair, value in of_column.items() if best in pair}
        everything |= {(number, *pair): values for pair, values in drawn_column.items()}

    def remaining(pair):
        tied = {(n, row) for (n, a, b), value in observed.items() if value <= observed[pair] for row in (a, b)}
        return [values for (n, a, b), values in everything.items() if (n, a) in tied and (n, b) in tied]

    return step_down(observed, remaining)


def step_down(observed, remaining):
    p, largest_p = {}, 0.0
    for pair in sorted(observed, key=observed.get, reverse=True):
        drawn = np.max(remaining(pair), axis=0)
        count = np.count_nonzero(drawn >= observed[pair] - 1e-12)
        largest_p = max(largest_p, (count + 1) / (len(drawn) + 1))
        p[pair] = largest_p
    return p


def test_p_values_are_those_of_a_plain_implementation():
    first, second = matrix(0, shift=0.15), matrix(1, n=40)
    columns = [[(1.0, first)], [(1.0, second)], [(0.5, first), (0.5, second)]]
    tests = compare_all(columns, DATASETS, DRAWS)
    expected = plain_p_values(columns, DATASETS, DRAWS) | plain_p_values_against_best(columns, DATASETS, DRAWS)
    for (column, a, b), p in expected.items():
        assert tests[column].p[a, b] == tests[column].p[b, a] == pytest.approx(p)


def test_comparisons_with_the_best_are_no_less_significant_than_those_of_all_pairs():
    columns = [[(1.0, matrix(seed, rows=8, shift=0.1))] for seed in range(3)]
    datasets = [[0], [1], [2]]
    tests = compare_all(columns, datasets, DRAWS)
    everything = plain_p_values(columns, datasets, DRAWS)
    against_best = plain_p_values_against_best(columns, datasets, DRAWS)
    assert all(p <= everything[pair] for pair, p in against_best.items())
    assert any(tests[column].p[a, b] < everything[column, a, b] for column, a, b in against_best)


def test_a_family_of_one_pair_is_the_paired_randomisation_test():
    values = matrix(2, rows=2, shift=0.08)
    (tests,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
    assert tests.p[0, 1] == p_values([(1.0, values[:, [1]] - values[:, [0]])], DRAWS)[0]
    assert tests.delta(0, 1) == pytest.approx(values[:, 1].mean() - values[:, 0].mean())


@pytest.mark.parametrize("seed", range(6))
def test_an_interval_has_one_sign_exactly_where_p_is_below_alpha(seed):
    first, second = matrix(seed, rows=6, shift=0.1), matrix(seed + 100, n=25, rows=6, shift=0.2)
    for tests in compare_all([[(1.0, first)], [(1.0, second)], [(0.5, first), (0.5, second)]], DATASETS, DRAWS):
        for a, b in itertools.permutations(range(6), 2):
            low, high = tests.interval(a, b)
            assert (low >= 0 or high <= 0) == (tests.p[a, b] < stats.ALPHA)
            assert low <= tests.delta(a, b) <= high
            assert tests.interval(b, a) == (-high, -low)


def test_the_interval_of_one_pair_is_that_of_the_t_test_with_the_randomised_critical_value():
    values = matrix(3, rows=2)
    (tests,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
    differences = values[:, 1] - values[:, 0]
    low, high = tests.interval(0, 1)
    half = (high - low) / 2
    error = differences.std(ddof=1) / len(differences) ** 0.5
    assert tests.delta(0, 1) == pytest.approx((high + low) / 2)
    assert half / error == pytest.approx(2.0, abs=0.12), "Student's t of 59 degrees of freedom has 2.00 at 95 %"


def test_equal_rows_do_not_differ_and_do_not_widen_the_family():
    values = matrix(4, rows=3, shift=0.1)
    (plain,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
    (repeated,) = compare_all([[(1.0, values[:, [0, 1, 2, 2]])]], [[0]], DRAWS)
    assert (repeated.p[:3, :3] == plain.p).all()
    assert (repeated.p[2, 3], *repeated.interval(2, 3)) == (1.0, 0.0, 0.0)


def test_the_interval_of_a_few_queries_is_all_possible_differences():
    values = np.array([[0.1, 0.9], [0.2, 1.0], [0.0, 0.7], [0.3, 0.8]])
    (tests,) = compare_all([[(1.0, values)]], [[0]], DRAWS)
    assert tests.p[0, 1] > stats.ALPHA
    assert tests.interval(0, 1) == (-1.0, 1.0)


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
        low, high = tests.interval(0, 1)
        assert -1 < low <= 0 < high < 1


def test_datasets_have_signs_of_their_own_which_their_mean_shares():
    first, second = matrix(6), matrix(7)
    alone = [stats.flipped_means([(1.0, values)], [number]) for number, values in enumerate((first, second))]
    mean = stats.flipped_means([(0.5, first), (0.5, second)], [0, 1])
    assert np.allclose(mean, (alone[0] + alone[1]) / 2)
    same = stats.flipped_means([(1.0, second)], [0])
    assert abs(np.corrcoef(alone[0][0], alone[1][0])[0, 1]) < 0.05
    assert abs(np.corrcoef(alone[0][0], same[0])[0, 1]) > 0.3


def test_simultaneous_intervals_contain_all_true_differences_in_95_percent_of_families():
    generator, covered = np.random.default_rng(1), 0
    population = generator.random((5000, 1)) + 0.3 * generator.standard_normal((5000, 4)) + [0, 0.02, 0.1, 0.3]
    true = population.mean(axis=0)
    for _ in range(200):
        sample = population[generator.integers(5000, size=60)]
        (tests,) = compare_all([[(1.0, sample)]], [[0]], 400)
        ends = {(a, b): tests.interval(a, b) for a, b in itertools.combinations(range(4), 2)}
        covered += all(low <= true[b] - true[a] <= high for (a, b), (low, high) in ends.items())
    assert covered >= 0.95 * 200 - 2 * (200 * 0.05 * 0.95) ** 0.5


def test_a_large_family_is_tested_by_student_and_holm(monkeypatch):
    monkeypatch.setattr(simultaneous, "MAX_COMPARISONS", 10)
    columns = [[(1.0, matrix(seed, n=200, shift=0.1))] for seed in range(3)]
    tests = compare_all(columns, [[0], [1], [2]], DRAWS)
    raw = [ttest_rel(v[:, a], v[:, b]).pvalue for ((_, v),) in columns for a, b in itertools.combinations(range(4), 2)]
    adjusted = [float(each.p[a, b]) for each in tests for a, b in itertools.combinations(range(4), 2)]
    assert adjusted == pytest.approx(stats.holm(np.array(raw)).tolist(), rel=0.01)
    for each in tests:
        for a, b in itertools.combinations(range(4), 2):
            low, high = each.interval(a, b)
            assert (low >= 0 or high <= 0) == (each.p[a, b] < stats.ALPHA)


def test_a_large_family_finds_no_difference_that_randomisation_does_not():
    columns = [[(1.0, matrix(seed, n=300, rows=12, shift=0.06))] for seed in range(4)]
    exact = compare_all(columns, [[0], [1], [2], [3]])
    approximate = compare_many(columns)
    for first, second in zip(exact, approximate, strict=True):
        assert not ((second.p < stats.ALPHA) & (first.p >= stats.ALPHA)).any()


@pytest.mark.parametrize("top", [4, 8])
def test_two_groups_of_equal_rows_have_each_error_rate_below_six_percent(top):
    """The best rows are equal, and so are the rows far below them."""
    generator, false_best, false_other, n_boards = np.random.default_rng(top), 0, 0, 150
    for _ in range(n_boards):
        values = generator.random((80, 1)) * generator.random((80, 12))
        values[:, top:] -= 2.0
        (tests,) = compare_all([[(1.0, values)]], [[0]], 400)
        is_false = tests.p < stats.ALPHA
        is_false[:top, top:] = is_false[top:, :top] = False
        false_best += bool(is_false[tests.best].any())
        is_false[tests.best] = is_false[:, tests.best] = False
        false_other += bool(is_false.any())
    limit = 0.06 * n_boards + 2 * (n_boards * 0.05 * 0.95) ** 0.5
    assert false_best <= limit
    assert false_other <= limit


def test_a_large_family_with_a_single_query_or_constant_differences_has_finite_p_values(monkeypatch):
    monkeypatch.setattr(simultaneous, "MAX_COMPARISONS", 1)
    single = np.array([[0.0, 1.0, 0.5]])
    constant = np.repeat([[0.0, 1.0, 1.0]], 30, axis=0)
    first, second = compare_all([[(1.0, single)], [(1.0, constant)]], [[0], [1]])
    assert (first.p == 1).all()
    assert first.interval(0, 1) == (-1.0, 1.0)
    assert second.p[0, 1] < 1e-6
    assert second.p[1, 2] == 1
    assert second.interval(0, 1) == (1.0, 1.0)
