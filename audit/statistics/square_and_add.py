"""Difference of two estimates from the limits that each of them already has.

Source: Newcombe 1998 (Statistics in Medicine 17:873), method 10, for two proportions; Zou and Donner 2008 (Statistics
in Medicine 27:1693) for any two estimates with limits of their own. Each limit's distance from its estimate stands for
the error on that side, and the errors of independent estimates add in squares. Where both proportions carry Wilson
limits this is Newcombe's interval to the last digit; with wider limits (exact, clustered) it is wider.
"""

import math

from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["METHOD", "square_and_add"]

METHOD = "square-and-add (Newcombe) of the recorded limits, as if independent"


def square_and_add(a: Estimate, b: Estimate) -> Estimate:
    """Return b minus a with its interval.

    Args:
        a: an estimate with a two-sided interval.
        b: another one, of the same confidence, and independent of the first.

    Returns:
        The difference; without an interval, and with the reason, where the two limits cannot be added; without a value
        where either has none.

    >>> one = Estimate(0.5, Interval(0.4, 0.6, 0.95, "two", ""))
    >>> two = Estimate(0.7, Interval(0.6, 0.8, 0.95, "two", ""))
    >>> found = square_and_add(one, two)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0586, 0.3414)
    """
    if a.value is None or b.value is None:
        return Estimate(
            None, reason=f"no number on one side: {(a if a.value is None else b).reason or 'no reason given'}"
        )
    value = b.value - a.value
    if a.ci is None or b.ci is None:
        return Estimate(value, reason="no interval on one side")
    if a.ci.sides != "two" or b.ci.sides != "two":
        return Estimate(value, reason="a one-sided limit on one side; the difference needs both limits of both")
    if not math.isclose(a.ci.level, b.ci.level, rel_tol=1e-9):
        return Estimate(value, reason=f"intervals of different confidence, {a.ci.level:g} and {b.ci.level:g}")
    low = value - math.hypot(b.value - b.ci.lower, a.ci.upper - a.value)
    high = value + math.hypot(b.ci.upper - b.value, a.value - a.ci.lower)
    return Estimate(value, Interval(low, high, a.ci.level, "two", METHOD))
