"""What publishing both versions of one model gives away: the difference games, described and never part of a verdict.

They are played by attacks that read both versions and no model of the attacker's own. Exact retraining leaks here too,
for the first version held the records: where there are retrained models, their row is what to read a number against.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import Attack, score_target
from mnemoscope.audit.answers.views import Need, View
from mnemoscope.audit.rng import generator
from mnemoscope.audit.verdict.onemodel_describe import finding, pooled
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.result import Finding, ModelRole
from mnemoscope.audit.verdict.versions import NOTES

__all__ = ["describe_versions", "plays_alone"]

Floats = NDArray[np.float64]

AGAINST = (("difference-never", Group.HOLDOUT), ("difference-kept", Group.RETAIN))
ALONE = "no retrained model stands beside it, and exact retraining gives something away here too"
SHARE_OF_NULL = 0.5
"""An attack that takes the bulk of a class for records that were not deleted needs more than this share of them."""


def plays_alone(attack: Attack) -> bool:
    """Whether an attack reads both versions and no model of the attacker's own."""
    return Need.BEFORE in attack.needs and not attack.needs & ~(Need.SCORES | Need.BEFORE)


def describe_versions(
    inputs: OneModelInput, attacks: Sequence[Attack], *, level: float, seed: int
) -> tuple[Finding, ...]:
    """Play the difference games on (before, after), and on (before, retrained) as what exact deletion gives away.

    Args:
        inputs: recorded answers; without ``before`` there is nothing to compare and nothing is returned.
        attacks: those of them that ``plays_alone`` holds for are run. One that finds its null in the target's own
            records (``by_class``) is left out where half of them or more were to be forgotten.
        level: confidence of intervals.
        seed: root seed.

    Returns:
        Forgotten against never-seen records, and against retained ones where they are given; rows of "after", then of
        "retrained", whose models are clustered in the interval.
    """
    if inputs.before is None:
        return ()
    groups = (Group.FORGET, Group.HOLDOUT, Group.RETAIN)
    rows = inputs.rows(*groups)
    group, ids = inputs.group[rows], inputs.ids[rows]
    forgotten = group == Group.FORGET
    found: list[Finding] = []
    for attack in attacks:
        from_its_own_records = getattr(attack, "by_class", False) is True
        if not plays_alone(attack) or (from_its_own_records and forgotten.mean() >= SHARE_OF_NULL):
            continue
        after = _score(inputs, attack, inputs.view("after", groups), seed)
        before = inputs.view("before", groups)
        retrained = [
            _score(inputs, attack, replace(inputs.view(j, groups), before=before), seed)
            for j in range(inputs.n_retrained)
        ]
        for game, other in AGAINST:
            take = forgotten | (group == other)
            pairs: tuple[tuple[ModelRole, list[Floats], str], ...] = (
                ("after", [after], "" if retrained else ALONE),
                ("retrained", retrained, NOTES["retrained"]),
            )
            for models, scores, note in pairs if (group == other).any() else ():
                if scores:
                    trials = pooled([score[take] for score in scores], forgotten[take], ids[take])
                    found.append(finding(attack.name, game, models, False, trials, level=level, note=note))
    return tuple(found)


def _score(inputs: OneModelInput, attack: Attack, view: View, seed: int) -> Floats:
    rng = generator(seed, "both versions", attack.name)
    return score_target(attack, inputs.reference((Group.FORGET, Group.HOLDOUT, Group.RETAIN), "none"), view, rng=rng)
