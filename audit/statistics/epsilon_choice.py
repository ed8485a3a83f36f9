"""Thresholds and guess counts chosen honestly, and all bounds of one set of scores at once.

Maximised over thresholds or guess counts on the trials it is reported for, a bound exceeds zero in most audits of
models that leak nothing. Here a choice is fixed beforehand (``Fixed``), made on a random part of the trials and
bounded on the rest (``Split``), or one of several fixed beforehand, each at its share of the error (``Bonferroni``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.counts import roc_counts
from mnemoscope.audit.statistics.delong import finite_scores
from mnemoscope.audit.statistics.epsilon import (
    EpsilonBound,
    TrialKind,
    epsilon_lower_bound,
    rectangle_worth,
    split_sides,
)
from mnemoscope.audit.statistics.epsilon_bayes import bayesian_lower_bound
from mnemoscope.audit.statistics.epsilon_fdp import fdp_lower_bound
from mnemoscope.audit.statistics.epsilon_gdp import gdp_lower_bound, mu_lower_limits
from mnemoscope.audit.statistics.epsilon_one_run import Guesses, guess_counts, one_run_lower_bound, pure_epsilons
from mnemoscope.audit.statistics.proportions import check_level

__all__ = [
    "GUESSES",
    "Bonferroni",
    "Fixed",
    "Method",
    "OneRunMethod",
    "Split",
    "epsilon_bounds",
    "epsilon_from_counts",
    "one_run_bound",
    "threshold_bound",
]

Floats = NDArray[np.float64]
Method = Literal["clopper-pearson", "bayesian", "gaussian"]
OneRunMethod = Literal["one-run", "one-run-fdp"]

GUESSES: tuple[tuple[float, float], ...] = (
    *((share, share) for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)),
    *((share, 0.0) for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)),
)
"""Shares of the canaries guessed in and out, from which a split or a correction chooses."""

FAIR = 1e-6
"""Shares of included canaries that fair coins would give less often than this are refused."""


@dataclass(frozen=True)
class Fixed:
    """Fixed before these trials were seen.

    Attributes:
        at: a threshold, or shares of the canaries guessed (in, out).
    """

    at: float | tuple[float, float]


@dataclass(frozen=True)
class Split:
    """Chosen on a random part of the trials, bounded on the rest.

    Attributes:
        fraction: share of the trials used to choose.
    """

    fraction: float = 0.5


@dataclass(frozen=True)
class Bonferroni:
    """The largest of several bounds fixed beforehand, each at its share of the error.

    Attributes:
        at: thresholds, or shares of the canaries guessed (in, out).
    """

    at: tuple[float, ...] | tuple[tuple[float, float], ...]


Choice = Fixed | Split | Bonferroni

_FROM_COUNTS: dict[str, Callable[..., EpsilonBound]] = {
    "clopper-pearson": epsilon_lower_bound,
    "bayesian": bayesian_lower_bound,
    "gaussian": gdp_lower_bound,
}
_FROM_GUESSES: dict[str, Callable[..., EpsilonBound]] = {"one-run": one_run_lower_bound, "one-run-fdp": fdp_lower_bound}


def epsilon_from_counts(
    tp: int,
    n_in: int,
    fp: int,
    n_out: int,
    *,
    method: Method = "clopper-pearson",
    level: float = 0.95,
    delta: float = 0.0,
    trials: TrialKind = "runs",
) -> EpsilonBound:
    """Bound epsilon from counts at a threshold fixed beforehand, one trial a training run by default.

    Args:
        tp: flagged in trials.
        n_in: in trials.
        fp: flagged out trials.
        n_out: out trials.
        method: "clopper-pearson", "bayesian" or "gaussian" (needs a delta above 0).
        level: one-sided confidence.
        delta: delta of the claim.
        trials: "runs", each a training run of its own; "records" of one model; or "coins".

    Raises:
        InvalidInput: an unknown method, counts that cannot be, a level or delta out of range.

    >>> round(epsilon_from_counts(2100, 25_000, 25, 25_000).bound, 2)
    4.0
    """
    _known(method, get_args(Method))
    return _FROM_COUNTS[method](tp, n_in, fp, n_out, level, delta, trials=trials)


def threshold_bound(
    in_scores: NDArray[np.floating],
    out_scores: NDArray[np.floating],
    *,
    method: Method = "clopper-pearson",
    choice: Choice | None = None,
    level: float = 0.95,
    delta: float = 0.0,
    trials: TrialKind = "records",
    rng: np.random.Generator,
) -> EpsilonBound:
    """Bound epsilon at a threshold chosen honestly; score >= threshold is flagged.

    Args:
        in_scores: (n_in,) finite scores, higher = more likely in.
        out_scores: (n_out,) finite scores.
        method: "clopper-pearson", "bayesian" or "gaussian".
        choice: how the threshold is chosen; ``Split()`` by default.
        level: one-sided confidence.
        delta: delta of the claim.
        trials: what a trial is.
        rng: of the split.

    Raises:
        InvalidInput: an unknown method or choice, scores that are not finite, too few trials.
    """
    choice = Split() if choice is None else choice
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)

    def at(threshold: float, high: Floats, low: Floats, at_level: float) -> EpsilonBound:
        tp, fp = int(np.count_nonzero(high >= threshold)), int(np.count_nonzero(low >= threshold))
        found = epsilon_from_counts(
            tp, high.size, fp, low.size, method=method, level=at_level, delta=delta, trials=trials
        )
        return replace(found, threshold=float(threshold))

    if isinstance(choice, Split):
        (chosen1, held1), (chosen0, held0) = split_sides(s1, s0, choice.fraction, rng)
        counts = roc_counts(chosen1, chosen0)
        worth = _worth(method, counts.tp, counts.n_in, counts.fp, counts.n_out, level, delta)
        found = at(float(counts.threshold[int(np.argmax(worth))]), held1, held0, level)
        return replace(found, choice=f"threshold {_split_words(choice)}")
    if isinstance(choice, Fixed):
        return at(_threshold(choice.at), s1, s0, level)
    cuts = [_threshold(cut) for cut in choice.at]
    each = _share(level, len(cuts))
    best = max((at(cut, s1, s0, each) for cut in cuts), key=lambda b: b.bound)
    words = f"largest over {len(cuts)} thresholds fixed beforehand, each at its share of the error (Bonferroni)"
    return replace(best, level=level, choice=words)


def one_run_bound(
    in_scores: NDArray[np.floating],
    out_scores: NDArray[np.floating],
    *,
    method: OneRunMethod = "one-run",
    choice: Choice | None = None,
    level: float = 0.95,
    delta: float = 0.0,
    rng: np.random.Generator,
) -> EpsilonBound:
    """Bound epsilon from canaries that were included in one training by independent fair coins.

    Args:
        in_scores: (n_in,) finite scores of included canaries, higher = more likely in.
        out_scores: (n_out,) finite scores of canaries left out.
        method: "one-run", or "one-run-fdp" (needs a delta above 0).
        choice: how the numbers of guesses are chosen; ``Split()`` over ``GUESSES`` by default.
        level: one-sided confidence.
        delta: delta of the claim.
        rng: of the split, and of the lots between equal scores.

    Raises:
        InvalidInput: an unknown method or choice, counts that fair coins do not give, fewer than 8 canaries.
    """
    _known(method, get_args(OneRunMethod))
    choice = Split() if choice is None else choice
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)
    _refuse_other_coins(s1.size, s0.size)

    def at(shares: tuple[float, float], high: Floats, low: Floats, at_level: float) -> EpsilonBound:
        guesses = _guess(high, low, shares, rng)
        return _FROM_GUESSES[method](guesses, at_level, delta)

    if isinstance(choice, Split):
        (chosen1, held1), (chosen0, held0) = _split_canaries(s1, s0, choice.fraction, rng)
        tried = [_guess(chosen1, chosen0, shares, rng) for shares in GUESSES]
        worth = pure_epsilons(np.array([g.right for g in tried]), np.array([g.made for g in tried]), level)
        found = at(GUESSES[int(np.argmax(worth))], held1, held0, level)
        return replace(found, choice=f"numbers of guesses {_split_words(choice)}")
    if isinstance(choice, Fixed):
        return at(_shares(choice.at), s1, s0, level)
    pairs = [_shares(pair) for pair in choice.at]
    each = _share(level, len(pairs))
    best = max((at(pair, s1, s0, each) for pair in pairs), key=lambda b: b.bound)
    words = (
        f"largest over {len(pairs)} numbers of guesses fixed beforehand, each at its share of the error (Bonferroni)"
    )
    return replace(best, level=level, choice=words)


def epsilon_bounds(
    in_scores: NDArray[np.floating],
    out_scores: NDArray[np.floating],
    *,
    level: float = 0.95,
    delta: float = 0.0,
    rng: np.random.Generator,
    fair_coins: bool = False,
    trials: TrialKind = "records",
) -> tuple[EpsilonBound, ...]:
    """Return every bound that holds for the scores of one model's records, choices made on a random half.

    Each bound holds at the level by itself; the largest of them does not. Read the method that was named beforehand.

    Args:
        in_scores: (n_in,) finite scores, higher = more likely in.
        out_scores: (n_out,) finite scores.
        level: one-sided confidence of each bound.
        delta: delta of the claim; at 0 the Gaussian bounds are left out, for their epsilon is infinite there.
        rng: of the splits.
        fair_coins: whether each record was in by an independent fair coin; without, one-run bounds are left out.
        trials: what a trial is, for the bounds from TPR and FPR: fair coins do not make records act independently.

    Returns:
        Clopper-Pearson, Bayesian, Gaussian DP (delta > 0), then one run and one run, f-DP (``fair_coins``).

    Raises:
        InvalidInput: scores that are not finite, fewer than 2 trials on a side, coins that were not fair.

    >>> rng = np.random.default_rng(0)
    >>> [b.method for b in epsilon_bounds(rng.normal(1, 1, 200), rng.normal(0, 1, 200), delta=1e-5, rng=rng)]
    ['Clopper-Pearson', 'Bayesian', 'Gaussian DP']
    """
    methods: tuple[Method, ...] = get_args(Method) if delta > 0 else ("clopper-pearson", "bayesian")
    found = [
        threshold_bound(in_scores, out_scores, method=method, level=level, delta=delta, trials=trials, rng=rng)
        for method in methods
    ]
    if fair_coins:
        one_run: tuple[OneRunMethod, ...] = get_args(OneRunMethod) if delta > 0 else ("one-run",)
        found += [
            one_run_bound(in_scores, out_scores, method=method, level=level, delta=delta, rng=rng) for method in one_run
        ]
    return tuple(found)


def _worth(
    method: str, tp: ArrayLike, n_in: int, fp: ArrayLike, n_out: int, level: float, delta: float
) -> NDArray[np.float64]:
    """What each threshold would give on the part that chooses; mu orders thresholds as its epsilon does."""
    if method == "gaussian":
        return mu_lower_limits(tp, n_in, fp, n_out, level)
    return rectangle_worth(tp, n_in, fp, n_out, level, delta)


def _split_words(choice: Split) -> str:
    return f"chosen on a random {choice.fraction:.0%} of the trials, bounded on the rest"


def _guess(high: Floats, low: Floats, shares: tuple[float, float], rng: np.random.Generator) -> Guesses:
    m = high.size + low.size
    k_in, k_out = (int(share * m) for share in shares)
    return guess_counts(high, low, max(1, k_in) if not k_out else k_in, k_out, rng=rng)


def _split_canaries(
    s1: Floats, s0: Floats, fraction: float, rng: np.random.Generator
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Split canaries whatever their coins: each side's share of a part is random, as its coins are."""
    if not 0.0 < fraction < 1.0:
        raise InvalidInput(f"fraction={fraction!r} must lie in (0, 1)")
    m = s1.size + s0.size
    place = rng.permutation(m)
    cut = min(m - 1, max(1, round(fraction * m)))
    chosen, held = np.sort(place[:cut]), np.sort(place[cut:])

    def side(part: NDArray[np.int64]) -> tuple[Floats, Floats]:
        return s1[part[part < s1.size]], s0[part[part >= s1.size] - s1.size]

    (a1, a0), (b1, b0) = side(chosen), side(held)
    return (a1, b1), (a0, b0)


