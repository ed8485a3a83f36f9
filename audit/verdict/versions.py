"""What publishing both versions gives away: the difference games, described and never part of a verdict.

Exact retraining leaks here by design, for the first version held the record. What the numbers mean is read against
three controls: retrained twins, models trained anew on everything ("reseeded": nothing was deleted), and no-op.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import Attack, score_fleet
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.verdict.describe import finding
from mnemoscope.audit.verdict.result import Finding, ModelRole

__all__ = ["VersionGames"]

DIFFERENCE_GAMES = ("difference-never", "difference-kept")
NOTES: dict[ModelRole, str] = {
    "after": "",
    "retrained": "what exact retraining gives away to one who holds both versions",
    "reseeded": "nothing was deleted, only the seed is new",
    "no-op": "one version twice",
}


class VersionGames:
    """Scores pairs of versions in both difference games; what subjects share is computed once.

    Args:
        attacks: those that read both versions.
        role: (m, n) roles of the audited records.
        fold: (m,) folds of models.
        pairs: references of the shared pairs by role ("retrained", "reseeded", "no-op"), each with its ``before``.
        level: confidence of intervals.
        asked: gives a reference the queries that an attack reads.
        rng: generator of an attack's randomness, by attack and game.
    """

    def __init__(
        self,
        attacks: Sequence[Attack],
        role: NDArray[np.int8],
        fold: NDArray[np.int8],
        *,
        pairs: Mapping[ModelRole, Reference],
        level: float,
        asked: Callable[[Attack, Reference], Reference],
        rng: Callable[[str, str], np.random.Generator],
    ) -> None:
        self.attacks, self.role, self.fold = tuple(attacks), role, fold
        self.level, self.asked, self.rng = level, asked, rng
        self._shared = {
            (attack.name, game): [self._finding(attack, game, models, pair) for models, pair in pairs.items()]
            for attack in self.attacks
            for game in DIFFERENCE_GAMES
        }

    def findings(self, after: Reference) -> list[Finding]:
        """Return the findings of one subject, its controls beside it.

        Args:
            after: the models after deletion, with ``before``.
        """
        rows: list[Finding] = []
        for attack in self.attacks:
            for game in DIFFERENCE_GAMES:
                rows += [self._finding(attack, game, "after", after), *self._shared[attack.name, game]]
        return rows

    def _finding(self, attack: Attack, game: str, models: ModelRole, pair: Reference) -> Finding:
        side = GAMES[game].side(self.role)
        given = self.asked(attack, pair).with_side(side)
        scores = score_fleet(attack, given, rng=self.rng(attack.name, game))
        fleet = FleetScores(scores, side, self.fold)
        return finding(attack.name, game, models, False, fleet, level=self.level, note=NOTES[models])
