"""What a procedure audit describes beside its decision: findings, curves, shapes, accuracies, individuals."""

from typing import Literal

import numpy as np

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.fleet_differences import mean_difference, paired_share_difference, share
from mnemoscope.audit.statistics.multiple import benjamini_hochberg
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.describe import curve, distributions, finding
from mnemoscope.audit.verdict.indistinguishability import tell_apart
from mnemoscope.audit.verdict.individuals import RecordScorer, record_p_values
from mnemoscope.audit.verdict.procedure_input import FleetAnswers
from mnemoscope.audit.verdict.procedure_scores import ScoredFleets
from mnemoscope.audit.verdict.result import Curve, Distribution, ExposedRecord, Finding, ModelRole, Utility

__all__ = ["Description"]

EXPOSED_LISTED_AT_MOST = 50


class Description:
    """Describes subjects from the scores of their fleets."""

    def __init__(self, fleets: ScoredFleets) -> None:
        self.fleets = fleets

    def findings(
        self, reference: Reference, scored: dict[str, FleetScores]
    ) -> tuple[list[Finding], list[Curve], list[Distribution]]:
        """Return one subject's findings, curves and score distributions, the shared controls beside them."""
        findings: list[Finding] = []
        curves: list[Curve] = []
        shapes: list[Distribution] = []
        for name, scores in scored.items():
            attack, primary = self.fleets.attacks[name], name == self.fleets.primary.name
            groups: list[tuple[ModelRole, FleetScores, str]] = [
                ("after", scores, self.fleets.flags(attack, "forgetting", reference)),
                ("retrained", self.fleets.shared(attack, "forgetting", "retrained"), "what exact retraining scores"),
                (
                    "no-op",
                    self.fleets.shared(attack, "forgetting", "before"),
                    "the positive control: nothing was deleted",
                ),
            ]
            for role, fleet, note in groups:
                level = self.fleets.policy.interval_level
                thresholds = self.fleets.thresholds(
                    attack, reference if role == "after" else self._shared_reference(role)
                )
                alpha = self.fleets.alpha
                findings.append(
                    finding(
                        name,
                        "forgetting",
                        role,
                        primary,
                        fleet,
                        thresholds=thresholds,
                        level=level,
                        alpha=alpha,
                        note=note,
                    )
                )
                if primary or role == "after":
                    curves.append(curve(name, "forgetting", role, fleet, level=level))
                if primary:
                    shapes += distributions(name, "forgetting", role, fleet)
            before = self.fleets.shared(attack, "membership", "before")
            findings.append(finding(name, "membership", "before", primary, before))
            if primary:
                findings += self._retention(attack, reference)
        findings += self._indistinguishability(reference)
        return findings, curves, shapes

    def _shared_reference(self, role: ModelRole) -> Reference:
        return self.fleets.reference("retrained" if role == "retrained" else "before")

    def _retention(self, attack: Attack, reference: Reference) -> list[Finding]:
        fleets: list[tuple[ModelRole, FleetScores]] = [
            ("before", self.fleets.shared(attack, "retention", "before")),
            ("after", self.fleets.score(attack, "retention", reference)),
            ("retrained", self.fleets.shared(attack, "retention", "retrained")),
        ]
        note = "exact retraining is the baseline here, not zero"
        return [finding(attack.name, "retention", role, True, fleet, note=note) for role, fleet in fleets]

    def _indistinguishability(self, reference: Reference) -> list[Finding]:
        mask = self.fleets.inputs.role == Role.FORGOTTEN
        level = self.fleets.policy.interval_level
        rng = generator(self.fleets.seed, "indistinguishability")
        unlearned, retrained, control = (
            self.fleets.asked(self.fleets.primary, given)
            for given in (reference, self.fleets.reference("retrained"), self.fleets.reference("control"))
        )
        floor = tell_apart(self.fleets.primary, control, retrained, mask, level, rng=rng)
        told = tell_apart(self.fleets.primary, unlearned, retrained, mask, level, rng=rng)
        nothing = Estimate(None, reason="a handful of models bears no rate")
        m = self.fleets.inputs.design.n_models
        rows: tuple[tuple[ModelRole, Estimate, str], ...] = (
            ("after", told, "the unit is a model: unlearned against retrained"),
            ("retrained", floor, "the floor: retrained against retrained with other seeds"),
        )
        return [
            Finding(self.fleets.primary.name, "indistinguishability", role, True, auc, nothing, (), m, m, note)
            for role, auc, note in rows
        ]

    def utility(self, after: FleetAnswers) -> list[Utility]:
        """Return accuracies by role and models, with the gap to the retrained twins."""
        inputs = self.fleets.inputs
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
                correct, best = self.fleets.correct(answers.test), self.fleets.correct(inputs.retrained.test)
                gap = None if models == "retrained" else mean_difference(correct, best, 0.95, "two")
                rows.append(Utility("test", models, share(correct, np.ones_like(correct)), gap))
        return rows

    def exposed(self, reference: Reference) -> list[ExposedRecord]:
        """Return the individuals flagged under false-discovery control, the clearest first."""
        side = GAMES["forgetting"].side(self.fleets.inputs.role)
        values = self.fleets.asked(None, reference).signal("margin").mean(axis=2)
        p = record_p_values(values, side)
        chosen = np.flatnonzero(benjamini_hochberg(p) <= self.fleets.policy.fdr_level)
        if self.fleets.alpha is None or chosen.size == 0:
            return []
        hits = RecordScorer.of(values, side).hits(self.fleets.alpha) | RecordScorer.of(-values, side).hits(
            self.fleets.alpha
        )
        listed = chosen[np.argsort(p[chosen], kind="stable")][:EXPOSED_LISTED_AT_MOST]
        records = []
        for j in listed:
            forgotten = side[:, j] == 1
            caught = share(hits[:, [j]], forgotten[:, None])
            records.append(
                ExposedRecord(int(self.fleets.inputs.ids[j]), self.fleets.inputs.keys[j], float(p[j]), caught)
            )
        return records
