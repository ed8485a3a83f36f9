"""One-run audit of a whole trade-off curve (Mahloujifar, Melis and Chaudhuri 2024, arXiv 2410.22235).

The set-up is that of ``epsilon_one_run``. The hypothesis is that training is mu-GDP. If it were, the masses of runs
with at least i right guesses, weighted by right (r) and by wrong guesses (h), would obey a recursion through the
curve's inverse blow-up g(x) = Phi(Phi^-1(x) - mu): starting from r = q c/m and h = q (c' - c)/m for c right of c'
guesses, q = 1 - level,

    h' = max(h, g(r)),    r' = r + i/(c' - i) (h' - h),    i = c - 1, ..., 0,

and the hypothesis is rejected where r + h exceeds c'/m, more mass than there is. The bound on mu is the largest mu
rejected, converted to epsilon at delta.
"""

import math
from functools import lru_cache

from scipy.special import ndtr, ndtri

from mnemoscope.audit.statistics.epsilon import TRIALS, EpsilonBound
from mnemoscope.audit.statistics.epsilon_gdp import GAUSSIAN, check_delta, epsilon_of_gdp
from mnemoscope.audit.statistics.epsilon_one_run import Guesses, check_one_run

__all__ = ["fdp_lower_bound", "fdp_mu", "rejects_gdp"]

RESOLUTION = 1e-7


def rejects_gdp(right: int, made: int, canaries: int, mu: float, error: float) -> bool:
    """Whether mu-GDP is rejected at an error by this many right guesses.

    Args:
        right: right guesses c.
        made: guesses c'.
        canaries: canaries m.
        mu: of the hypothesis.
        error: significance q.
    """
    r, h = error * right / canaries, error * (made - right) / canaries
    whole = made / canaries
    for i in range(right - 1, -1, -1):
        if r + h > whole:
            return True
        grown = max(h, float(ndtr(ndtri(r) - mu)))
        if grown <= h:  # r stays as it is, and so does everything after
            return False
        r, h = r + i / (made - i) * (grown - h), grown
    return r + h > whole


@lru_cache(maxsize=4096)
def fdp_mu(right: int, made: int, canaries: int, level: float = 0.95) -> float:
    """Return the largest mu that is rejected at 1 - level; 0 where none is.

    >>> round(fdp_mu(800, 1000, 1000), 3)
    0.576
    """
    error = 1.0 - level
    if not rejects_gdp(right, made, canaries, 0.0, error):
        return 0.0
    low, high = 0.0, 1.0
    while rejects_gdp(right, made, canaries, high, error) and high < 64.0:
        low, high = high, 2 * high
    while high - low > RESOLUTION:
        middle = (low + high) / 2
        low, high = (middle, high) if rejects_gdp(right, made, canaries, middle, error) else (low, middle)
    return low


def fdp_lower_bound(guesses: Guesses, level: float = 0.95, delta: float = 1e-5) -> EpsilonBound:
    """Bound mu from one run's guesses, whose numbers were fixed before the coins were seen, and convert it.

    Args:
        guesses: counts, of canaries included by independent fair coins.
        level: one-sided confidence.
        delta: delta of the claim, above 0.

    Returns:
        Bound and ceiling as epsilon at ``delta``; ``mu`` is the bound before conversion.

    Raises:
        InvalidInput: no guess, a level out of range, a delta outside (0, 1).

    >>> bound = fdp_lower_bound(Guesses(tp=400, fp=100, tn=400, fn=100, n_in=500, n_out=500))
    >>> round(bound.mu, 3), round(bound.bound, 2)
    (0.576, 2.33)
    """
    check_one_run(guesses, level, delta)
    check_delta(delta)
    mu = fdp_mu(guesses.right, guesses.made, guesses.canaries, level)
    share = guesses.right / guesses.made
    # All canaries guessed by the middle of two equally likely Gaussians: the accuracy is Phi(mu / 2).
    plugged = 2.0 * float(ndtri(share)) if guesses.made == guesses.canaries and 0.5 < share < 1.0 else math.nan
    return EpsilonBound(
        method="one run, f-DP",
        bound=epsilon_of_gdp(mu, delta),
        point=None if math.isnan(plugged) else epsilon_of_gdp(plugged, delta),
        ceiling=epsilon_of_gdp(fdp_mu(guesses.made, guesses.made, guesses.canaries, level), delta),
        level=level,
        delta=delta,
        tp=guesses.tp,
        n_in=guesses.n_in,
        fp=guesses.fp,
        n_out=guesses.n_out,
        choice="numbers of guesses fixed beforehand",
        assumption=f"{TRIALS['coins']}; {GAUSSIAN}",
        guesses=guesses.made,
        correct=guesses.right,
        mu=mu,
    )
