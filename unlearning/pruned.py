"""Prune first, then unlearn (Jia, Liu et al. 2023, arXiv 2304.04934, section 4).

Sparsity shrinks the gap between approximate unlearning and retraining. The paper's models are sparse before anybody
asks for a deletion; here a dense model is given, so the method prunes it and trains the survivors first. It has two
costs then: those of the inner method, and those of ``recovery``, which the paper counts to the original's training.
For a model that is sparse already, ``strategy="zeros"`` keeps its zeros and starts with the inner method; for one to
start with, see ``pruning.sparse_original``.

Deviations, each a choice. Survivors are trained on the retained records: a model that was asked to forget is not
trained on the forget records once more. The paper sets the survivors back to their values after 8 epochs, which only
the training knows; where its ``History`` is given it is replayed for them (and early values have seen the forget
records too), otherwise survivors keep their trained values. The inner method "retrain" trains a fresh model with the
masks that the given model's training found, as the paper's sparse reference does; those masks have seen the forget
records, so it is not exact.

Pitfall: a mask that is applied once and not kept is undone by momentum and weight decay of the next step, and by any
method that writes weights; ours holds for every step (``masks.py``).
"""

import copy
import dataclasses
from dataclasses import dataclass

from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.training import fit, fresh_model
from mnemoscope.audit.records.request import Request
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.masks import Masks
from mnemoscope.unlearning.pruning import Pruning, Strategy, early_weights
from mnemoscope.unlearning.wrapper import Wrapper

__all__ = ["Pruned", "prune_given"]


def prune_given(work: nn.Module, deletion: Deletion, pruning: Pruning, *, rewind: int = 8) -> Masks:
    """Prune the given model's copy in place and train the survivors on the retained records.

    Args:
        work: a copy of the model.
        deletion: its history, where there is one, gives the weights after ``rewind`` epochs to go back to.
        pruning: how.
        rewind: epochs of the model's own training.
    """
    rewound = None
    if deletion.history is not None and pruning.levels and pruning.strategy != "zeros":
        rewound = early_weights(
            deletion.history, deletion.original, deletion.recipe, deletion.data, epochs=rewind, runtime=deletion.runtime
        )
    return pruning.run(
        work,
        deletion.recipe,
        deletion.data,
        deletion.request.retain,
        seed=deletion.seed(),
        runtime=deletion.runtime,
        rewound=rewound,
    )


@dataclass(frozen=True)
class Pruned(Wrapper):
    """Prune the model, train the surviving weights on the retained records, then forget by another method.

    Attributes:
        method: name of the inner method; "retrain" trains a fresh model with the masks.
        settings: its settings, a JSON object as text, or a mapping, which becomes text.
        strategy: "magnitude" (one-shot over all layers), "layerwise", "random", "synflow", "iterative", or "zeros"
            for a model that is sparse already.
        sparsity: share of the weights of convolutions and linear layers that is pruned, in [0, 1); 0.95 as in the
            paper.
        recovery: epochs of the survivors' training, after each round of "iterative"; None is the recipe's, as in the
            paper, which alone costs as much as retraining.
        rewind: epochs after which the survivors' early values are taken, where the training's history is given.
    """

    method: str = "finetune"
    strategy: Strategy = "magnitude"
    sparsity: float = 0.95
    recovery: int | None = None
    rewind: int = 8
    name = "pruned"
    knobs = {"sparsity": (0.8, 0.9, 0.95)}
    needs = Need.RETAIN_DATA
    optional = Need.FORGET_DATA | Need.VALIDATION_DATA | Need.HISTORY
    unfit = "it cannot be given masks"

    def __post_init__(self) -> None:
        if self.rewind < 0:
            raise InvalidInput(f"pruned: rewind={self.rewind!r} must be at least 0")
        self._pruning()
        super().__post_init__()

    def _pruning(self) -> Pruning:
        return Pruning(self.strategy, self.sparsity, self.recovery)

    def _inner(self) -> Method:
        inner = super()._inner()
        if Need.HISTORY in inner.needs:
            raise InvalidInput(
                f"pruned: {self.method!r} undoes steps of the model's own training, which a pruned model has not had"
            )
        return inner

    def _check(self, model: nn.Module, request: Request, data: DeviceData, history: History | None) -> None:
        super()._check(model, request, data, history)
        self._inner()._check(model, request, data, None)

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        inner = self._inner()
        masks = prune_given(work, deletion, self._pruning(), rewind=self.rewind)
        if inner.name == "retrain":
            return _train_anew(work, deletion, masks)
        sparse = copy.deepcopy(work).eval().requires_grad_(False)
        within = dataclasses.replace(
            deletion, method=f"{self.name} {inner.name}", original=sparse, history=None, _losses=[]
        )
        with masks.enforced(work):
            result = inner._forget(work.train(), within)
        try:
            masks.apply(result)
        except InvalidInput as error:
            raise AuditError(f"pruned: {inner.name!r} returns a model of another form: {error}") from error
        return result


def _train_anew(work: nn.Module, deletion: Deletion, masks: Masks) -> nn.Module:
    fresh = fresh_model(deletion.recipe, deletion.data, seed=deletion.seed())
    work.load_state_dict(fresh.state_dict())
    with masks.enforced(work):
        fit(
            work,
            deletion.recipe,
            deletion.data,
            deletion.request.retain,
            seed=deletion.seed(),
            runtime=deletion.runtime,
        )
    return work
