"""TOST against its interval form, its size by simulation, and the reference's sample-size tables."""

import numpy as np
import pytest
from scipy import stats

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.equivalence import (
    auc_equivalence_size,
    models_per_arm,
    tost,
    tost_interval,
    welch_tost,
)
from mnemoscope.audit.statistics.trials import Interval


@pytest.mark.parametrize("df", [None, 7.3])
def test_tost_is_two_one_sided_tests_and_the_interval_inside_the_margin(df):
    law = stats.norm() if df is None else stats.t(df)
    for difference in (-0.06, -0.02, 0.0, 0.03, 0.049, 0.2):
        result = tost(difference, 0.012, 0.05, df=df)
        p = max(law.sf((difference + 0.05) / 0.012), law.cdf((difference - 0.05) / 0.012))
        assert result.p_value == pytest.approx(p)
        assert result.equivalent == (p < 0.05) == (result.interval.lower > -0.05 and result.interval.upper < 0.05)
        assert result.equivalent == tost_interval(result.interval, 0.05)
        assert result.interval.level == pytest.approx(0.9)


def test_tost_without_variance_and_bad_input():
    assert tost(0.01, 0.0, 0.05).equivalent
    assert not tost(0.06, 0.0, 0.05).equivalent
    for arguments in ((0.0, 0.1, 0.0), (0.0, -1.0, 0.1), (float("nan"), 0.1, 0.1)):
        with pytest.raises(InvalidInput):
            tost(*arguments)
    with pytest.raises(InvalidInput, match="two-sided interval of level"):
        tost_interval(Interval(-0.01, 0.01, 0.8, "two", ""), 0.05)
    with pytest.raises(InvalidInput, match="two-sided"):
        tost_interval(Interval(-1.0, 0.01, 0.95, "upper", ""), 0.05)


def test_welch_tost_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.9, 0.02, 9), rng.normal(0.9, 0.05, 14)
    result = welch_tost(a, b, 0.05)
    upper = stats.ttest_ind(a, b - 0.05, equal_var=False, alternative="greater").pvalue
    lower = stats.ttest_ind(a, b + 0.05, equal_var=False, alternative="less").pvalue
    assert result.p_value == pytest.approx(max(upper, lower))
    with pytest.raises(InvalidInput, match="2 models"):
        welch_tost(a[:1], b, 0.05)
    assert welch_tost(np.ones(3), np.ones(3), 0.1).equivalent


def test_size_at_the_margin_is_the_level():
    rng = np.random.default_rng(1)
    declared = sum(
        welch_tost(rng.standard_normal(20) + 1.0, rng.standard_normal(20), 1.0).equivalent for _ in range(1500)
    )
    assert 0.03 < declared / 1500 < 0.07


TABLE = [(0.005, 57_093, 72_148), (0.01, 14_274, 18_037), (0.02, 3_569, 4_510), (0.03, 1_586, 2_005), (0.05, 571, 722)]


@pytest.mark.parametrize(("margin", "eighty", "ninety"), TABLE)
def test_auc_sizes_equal_the_reference_table(margin, eighty, ninety):
    assert auc_equivalence_size(margin, 0.8) == eighty
    assert auc_equivalence_size(margin, 0.9) == ninety


@pytest.mark.parametrize(
    ("ratio", "eighty", "ninety"), [(0.5, 70, 88), (0.75, 32, 40), (1, 18, 23), (1.5, 9, 11), (2, 6, 7), (3, 3, 4)]
)
def test_models_per_arm_equal_the_reference_table(ratio, eighty, ninety):
    assert models_per_arm(ratio, 0.8) == eighty
    assert models_per_arm(ratio, 0.9) == ninety


def test_models_per_arm_has_the_power_it_promises():
    rng = np.random.default_rng(2)
    m = models_per_arm(1.0, 0.8)
    declared = sum(welch_tost(rng.standard_normal(m), rng.standard_normal(m), 1.0).equivalent for _ in range(1500))
    assert declared / 1500 == pytest.approx(0.8, abs=0.04)
    with pytest.raises(InvalidInput, match="models an arm"):
        models_per_arm(0.001)
