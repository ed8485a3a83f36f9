"""Live, counted access to one model: what label-only and white-box attacks ask beside the recorded answers."""

import copy
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Runtime

__all__ = ["ModelOracle", "reinitialised"]


class ModelOracle:
    """One model that can be asked again (protocol ``Oracle``).

    Attributes:
        white_box: whether ``module`` may be called.
        labels_only: whether the model gives its predicted class and nothing else.
        predictions: inputs answered so far.
        gradients: inputs differentiated so far, as reported by those who differentiate.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        data: DeviceData,
        runtime: Runtime,
        *,
        labels_only: bool = False,
        white_box: bool = True,
        fresh: Callable[[int], nn.Module] | None = None,
    ) -> None:
        """Take a model, or what loads it.

        Args:
            module: gives (b, c) logits for (b, ...) inputs; it comes to live on the data's device, in eval mode. A
                function without arguments is called each time the model is needed, so that many oracles hold no model
                in memory; it may keep the last ones.
            data: the records on the device.
            runtime: threads, batch size.
            labels_only: refuse scores.
            white_box: hand out the module.
            fresh: makes an untrained model of the same architecture for a seed; by default the module is copied and
                its layers draw new weights by their own ``reset_parameters``.

        Raises:
            InvalidInput: labels only and white box at once: who has the parameters has the scores.
        """
        if labels_only and white_box:
            raise InvalidInput("labels_only=True, white_box=True: who has the parameters has the scores; allow one")
        self.labels_only, self.white_box = labels_only, white_box
        self.predictions = self.gradients = 0
        self._source, self._data, self._runtime, self._fresh = module, data, runtime, fresh
        self._known: dict[str, NDArray[np.float64]] = {}
        self._outputs: int | None = None

    @property
    def device(self) -> torch.device:
        """Where inputs and answers lie."""
        return self._data.device

    @property
    def n_classes(self) -> int:
        """Number of outputs; found out by a first question, which is not counted."""
        if self._outputs is None:
            self._answer(self.inputs(self._data.ids[:1]))
        return cast(int, self._outputs)

    def inputs(self, ids: NDArray[np.int64]) -> Tensor:
        """Return the records as the model takes them, (k, ...) float32 on the device, normalised."""
        return self._data.inputs(self._data.positions(ids))

    def labels(self, ids: NDArray[np.int64]) -> Tensor:
        """Return the true classes, (k,) int64 on the device."""
        return self._data.y[self._data.positions(ids)]

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits (k, c) float32, in batches and without gradient; counted.

        Raises:
            MissingNeed: the model answers with labels only.
            UnsupportedModel: answers of a wrong shape.
            AuditError: answers that are not finite.
        """
        if self.labels_only:
            raise MissingNeed(
                "this model answers with labels only: its logits cannot be asked for. "
                "Use attacks that read labels, or give access to the scores"
            )
        return self._ask(inputs, lambda answer: answer)

    def predict(self, inputs: Tensor) -> Tensor:
        """Return predicted classes (k,) int64 (the first of tied ones), in batches; counted."""
        return self._ask(inputs, lambda answer: answer.argmax(dim=1))

    def module(self) -> nn.Module:
        """Return the model itself in eval mode, not to be changed; copy it before training.

        Raises:
            MissingNeed: the adversary has no white-box access.
        """
        if not self.white_box:
            raise MissingNeed(
                "this adversary has no access to the model's parameters. "
                "Leave white-box attacks out, or give white-box access"
            )
        return self._module()

    def fresh_module(self, seed: int) -> nn.Module:
        """Return an untrained model of the same architecture on the device; its weights depend on the seed alone.

        Every adversary has it: an architecture is public, its weights are not.

        Raises:
            UnsupportedModel: a layer with weights cannot draw new ones.
        """
        made = reinitialised(self._module(), seed) if self._fresh is None else self._fresh(seed)
        return made.to(self.device)

    def count_gradients(self, number: int) -> None:
        """Add to ``gradients``."""
        self.gradients += number

    def recall(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return what was computed for this model under ``key``, computing it the first time; read-only."""
        if key not in self._known:
            values = np.array(compute(), np.float64)
            values.flags.writeable = False
            self._known[key] = values
        return self._known[key]

    def _module(self) -> nn.Module:
        module = self._source if isinstance(self._source, nn.Module) else self._source()
        return module.to(self.device).eval()

    def _ask(self, inputs: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        if inputs.shape[0] == 0:
            raise InvalidInput("no inputs to ask the model about")
        self.predictions += int(inputs.shape[0])
        return self._answer(inputs, read)

    def _answer(self, inputs: Tensor, read: Callable[[Tensor], Tensor] = lambda answer: answer) -> Tensor:
        module = self._module()
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        parts = []
        with self._runtime.scope(), torch.no_grad():
            for batch in torch.split(inputs, self._runtime.inference_batch):
                answer = module(batch.to(self.device, dtype))
                if not isinstance(answer, Tensor) or answer.ndim != 2 or answer.shape[0] != batch.shape[0]:
                    got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
                    raise UnsupportedModel(
                        f"the model answers {got} for {batch.shape[0]} records; it must be a tensor "
                        f"({batch.shape[0]}, classes) of logits: define logits(model, batch) in subject.py"
                    )
                bad = ~torch.isfinite(answer).all(dim=1)
                if bool(bad.any()):
                    raise AuditError(
                        f"logits of {int(bad.sum())} of {batch.shape[0]} inputs are not finite; "
                        "check the checkpoint and the preprocessing"
                    )
                self._outputs = int(answer.shape[1])
                parts.append(read(answer.float()))
        return torch.cat(parts)


def reinitialised(module: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a module whose layers have drawn new weights by their own ``reset_parameters``.

    Args:
        module: left as it is.
        seed: of the draw; the global generators are left as they were.

    Raises:
        UnsupportedModel: a layer holds weights of its own and cannot draw new ones.
    """
    made = copy.deepcopy(module)
    with seeded(seed), torch.no_grad():
        for name, part in made.named_modules():
            own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
            elif own:
                raise UnsupportedModel(
                    f"layer {name or 'of the model'!r} ({type(part).__name__}) cannot draw new weights: "
                    "give it a method reset_parameters()"
                )
    return made
