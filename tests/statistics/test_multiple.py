"""Adjusted p-values against definitions spelled out, and against SciPy where it has them."""

import numpy as np
import pytest
from scipy import stats

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.multiple import (
    benjamini_hochberg,
    benjamini_yekutieli,
    bonferroni,
    holm,
    max_t,
)

FAMILIES = [np.random.default_rng(i).random(k) ** (1 + i) for i, k in enumerate((1, 2, 7, 40))] + [
    np.array([0.01, 0.01, 0.04, 0.04, 1.0])
]


def slow_holm(p):
    k = len(p)
    return [max(min(1.0, (k - sum(q < r for q in p)) * r) for r in p if r <= value) for value in p]


@pytest.mark.parametrize("p", FAMILIES)
def test_adjusted_values_equal_their_definitions(p):
    np.testing.assert_allclose(holm(p), slow_holm(p))
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p, method="bh"))
    np.testing.assert_allclose(benjamini_yekutieli(p), stats.false_discovery_control(p, method="by"))
    np.testing.assert_allclose(bonferroni(p), np.minimum(1, p * p.size))
    assert (holm(p) <= bonferroni(p) + 1e-15).all()
    assert (benjamini_hochberg(p) <= holm(p) + 1e-15).all()


def test_holm_decides_step_by_step():
    p = np.array([0.012, 0.2, 0.02, 0.001])
    rejected = set()
    for rank, index in enumerate(np.argsort(p)):
        if p[index] > 0.05 / (p.size - rank):
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p) <= 0.05).tolist()) == rejected == {0, 2, 3}


def test_empty_families_and_bad_values():
    assert holm([]).size == 0
    assert benjamini_hochberg([]).size == 0
    for bad in ([1.2], [-0.1], [np.nan], [[0.1]]):
        with pytest.raises(InvalidInput):
            holm(bad)
        with pytest.raises(InvalidInput):
            benjamini_yekutieli(bad)


def test_max_t_counts_rows():
    rng = np.random.default_rng(0)
    observed, permuted = np.array([2.5, 0.1, 1.0]), rng.standard_normal((199, 3))
    result = max_t(observed, permuted)
    for value, p in zip(observed, result.adjusted, strict=True):
        assert p == (1 + sum(max(row) >= value for row in permuted)) / 200
    assert result.p_value == result.adjusted.min()
    assert max_t([9.0], np.zeros((99, 1))).p_value == 0.01
    assert max_t([0.0], np.zeros((99, 1))).p_value == 1.0
    with pytest.raises(InvalidInput):
        max_t([1.0, 2.0], np.zeros((5, 3)))


def test_max_t_holds_its_level_on_dependent_statistics():
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(600):
        draws = rng.standard_normal((100, 1)) + 0.5 * rng.standard_normal((100, 4))
        rejected += max_t(draws[0], draws[1:]).p_value <= 0.05
    assert 0.025 < rejected / 600 < 0.08
