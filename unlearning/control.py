"""Comparison at equal utility: as far towards an unlearned model as the retained records permit.

From "Unlearning with Control" (Wang et al. 2024, arXiv 2406.09179), made for language models: methods are compared
after each was mixed with the original so far that all have the same utility, at weights (1 - a) theta_o + a theta_u,
since a method that destroys the model always forgets best. Here for classifiers: the utility is the accuracy on records
that are kept, and a is the largest at which 95 % of the original's is left.

Deviations. The paper measures extraction strength; a classifier has an accuracy. a is searched on a grid and then by
halving between the last good point and the next; utility need not fall all the way along the line, so it is the
largest point that was tried and is good. Statistics of batch normalisation are no weights: they are interpolated like
them (enough for unlearning by fine-tuning, whose models lie close together), or estimated anew on the kept records; at
the two ends they are the models' own. Counters are the unlearned model's.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Runtime
from mnemoscope.audit.records.request import Request
from mnemoscope.unlearning.base import Deletion, evaluating
from mnemoscope.unlearning.wrapper import Wrapper

__all__ = ["Controlled", "EqualUtility", "Point", "Statistics", "equal_utility", "mixed"]

Ids = NDArray[np.int64]
Statistics = Literal["interpolate", "estimate"]


@dataclass(frozen=True)
class Point:
    """One model on the line.

    Attributes:
        alpha: 0 is the original, 1 the unlearned model.
        kept: accuracy on the kept records.
        forgotten: accuracy on the forget records.
    """

    alpha: float
    kept: float
    forgotten: float


@dataclass(frozen=True, eq=False)
class EqualUtility:
    """The model at equal utility, and the line it was found on.

    Attributes:
        module: at ``alpha``, in eval mode.
        alpha: in [0, 1].
        curve: every point that was tried, by alpha.
    """

    module: nn.Module
    alpha: float
    curve: tuple[Point, ...]


def equal_utility(
    original: nn.Module,
    unlearned: nn.Module,
    data: DeviceData,
    *,
    kept: Ids,
    forget: Ids,
    runtime: Runtime,
    share: float = 0.95,
    points: int = 21,
    halvings: int = 5,
    statistics: Statistics = "interpolate",
) -> EqualUtility:
    """Go from the original towards the unlearned model as far as the accuracy on kept records permits.

    Args:
        original: the model before; left as it is.
        unlearned: of the same form; left as it is.
        data: the records.
        kept: (k,) ids whose accuracy is the utility.
        forget: (f,) ids, for the curve.
        runtime: threads, batch size.
        share: of the original's accuracy that must be left, in (0, 1].
        points: of the grid, both ends counted, at least 2.
        halvings: between the largest good point and the next of the grid.
        statistics: of batch normalisation between the ends: "interpolate", or "estimate" on the kept records.

    Raises:
        InvalidInput: models of different forms, impossible settings.
    """
    _check(share, points, halvings, statistics)
    floor, curve = -math.inf, []

    def tried(alpha: float) -> bool:
        module = mixed(original, unlearned, alpha, data, kept=kept, runtime=runtime, statistics=statistics)
        curve.append(Point(alpha, *(_accuracy(module, data, ids, runtime) for ids in (kept, forget))))
        return curve[-1].kept >= floor

    tried(0.0)
    floor = share * curve[0].kept
    grid = [float(alpha) for alpha in np.linspace(0.0, 1.0, points)]
    good = [0.0] + [alpha for alpha in grid[1:] if tried(alpha)]
    best = max(good)
    step = 1 / (points - 1)
    if best < 1.0:
        for _ in range(halvings):
            step /= 2
            if tried(best + step):
                best += step
    module = mixed(original, unlearned, best, data, kept=kept, runtime=runtime, statistics=statistics)
    return EqualUtility(module.eval(), best, tuple(sorted(curve, key=lambda point: point.alpha)))


def mixed(
    original: nn.Module,
    unlearned: nn.Module,
    alpha: float,
    data: DeviceData,
    *,
    kept: Ids,
    runtime: Runtime,
    statistics: Statistics = "interpolate",
) -> nn.Module:
    """Return the model at (1 - alpha) of the original and alpha of the unlearned one; the ends are exact.

    Args:
        original: at alpha 0; left as it is.
        unlearned: at alpha 1; left as it is.
        alpha: in [0, 1].
        data: the records.
        kept: (k,) ids that statistics are estimated on; two at least where they are.
        runtime: batch size.
        statistics: of batch normalisation, see the module.

    Raises:
        InvalidInput: models of different forms; fewer than two records to estimate statistics on.
    """
    ends = [
        {name: value.to(data.device) for name, value in model.state_dict().items()} for model in (original, unlearned)
    ]
    forms = [{name: value.shape for name, value in end.items()} for end in ends]
    if forms[0] != forms[1]:
        other = sorted(name for name in forms[0] | forms[1] if forms[0].get(name) != forms[1].get(name))
        raise InvalidInput(
            f"the two models are of different forms: {len(other)} entries differ, the first {other[0]!r}; there is no "
            "line between them"
        )
    module = copy.deepcopy(unlearned).to(data.device)
    module.load_state_dict(
        {
            name: torch.lerp(value, ends[1][name], alpha)
            if value.is_floating_point()
            else ends[1 if alpha else 0][name]
            for name, value in ends[0].items()
        }
    )
    if statistics == "estimate" and 0 < alpha < 1:
        _estimate_statistics(module, data, kept, runtime)
    return module


def _estimate_statistics(module: nn.Module, data: DeviceData, ids: Ids, runtime: Runtime) -> None:
    """Set running statistics of batch normalisation to their mean over batches of the records."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    norms = [part for part in norms if part.track_running_stats]
    if not norms:
        return
    if ids.size < 2:
        raise InvalidInput(f"statistics cannot be estimated on {ids.size} records; give two at least, or interpolate")
    momenta = [part.momentum for part in norms]
    positions = data.positions(np.sort(ids))
    with evaluating(module), torch.no_grad():
        for part in norms:
            part.reset_running_stats()
            part.momentum = None  # the plain mean over batches
            part.training = True
        for rows in torch.tensor_split(positions, math.ceil(positions.numel() / runtime.inference_batch)):
            module(data.inputs(rows))
    for part, momentum in zip(norms, momenta, strict=True):
        part.momentum = momentum


