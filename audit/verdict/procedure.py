"""Procedure mode: every member of a fleet is the target in turn, and the deletion procedure is the subject.

A design of random roles fixes, for every model and audited record, whether it was kept, forgotten or never seen.
Three retrained fleets with different seeds serve as reference (A), as negative control (B) and as a subject (C).
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.defences import Defence
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import Attack, score_fleet
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.fleet import FleetRate, FleetScores
from mnemoscope.audit.statistics.measures import Measure
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.claims import claim_endpoint
from mnemoscope.audit.verdict.controls import NegativeControl, negative_control
from mnemoscope.audit.verdict.endpoints import (
    TAILS,
    equivalence_endpoints,
    exposure_endpoints,
    precision_gate,
    rate_endpoints,
    retained_endpoint,
    utility_endpoint,
)
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure_beside import Beside
from mnemoscope.audit.verdict.procedure_describe import Description
from mnemoscope.audit.verdict.procedure_input import Alternative, FleetAnswers, ProcedureInput
from mnemoscope.audit.verdict.procedure_scores import ScoredFleets
from mnemoscope.audit.verdict.result import (
    Endpoint,
    GateResult,
    GateStatus,
    ModelGroup,
    Reconstructed,
    Subject,
    Tail,
)
from mnemoscope.audit.verdict.rules import decide

__all__ = ["Alternative", "FleetAnswers", "ProcedureAudit", "ProcedureInput"]


class ProcedureAudit(ScoredFleets):
    """Audits any number of subjects against the same controls; what subjects share is computed once.

    Args:
        inputs: answers of the before, retrained and control fleets, and the design.
        attacks: all attacks; they see answers and the sides of reference models, never the target's. Those that need
            the version before deletion play the difference games and are no part of a verdict.
        primary: name of the one that decides WITHIN BOUND, fixed before any score.
        policy: bounds and levels.
        alpha: FPR of the endpoints; None means that the counts bear no rate verdict.
        seed: root seed of attacks' randomness and permutations.
        measures: measures of forgetting to print beside the attacks.
        defences: wrappers of answers to try.
        alternatives: fleets trained like ``before`` under a defence of the training.
    """

    def __init__(
        self,
        inputs: ProcedureInput,
        attacks: Sequence[Attack],
        *,
        primary: str,
        policy: Policy,
        alpha: float | None,
        seed: int,
        measures: Sequence[Measure] = (),
        defences: Sequence[Defence] = (),
        alternatives: Sequence[Alternative] = (),
    ) -> None:
        super().__init__(inputs, attacks, primary=primary, policy=policy, alpha=alpha, seed=seed)
        self.description = Description(self)
        self.beside = Beside(self, measures, defences, alternatives)

    @cached_property
    def positive_control(self) -> GateResult:
        """G1: the primary attack must see no-op unlearning, with the endpoint's own reference budget."""
        title = "positive control"
        if self.alpha is None:
            return GateResult("G1", title, "no alpha", "not run", "the counts bear no rate", "INCONCLUSIVE")
        bound = self.policy.tpr_bound(self.alpha)
        parts, passed = [], False
        for name, game in (("no-op", "forgetting"), ("before model", "membership")):
            rate = self.shared(self.primary, game, "before").rates([self.alpha])[0]
            lower = rate.tpr_estimate(self.policy.level, "lower")
            parts.append(f"{name} {rate.tp} of {rate.n_in} ({rate.tpr:.1%}, at least {lower.low:.1%})")
            if name == "no-op":
                passed = lower.low is not None and lower.low > bound
        rule = f"lower limit of TPR at {self.alpha:.1%} FPR above {bound:.1%} on no-op unlearning"
        return GateResult("G1", title, rule, "pass" if passed else "fail", "; ".join(parts), "INCONCLUSIVE")

    @cached_property
    def control(self) -> NegativeControl | None:
        """The permutation test on fleet B; None without an alpha."""
        if self.alpha is None:
            return None
        reference = self.asked(self.primary, self.reference("control"))
        attack = self.told(self.primary, "forgetting")

        def scorer(side: NDArray[np.int8]) -> NDArray[np.float64]:
            rng = generator(self.seed, "negative control")
            return score_fleet(attack, reference.with_side(side), rng=rng)

        return negative_control(
            scorer,
            GAMES["forgetting"].side(self.inputs.role),
            self.inputs.design.fold,
            self.alpha,
            permutations=self.policy.control_permutations,
            rng=generator(self.seed, "permutations"),
        )

    @cached_property
    def negative_control(self) -> GateResult:
        """G2: on models that never saw the forgotten records the attack must find nothing."""
        rule = f"max-T permutation p-value above {self.policy.control_level:.0%} on retrained fleet B"
        control = self.control
        if control is None:
            return GateResult("G2", "negative control", rule, "not run", "the counts bear no rate", "NOT ASSESSED")
        auc, residual, over = control.observed
        observed = (
            f"p = {control.p_value:.3f} over {control.permutations} permutations; AUC {auc:.3f}, "
            f"TPR {residual:.2%} residual, {over:.2%} over-forgotten"
        )
        status: GateStatus = "pass" if control.p_value > self.policy.control_level else "fail"
        return GateResult("G2", "negative control", rule, status, observed, "NOT ASSESSED")

    def subject(
        self,
        name: str,
        after: FleetAnswers,
        *,
        method: str,
        settings: dict[str, str | int | float | bool | None],
        gates: Sequence[GateResult] = (),
        models: Sequence[ModelGroup] = (),
        flags: Sequence[str] = (),
        failures: Sequence[str] = (),
        process_evidence: bool = False,
        cost_fraction: float | None = None,
        trained_against: Sequence[str] = (),
        structure: Endpoint | None = None,
        reconstructed: Sequence[Reconstructed] = (),
        on_scores: Callable[[FleetScores], None] | None = None,
    ) -> Subject:
        """Audit one deletion procedure.

        Args:
            name: name of the subject in tables.
            after: answers of the fleet after deletion.
            method: the unlearning method's description.
            settings: its settings.
            gates: gates known from elsewhere: G4, G5, G7, G8 and drift.
            models: groups of models with digests.
            flags: added to the verdict.
            failures: computations that failed.
            process_evidence: whether records of the deletion process were given.
            cost_fraction: seconds of unlearning over seconds of retraining.
            trained_against: attacks the method trained against; they are no evidence for it.
            structure: P6, from whoever holds the models themselves.
            reconstructed: what attacks that recover data reached, from the same.
            on_scores: given the primary attack's scores in the forgetting game.

        Returns:
            The subject with its verdict and all numbers behind it.
        """
        inputs, policy, alpha = self.inputs, self.policy, self.alpha
        reference = inputs.reference(after)
        scored = {a: self.score(attack, "forgetting", reference) for a, attack in self.attacks.items()}
        if on_scores is not None:
            on_scores(scored[self.primary.name])
        endpoints: list[Endpoint] = [] if structure is None else [structure]
        own_gates = [self.positive_control, self.negative_control]
        if alpha is not None:
            for attack_name, scores in scored.items():
                if attack_name in trained_against:
                    continue
                endpoints += self._pair_endpoints(attack_name, scores, alpha)
            values = self.asked(None, reference).signal("margin").mean(axis=2)
            side = GAMES["forgetting"].side(inputs.role)
            endpoints += exposure_endpoints("per-record margin", values, side, policy, alpha)
            if (inputs.role == Role.KEPT).any():
                kept = self.score(self.primary, "retention", reference).rates([alpha])[0]
                twin = self.shared(self.primary, "retention", "retrained").rates([alpha])[0]
                endpoints.append(retained_endpoint(self.primary.name, kept, twin, policy, alpha))
            primary_scores = scored[self.primary.name]
            at = {tail: primary_scores.rates([alpha], tail)[0] for tail in TAILS}
            own_gates.append(precision_gate(at, policy, alpha))
        else:
            own_gates.append(
                GateResult("G3", "precision", "an alpha that the counts bear", "fail", "none", "INCONCLUSIVE")
            )
            endpoints.append(self._no_alpha())
        utility = self.description.utility(after)
        if after.test is not None and inputs.retrained.test is not None:
            endpoints.append(utility_endpoint(self.correct(after.test), self.correct(inputs.retrained.test), policy))
        limits = limits_of("procedure", has_fleet=True, process_evidence=process_evidence, policy=policy)
        all_gates = (*own_gates, *gates)
        verdict = decide(
            endpoints, all_gates, policy=policy, limits=limits, alpha=alpha, flags=flags, failures=failures
        )
        findings, curves, shapes = self.description.findings(reference, scored)
        subject = Subject(
            name=name,
            method=method,
            settings=settings,
            verdict=verdict,
            endpoints=tuple(endpoints),
            gates=tuple(sorted(all_gates, key=lambda gate: gate.id)),
            findings=(*findings, *self.beside.both_versions(after)),
            curves=tuple(curves),
            distributions=tuple(shapes),
            utility=tuple(utility),
            models=tuple(models),
            exposed=tuple(self.description.exposed(reference)),
            cost_fraction_of_retraining=cost_fraction,
            measured=tuple(self.beside.measured(after)),
            defended=self.beside.defended(reference, after),
            reconstructed=tuple(reconstructed),
            epsilons=tuple(self.beside.epsilons(scored[self.primary.name])),
        )
        self.forget_others()
        return subject

    def _no_alpha(self) -> Endpoint:
        """P1 left open, not lost: the counts bear no decision, which is INCONCLUSIVE and no failure of the audit."""
        m, n = self.inputs.role.shape
        detail = (
            f"{m} models and {n} audited records bear no rate: at none of the candidates would the rule say WITHIN "
            f"BOUND in {self.policy.min_power:.0%} of audits where nothing leaks"
        )
        return Endpoint(
            "P1", "TPR, residual", self.primary.name, True, True, Estimate(None, reason=detail),
            self.policy.tpr_ratio, "undecided", None, detail,
        )  # fmt: skip

    def _pair_endpoints(self, attack: str, scores: FleetScores, alpha: float) -> list[Endpoint]:
        primary = attack == self.primary.name
        twin = self.shared(self.attacks[attack], "forgetting", "retrained")
        at: dict[Tail, FleetRate] = {tail: scores.rates([alpha], tail)[0] for tail in TAILS}
        at_twin: dict[Tail, FleetRate] = {tail: twin.rates([alpha], tail)[0] for tail in TAILS}
        claims = [] if self.policy.claimed_epsilon is None else [self._claim(attack, t, r) for t, r in at.items()]
        return [
            *claims,
            *rate_endpoints(attack, primary, at, self.policy, alpha),
            *equivalence_endpoints(attack, primary, at, at_twin, scores.auc(), twin.auc(), self.policy, alpha),
        ]

    def _claim(self, attack: str, tail: Tail, rate: FleetRate) -> Endpoint:
        def tpr_low(level: float) -> float:
            return rate.tpr_estimate(level, "lower").low or 0.0

        def fpr_high(level: float) -> float:
            high = rate.fpr_estimate(level, "upper").high
            return 1.0 if high is None else high

        return claim_endpoint(attack, attack == self.primary.name, tail, tpr_low, fpr_high, self.policy)
