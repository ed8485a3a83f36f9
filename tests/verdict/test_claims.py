"""P7: a claim of certified removal can be refuted at its confidence, and is never confirmed."""

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.epsilon import epsilon_from_rates, epsilon_lower_bound
from mnemoscope.audit.statistics.proportions import clopper_pearson
from mnemoscope.audit.verdict.claims import claim_endpoint
from mnemoscope.audit.verdict.policy import Policy


def judged(tp, n_in, fp, n_out, epsilon, delta=0.0):
    policy = Policy(claimed_epsilon=epsilon, claimed_delta=delta)
    return claim_endpoint(
        "lira",
        True,
        "residual",
        lambda level: clopper_pearson(tp, n_in, level, "lower").lower,
        lambda level: clopper_pearson(fp, n_out, level, "upper").upper,
        policy,
    )


def test_the_worked_example_refutes_a_small_claim_only():
    """84 of 1,000 against 1 of 1,000: the bound is 2.50 at 95 % (worked vector of the fixed-threshold bound)."""
    endpoint = judged(84, 1000, 1, 1000, 2.0)
    assert endpoint.outcome == "beyond"
    assert endpoint.estimate.value == pytest.approx(2.50, abs=0.005)
    assert endpoint.p_value < 0.05
    assert judged(84, 1000, 1, 1000, 2.6).outcome == "undecided"
    assert judged(84, 1000, 1, 1000, 2.6).p_value > 0.05
    assert endpoint.estimate.value == pytest.approx(epsilon_lower_bound(84, 1000, 1, 1000).bound, abs=1e-9)


def test_nothing_confirms_a_claim():
    assert judged(10, 1000, 10, 1000, 8.0).outcome == "undecided"
    assert judged(0, 10, 0, 10, 0.0).outcome == "undecided"


def test_a_perfect_attack_is_shown_without_infinity():
    endpoint = judged(1000, 1000, 0, 1000, 1.0, 1e-5)
    assert np.isfinite(endpoint.estimate.value)
    assert endpoint.outcome == "beyond"


@pytest.mark.slow
def test_under_the_null_a_true_claim_is_refuted_at_most_at_the_nominal_rate():
    rng = np.random.default_rng(0)
    refuted = 0
    for _ in range(400):
        endpoint = judged(int(rng.binomial(600, 0.05)), 600, int(rng.binomial(600, 0.05)), 600, 0.0)
        refuted += endpoint.outcome == "beyond"
    assert refuted <= 32  # 5 % of 400 is 20; 32 is its 99.5 % binomial limit


def test_limits_by_hand():
    assert epsilon_from_rates(0.2, 0.1, 0.0) == pytest.approx(np.log(2))
    assert epsilon_from_rates(0.2, 0.1, 0.5) == pytest.approx(np.log(0.4 / 0.8) if 0.4 > 0.8 else 0.0)
    assert epsilon_from_rates(1.0, 0.0, 0.0) == np.inf


@pytest.mark.parametrize("given", [{"claimed_epsilon": -1.0}, {"claimed_delta": 1.0}, {"claimed_epsilon": "2"}])
def test_a_claim_is_checked(given):
    with pytest.raises(InvalidInput, match="claimed"):
        Policy(**given)
