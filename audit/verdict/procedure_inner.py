"""What a procedure audit tells beside its verdict of classes, single records, the worst case, and other rules."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.statistics.fleet import FleetAuc, FleetRate, FleetScores
from mnemoscope.audit.statistics.fleet_differences import share
from mnemoscope.audit.statistics.multiple import benjamini_hochberg
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.by_class import class_label, fleet_classes
from mnemoscope.audit.verdict.individual_rows import LISTED_AT_MOST, Individual
from mnemoscope.audit.verdict.individuals import RecordScorer, record_p_values
from mnemoscope.audit.verdict.inner_rows import InnerRows
from mnemoscope.audit.verdict.procedure_decision import (
    SharedScores,
    SubjectScores,
    decide_endpoints,
    positive_control,
    precision,
)
from mnemoscope.audit.verdict.record_map import record_map, record_places
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Tail, WorstCase
from mnemoscope.audit.verdict.sensitivity import Choice, sensitivity_rows

if TYPE_CHECKING:
    from mnemoscope.audit.verdict.procedure import ProcedureAudit

__all__ = ["Inner"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KeptScores(FleetScores):
    """Scores whose rates and AUC are counted once, however many rows of a table ask for them."""

    _rates: dict[tuple[float, str], FleetRate] = field(default_factory=dict, repr=False)

    def rates(self, fprs: Sequence[float], tail: Literal["residual", "over-forgotten"] = "residual") -> list[FleetRate]:
        """As of any fleet."""
        for fpr in fprs:
            if (fpr, tail) not in self._rates:
                self._rates[fpr, tail] = super().rates([fpr], tail)[0]
        return [self._rates[fpr, tail] for fpr in fprs]

    def auc(self) -> FleetAuc:
        """As of any fleet."""
        return self._area

    @cached_property
    def _area(self) -> FleetAuc:
        return super().auc()


class Inner:
    """Describes subjects from scores that the audit has; what subjects share is kept."""

    def __init__(self, audit: "ProcedureAudit") -> None:
        self.audit = audit
        self._kept: dict[tuple[str, str, str], KeptScores] = {}
        self._places: dict[str, Floats] = {}

    def rows(
        self, scores: SubjectScores, reference: Reference, basis: Basis, fixed: Sequence[Endpoint],
        gates: Sequence[GateResult],
    ) -> InnerRows:  # fmt: skip
        """All rows of one subject.

        Args:
            scores: what its endpoints rest on.
            reference: its answers.
            basis: what its word rests on beside endpoints and gates.
            fixed: endpoints that do not follow from scores (P6).
            gates: gates that no choice changes: G4 to G8 and drift.
        """
        audit, name = self.audit, self.audit.primary.name
        after = {attack: _kept(found) for attack, found in scores.after.items()}
        kept = replace(scores, after=after)
        alpha = audit.alpha
        before, places = self._place("before"), record_places(after[name].score, after[name].side)
        twin = self._place("retrained")
        return InnerRows(
            by_class=()
            if alpha is None
            else fleet_classes(
                audit.inputs.labels,
                after[name],
                self.shared(name, "forgetting", "retrained"),
                audit.policy,
                alpha,
                audit.inputs.classes,
            ),
            record_map=record_map(name, before, places, twin),
            individuals=self._individuals(scores, before, places, twin),
            sensitivity=()
            if alpha is None
            else sensitivity_rows(
                _FleetRules(self, kept, reference, tuple(fixed), tuple(gates)),
                Choice(audit.policy, alpha, name),
                basis,
                alphas=audit.control_alphas,
                attacks=tuple(audit.attacks),
            ),
            worst_case=() if alpha is None or scores.margin is None else self._worst(scores.margin, alpha),
        )

    def shared(self, attack: str, game: str, fleet: str) -> KeptScores:
        """Scores on a shared fleet, with rates counted once for all subjects."""
        key = (attack, game, fleet)
        if key not in self._kept:
            self._kept[key] = _kept(self.audit.shared(self.audit.attacks[attack], game, fleet))
        return self._kept[key]

    def shared_scores(self, alpha: float, primary: str, *, stays: bool) -> SharedScores:
        """What subjects are held against under another choice."""
        return replace(
            self.audit.shared_scores,
            primary=primary,
            alpha=alpha,
            retrained={attack: self.shared(attack, "forgetting", "retrained") for attack in self.audit.attacks},
            no_op=self.shared(primary, "forgetting", "before"),
            before=self.shared(primary, "membership", "before"),
            retained=self.shared(primary, "retention", "retrained") if stays else None,
        )

    @property
    def _side(self) -> NDArray[np.int8]:
        return GAMES["forgetting"].side(self.audit.inputs.role)

    def _place(self, fleet: str) -> Floats:
        if fleet not in self._places:
            scores = self.audit.shared(self.audit.primary, "forgetting", fleet)
            self._places[fleet] = record_places(scores.score, scores.side)
        return self._places[fleet]

    def _individuals(
        self, scores: SubjectScores, before: Floats, after: Floats, retrained: Floats
    ) -> tuple[Individual, ...]:
        """The clearest records first; they are named by who writes them down (``named.with_pseudonyms``)."""
        inputs = self.audit.inputs
        p = None if scores.margin is None else record_p_values(scores.margin, self._side)
        order = np.argsort(-np.abs(after - 0.5) if p is None else p, kind="stable")
        return tuple(
            Individual(
                "",
                inputs.keys[j],
                class_label(int(inputs.labels[j]), inputs.classes),
                float(before[j]),
                float(after[j]),
                float(retrained[j]),
                None if p is None else float(p[j]),
            )
            for j in order.tolist()
            if np.isfinite(after[j])
        )[:LISTED_AT_MOST]

    def _worst(self, margin: Floats, alpha: float) -> tuple[WorstCase, ...]:
        policy, side = self.audit.policy, self._side
        adjusted = benjamini_hochberg(record_p_values(margin, side))
        flagged, tested = int((adjusted <= policy.fdr_level).sum()), int(((side == 1).any(axis=0)).sum())
        rows = []
        tails: tuple[tuple[Tail, float], ...] = (("residual", 1.0), ("over-forgotten", -1.0))
        for tail, sign in tails:
            scorer = RecordScorer.of(sign * margin, side)
            hit = scorer.hits(alpha)
            ours = share(hit, (side == 1) & scorer.tested, policy.interval_level)
            others = share(hit, (side == 0) & scorer.tested, policy.interval_level)
            expected = None if others.value is None or not ours.n else others.value * ours.n
            rows.append(WorstCase(tail, alpha, ours, others, expected, flagged, tested, policy.fdr_level))
        return tuple(rows)


class _FleetRules:
    """The rules of a procedure audit under any choice; what was counted for one is kept for the next."""

    def __init__(
        self,
        inner: Inner,
        scores: SubjectScores,
        reference: Reference,
        fixed: tuple[Endpoint, ...],
        gates: tuple[GateResult, ...],
    ) -> None:
        self._inner, self._scores, self._reference = inner, scores, reference
        self._fixed, self._gates = fixed, gates
        self._found: dict[Choice, list[Endpoint]] = {}
        own = inner.audit.primary.name
        self._retained: dict[str, KeptScores | None] = {
            own: None if scores.retained is None else _kept(scores.retained)
        }

    def _of(self, choice: Choice) -> SubjectScores:
        retained = self._retained_by(choice.primary)
        shared = self._inner.shared_scores(choice.alpha, choice.primary, stays=retained is not None)
        return replace(self._scores, shared=shared, retained=retained)

    def _retained_by(self, attack: str) -> KeptScores | None:
        if attack not in self._retained:
            scored = None
            if self._asked_of_retained(attack):
                audit = self._inner.audit
                scored = _kept(audit.score(audit.attacks[attack], "retention", self._reference))
            self._retained[attack] = scored
        return self._retained[attack]

    def _asked_of_retained(self, attack: str) -> bool:
        """Whether P4 can be had at little cost: learned and live attacks take minutes to score a game more."""
        audit = self._inner.audit
        live = bool(audit.attacks[attack].needs & (Need.ORACLE | Need.GRADIENT))
        return self._scores.retained is not None and attack in audit.policy.primary_order and not live

    def endpoints(self, choice: Choice) -> list[Endpoint]:
        """P6 first, then what the scores decide."""
        if choice not in self._found:
            self._found[choice] = [*self._fixed, *decide_endpoints(self._of(choice), choice.policy)]
        return self._found[choice]

    def gates(self, choice: Choice) -> list[GateResult]:
        """G1 to G3 at this choice, then those that do not depend on it."""
        scores, audit = self._of(choice), self._inner.audit
        if choice.primary == audit.primary.name:
            control = audit.control_gate(choice.alpha)
        else:
            known = audit.negative_control
            observed = "fleet B was not permuted for this attack"
            control = replace(known, status="not run", observed=observed)
        return [positive_control(scores.shared, choice.policy), control, precision(scores, choice.policy), *self._gates]

    def note(self, choice: Choice) -> str:
        """What an audit planned like this would know beside."""
        parts = []
        if choice.primary != self._inner.audit.primary.name:
            parts.append("the negative control (G2) was not run for this attack")
            if self._scores.retained is not None and not self._asked_of_retained(choice.primary):
                parts.append("retained records (P4) were not scored by it")
        return "; ".join(parts)


def _kept(scores: FleetScores) -> KeptScores:
    return scores if isinstance(scores, KeptScores) else KeptScores(scores.score, scores.side, scores.fold)
