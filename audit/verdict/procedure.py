"""Procedure mode: every member of a fleet is the target in turn, and the deletion procedure is the subject.

A design of random roles fixes, for every model and audited record, whether it was kept, forgotten or never seen.
Three retrained fleets with different seeds serve as reference (A), as negative control (B) and as a subject (C).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.defences import Defence, defend
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.protocols import Attack, fleet_thresholds, queries_of, score_fleet
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.fleet import (
    FleetRate,
    FleetScores,
    mean_difference,
    paired_share_difference,
    share,
)
from mnemoscope.audit.statistics.measures import Measure, Worlds
from mnemoscope.audit.statistics.multiple import benjamini_hochberg
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.claims import claim_endpoint
from mnemoscope.audit.verdict.controls import NegativeControl, negative_control
from mnemoscope.audit.verdict.defended import defended_row, strongest
from mnemoscope.audit.verdict.describe import curve, distributions, finding
from mnemoscope.audit.verdict.endpoints import (
    TAILS,
    equivalence_endpoints,
    exposure_endpoints,
    precision_gate,
    rate_endpoints,
    retained_endpoint,
    utility_endpoint,
)
from mnemoscope.audit.verdict.indistinguishability import tell_apart
from mnemoscope.audit.verdict.individuals import RecordScorer, record_p_values
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import (
    Curve,
    Defended,
    Distribution,
    Endpoint,
    ExposedRecord,
    Finding,
    GateResult,
    GateStatus,
    Measured,
    ModelGroup,
    ModelRole,
    Subject,
    Tail,
    Utility,
)
from mnemoscope.audit.verdict.rules import decide
from mnemoscope.audit.verdict.versions import VersionGames, reads_both

__all__ = ["FleetAnswers", "ProcedureAudit", "ProcedureInput"]

EXPOSED_LISTED_AT_MOST = 50


@dataclass(frozen=True, eq=False)
class FleetAnswers:
    """Recorded logits of one fleet.

    Attributes:
        audited: (m, n, q, c) float32 on the audited records.
        population: (m, z, q, c) float32 on the population records, or None.
        test: (m, t, 1, c) float32 on the test records, or None.
        queries: names of the q queries of ``audited`` and ``population``; () for "identity" alone.
        oracles: live access to each model, for attacks that need it.
    """

    audited: NDArray[np.float32]
    population: NDArray[np.float32] | None = None
    test: NDArray[np.float32] | None = None
    queries: tuple[str, ...] = ()
    oracles: tuple[Oracle, ...] | None = None


@dataclass(frozen=True, eq=False)
class ProcedureInput:
    """Everything a procedure audit reads; the truth is in the design and meets scores only here.

    Attributes:
        design: roles of all records in all models.
        keys: user keys of the audited records, in the order of ``design.audited``.
        labels: (n,) int64 of the audited records.
        population_ids, population_labels: of the population records; empty arrays for none.
        test_labels: (t,) int64.
        before: the fleet before deletion; with unchanged weights it is also the no-op control.
        retrained: fleet A, the reference of equivalence.
        control: fleet B, the negative control.
        reseeded: models trained like ``before`` with other seeds: the difference games' control where nothing was
            deleted; None leaves it out.
        queries: what attacks that name no queries of their own are given the answers to.
    """

    design: Design
    keys: Sequence[str]
    labels: NDArray[np.int64]
    population_ids: NDArray[np.int64]
    population_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    before: FleetAnswers
    retrained: FleetAnswers
    control: FleetAnswers
    reseeded: FleetAnswers | None = None
    queries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        m, n = self.design.n_models, self.design.audited.size
        for name in ("before", "retrained", "control", "reseeded"):
            answers: FleetAnswers | None = getattr(self, name)
            shape = (m, n) if answers is None else answers.audited.shape
            if shape[:2] != (m, n):
                raise InvalidInput(f"{name}: answers of shape {shape} given for {m} models and {n} audited records")

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Audited record ids."""
        return self.design.audited

    @cached_property
    def role(self) -> NDArray[np.int8]:
        """(m, n) roles of the audited records."""
        return self.design.roles_of(self.ids)

    def reference(self, answers: FleetAnswers, before: Reference | None = None) -> Reference:
        """A fleet's answers as a reference, with those of the earlier version where given; the game fills the sides."""
        population = None
        if answers.population is not None and self.population_ids.size:
            named = answers.queries
            population = Answers(self.population_ids, self.population_labels, answers.population, queries=named)
        return Reference(
            self.ids,
            self.labels,
            answers.audited,
            side=np.full(self.role.shape, -1, np.int8),
            population=population,
            before=before,
            fold=self.design.fold,
            oracles=answers.oracles,
            queries=answers.queries,
        )