def _refuse_other_coins(n_in: int, n_out: int) -> None:
    m = n_in + n_out
    if m < 8:
        raise InvalidInput(f"a one-run bound needs at least 8 canaries, given {m}")
    tail = min(1.0, 2.0 * float(bdtrc(max(n_in, n_out) - 1, m, 0.5)))
    if tail < FAIR:
        raise InvalidInput(
            f"{n_in} canaries in and {n_out} out do not come from fair coins (p = {tail:.1g}): a one-run bound holds "
            "only for canaries that were each included by an independent fair coin; draw them with one_run_inclusion"
        )


def _known(method: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        raise InvalidInput(f"method={method!r} is unknown; allowed: {', '.join(allowed)}")


def _share(level: float, candidates: int) -> float:
    check_level(level)
    if candidates < 1:
        raise InvalidInput("Bonferroni: name at least one candidate")
    return 1.0 - (1.0 - level) / candidates


def _threshold(at: object) -> float:
    if isinstance(at, tuple):
        raise InvalidInput(f"choice {at!r}: a threshold is one number; shares of guesses are for one-run bounds")
    return float(at)  # type: ignore[arg-type]


def _shares(at: object) -> tuple[float, float]:
    if not (isinstance(at, tuple) and len(at) == 2 and min(at) >= 0 and 0 < sum(at) <= 1):
        raise InvalidInput(f"choice {at!r}: give shares of the canaries guessed (in, out), together in (0, 1]")
    return float(at[0]), float(at[1])
