"""Auditing with one training run (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846).

m canaries are each included by an independent fair coin, one model is trained, and some inclusions are guessed: the
highest scores in, the lowest out, the rest abstained from. If training is (epsilon, delta)-DP, the number of right
guesses is dominated by W ~ Binomial(r, e^eps / (1 + e^eps)) up to what delta adds:

    P[at least v right of r] <= P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i.

The bound is the least epsilon that this does not reject at 1 - level. Every larger epsilon is a weaker claim, so it
holds at the level also where the right side is not monotone. How many guesses are made must not depend on the coins:
``epsilon_choice`` fixes, splits or corrects. The bound is loose for Gaussian-like mechanisms, for which
``epsilon_fdp`` is sharper.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, gammaln, logit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.delong import finite_scores
from mnemoscope.audit.statistics.epsilon import TRIALS, EpsilonBound
from mnemoscope.audit.statistics.proportions import check_counts, check_level

__all__ = [
    "Guesses",
    "guess_counts",
    "one_run_ceiling",
    "one_run_epsilon",
    "one_run_lower_bound",
    "one_run_p_value",
    "pure_epsilons",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Guesses:
    """What was guessed of canaries, and what was right.

    Attributes:
        tp: guessed in, and in.
        fp: guessed in, but out.
        tn: guessed out, and out.
        fn: guessed out, but in.
        n_in: canaries in, guessed or not.
        n_out: canaries out, guessed or not.
    """

    tp: int
    fp: int
    tn: int
    fn: int
    n_in: int
    n_out: int

    def __post_init__(self) -> None:
        if (
            min(self.tp, self.fp, self.tn, self.fn) < 0
            or self.tp + self.fn > self.n_in
            or self.fp + self.tn > self.n_out
        ):
            raise InvalidInput(f"{self}: no more canaries of a side can be guessed than there are")

    @property
    def made(self) -> int:
        """Guesses made."""
        return self.tp + self.fp + self.tn + self.fn

    @property
    def right(self) -> int:
        """Guesses that were right."""
        return self.tp + self.tn

    @property
    def canaries(self) -> int:
        """All canaries, abstained from or not."""
        return self.n_in + self.n_out


def guess_counts(
    in_scores: NDArray[np.floating],
    out_scores: NDArray[np.floating],
    k_in: int,
    k_out: int,
    *,
    rng: np.random.Generator,
) -> Guesses:
    """Guess the ``k_in`` highest scores in and the ``k_out`` lowest out; equal scores are ranked by lot.

    Ranked by their place in the input, equal scores would be guessed right without any signal: members come first.

    Args:
        in_scores: (n_in,) finite scores of included canaries, higher = more likely in.
        out_scores: (n_out,) finite scores of the others.
        k_in: guesses "in".
        k_out: guesses "out".
        rng: of the lots.

    Raises:
        InvalidInput: more guesses than canaries, a negative number of them, or scores that are not finite.
    """
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)
    m = s1.size + s0.size
    if min(k_in, k_out) < 0 or k_in + k_out > m:
        raise InvalidInput(f"k_in={k_in} and k_out={k_out} guesses of {m} canaries: both >= 0, together at most {m}")
    order = np.lexsort((rng.random(m), np.concatenate([s1, s0])))
    low, high = order[:k_out], order[m - k_in :]
    tp, fn = int(np.count_nonzero(high < s1.size)), int(np.count_nonzero(low < s1.size))
    return Guesses(tp, k_in - tp, k_out - fn, fn, int(s1.size), int(s0.size))


def one_run_p_value(right: int, made: int, canaries: int, epsilon: float, delta: float = 0.0) -> float:
    """Return the p-value of "training is (epsilon, delta)-DP", in [0, 1].

    Args:
        right: right guesses v.
        made: guesses r.
        canaries: canaries m, abstained from or not.
        epsilon: of the claim, at least 0.
        delta: of the claim.

    >>> round(one_run_p_value(60, 100, 100, 0.0), 4)
    0.0284
    """
    return _Tail(right, made, canaries).p_value(epsilon, delta)


class _Tail:
    """Both terms of the p-value; what does not depend on epsilon is computed once."""

    def __init__(self, right: int, made: int, canaries: int) -> None:
        self.right, self.made, self.canaries = right, made, canaries
        self._w = np.arange(right - 1, -1, -1, dtype=np.float64)

    @cached_property
    def _log_choose(self) -> Floats:
        return np.asarray(gammaln(self.made + 1.0) - gammaln(self._w + 1.0) - gammaln(self.made - self._w + 1.0))

    def p_value(self, epsilon: float, delta: float) -> float:
        if self.right == 0:
            return 1.0
        log_in = -math.log1p(math.exp(-epsilon))
        beta = float(betainc(self.right, self.made - self.right + 1, math.exp(log_in)))
        if delta == 0.0 or beta >= 1.0:
            return min(1.0, beta)
        # w log p + (made - w) log(1 - p), where log(1 - p) = log p - epsilon
        log_pmf = self._log_choose + (self.made * log_in - (self.made - self._w) * epsilon)
        window = np.cumsum(np.exp(log_pmf)) / np.arange(1, self.right + 1)
        return min(1.0, beta + 2.0 * self.canaries * delta * float(window.max()))


def pure_epsilons(right: NDArray[np.integer], made: NDArray[np.integer], level: float) -> Floats:
    """Return the bound at delta 0 for many counts at once, in closed form: Clopper-Pearson's limit of the accuracy."""
    v, r = np.broadcast_arrays(np.asarray(right, np.float64), np.asarray(made, np.float64))
    positive = v > 0
    # The other tail's quantile, for the share of wrong guesses may be too small to be seen in 1 - p.
    wrong = 1.0 - betaincinv(np.where(positive, v, 1.0), np.where(positive, r - v + 1.0, 1.0), 1.0 - level)
    perfect = positive & (v == r)
    wrong = np.where(perfect, -np.expm1(math.log(1.0 - level) / np.maximum(r, 1.0)), wrong)
    return np.where(positive, np.maximum(0.0, -logit(np.clip(wrong, 1e-300, 1.0 - 1e-16))), 0.0)


