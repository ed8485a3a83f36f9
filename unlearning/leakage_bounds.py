"""How far a membership mechanism can get on the forget records: a bound with its conditions, in our reading.

"Silver Linings in the Shadows" (arXiv 2407.00866) speaks of an upper-bound analysis through a membership inference
mechanism; its derivation is not known to us. This one is ours, of textbook parts, and says what it bounds:

- A mechanism M is trained on inner answers (activations, logits, loss) of retained against some unseen records, and
  then scores forget records and other unseen records, which it has not seen. Its advantage is the largest difference
  between true and false positive rate over all thresholds, either way round: the Kolmogorov-Smirnov statistic.
- ``upper`` adds what chance can hide of it: with probability ``level`` both empirical distributions are as near to the
  true ones as Dvoretzky, Kiefer and Wolfowitz (1956, with Massart's constant) have it. It bounds **every attack that
  thresholds this M's score**.
- ``upper_any`` does the same for M's score and every single inner answer at once (the loss, each logit, each
  activation): every attack that thresholds one of them. It pays for their number by its logarithm.

Attacks that combine inner answers in another way than this M are bounded by neither. Both hold if forget and unseen
records are drawn alike, independently of the model and of M. After unlearning, forget records are not independent of
the model: then read the bounds as a description of these records.

What is not given: a bound by mutual information. By Pinsker's inequality no attack on h at even odds has an advantage
above sqrt(2 I), I in nats; but an estimate of I that is not too low, over tens of activations and from a few hundred
records, is nearly all chance. For models retrained without the records, that of ``leakage.Information`` was 2 to 3
nats, as much as with sides drawn at random, and from half a nat on the bound says nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Runtime
from mnemoscope.audit.statistics.counts import auc, roc_counts
from mnemoscope.unlearning.leakage import Network, inner_answers

__all__ = ["LeakageBounds", "advantage", "chance", "leakage_bounds"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAST = 4
"""Records of each set: the unseen ones are halved."""


@dataclass(frozen=True)
class LeakageBounds:
    """What one mechanism achieves on the forget records, and bounds of it; see the module for their conditions.

    Attributes:
        auc: of the mechanism's scores, forget against unseen records that it has not seen.
        advantage: largest |TPR - FPR| of the mechanism's score over all thresholds, in [0, 1].
        upper: bound of the true advantage with confidence ``level``, for attacks that threshold this score.
        advantage_any: the largest one among the mechanism's score and all single inner answers.
        upper_any: bound of all their true advantages at once, with confidence ``level``.
        n_scores: how many scores that are.
        n_forget: forget records scored.
        n_unseen: unseen records scored.
        level: confidence.
    """

    auc: float
    advantage: float
    upper: float
    advantage_any: float
    upper_any: float
    n_scores: int
    n_forget: int
    n_unseen: int
    level: float


def leakage_bounds(
    module: nn.Module,
    data: DeviceData,
    *,
    forget: Ids,
    retain: Ids,
    unseen: Ids,
    rng: np.random.Generator,
    runtime: Runtime,
    level: float = 0.95,
    steps: int = 300,
) -> LeakageBounds:
    """Train a mechanism on the model's inner answers and bound what it tells of the forget records.

    Args:
        module: to look into; left as it is.
        data: records on the device.
        forget: (k,) ids to be judged.
        retain: (r,) ids the model was trained on and keeps: what trained-on records look like.
        unseen: (m,) ids that took part in nothing, no tuning and no unlearning; half of them trains the mechanism.
        rng: divides the unseen records, draws retained ones and the mechanism's weights.
        runtime: threads, batch size.
        level: confidence of the bounds, in (0, 1).
        steps: of the mechanism's training.

    Raises:
        InvalidInput: too few records, records in two sets, or an impossible level.
        UnsupportedModel: the model has no linear layer, before which activations could be read.
    """
    _check(forget, retain, unseen, level)
    shuffled = rng.permutation(np.sort(unseen))
    known, judged = np.sort(shuffled[: unseen.size // 2]), np.sort(shuffled[unseen.size // 2 :])
    some = np.sort(rng.choice(np.sort(retain), size=min(retain.size, known.size), replace=False))
    mechanism = Network(int(rng.integers(2**62)), steps)
    with runtime.scope(), torch.no_grad():
        answers = [_answers(module, data, ids, runtime) for ids in (some, known, np.sort(forget), judged)]
        with torch.enable_grad():
            mechanism.refit(answers[0], answers[1])
        scores = [mechanism.log_odds(part).double().cpu().numpy() for part in answers[2:]]
    single = [part.cpu().numpy() for part in answers[2:]]
    n_scores = 1 + single[0].shape[1]
    own = advantage(*scores)
    widest = max([own, *(advantage(first, other) for first, other in zip(single[0].T, single[1].T, strict=True))])
    sizes = int(forget.size), int(judged.size)
    return LeakageBounds(
        auc=auc(*scores),
        advantage=own,
        upper=min(1.0, own + chance(*sizes, level=level)),
        advantage_any=widest,
        upper_any=min(1.0, widest + chance(*sizes, level=level, scores=n_scores)),
        n_scores=n_scores,
        n_forget=sizes[0],
        n_unseen=sizes[1],
        level=level,
    )


def advantage(forget: Floats, unseen: Floats) -> float:
    """Return the largest |TPR - FPR| over all thresholds of one score, in [0, 1].

    Args:
        forget: (k,) finite scores.
        unseen: (m,) finite scores.

    >>> advantage(np.array([2.0, 3.0]), np.array([0.0, 1.0, 2.0, 2.0]))
    0.5
    """
    counts = roc_counts(forget, unseen)
    return float(np.abs(counts.tpr - counts.fpr).max())


def chance(n_forget: int, n_unseen: int, *, level: float, scores: int = 1) -> float:
    """Return by how much true advantages may differ from empirical ones, for all of some scores at once.

    P(sup |F_n - F| > e) <= 2 exp(-2 n e^2), and 1 - ``level`` is shared evenly among two distributions a score.

    Args:
        n_forget: records of one side.
        n_unseen: records of the other.
        level: confidence, in (0, 1).
        scores: how many.

    >>> round(chance(200, 200, level=0.95), 3)
    0.209
    """
    return sum(math.sqrt(math.log(4 * scores / (1 - level)) / (2 * n)) for n in (n_forget, n_unseen))


def _check(forget: Ids, retain: Ids, unseen: Ids, level: float) -> None:
    if not 0 < level < 1:
        raise InvalidInput(f"leakage_bounds: level={level!r} must be in (0, 1)")
    for name, ids in (("forget", forget), ("retain", retain), ("unseen", unseen)):
        if ids.size < LEAST:
            raise InvalidInput(f"leakage_bounds: {name} has {ids.size} records; give {LEAST} or more")
    everything = np.concatenate([forget, retain, unseen])
    if np.unique(everything).size != everything.size:
        raise InvalidInput("leakage_bounds: a record plays one part; forget, retain and unseen share some")


def _answers(module: nn.Module, data: DeviceData, ids: Ids, runtime: Runtime) -> Tensor:
    parts = torch.split(data.positions(ids), runtime.inference_batch)
    return torch.cat([inner_answers(module, data.inputs(part), data.y[part]) for part in parts])
