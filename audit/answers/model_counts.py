"""Whether a design has models enough on both sides of every record for an attack to be fitted, asked beforehand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import Attack, FleetAttack
from mnemoscope.audit.answers.views import Need, Side
from mnemoscope.audit.errors import InvalidInput

__all__ = ["check_model_counts", "least_models"]

SIDES = ((Need.SHADOW_IN, Side.IN), (Need.SHADOW_OUT, Side.OUT))


def least_models(attack: Attack) -> int:
    """Return how many models a side every record must have in what the attack is fitted on.

    Its ``least_models`` where it names one; else one for an attack in closed form, which compares each record with
    models on its own sides, and none for one that learns from pairs of models and records, whichever there are.
    """
    named: int | None = getattr(attack, "least_models", None)
    if named is not None:
        return named
    return int(isinstance(attack, FleetAttack) and bool(attack.needs & (Need.SHADOW_IN | Need.SHADOW_OUT)))


def check_model_counts(
    attacks: Sequence[Attack], side: NDArray[np.int8], fold: NDArray[np.int8], *, where: str = "design.models"
) -> None:
    """Refuse attacks that would find too few models on a side of some record, all at once.

    Attacks in closed form are fitted on all models but the target, others on the models of the other folds.

    Args:
        attacks: those that will play the game.
        side: (m, n) int8 of ``Side``, of that game.
        fold: (m,) int8.
        where: the setting to change, for the message.

    Raises:
        InvalidInput: names each attack, what it needs and has, and how many models would do.
    """
    faults = []
    models, folds = side.shape[0], np.unique(fold)
    for attack in attacks:
        least, closed = least_models(attack), isinstance(attack, FleetAttack)
        for need, wanted in SIDES if least else ():
            if need not in attack.needs:
                continue
            on = side == wanted
            everywhere = int(on.sum(axis=0).min())
            # A target's own model is taken out of those on its side; a fold is taken out as a whole.
            left = everywhere - 1 if closed else min(int(on[fold != part].sum(axis=0).min()) for part in folds)
            if left >= least:
                continue
            enough = next(c for c in range(1, 4 * least + 4) if c - (1 if closed else -(-c // folds.size)) >= least)
            grown = max(-(-models * enough // max(everywhere, 1)), models + 1)
            among = "without the model that is scored" if closed else f"without the fold ({folds.size}) that is scored"
            faults.append(
                f"attack {attack.name!r} needs {least} or more models {wanted.name} for every record {among}, and "
                f"here a record has {left} of {models}: {where} of about {grown} would do"
            )
    if faults:
        raise InvalidInput("; ".join(faults) + f". Raise {where}, or leave these attacks out")
