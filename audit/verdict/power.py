"""Whole-rule power in procedure mode: how often would this rule say WITHIN BOUND if nothing leaked?

Null fleets of the actual design pass through the real scorer and the real endpoints. A record's margin is Gaussian
over models, with the same law whether it was forgotten or never seen; retained records are shifted so that an attack
at alpha catches them at a stated level. Counts alone enter, never a score, so alpha can be chosen before any score
exists.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, ndtri

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import Attack, score_fleet
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.endpoints import (
    TAILS,
    equivalence_endpoints,
    exposure_endpoints,
    precision_gate,
    rate_endpoints,
    retained_endpoint,
)
from mnemoscope.audit.verdict.policy import POWER_SHOWN_AT_MOST, Policy
from mnemoscope.audit.verdict.result import Endpoint

__all__ = ["Power", "choose_alpha", "least_power", "whole_rule_power"]

RETAINED_AT_MOST = 0.5
"""The assumed retained TPR is power_retained_factor x alpha, but no more than this: at 1 it would have no spread."""


LEAK_SHAPE = 0.6
"""Shape of the gamma law of the leak over records: a few records carry most of it, as in the published comparison of
variance estimators (Gamma(0.6) gaps, from CIFAR-10 attacks)."""

TWIN_CORRELATION = 0.6
"""Assumed correlation, over models and within a record, of the margins of an unlearned model and its retrained twin:
they share their training set. Measured 0.63 to 0.66 between retrained twins of a digits MLP; the lower is cautious."""


@dataclass(frozen=True)
class Power:
    """Simulated chance of WITHIN BOUND when nothing leaks, at one alpha.

    Attributes:
        alpha: the endpoint's FPR.
        passed: simulated audits that ended WITHIN BOUND.
        runs: simulated audits.
        control_level: chance that the negative control fails although nothing is wrong.
    """

    alpha: float
    passed: int
    runs: int
    control_level: float

    @property
    def value(self) -> float:
        """The probability, the negative control's error taken off, never shown above 0.98."""
        return min(POWER_SHOWN_AT_MOST, self.passed / self.runs * (1.0 - self.control_level))

    def suffices(self, policy: Policy) -> bool:
        """Whether it reaches the policy's least power."""
        return self.passed / self.runs * (1.0 - self.control_level) >= policy.min_power

    def estimate(self, level: float = 0.95) -> Estimate:
        """The probability with its simulation interval (Clopper-Pearson, scaled like the value).

        ``reason`` says how it follows from the counts, which without the negative control's error give another share.
        """
        from mnemoscope.audit.statistics.proportions import clopper_pearson

        ci = clopper_pearson(self.passed, self.runs, level)
        scale = 1.0 - self.control_level
        interval = Interval(
            min(POWER_SHOWN_AT_MOST, ci.lower * scale),
            min(1.0, ci.upper * scale),
            level,
            "two",
            "Clopper-Pearson over simulated null audits",
        )
        reason = f"{self.passed:,} of {self.runs:,} simulated audits"
        if self.control_level:
            reason += f", times {100 * (1 - self.control_level):.3g} %, the chance that the negative control passes"
        if self.passed / self.runs * (1.0 - self.control_level) > POWER_SHOWN_AT_MOST:
            reason += f"; never shown above {100 * POWER_SHOWN_AT_MOST:.0f} %"
        return Estimate(self.value, interval, self.passed, self.runs, reason)


def leak_scale(alpha: float, caught: float) -> float:
    """Factor on the Gamma(0.6) leak, in units of a record's spread, at which a threshold at alpha catches a share.

    >>> leak_scale(0.01, 0.01)
    0.0
    """
    if caught <= alpha:
        return 0.0
    weight = gammaincinv(LEAK_SHAPE, (np.arange(2000) + 0.5) / 2000)
    z = float(ndtri(1.0 - alpha))
    return float(brentq(lambda g: float(ndtr(g * weight - z).mean()) - caught, 0.0, 1e3, xtol=1e-6))


def _reference(
    margin: NDArray[np.float64],
    population: NDArray[np.float64] | None,
    side: NDArray[np.int8],
    fold: NDArray[np.int8],
) -> Reference:
    """Answers with the given margins as two-class logits (margin, 0): every signal is a function of the margin."""
    n = margin.shape[1]

    def answers(values: NDArray[np.float64], first: int) -> Answers:
        logits = np.stack([values, np.zeros_like(values)], axis=-1)[:, :, None, :].astype(np.float32)
        return Answers(np.arange(first, first + values.shape[1]), np.zeros(values.shape[1], np.int64), logits)

    audited = answers(margin, 0)
    return Reference(
        audited.ids,
        audited.labels,
        audited.logits,
        side=side,
        population=None if population is None else answers(population, n),
        fold=fold,
    )


