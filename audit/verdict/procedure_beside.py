"""What a procedure audit prints beside the verdict: both versions, defences, measures of forgetting."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from mnemoscope.audit.answers.defences import Defence, defend
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.fleet_differences import share
from mnemoscope.audit.statistics.measures import Measure, Worlds
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.defended import defended_row, strongest
from mnemoscope.audit.verdict.epsilons import fleet_epsilons
from mnemoscope.audit.verdict.procedure_input import Alternative, FleetAnswers
from mnemoscope.audit.verdict.procedure_scores import ScoredFleets
from mnemoscope.audit.verdict.result import Defended, EpsilonRow, Finding, Measured, ModelRole
from mnemoscope.audit.verdict.versions import VersionGames

__all__ = ["Beside"]


class Beside:
    """Description only: nothing here reaches a verdict; controls are computed once for all subjects.

    Args:
        fleets: the shared fleets and the attacks.
        measures: measures of forgetting.
        defences: wrappers of answers to try.
        alternatives: fleets trained like ``before`` under a defence of the training.
    """

    def __init__(
        self,
        fleets: ScoredFleets,
        measures: Sequence[Measure] = (),
        defences: Sequence[Defence] = (),
        alternatives: Sequence[Alternative] = (),
    ) -> None:
        self.fleets, self.measures, self.defences = fleets, tuple(measures), tuple(defences)
        self.alternatives = tuple(alternatives)

    def both_versions(self, after: FleetAnswers) -> list[Finding]:
        """The difference games of one subject, with their controls."""
        return self._versions.findings(self.fleets.pair(after)) if self.fleets.pair_attacks else []

    def defended(self, reference: Reference, after: FleetAnswers) -> tuple[Defended, ...]:
        """One subject behind every defence, and the models before deletion."""
        own = self._defended("forgetting", "after", reference, after)
        return (*(row for row in own if row is not None), *self._before)

    @cached_property
    def _versions(self) -> VersionGames:
        """The difference games, their controls computed once."""
        pairs: dict[ModelRole, Reference] = {"retrained": self.fleets.pair(self.fleets.inputs.retrained)}
        if self.fleets.inputs.reseeded is not None:
            pairs["reseeded"] = self.fleets.pair(self.fleets.inputs.reseeded)
        pairs["no-op"] = self.fleets.pair(self.fleets.inputs.before)
        return VersionGames(
            self.fleets.pair_attacks,
            self.fleets.inputs.role,
            self.fleets.inputs.design.fold,
            pairs=pairs,
            level=self.fleets.policy.interval_level,
            asked=self.fleets.asked,
            rng=lambda attack, game: generator(self.fleets.seed, "attack", attack, game),
        )

    def measured(self, after: FleetAnswers) -> list[Measured]:
        """One subject under every measure, with its floor."""
        inputs = self.fleets.inputs
        side = GAMES["forgetting"].side(inputs.role)
        own = inputs.reference(after)
        background = inputs.design.records(0, Role.BACKGROUND)
        rows = []
        for measure in self.measures:
            retrained, control, before = (self.fleets.reference(name) for name in ("retrained", "control", "before"))
            given = [self.fleets.asked(None, r).with_side(side) for r in (own, retrained, control, before)]
            worlds = Worlds(
                given[0], given[1], given[2], given[3], inputs.role, canaries=inputs.canaries, background=background
            )
            n_models, n_records = inputs.role.shape
            try:
                found = measure.measure(worlds, rng=generator(self.fleets.seed, "measure", measure.name))
            except (InvalidInput, MissingNeed) as error:
                # Description must not cost a decision that all models were trained for.
                none = Estimate(None, reason=str(error))
                rows.append(Measured(measure.name, "", "", none, none, n_models, n_records))
                continue
            rows.append(
                Measured(
                    found.name, found.unit, found.direction, found.value, found.floor, n_models, n_records, found.note,
                    found.excess, found.no_op,
                )
            )  # fmt: skip
        return rows

    def epsilons(self, scored: FleetScores) -> list[EpsilonRow]:
        """What the primary attack's rates say of epsilon: after deletion, for no-op, and for membership before."""
        alpha, primary = self.fleets.alpha, self.fleets.primary
        if alpha is None:
            return []
        rows: list[EpsilonRow] = []
        fleets: tuple[tuple[str, ModelRole, FleetScores], ...] = (
            ("forgetting", "after", scored),
            ("forgetting", "retrained", self.fleets.shared(primary, "forgetting", "retrained")),
            ("membership", "before", self.fleets.shared(primary, "membership", "before")),
        )
        for game, models, scores in fleets:
            rate = scores.rates([alpha])[0]
            rows += fleet_epsilons(primary.name, game, models, rate, self.fleets.policy.level)
        return [*rows, *self._claims]

    @cached_property
    def _claims(self) -> list[EpsilonRow]:
        """What the primary attack's rates say of the epsilon that is claimed for a fleet."""
        alpha, primary, level = self.fleets.alpha, self.fleets.primary, self.fleets.policy.level
        rows: list[EpsilonRow] = []
        for other in self.alternatives:
            if other.claimed is None or alpha is None:
                continue
            reference = self.fleets.inputs.reference(other.answers)
            rate = self.fleets.score(primary, "membership", reference).rates([alpha])[0]
            rows += fleet_epsilons(
                primary.name, "membership", "before", rate, level,
                delta=other.delta, fleet=other.name, claimed=other.claimed,
            )  # fmt: skip
        return rows

    @cached_property
    def _before(self) -> tuple[Defended, ...]:
        """The models before deletion, and those that were trained under a defence, in the membership game."""
        before = self.fleets.inputs.before
        reference = self.fleets.reference("before")
        rows = self._defended("membership", "before", reference, before)
        if self.defences or self.alternatives:
            rows.insert(0, self._row("none", None, "membership", "before", reference, before))
        for other in self.alternatives:
            made = self.fleets.inputs.reference(other.answers)
            rows.append(self._row(other.title, None, "membership", "before", made, other.answers))
        return tuple(row for row in rows if row is not None)

    def _defended(
        self, game: str, models: ModelRole, reference: Reference, answers: FleetAnswers
    ) -> list[Defended | None]:
        return [self._row(d.name, d, game, models, reference, answers) for d in self.defences]

    def _row(
        self,
        name: str,
        defence: Defence | None,
        game: str,
        models: ModelRole,
        reference: Reference,
        answers: FleetAnswers,
    ) -> Defended | None:
        primary, all_attacks = self.fleets.primary, self.fleets.attacks.values()
        attack = strongest((primary, *(a for a in all_attacks if a is not primary)), reference, defence)
        if attack is None:
            return None
        # Defended answers are as large as the fleet's own: one copy at a time, and none is kept.
        given = self.fleets.asked(attack, reference)
        given = given if defence is None else defend(given, defence)
        side = GAMES[game].side(self.fleets.inputs.role)
        rng = generator(self.fleets.seed, "defence", name, game)
        cells = score_fleet(self.fleets.told(attack, game), given.with_side(side), rng=rng)
        scores = FleetScores(cells, side, self.fleets.inputs.design.fold)
        accuracy = self._accuracy(answers)
        return defended_row(name, attack, game, models, scores, self.fleets.alpha, self.fleets.policy, accuracy)

    def _accuracy(self, answers: FleetAnswers) -> Estimate:
        if answers.test is None:
            return Estimate(None, reason="no test records")
        correct = self.fleets.correct(answers.test)
        return share(correct, np.ones_like(correct))