class ProcedureAudit:
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
    ) -> None:
        self.inputs, self.policy, self.alpha, self.seed = inputs, policy, alpha, seed
        self.measures, self.defences = tuple(measures), tuple(defences)
        self.attacks = {attack.name: attack for attack in attacks if not reads_both(attack)}
        self.pair_attacks = [attack for attack in attacks if reads_both(attack)]
        if primary not in self.attacks:
            raise InvalidInput(
                f"primary={primary!r} is not among the attacks run on one version: {', '.join(self.attacks)}"
            )
        self.primary = self.attacks[primary]
        self._references: dict[str, Reference] = {}
        self._asked: dict[tuple[int, tuple[str, ...]], tuple[Reference, Reference]] = {}
        self._scores: dict[tuple[str, str, str], FleetScores] = {}

    def reference(self, fleet: str) -> Reference:
        """The answers of one of the shared fleets, its signals computed once."""
        if fleet not in self._references:
            answers = {
                "before": self.inputs.before,
                "retrained": self.inputs.retrained,
                "control": self.inputs.control,
            }[fleet]
            self._references[fleet] = self.inputs.reference(answers)
        return self._references[fleet]

    def asked(self, attack: Attack | None, reference: Reference) -> Reference:
        """The reference with the queries that an attack reads, in its order; kept, so that signals are shared."""
        own = None if attack is None else queries_of(attack)
        queries = (self.inputs.queries or reference.queries) if own is None else own
        if not queries:
            return reference
        key = (id(reference), queries)
        if key not in self._asked:
            # The whole reference is held beside its part, so that its id stays its own.
            self._asked[key] = (reference, reference.asking(queries))
        return self._asked[key][1]

    def score(self, attack: Attack, game: str, reference: Reference) -> FleetScores:
        """Score every member of a fleet in one game."""
        side = GAMES[game].side(self.inputs.role)
        rng = generator(self.seed, "attack", attack.name, game)
        given = self.asked(attack, reference).with_side(side)
        return FleetScores(score_fleet(attack, given, rng=rng), side, self.inputs.design.fold)

    def shared(self, attack: Attack, game: str, fleet: str) -> FleetScores:
        """Scores on a shared fleet, kept."""
        key = (attack.name, game, fleet)
        if key not in self._scores:
            self._scores[key] = self.score(attack, game, self.reference(fleet))
        return self._scores[key]

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

        def scorer(side: NDArray[np.int8]) -> NDArray[np.float64]:
            rng = generator(self.seed, "negative control")
            return score_fleet(self.primary, reference.with_side(side), rng=rng)

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

        Returns:
            The subject with its verdict and all numbers behind it.
        """
        inputs, policy, alpha = self.inputs, self.policy, self.alpha
        reference = inputs.reference(after)
        scored = {a: self.score(attack, "forgetting", reference) for a, attack in self.attacks.items()}
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
        utility = self._utility(after)
        if after.test is not None and inputs.retrained.test is not None:
            endpoints.append(utility_endpoint(self._correct(after.test), self._correct(inputs.retrained.test), policy))
        limits = limits_of("procedure", has_fleet=True, process_evidence=process_evidence, policy=policy)
        all_gates = (*own_gates, *gates)
        verdict = decide(
            endpoints, all_gates, policy=policy, limits=limits, alpha=alpha, flags=flags, failures=failures
        )
        findings, curves, shapes = self._describe(reference, scored)
        if self.pair_attacks:
            findings += self.versions.findings(self._pair(after))
        subject = Subject(
            name=name,
            method=method,
            settings=settings,
            verdict=verdict,
            endpoints=tuple(endpoints),
            gates=tuple(sorted(all_gates, key=lambda gate: gate.id)),
            findings=tuple(findings),
            curves=tuple(curves),
            distributions=tuple(shapes),
            utility=tuple(utility),
            models=tuple(models),
            exposed=tuple(self._exposed(reference)),
            cost_fraction_of_retraining=cost_fraction,
            measured=tuple(self._measured(after)),
            defended=(*self._defended("forgetting", "after", reference, after), *self._defended_before),
        )
        shared = {id(kept) for kept in self._references.values()}
        self._asked = {key: kept for key, kept in self._asked.items() if key[0] in shared}
        return subject

    @cached_property
    def versions(self) -> VersionGames:
        """The difference games, their controls computed once."""
        pairs: dict[ModelRole, Reference] = {"retrained": self._pair(self.inputs.retrained)}
        if self.inputs.reseeded is not None:
            pairs["reseeded"] = self._pair(self.inputs.reseeded)
        pairs["no-op"] = self._pair(self.inputs.before)
        return VersionGames(
            self.pair_attacks,
            self.inputs.role,
            self.inputs.design.fold,
            pairs=pairs,
            level=self.policy.interval_level,
            asked=self.asked,
            rng=lambda attack, game: generator(self.seed, "attack", attack, game),
        )

    def _pair(self, answers: FleetAnswers) -> Reference:
        return self.inputs.reference(answers, before=self.reference("before"))

    def _measured(self, after: FleetAnswers) -> list[Measured]:
        side = GAMES["forgetting"].side(self.inputs.role)
        fleets = (after, self.inputs.retrained, self.inputs.control, self.inputs.before)
        rows = []
        for measure in self.measures:
            given = [self.asked(None, self.inputs.reference(fleet)).with_side(side) for fleet in fleets]
            worlds = Worlds(given[0], given[1], given[2], given[3], role=self.inputs.role)
            found = measure.measure(worlds, rng=generator(self.seed, "measure", measure.name))
            n_models, n_records = self.inputs.role.shape
            rows.append(
                Measured(
                    found.name, found.unit, found.direction, found.value, found.floor, n_models, n_records, found.note
                )
            )
        return rows

    @cached_property
    def _defended_before(self) -> tuple[Defended, ...]:
        return tuple(self._defended("membership", "before", self.reference("before"), self.inputs.before))

    def _defended(self, game: str, models: ModelRole, reference: Reference, answers: FleetAnswers) -> list[Defended]:
        rows = []
        for defence in self.defences:
            behind = defend(self.asked(None, reference), defence)
            attack = strongest(tuple(self.attacks.values()), behind)
            if attack is None:
                continue
            side = GAMES[game].side(self.inputs.role)
            rng = generator(self.seed, "defence", defence.name, game)
            scores = FleetScores(score_fleet(attack, behind.with_side(side), rng=rng), side, self.inputs.design.fold)
            rows.append(
                defended_row(defence, attack, game, models, scores, self.alpha, self.policy, self._accuracy(answers))
            )
        return rows

    def _accuracy(self, answers: FleetAnswers) -> Estimate:
        if answers.test is None:
            return Estimate(None, reason="no test records")
        correct = self._correct(answers.test)
        return share(correct, np.ones_like(correct))

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

    def _describe(
        self, reference: Reference, scored: dict[str, FleetScores]
    ) -> tuple[list[Finding], list[Curve], list[Distribution]]:
        findings: list[Finding] = []
        curves: list[Curve] = []
        shapes: list[Distribution] = []
        for name, scores in scored.items():
            attack, primary = self.attacks[name], name == self.primary.name
            groups: list[tuple[ModelRole, FleetScores, str]] = [
                ("after", scores, ""),
                ("retrained", self.shared(attack, "forgetting", "retrained"), "what exact retraining scores"),
                ("no-op", self.shared(attack, "forgetting", "before"), "the positive control: nothing was deleted"),
            ]
            for role, fleet, note in groups:
                level = self.policy.interval_level
                thresholds = self._thresholds(attack, reference if role == "after" else self._shared_reference(role))
                findings.append(
                    finding(name, "forgetting", role, primary, fleet, thresholds=thresholds, level=level, note=note)
                )
                if primary or role == "after":
                    curves.append(curve(name, "forgetting", role, fleet, level=level))
                if primary:
                    shapes += distributions(name, "forgetting", role, fleet)
            before = self.shared(attack, "membership", "before")
            findings.append(finding(name, "membership", "before", primary, before))
            if primary:
                findings += self._retention(attack, reference)
        findings += self._indistinguishability(reference)
        return findings, curves, shapes

    def _shared_reference(self, role: ModelRole) -> Reference:
        return self.reference("retrained" if role == "retrained" else "before")

    def _thresholds(self, attack: Attack, reference: Reference) -> NDArray[np.float64] | None:
        """The attack's own decision threshold for each target model, set on other models; None where it has none."""
        given = self.asked(attack, reference).with_side(GAMES["forgetting"].side(self.inputs.role))
        return fleet_thresholds(attack, given, rng=generator(self.seed, "threshold", attack.name))

    def _retention(self, attack: Attack, reference: Reference) -> list[Finding]:
        fleets: list[tuple[ModelRole, FleetScores]] = [
            ("before", self.shared(attack, "retention", "before")),
            ("after", self.score(attack, "retention", reference)),
            ("retrained", self.shared(attack, "retention", "retrained")),
        ]
        note = "exact retraining is the baseline here, not zero"
        return [finding(attack.name, "retention", role, True, fleet, note=note) for role, fleet in fleets]

    def _indistinguishability(self, reference: Reference) -> list[Finding]:
        mask = self.inputs.role == Role.FORGOTTEN
        level = self.policy.interval_level
        rng = generator(self.seed, "indistinguishability")
        unlearned, retrained, control = (
            self.asked(self.primary, given)
            for given in (reference, self.reference("retrained"), self.reference("control"))
        )
        floor = tell_apart(self.primary, control, retrained, mask, level, rng=rng)
        told = tell_apart(self.primary, unlearned, retrained, mask, level, rng=rng)
        nothing = Estimate(None, reason="a handful of models bears no rate")
        m = self.inputs.design.n_models
        rows: tuple[tuple[ModelRole, Estimate, str], ...] = (
            ("after", told, "the unit is a model: unlearned against retrained"),
            ("retrained", floor, "the floor: retrained against retrained with other seeds"),
        )
        return [
            Finding(self.primary.name, "indistinguishability", role, True, auc, nothing, (), m, m, note)
            for role, auc, note in rows
        ]

    def _correct(self, test: NDArray[np.float32]) -> NDArray[np.bool_]:
        hit: NDArray[np.bool_] = test[:, :, 0, :].argmax(axis=-1) == self.inputs.test_labels
        return hit

    def _utility(self, after: FleetAnswers) -> list[Utility]:
        inputs = self.inputs
        fleets: list[tuple[ModelRole, FleetAnswers]] = [
            ("before", inputs.before),
            ("after", after),
            ("retrained", inputs.retrained),
        ]
        rows = []
        roles: tuple[tuple[Literal["forget", "retain", "holdout"], Role], ...] = (
            ("forget", Role.FORGOTTEN),
            ("retain", Role.KEPT),
            ("holdout", Role.NEVER),
        )
        for models, answers in fleets:
            hit = answers.audited[:, :, 0, :].argmax(axis=-1) == inputs.labels
            twin = inputs.retrained.audited[:, :, 0, :].argmax(axis=-1) == inputs.labels
            for records, role in roles:
                cells = inputs.role == role
                gap = None if models == "retrained" else paired_share_difference(hit, twin, cells, 0.95)
                rows.append(Utility(records, models, share(hit, cells), gap))
            if answers.test is not None and inputs.retrained.test is not None:
                correct, best = self._correct(answers.test), self._correct(inputs.retrained.test)
                gap = None if models == "retrained" else mean_difference(correct, best, 0.95, "two")
                rows.append(Utility("test", models, share(correct, np.ones_like(correct)), gap))
        return rows

    def _exposed(self, reference: Reference) -> list[ExposedRecord]:
        side = GAMES["forgetting"].side(self.inputs.role)
        values = self.asked(None, reference).signal("margin").mean(axis=2)
        p = record_p_values(values, side)
        chosen = np.flatnonzero(benjamini_hochberg(p) <= self.policy.fdr_level)
        if self.alpha is None or chosen.size == 0:
            return []
        hits = RecordScorer.of(values, side).hits(self.alpha) | RecordScorer.of(-values, side).hits(self.alpha)
        listed = chosen[np.argsort(p[chosen], kind="stable")][:EXPOSED_LISTED_AT_MOST]
        records = []
        for j in listed:
            forgotten = side[:, j] == 1
            caught = share(hits[:, [j]], forgotten[:, None])
            records.append(ExposedRecord(int(self.inputs.ids[j]), self.inputs.keys[j], float(p[j]), caught))
        return records
