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
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.measures import Measure
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.controls import NegativeControl, negative_controls
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure_beside import Beside
from mnemoscope.audit.verdict.procedure_decision import (
    SharedScores,
    SubjectScores,
    decide_endpoints,
    positive_control,
    precision,
)
from mnemoscope.audit.verdict.procedure_describe import Description
from mnemoscope.audit.verdict.procedure_inner import Inner
from mnemoscope.audit.verdict.procedure_input import Alternative, FleetAnswers, ProcedureInput
from mnemoscope.audit.verdict.procedure_scores import ScoredFleets
from mnemoscope.audit.verdict.result import (
    Endpoint,
    GateResult,
    GateStatus,
    ModelGroup,
    Reconstructed,
    Subject,
)
from mnemoscope.audit.verdict.sensitivity import alternative_alphas

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
        self.inner = Inner(self)

    @cached_property
    def shared_scores(self) -> SharedScores:
        """What every subject is held against, scored once."""
        inputs, alpha = self.inputs, self.alpha
        stays = alpha is not None and bool((inputs.role == Role.KEPT).any())
        known = () if alpha is None else self.attacks.items()
        return SharedScores(
            role=inputs.role,
            fold=inputs.design.fold,
            primary=self.primary.name,
            alpha=alpha,
            retrained={name: self.shared(attack, "forgetting", "retrained") for name, attack in known},
            no_op=None if alpha is None else self.shared(self.primary, "forgetting", "before"),
            before=None if alpha is None else self.shared(self.primary, "membership", "before"),
            retained=self.shared(self.primary, "retention", "retrained") if stays else None,
            correct=None if inputs.retrained.test is None else self.correct(inputs.retrained.test),
        )

    def subject_scores(
        self, after: FleetAnswers, reference: Reference, trained_against: Sequence[str] = ()
    ) -> SubjectScores:
        """Score one fleet after deletion: all that its endpoints rest on; ``reference`` holds the same answers."""
        shared = self.shared_scores
        margin = None
        if self.alpha is not None:
            margin = self.asked(None, reference).signal("margin").mean(axis=2)
        return SubjectScores(
            shared=shared,
            after={name: self.score(attack, "forgetting", reference) for name, attack in self.attacks.items()},
            margin=margin,
            retained=None if shared.retained is None else self.score(self.primary, "retention", reference),
            correct=None if after.test is None else self.correct(after.test),
            trained_against=tuple(trained_against),
        )

    @cached_property
    def positive_control(self) -> GateResult:
        """G1: the primary attack must see no-op unlearning, with the endpoint's own reference budget."""
        return positive_control(self.shared_scores, self.policy)

    @cached_property
    def control_alphas(self) -> tuple[float, ...]:
        """The FPRs at which the negative control is judged: the audit's, and others that the counts bear."""
        if self.alpha is None:
            return ()
        return alternative_alphas(self.policy, self.alpha, int((self.inputs.role == Role.NEVER).sum()))

    @cached_property
    def controls(self) -> dict[float, NegativeControl]:
        """The permutation tests on fleet B, by alpha, over the same permutations; empty without an alpha."""
        if self.alpha is None:
            return {}
        reference = self.asked(self.primary, self.reference("control"))
        attack = self.told(self.primary, "forgetting")

        def scorer(side: NDArray[np.int8]) -> NDArray[np.float64]:
            rng = generator(self.seed, "negative control")
            return score_fleet(attack, reference.with_side(side), rng=rng)

        return negative_controls(
            scorer,
            GAMES["forgetting"].side(self.inputs.role),
            self.inputs.design.fold,
            self.control_alphas,
            permutations=self.policy.control_permutations,
            rng=generator(self.seed, "permutations"),
        )

    @property
    def control(self) -> NegativeControl | None:
        """The permutation test at the audit's alpha; None without one."""
        return None if self.alpha is None else self.controls[self.alpha]

    @cached_property
    def negative_control(self) -> GateResult:
        """G2: on models that never saw the forgotten records the attack must find nothing."""
        return self.control_gate(self.alpha)

    def control_gate(self, alpha: float | None) -> GateResult:
        """G2 at one of ``control_alphas``."""
        rule = f"max-T permutation p-value above {self.policy.control_level:.0%} on retrained fleet B"
        if alpha is None:
            return GateResult("G2", "negative control", rule, "not run", "the counts bear no rate", "NOT ASSESSED")
        control = self.controls[alpha]
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
        on_scores: Callable[[SubjectScores, Basis], None] | None = None,
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
            on_scores: given the scores that the endpoints rest on, and what the word rests on beside them.

        Returns:
            The subject with its verdict and all numbers behind it.
        """
        policy = self.policy
        reference = self.inputs.reference(after)
        scores = self.subject_scores(after, reference, trained_against)
        scored = dict(scores.after)
        endpoints = [*(() if structure is None else (structure,)), *decide_endpoints(scores, policy)]
        own_gates = [self.positive_control, self.negative_control, precision(scores, policy)]
        utility = self.description.utility(after)
        basis = Basis(
            "procedure",
            process_evidence=process_evidence,
            alpha=self.alpha,
            flags=tuple(flags),
            failures=tuple(failures),
        )
        all_gates = (*own_gates, *gates)
        if on_scores is not None:
            on_scores(scores, basis)
        verdict = basis.decide(endpoints, all_gates, policy)
        findings, curves, shapes = self.description.findings(reference, scored)
        inner = self.inner.rows(scores, reference, basis, () if structure is None else (structure,), gates)
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
            **inner,
        )
        self.forget_others()
        return subject
