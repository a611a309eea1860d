"""Tests of Student's t distribution against scipy."""

import numpy as np
import pytest
from scipy import stats

from harness.distributions import t_p_values, t_quantile

SHARES = (0.6, 0.975, 0.999, 1 - 1e-6)


@pytest.mark.parametrize("degrees", range(1, 30))
def test_few_degrees_are_exact(degrees):
    t = np.array([[0.0, 1e-6, 0.3, 1.0], [2.0, 7.0, 50.0, 1e4]])
    np.testing.assert_allclose(t_p_values(t, degrees), 2 * stats.t.sf(t, degrees), rtol=1e-10)
    expected = [stats.t.ppf(share, degrees) for share in SHARES]
    assert [t_quantile(share, degrees) for share in SHARES] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("degrees", [30, 299, 1000])
def test_many_degrees_are_within_two_percent(degrees):
    t = np.linspace(0, 7, 50)
    np.testing.assert_allclose(t_p_values(t, degrees), 2 * stats.t.sf(t, degrees), rtol=0.02)
    expected = [stats.t.ppf(share, degrees) for share in SHARES]
    assert [t_quantile(share, degrees) for share in SHARES] == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("degrees", [1, 5, 29, 30, 100])
def test_quantiles_are_the_inverse_of_p_values(degrees):
    for share in SHARES:
        assert t_p_values(np.array([t_quantile(share, degrees)]), degrees)[0] == pytest.approx(2 * (1 - share))
