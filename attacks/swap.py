"""SWAP advantage (Tu, Hu and Ma 2024, arXiv 2404.11577): a figure that is zero for retraining whatever the attack is.

The published game takes pairs of splits (retained, forgotten, unseen) and (retained, unseen, forgotten). Retraining
gives the same model in both, so whatever bias an attack has cancels: Adv = ((a_F + b_T) - (a_T + b_F)) / 2, with a and
b the shares of records that the attack calls forgotten in either run. ``pair_advantage`` is that estimator for given
pairs.

A fleet holds no pairs. The measure uses the symmetry of its design instead: every record is forgotten by as many
models as never saw it, drawn at random, so that exchanging the two roles gives an equally likely design. Over designs,
the mean of P(called forgotten | forgotten) - P(called forgotten | never seen) equals the mean over pairs, and under
exact retraining it is zero by exchangeability. The sign is kept: the published absolute value is never zero on
average.

The attack and its threshold are chosen on other folds of models, among several: a maximum over attacks on the same
models would make perfect forgetting look leaky. An (eps, delta)-certified removal bounds the advantage by
``certified_bound``.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mnemoscope.attacks.threshold import best_threshold
from mnemoscope.audit.answers.protocols import Attack, offered_by, queries_of, score_fleet
from mnemoscope.audit.answers.views import Need, Reference, Side
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.influence import influence_variance
from mnemoscope.audit.statistics.measures import Measurement, Worlds
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["Swap", "certified_bound", "implied_epsilon", "pair_advantage"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEVEL = 0.95


@dataclass(frozen=True)
class Swap:
    """Advantage of the best attack in telling forgotten from never-seen records, zero for retraining by symmetry.

    Attributes:
        attacks: names in ``ATTACKS``, separated by blanks; those that the inputs do not allow are left out.
    """

    attacks: str = "lira u_lira rmia loss modified_entropy correctness"
    name = "swap"
    needs = Need.NOTHING

    def __post_init__(self) -> None:
        from mnemoscope.attacks import ATTACKS

        unknown = [name for name in self.attacks.split() if name not in ATTACKS]
        if unknown or not self.attacks.split():
            raise InvalidInput(
                f"attacks={self.attacks!r}: {', '.join(unknown) or 'none'} given; known attacks: "
                f"{', '.join(sorted(ATTACKS))}"
            )

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return the advantage, in [-1, 1], and its floor.

        Raises:
            InvalidInput: no fold to choose on, or a model without forgotten or never-seen records.
            MissingNeed: none of the attacks can run on these answers.
        """
        forgotten, never = worlds.role == Role.FORGOTTEN, worlds.role == Role.NEVER
        if not (forgotten.any(axis=1).all() and never.any(axis=1).all()):
            raise InvalidInput("swap: every model needs forgotten and never-seen records; use a design with both roles")
        answers, chosen = {}, {}
        for place in ("after", "control", "before"):
            answers[place], chosen[place] = self._answers(getattr(worlds, place), forgotten, never, rng)
        estimates = {place: _advantage(called, forgotten, never) for place, called in answers.items()}
        excess = _advantage(answers["after"] - answers["control"], forgotten, never)
        balanced = bool((forgotten.sum(axis=0) == never.sum(axis=0)).all())
        records = forgotten.any(axis=0) & never.any(axis=0)
        return Measurement(
            self.name,
            estimates["after"],
            estimates["control"],
            unit="advantage",
            direction="larger is more residue; 0 is retraining",
            per_record=_by_record(answers["after"], forgotten, never)[records],
            ids=worlds.after.ids[records],
            note=_note(estimates["after"], chosen["after"], balanced),
            excess=excess,
            no_op=estimates["before"],
        )

    def _answers(
        self, reference: Reference, forgotten: Mask, never: Mask, rng: np.random.Generator
    ) -> tuple[Floats, list[str]]:
        """Return (m, n) whether each cell is called forgotten, 1 or 0, and the attack chosen for each fold."""
        side = np.full(forgotten.shape, Side.LEAVE_OUT, np.int8)
        side[forgotten], side[never] = Side.IN, Side.OUT
        reference = reference.with_side(side)
        candidates = self._candidates(reference)
        fold = reference.fold
        if fold is None or np.unique(fold).size < 2:
            raise InvalidInput("swap: the attack is chosen on other folds of models; the design must have at least 2")
        called, names = np.zeros(side.shape), []
        for part in np.unique(fold):
            held = np.flatnonzero(fold == part)
            attack, threshold = _strongest(candidates, reference.without(held), rng)
            scorer = attack.fit(reference.without(held), rng=rng)
            for model in held:
                called[model] = scorer.score(reference.target(int(model))) >= threshold
            names.append(attack.name)
        return called, names

    def _candidates(self, reference: Reference) -> list[Attack]:
        from mnemoscope.attacks import ATTACKS

        made = [ATTACKS[name]() for name in self.attacks.split()]
        offered = offered_by(reference)
        # Measures are given the plan's own questions, not those that single attacks name.
        able = [a for a in made if not a.needs & ~offered and queries_of(a) in (None, ("identity",))]
        if not able:
            raise MissingNeed(f"swap: none of {self.attacks} can run on these answers; name attacks that can")
        return able


def _strongest(candidates: list[Attack], others: Reference, rng: np.random.Generator) -> tuple[Attack, float]:
    """Return the attack of the largest advantage on these models at its best threshold, and that threshold."""
    # Attacks that learn need folds among the models they are chosen on.
    others = replace(others, fold=(np.arange(others.n_models) % 2).astype(np.int8))
    is_in, is_out = others.side == Side.IN, others.side == Side.OUT
    best: tuple[float, Attack, float] | None = None
    for attack in candidates:
        score = score_fleet(attack, others, rng=rng)
        threshold = best_threshold(score[is_in], score[is_out])
        advantage = float((score[is_in] >= threshold).mean() - (score[is_out] >= threshold).mean())
        if best is None or advantage > best[0]:
            best = advantage, attack, threshold
    assert best is not None
    return best[1], best[2]