def _accuracy(module: nn.Module, data: DeviceData, ids: Ids, runtime: Runtime) -> float:
    labels = data.y[data.positions(ids)].cpu().numpy()
    answers = infer_logits(module, data, ids, runtime=runtime)[:, 0].argmax(axis=1)
    return float(np.mean(answers == labels))


def _check(share: float, points: int, halvings: int, statistics: str) -> None:
    if not 0 < share <= 1:
        raise InvalidInput(f"controlled: share={share!r} of the original's accuracy must be in (0, 1]")
    if points < 2 or halvings < 0:
        raise InvalidInput(f"controlled: points={points!r} must be at least 2 and halvings={halvings!r} at least 0")
    if statistics not in ("interpolate", "estimate"):
        raise InvalidInput(f"controlled: statistics={statistics!r} is unknown; allowed: 'interpolate', 'estimate'")


@dataclass(frozen=True)
class Controlled(Wrapper):
    """Forget by another method, then go back towards the original until 95 % of the retained accuracy is there.

    So methods can be compared at equal utility. What comes back shows forget records again that lie on the way.

    Attributes:
        method: name of the inner method.
        settings: its settings, a JSON object as text, or a mapping, which becomes text.
        share: of the original's accuracy on the retained records that must be left, in (0, 1].
        points: of the line that are tried, both ends counted, at least 2.
        halvings: between the largest good point and the next one.
        statistics: of batch normalisation between the ends: "interpolate", or "estimate" on the retained records.
    """

    method: str = "gradient_ascent"
    share: float = 0.95
    points: int = 21
    halvings: int = 5
    statistics: Statistics = "interpolate"
    name = "controlled"
    needs = Need.RETAIN_DATA
    optional = Need.FORGET_DATA | Need.VALIDATION_DATA | Need.HISTORY
    excluded = frozenset({"pruned"})  # mixed with a dense original, a pruned model is pruned no more
    unfit = "there is no line to it"

    def __post_init__(self) -> None:
        _check(self.share, self.points, self.halvings, self.statistics)
        super().__post_init__()

    def _check(self, model: nn.Module, request: Request, data: DeviceData, history: History | None) -> None:
        super()._check(model, request, data, history)
        self._inner()._check(model, request, data, history)

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        found = equal_utility(
            deletion.original,
            self._inner()._forget(work, deletion),
            deletion.data,
            kept=deletion.request.retain,
            forget=deletion.request.forget,
            runtime=deletion.runtime,
            share=self.share,
            points=self.points,
            halvings=self.halvings,
            statistics=self.statistics,
        )
        return found.module
