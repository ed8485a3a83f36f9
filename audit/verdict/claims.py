"""P7: a claim of certified removal can be refuted by an attack, never confirmed.

(epsilon, delta)-indistinguishability of "forgotten" and "never seen" bounds every test: TPR <= e^epsilon FPR + delta
and TNR <= e^epsilon FNR + delta. A lower limit of the TPR and an upper limit of the realised FPR, each at half of the
error, give a lower limit of epsilon at a threshold that was fixed on other trials; the same rectangle serves both
inequalities, because TNR = 1 - FPR and FNR = 1 - TPR (Jagielski et al. 2020, arXiv 2006.07709).
"""

from collections.abc import Callable

from scipy.optimize import brentq

from mnemoscope.audit.statistics.epsilon import epsilon_from_rates
from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint

__all__ = ["claim_endpoint"]

Limit = Callable[[float], float]
"""A one-sided limit of a rate as a function of its confidence."""


def claim_endpoint(attack: str, primary: bool, tail: str, tpr_low: Limit, fpr_high: Limit, policy: Policy) -> Endpoint:
    """Compare the claimed epsilon with the lower limit this attack gives.

    Args:
        attack: its name.
        primary: whether it is the primary attack.
        tail: "residual" or "over-forgotten".
        tpr_low: lower limit of the TPR at a confidence.
        fpr_high: upper limit of the realised FPR at a confidence.
        policy: holds the claim; ``claimed_epsilon`` must be set.

    Returns:
        An endpoint that is "beyond" where the claim is refuted and else "undecided": nothing here can confirm it.
    """
    assert policy.claimed_epsilon is not None
    claimed = policy.claimed_epsilon

    def limit(error: float) -> float:
        return float(epsilon_from_rates(tpr_low(1.0 - error / 2), fpr_high(1.0 - error / 2), policy.claimed_delta))

    low = limit(1.0 - policy.level)
    smallest, largest = 1e-10, 0.98
    if limit(smallest) > claimed:
        p = smallest
    elif limit(largest) <= claimed:
        p = 1.0
    else:
        p = float(brentq(lambda error: min(limit(error), 1e6) - claimed, smallest, largest, rtol=1e-6))
    shown = min(low, 1e6)  # no infinity in a result
    method = f"both rates' limits at {(1 + policy.level) / 2:.1%}, delta {policy.claimed_delta:g}"
    return Endpoint(
        "P7",
        f"lower limit of epsilon, {tail}",
        attack,
        primary,
        False,
        Estimate(shown, Interval(shown, 1e6, policy.level, "lower", method)),
        claimed,
        "beyond" if low > claimed else "undecided",
        p,
        "a claim can be refuted here, never confirmed",
    )