def whole_rule_power(
    attack: Attack,
    role: NDArray[np.int8],
    fold: NDArray[np.integer],
    policy: Policy,
    *,
    alphas: Sequence[float],
    n_population: int = 0,
    with_reference: bool = True,
    runs: int | None = None,
    seed: int = 0,
    on_run: Callable[[int, int], None] | None = None,
) -> list[Power]:
    """Simulate null audits of this design through the primary attack and the whole rule.

    Args:
        attack: the primary attack.
        role: (m, n) int8 roles of the audited records.
        fold: (m,) folds of models.
        policy: bounds and levels.
        alphas: candidate FPRs, ascending; those above the first with enough power are not simulated.
        n_population: population records, for attacks that need them.
        with_reference: whether a retrained fleet exists (P2 and P4 are then required).
        runs: simulated audits; None takes the policy's.
        seed: root seed of the simulation.
        on_run: called with (done, total).

    Returns:
        One ``Power`` for each alpha simulated, in order. Runs end early where the least power is out of reach.
    """
    runs = policy.power_runs if runs is None else runs
    powers: list[Power] = []
    for alpha in alphas:
        world = _NullWorld(attack, role, fold.astype(np.int8), policy, alpha, n_population, with_reference)
        passed = done = 0
        while done < runs and done - passed <= (1.0 - policy.min_power) * runs:
            passed += world.decide(generator(seed, "power", done))
            done += 1
            if on_run is not None:
                on_run(done, runs)
        powers.append(Power(alpha, passed, done, policy.control_level))
        if powers[-1].suffices(policy):
            break
    return powers


def least_power(
    audits: Sequence[tuple[Attack, NDArray[np.int8]]],
    fold: NDArray[np.integer],
    policy: Policy,
    *,
    alphas: Sequence[float],
    n_population: int = 0,
    on_run: Callable[[int, int], None] | None = None,
) -> list[Power]:
    """Return the least power over several audits at each alpha, up to the first at which all of them have enough.

    Args:
        audits: the primary attack and the (m, n) int8 roles of each; one audit gives what ``whole_rule_power`` does.
        fold: (m,) folds of models.
        policy: bounds and levels.
        alphas: candidate FPRs, ascending.
        n_population: population records, for attacks that need them.
        on_run: called with (done, total).
    """
    powers: list[Power] = []
    for alpha in alphas:
        found: list[Power] = []
        for attack, role in audits:
            found += whole_rule_power(
                attack, role, fold, policy, alphas=[alpha], n_population=n_population, on_run=on_run
            )
            if not found[-1].suffices(policy):
                break
        powers.append(min(found, key=lambda power: power.passed / power.runs))
        if powers[-1].suffices(policy):
            break
    return powers


@dataclass(frozen=True, eq=False)
class _NullWorld:
    """The audit of one design in which nothing leaks, drawn and decided once for each generator."""

    attack: Attack
    role: NDArray[np.int8]
    fold: NDArray[np.int8]
    policy: Policy
    alpha: float
    n_population: int
    with_reference: bool

    def decide(self, rng: np.random.Generator) -> bool:
        """Whether the rule says WITHIN BOUND."""
        policy, name, alpha = self.policy, self.attack.name, self.alpha
        # Log-normal spreads over records as in trained networks (0.35 in the published variance comparisons).
        spread = np.exp(0.35 * rng.standard_normal((1, self.role.shape[1])))
        common = rng.standard_normal(self.role.shape)
        fleets = [self._draw(spread, common, rng) for _ in range(2 if self.with_reference else 1)]
        forget = GAMES["forgetting"].side(self.role)
        scores = [self._scores(margin, population, forget, rng) for margin, population in fleets]
        at = [{tail: s.rates([alpha], tail)[0] for tail in TAILS} for s in scores]
        endpoints = rate_endpoints(name, True, at[0], policy, alpha)
        endpoints += exposure_endpoints(name, fleets[0][0], forget, policy, alpha)
        if self.with_reference:
            endpoints += equivalence_endpoints(
                name, True, at[0], at[1], scores[0].auc(), scores[1].auc(), policy, alpha
            )
            if (self.role == Role.KEPT).any():
                endpoints.append(self._retained(fleets, spread, rng))
        gate = precision_gate(at[0], policy, alpha)
        return gate.status == "pass" and all(e.outcome == "within" for e in endpoints)

    def _draw(
        self, spread: NDArray[np.float64], common: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        own = rng.standard_normal(self.role.shape)
        margin = spread * (np.sqrt(TWIN_CORRELATION) * common + np.sqrt(1.0 - TWIN_CORRELATION) * own)
        population = rng.standard_normal((self.role.shape[0], self.n_population)) if self.n_population else None
        return margin, population

    def _scores(
        self,
        margin: NDArray[np.float64],
        population: NDArray[np.float64] | None,
        side: NDArray[np.int8],
        rng: np.random.Generator,
    ) -> FleetScores:
        reference = _reference(margin, population, side, self.fold)
        return FleetScores(score_fleet(self.attack, reference, rng=rng), side, self.fold)

    def _retained(
        self,
        fleets: list[tuple[NDArray[np.float64], NDArray[np.float64] | None]],
        spread: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Endpoint:
        alpha = self.alpha
        side = GAMES["retention"].side(self.role)
        caught = max(alpha, min(RETAINED_AT_MOST, self.policy.power_retained_factor * alpha))
        weight = rng.standard_gamma(LEAK_SHAPE, (1, self.role.shape[1]))
        shift = spread * (leak_scale(alpha, caught) * weight) * (self.role == Role.KEPT)
        after, twin = (
            self._scores(margin + shift, population, side, rng).rates([alpha])[0] for margin, population in fleets
        )
        return retained_endpoint(self.attack.name, after, twin, self.policy, alpha)


def choose_alpha(powers: Sequence[Power], policy: Policy) -> float | None:
    """The smallest alpha at which the whole rule has the policy's least power; None where no alpha has it."""
    return min((power.alpha for power in powers if power.suffices(policy)), default=None)
