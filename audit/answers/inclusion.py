"""How much of the pool of records each model of a game trained on: what the finite-population correction needs to know.

The sides of a game do not show it. In the forgetting game the records that stayed belong to neither side, and records
that every model trains on are not audited at all.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.games import Game
from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.records.design import Role

__all__ = ["inclusion_of", "told_inclusion"]

TRAINED = {
    "before": (Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN),
    "after": (Role.BACKGROUND, Role.KEPT),
    "both": (Role.BACKGROUND, Role.KEPT),
}


def inclusion_of(game: Game, role: NDArray[np.int8]) -> float:
    """Return the share f for which 1 - f is the variance between these models over that between fresh training sets.

    Sum of p (1 - p) over the sum of p is the remaining 1 - f, where p is the share of models that train on a record:
    for n of N records drawn alike, f = n / N as in arXiv 2605.25819; records that every model trains on vary nothing
    and count in full, so that f is larger than the share of records in training.

    Args:
        game: says which models are read. After deletion they are taken as trained on what stays, as exact deletion
            leaves them.
        role: (m, N) int8 roles of all records of the design.

    >>> from mnemoscope.audit.answers.games import GAMES
    >>> inclusion_of(GAMES["membership"], np.array([[2, 3], [3, 2]], np.int8))
    0.5
    """
    share = np.isin(role, TRAINED[game.reads]).mean(axis=0)
    total = float(share.sum())
    return 1.0 if total == 0 else 1.0 - float((share * (1 - share)).sum()) / total


def told_inclusion(attacks: Sequence[Attack], game: Game, role: NDArray[np.int8]) -> list[Attack]:
    """Return the attacks, those that ask for the inclusion share (``inclusion=None``) with that of the game.

    Arguments as of ``inclusion_of``. Where no training set varies there is nothing to correct and none is told.
    """
    asking = [hasattr(attack, "inclusion") and attack.inclusion is None for attack in attacks]
    share = inclusion_of(game, role) if any(asking) else 1.0
    if share >= 1:
        return list(attacks)
    return [replace(a, inclusion=share) if asks else a for a, asks in zip(attacks, asking, strict=True)]  # type: ignore[type-var]
