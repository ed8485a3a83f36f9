"""Merged p-values hold their level under dependence, where Fisher's rule does not."""

import numpy as np
import pytest
from scipy.stats import chi2, norm

from mnemoscope.attacks.merging import cauchy_merge, union_rule
from mnemoscope.audit.errors import InvalidInput


def test_cauchy_equals_its_definition():
    draw = np.random.default_rng(0)
    p = draw.uniform(0.001, 0.999, (4, 500))
    statistic = np.tan(np.pi * (0.5 - p)).mean(axis=0)
    np.testing.assert_allclose(cauchy_merge(p), 0.5 - np.arctan(statistic) / np.pi, atol=1e-12)
    np.testing.assert_allclose(cauchy_merge(p[:1]), p[0], atol=1e-12)
    same = np.repeat(p[:1], 5, axis=0)
    np.testing.assert_allclose(cauchy_merge(same), p[0], atol=1e-12)


def test_small_p_values_keep_their_digits():
    p = np.array([[1e-12, 1e-200], [0.5, 0.5]])
    np.testing.assert_allclose(cauchy_merge(p), 2 * p[0], rtol=1e-9)
    naive = 0.5 - np.arctan(np.tan(np.pi * (0.5 - p)).mean(axis=0)) / np.pi
    assert abs(naive[1] / 2e-200 - 1) > 0.5


def test_ones_are_allowed_and_merge_to_one():
    assert cauchy_merge(np.array([[1.0], [0.01]])).item() == 1.0
    assert (cauchy_merge(np.array([[1.0, 0.5], [1.0, 0.5]])) == [1.0, 0.5]).all()


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_the_level_holds_whatever_the_correlation(correlation):
    draw = np.random.default_rng(1)
    n, k = 200_000, 5
    common = draw.normal(size=n)
    z = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * draw.normal(size=(k, n))
    p = norm.sf(z)
    slack = 4 * np.sqrt(0.01 * 0.99 / n)
    assert union_rule(p, 0.01).mean() <= 0.01 + slack
    assert (cauchy_merge(p) <= 0.01).mean() <= 0.0115 + slack  # nearly exact, not exact, at correlations between
    fisher = chi2.sf(-2 * np.log(p).sum(axis=0), 2 * k)
    assert ((fisher <= 0.01).mean() > 0.03) == (correlation >= 0.5)


def test_bad_values_are_refused():
    for p in (np.array([[0.0]]), np.array([[1.1]]), np.array([0.5]), np.array([[np.nan]]), np.zeros((0, 3))):
        with pytest.raises(InvalidInput, match="p-values"):
            cauchy_merge(p)
    with pytest.raises(InvalidInput, match="alpha=0"):
        union_rule(np.array([[0.5]]), 0)
