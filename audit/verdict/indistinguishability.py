"""The game whose unit is a model: can an unlearned model be told from a retrained one?

Both fleets have the same design, so model k of one and model k of the other are twins. The attack takes unlearned
models as "in" and retrained ones as "out", on records they both had to forget; both twins are left out while either is
scored. Leaving out only the target would betray its side by the counts, and summed over records that alone would push
the AUC of two retrained fleets far below one half.
"""

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.answers.views import Answers, Reference, Side
from mnemoscope.audit.statistics.roc import auc_estimate
from mnemoscope.audit.statistics.trials import Estimate, Trials

__all__ = ["tell_apart"]


def _joined(a: Reference, b: Reference, mask: NDArray[np.bool_]) -> Reference:
    def both(name: str) -> NDArray[np.float32]:
        return np.concatenate([getattr(a, name).logits, getattr(b, name).logits])

    side = np.full((2 * mask.shape[0], mask.shape[1]), Side.LEAVE_OUT, np.int8)
    side[: mask.shape[0]][mask] = Side.IN
    side[mask.shape[0] :][mask] = Side.OUT
    population = None
    if a.population is not None and b.population is not None:
        population = Answers(a.population.ids, a.population.labels, both("population"))
    return Reference(a.ids, a.labels, np.concatenate([a.logits, b.logits]), side=side, population=population)


def tell_apart(
    attack: Attack,
    unlearned: Reference,
    retrained: Reference,
    mask: NDArray[np.bool_],
    level: float,
    *,
    rng: np.random.Generator,
) -> Estimate:
    """AUC over models of "unlearned, not retrained".

    Args:
        attack: the primary attack.
        unlearned: answers of m models after deletion.
        retrained: answers of their m retrained twins.
        mask: (m, n) bool, the records each pair of twins had to forget.
        level: confidence of the interval (one value a model, clustered by pair of twins).
        rng: generator for the attack.

    Returns:
        AUC in [0, 1]; one half where nothing tells them apart.
    """
    m = mask.shape[0]
    joined = _joined(unlearned, retrained, mask)
    joined.signal("margin")  # computed once, shared by every selection below
    score = np.empty(2 * m)
    for k in range(m):
        scorer = attack.fit(joined.without([k, m + k]), rng=rng)
        for target in (k, m + k):
            score[target] = scorer.score(joined.target(target))[mask[k]].mean()
    is_unlearned = np.arange(2 * m) < m
    # Twins share a training set: the pair, not the model, is the unit of resampling.
    trials = Trials(score, is_unlearned, np.tile(np.arange(m), 2), np.arange(2 * m))
    return auc_estimate(trials, level)
