"""Permutation tests against full enumeration, their size under the null, and SciPy's exact tests."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.permutation import (
    difference_in_differences,
    mcnemar_exact,
    sign_flip_test,
    swap_test,
)
from mnemoscope.audit.statistics.roc import auc


def test_sign_flips_approach_the_full_enumeration():
    d = np.array([0.3, 1.2, -0.4, 0.9, 0.8, 0.1, -0.2, 1.5])
    every = [abs(np.dot(signs, d)) for signs in product((-1, 1), repeat=d.size)]
    exact = np.mean([v >= abs(d.sum()) - 1e-12 for v in every])
    result = sign_flip_test(d, permutations=40_000, rng=np.random.default_rng(0))
    assert result.statistic == pytest.approx(d.mean())
    assert result.p_value == pytest.approx(exact, abs=0.005)
    assert sign_flip_test(np.zeros(5), permutations=99, rng=np.random.default_rng(0)).p_value == 1.0
    assert sign_flip_test(np.ones(60), permutations=99, rng=np.random.default_rng(0)).p_value == 0.01


@pytest.mark.slow
def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(1)
    p = [sign_flip_test(rng.standard_normal(25), permutations=199, rng=rng).p_value for _ in range(500)]
    # 200 levels make the p-value discrete: jitter within a level restores the continuous uniform.
    assert stats.kstest(np.array(p) - rng.random(500) / 200, "uniform").pvalue > 0.001
    swaps = []
    for _ in range(150):
        common1, common0 = rng.standard_normal(15), rng.standard_normal(15)
        pair = [(common1 + rng.standard_normal(15), common0 + rng.standard_normal(15)) for _ in range(2)]
        swaps.append(swap_test(auc, *pair[0], *pair[1], permutations=49, rng=rng).p_value)
    assert stats.kstest(np.array(swaps) - rng.random(150) / 50, "uniform").pvalue > 0.001


def test_swaps_approach_the_full_enumeration_and_keep_records_paired():
    rng = np.random.default_rng(2)
    b1, b0, a1, a0 = (rng.standard_normal(5) + shift for shift in (1.5, 0, 0.2, 0))
    before, after = np.concatenate([b1, b0]), np.concatenate([a1, a0])
    observed = auc(a1, a0) - auc(b1, b0)
    every = []
    for bits in product((False, True), repeat=10):
        x, y = np.where(bits, before, after), np.where(bits, after, before)
        every.append(abs(auc(x[:5], x[5:]) - auc(y[:5], y[5:])) >= abs(observed) - 1e-12)
    result = swap_test(auc, b1, b0, a1, a0, permutations=4000, rng=np.random.default_rng(0))
    assert result.statistic == pytest.approx(observed)
    assert result.p_value == pytest.approx(np.mean(every), abs=0.03)


def test_mcnemar_equals_the_binomial_test():
    for b, c in ((0, 0), (3, 3), (8, 1), (0, 12), (20, 9)):
        expected = 1.0 if b + c == 0 else stats.binomtest(b, b + c).pvalue
        assert mcnemar_exact(b, c) == pytest.approx(expected)
        assert mcnemar_exact(c, b) == mcnemar_exact(b, c)
    with pytest.raises(InvalidInput):
        mcnemar_exact(-1, 2)


def test_difference_in_differences_removes_drift_and_covers():
    rng = np.random.default_rng(3)
    held = naive = 0
    for _ in range(150):
        f, h = rng.standard_normal(80), rng.standard_normal(60)
        f2, h2 = f - 1.5 + rng.standard_normal(80), h - 1.0 + rng.standard_normal(60)
        estimate = difference_in_differences(f, f2, h, h2, resamples=400, rng=rng)
        held += estimate.low <= -0.5 <= estimate.high
        naive += abs((f2 - f).mean() + 0.5) < 1.96 / np.sqrt(80)
    assert held >= 132
    assert naive < 15
    again = [difference_in_differences(f, f2, h, h2, rng=np.random.default_rng(1)) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0].value == pytest.approx((f2 - f).mean() - (h2 - h).mean())


def test_bad_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidInput, match="permutations"):
        sign_flip_test(np.ones(4), permutations=5, rng=rng)
    with pytest.raises(InvalidInput, match="differences"):
        sign_flip_test(np.array([np.nan]), rng=rng)
    with pytest.raises(InvalidInput, match="same records"):
        swap_test(auc, np.ones(3), np.ones(3), np.ones(2), np.ones(3), rng=rng)
    with pytest.raises(InvalidInput, match="same records"):
        difference_in_differences(np.ones(3), np.ones(2), np.ones(3), np.ones(3), rng=rng)
