"""Scores of whole fleets in every game; what the subjects of one audit share is computed once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.inclusion import told_inclusion
from mnemoscope.audit.answers.protocols import (
    Attack,
    Scorer,
    decision_threshold,
    flags_of,
    fleet_thresholds,
    queries_of,
    score_fleet,
)
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure_input import FleetAnswers, ProcedureInput

__all__ = ["ScoredFleets", "reads_both"]


def reads_both(attack: Attack) -> bool:
    """Whether an attack needs the version before deletion, and so plays the difference games alone."""
    return Need.BEFORE in attack.needs


class ScoredFleets:
    """Scores by attack, game and fleet.

    Args:
        inputs: answers of the before, retrained and control fleets, and the design.
        attacks: all attacks; they see answers and the sides of reference models, never the target's. Those that need
            the version before deletion play the difference games and are no part of a verdict.
        primary: name of the one that decides WITHIN BOUND, fixed before any score.
        policy: bounds and levels.
        alpha: FPR of the endpoints; None means that the counts bear no rate verdict.
        seed: root seed of attacks' randomness.
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
    ) -> None:
        self.inputs, self.policy, self.alpha, self.seed = inputs, policy, alpha, seed
        self.attacks = {attack.name: attack for attack in attacks if not reads_both(attack)}
        self.pair_attacks = tuple(attack for attack in attacks if reads_both(attack))
        if primary not in self.attacks:
            raise InvalidInput(
                f"primary={primary!r} is not among the attacks run on one version: {', '.join(self.attacks)}"
            )
        self.primary = self.attacks[primary]
        self._references: dict[str, Reference] = {}
        self._asked: dict[tuple[int, tuple[str, ...]], tuple[Reference, Reference]] = {}
        self._scores: dict[tuple[str, str, str], FleetScores] = {}
        self._thresholds: dict[tuple[int, str], tuple[Reference, NDArray[np.float64] | None]] = {}

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

    def told(self, attack: Attack, game: str) -> Attack:
        """The attack with what the design knows of a game's models and their answers do not show."""
        return told_inclusion([attack], GAMES[game], self.inputs.design.role)[0]

    def score(self, attack: Attack, game: str, reference: Reference) -> FleetScores:
        """Score every member of a fleet in one game."""
        side = GAMES[game].side(self.inputs.role)
        rng = generator(self.seed, "attack", attack.name, game)
        given = self.asked(attack, reference).with_side(side)
        thresholds: dict[int, float | None] = {}

        def note(scorer: Scorer, held: NDArray[np.int64]) -> None:
            thresholds.update(dict.fromkeys(held.tolist(), decision_threshold(scorer)))

        scores = score_fleet(self.told(attack, game), given, rng=rng, on_fit=note if game == "forgetting" else None)
        if thresholds:  # a fit that scored a model sets its threshold too
            values = [thresholds[k] for k in range(given.n_models)]
            known = None if None in values else np.array(values, np.float64)
            self._thresholds[id(reference), attack.name] = (reference, known)
        return FleetScores(scores, side, self.inputs.design.fold)

    def shared(self, attack: Attack, game: str, fleet: str) -> FleetScores:
        """Scores on a shared fleet, kept."""
        key = (attack.name, game, fleet)
        if key not in self._scores:
            self._scores[key] = self.score(attack, game, self.reference(fleet))
        return self._scores[key]

    def flags(self, attack: Attack, game: str, reference: Reference) -> str:
        """Where the attack's fit on this fleet is not what its settings ask for; "" where it is."""
        given = self.asked(attack, reference).with_side(GAMES[game].side(self.inputs.role))
        return "; ".join(flags_of(self.told(attack, game), given, left_out=True))

    def pair(self, answers: FleetAnswers) -> Reference:
        """A fleet's answers with those of the models before deletion."""
        return self.inputs.reference(answers, before=self.reference("before"))

    def forget_others(self) -> None:
        """Let go of every reference but the shared ones: a subject's answers are not needed for the next."""
        shared = {id(kept) for kept in self._references.values()}
        self._asked = {key: kept for key, kept in self._asked.items() if key[0] in shared}
        self._thresholds = {key: kept for key, kept in self._thresholds.items() if key[0] in shared}

    def thresholds(self, attack: Attack, reference: Reference) -> NDArray[np.float64] | None:
        """The attack's own decision threshold for each target model, set on other models; None where it has none."""
        key = (id(reference), attack.name)
        if key not in self._thresholds:
            given = self.asked(attack, reference).with_side(GAMES["forgetting"].side(self.inputs.role))
            told, rng = self.told(attack, "forgetting"), generator(self.seed, "threshold", attack.name)
            # The whole reference is held beside its thresholds, so that its id stays its own.
            self._thresholds[key] = (reference, fleet_thresholds(told, given, rng=rng))
        return self._thresholds[key][1]

    def correct(self, test: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(m, t) bool: which test records each model gets right."""
        hit: NDArray[np.bool_] = test[:, :, 0, :].argmax(axis=-1) == self.inputs.test_labels
        return hit