def _advantage(called: Floats, forgotten: Mask, never: Mask) -> Estimate:
    """Mean over models of the difference of shares, clustered by model and record."""
    m = called.shape[0]
    weight = forgotten / forgotten.sum(axis=1, keepdims=True) - never / never.sum(axis=1, keepdims=True)
    by_model = (called * weight).sum(axis=1)
    value = float(by_model.mean())
    shares = [
        (called * mask).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True) for mask in (forgotten, never)
    ]
    centre = np.where(forgotten, shares[0], shares[1])
    influence = weight * (called - centre) / m
    # What differs from model to model lies in the models' own sums, not in the cells.
    influence += weight * forgotten * (by_model - value)[:, None] / m
    half = float(stdtrit(m - 1, 0.5 + LEVEL / 2)) * influence_variance(influence) ** 0.5
    interval = Interval(value - half, value + half, LEVEL, "two", "clustered by model and record")
    return Estimate(value, interval, n=int(forgotten.sum() + never.sum()))


def _by_record(called: Floats, forgotten: Mask, never: Mask) -> Floats:
    shares = [(called * mask).sum(axis=0) / np.maximum(mask.sum(axis=0), 1) for mask in (forgotten, never)]
    return np.asarray(shares[0] - shares[1], np.float64)


def _note(estimate: Estimate, chosen: list[str], balanced: bool) -> str:
    names = ", ".join(f"{name} ({chosen.count(name)})" for name in sorted(set(chosen)))
    note = f"attack chosen on other folds: {names}"
    if not balanced:
        return note + "; forgotten and never-seen roles are not equally frequent, so no bound on epsilon follows"
    low = 0.0 if estimate.low is None else max(estimate.low, 0.0)
    return (
        note + f"; a removal certified below eps = {implied_epsilon(low):.3g} at delta 0 is refuted by the lower limit"
    )


def pair_advantage(
    answers: NDArray[np.floating | np.bool_],
    swapped: NDArray[np.floating | np.bool_],
    forget: Mask,
    *,
    level: float = 0.95,
) -> Estimate:
    """Estimate the published advantage from pairs of runs whose forgotten and unseen records are exchanged.

    Args:
        answers: (r, n) what the attack says (1 = forgotten) of each record in run r, which forgot ``forget`` and never
            saw the rest.
        swapped: (r, n) the same for its partner, which forgot the rest and never saw ``forget``.
        forget: (n,) or (r, n) bool, as many records as not.
        level: confidence.

    Returns:
        Mean over pairs, sign kept, with a t interval over pairs. A single pair shows no spread between runs: its
        interval is binomial, and ``reason`` says so.

    Raises:
        InvalidInput: shapes that differ, or sides of unequal size.
    """
    a, b = np.asarray(answers, np.float64), np.asarray(swapped, np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.shape[0] < 1:
        raise InvalidInput(f"pair_advantage: answers {a.shape} and swapped {b.shape} must both be (pairs, records)")
    mask = np.broadcast_to(np.asarray(forget, np.bool_), a.shape)
    half = mask.sum(axis=1)
    if (2 * half != a.shape[1]).any():
        raise InvalidInput("pair_advantage: half of the records of a pair must be forgotten, the other half unseen")
    shares = [(x * side).sum(axis=1) / half for x in (a, b) for side in (mask, ~mask)]
    each = (shares[0] + shares[3] - shares[1] - shares[2]) / 2.0
    value, runs = float(each.mean()), each.size
    if runs > 1:
        spread = float(stdtrit(runs - 1, 0.5 + level / 2)) * float(each.std(ddof=1)) / math.sqrt(runs)
        method, reason = "t over pairs of runs", None
    else:
        variance = 0.25 * sum(float(s[0]) * (1.0 - float(s[0])) for s in shares) / int(half[0])
        spread = float(stdtrit(1e9, 0.5 + level / 2)) * math.sqrt(variance)
        method, reason = "binomial, one pair of runs", "one pair: the spread between runs is not in the interval"
    interval = Interval(max(-1.0, value - spread), min(1.0, value + spread), level, "two", method)
    return Estimate(value, interval, n=a.size, reason=reason)


def certified_bound(epsilon: float, delta: float = 0.0) -> float:
    """Return the largest advantage that (epsilon, delta)-certified removal allows; above 1 it says nothing.

    Either difference, of forgotten and of unseen records, is at most that of two models each within (epsilon, delta) of
    retraining: 2 (1 - (2 - 2 delta) / (e^epsilon + 1)).

    >>> round(certified_bound(0.5), 6)
    0.489837
    """
    if epsilon < 0 or not 0 <= delta < 1:
        raise InvalidInput(f"epsilon={epsilon!r} must be at least 0 and delta={delta!r} lie in [0, 1)")
    return 2.0 * (1.0 - (2.0 - 2.0 * delta) / (math.exp(epsilon) + 1.0))


def implied_epsilon(advantage: float, delta: float = 0.0) -> float:
    """Return the least epsilon whose ``certified_bound`` allows an advantage, at least 0.

    >>> round(implied_epsilon(0.489837), 4)
    0.5
    """
    if not -1 <= advantage <= 1 or not 0 <= delta < 1:
        raise InvalidInput(f"advantage={advantage!r} must lie in [-1, 1] and delta={delta!r} in [0, 1)")
    return max(0.0, math.log((2.0 - 2.0 * delta) / (1.0 - max(advantage, 0.0) / 2.0) - 1.0))
