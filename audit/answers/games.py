"""The questions asked. Games change which roles are in and out; attacks do not change."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.records.design import Role

__all__ = ["GAMES", "Game"]


@dataclass(frozen=True)
class Game:
    """Which models are read, and which roles are in and out.

    Attributes:
        name: key in ``GAMES``.
        reads: models whose answers the adversary has.
        positives: roles on the "in" side.
        negatives: roles on the "out" side; every other role is left out of the reference and of the trials.
        retraining: what exact retraining scores in this game.
        no_op: what leaving the model as it was scores.
        question: one plain sentence for reports.
    """

    name: str
    reads: Literal["before", "after", "both"]
    positives: frozenset[Role]
    negatives: frozenset[Role]
    retraining: str
    no_op: str
    question: str

    def side(self, role: NDArray[np.int8]) -> NDArray[np.int8]:
        """Return ``Side`` for an array of roles, same shape."""
        side = np.full(role.shape, Side.LEAVE_OUT, np.int8)
        side[np.isin(role, sorted(self.positives))] = Side.IN
        side[np.isin(role, sorted(self.negatives))] = Side.OUT
        return side


def _game(
    name: str,
    reads: Literal["before", "after", "both"],
    positives: set[Role],
    negatives: set[Role],
    retraining: str,
    no_op: str,
    question: str,
) -> tuple[str, Game]:
    return name, Game(name, reads, frozenset(positives), frozenset(negatives), retraining, no_op, question)


GAMES: dict[str, Game] = dict(
    [
        _game(
            "membership",
            "before",
            {Role.KEPT, Role.FORGOTTEN},
            {Role.NEVER},
            "not applicable; the null is permuted roles",
            "not applicable",
            "Can the model before deletion tell its training records from records it never saw?",
        ),
        _game(
            "forgetting",
            "after",
            {Role.FORGOTTEN},
            {Role.NEVER},
            "null",
            "caught",
            "After deletion, can forgotten records be told from records the model never saw?",
        ),
        _game(
            "retention",
            "after",
            {Role.KEPT},
            {Role.NEVER},
            "the baseline, not null",
            "equal to before",
            "After deletion, can the records that stayed be told from records the model never saw?",
        ),
        _game(
            "difference-never",
            "both",
            {Role.FORGOTTEN},
            {Role.NEVER},
            "leaks by design: the first version held the record",
            "one half for a pure difference; what the first version alone gives to attacks that read it too",
            "Who holds both versions: can forgotten records be told from records that neither version saw?",
        ),
        _game(
            "difference-kept",
            "both",
            {Role.FORGOTTEN},
            {Role.KEPT},
            "leaks by design: only forgotten records changed their place",
            "one half: nothing tells which records were named",
            "Who holds both versions: can forgotten records be told from records that stayed?",
        ),
        _game(
            "indistinguishability",
            "after",
            set(),
            set(),
            "retrain against retrain is the floor",
            "caught",
            "Can an unlearned model be told from a retrained model? The unit is a model.",
        ),
    ]
)