@lru_cache(maxsize=4096)
def one_run_epsilon(right: int, made: int, canaries: int, level: float = 0.95, delta: float = 0.0) -> float:
    """Return the least epsilon that is not rejected at 1 - level.

    >>> round(one_run_epsilon(1000, 1000, 1000), 3), round(one_run_epsilon(600, 1000, 1000), 3)
    (5.809, 0.297)
    """
    error = 1.0 - level
    high = float(pure_epsilons(np.array(right), np.array(made), level))
    if high == 0.0 or delta == 0.0:
        return high

    tail = _Tail(right, made, canaries)

    def rejected(epsilon: float) -> bool:
        return tail.p_value(epsilon, delta) < error

    # With delta the p-value is larger, so its first crossing lies below; a scan keeps to the first one.
    grid = np.linspace(0.0, high, 33)
    first = next((i for i, e in enumerate(grid) if not rejected(float(e))), grid.size - 1)
    if first == 0:
        return 0.0
    low, up = float(grid[first - 1]), float(grid[first])
    while up - low > 1e-9 * max(1.0, up):
        middle = (low + up) / 2
        low, up = (middle, up) if rejected(middle) else (low, middle)
    return low


def one_run_ceiling(made: int, canaries: int, level: float = 0.95, delta: float = 0.0) -> float:
    """Return the bound if every guess were right: the most that this many guesses could show.

    >>> [round(one_run_ceiling(r, r), 2) for r in (100, 1000, 10_000)]
    [3.49, 5.81, 8.11]
    """
    return one_run_epsilon(made, made, canaries, level, delta)


def check_one_run(guesses: Guesses, level: float, delta: float) -> None:
    """Raise ``InvalidInput`` unless at least one guess was made, and level and delta are possible."""
    check_level(level)
    check_counts(guesses.right, guesses.made)
    if guesses.made < 1:
        raise InvalidInput("a one-run bound needs at least one guess, given none")
    if not 0.0 <= delta < 1.0:
        raise InvalidInput(f"delta={delta!r} must lie in [0, 1)")


def one_run_lower_bound(guesses: Guesses, level: float = 0.95, delta: float = 0.0) -> EpsilonBound:
    """Bound epsilon from one run's guesses, whose numbers were fixed before the coins were seen.

    Args:
        guesses: counts, of canaries included by independent fair coins.
        level: one-sided confidence.
        delta: delta of the claim; without differential privacy in training, 0: a bound for the whole pipeline.

    Raises:
        InvalidInput: no guess, a level or delta out of range.

    >>> bound = one_run_lower_bound(Guesses(tp=48, fp=2, tn=47, fn=3, n_in=51, n_out=49))
    >>> round(bound.bound, 2), round(bound.ceiling, 2)
    (2.17, 3.49)
    """
    check_one_run(guesses, level, delta)
    wrong = guesses.made - guesses.right
    return EpsilonBound(
        method="one run",
        bound=one_run_epsilon(guesses.right, guesses.made, guesses.canaries, level, delta),
        point=max(0.0, math.log(guesses.right / wrong)) if wrong and guesses.right else (0.0 if wrong else None),
        ceiling=one_run_ceiling(guesses.made, guesses.canaries, level, delta),
        level=level,
        delta=delta,
        tp=guesses.tp,
        n_in=guesses.n_in,
        fp=guesses.fp,
        n_out=guesses.n_out,
        choice="numbers of guesses fixed beforehand",
        assumption=TRIALS["coins"],
        guesses=guesses.made,
        correct=guesses.right,
    )
