"""Bad Teacher: a student that imitates an untrained network on forget records and the original on retained ones.

Chundawat, Tarun, Mandal and Kankanhalli 2023, "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks using an
Incompetent Teacher" (arXiv 2205.08096). All forget records are mixed with a random part of the retained ones, drawn
once. On each record the student descends KL(teacher || student) at temperature T; the teacher is the incompetent one, a
network with fresh random weights, for forget records and the original for the others.

What differs, and why:

- The divergence is a mean over records. The published code takes torch's default, a mean over records times classes;
  Adam, which it uses, does not see that factor, so its rate stays.
- The forget records are taught the answers of random weights, which are nearly uniform: far less sure than a retrained
  network is about them. That is the method, and a membership signal of its own.
- One epoch at Adam's 0.0001 suits tens of thousands of records. A few hundred give a handful of steps, which forget
  nothing: raise ``epochs`` or ``lr`` there.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.training import fresh_model
from mnemoscope.unlearning.base import Batch, Deletion, Method
from mnemoscope.unlearning.distances import divergence

__all__ = ["BadTeacher"]


@dataclass(frozen=True)
class BadTeacher(Method):
    """Imitate an untrained network on forget records and the original model on a part of the retained ones.

    Attributes:
        epochs: passes over forget records and the part of the retained, at least 0.
        lr: Adam's learning rate.
        retain_share: part of the retained records that is used, in (0, 1].
        temperature: of both teachers and the student, positive.
        batch_size: records a step.
    """

    epochs: int = 1
    lr: float = 1e-4
    retain_share: float = 0.3
    temperature: float = 1.0
    batch_size: int = 256
    name = "bad_teacher"
    knobs = {"epochs": (1, 5, 10)}
    needs = Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1:
            raise InvalidInput(
                f"bad_teacher: epochs={self.epochs!r} must be at least 0, batch_size={self.batch_size!r} at least 1"
            )
        if not 0 < self.retain_share <= 1:
            raise InvalidInput(f"bad_teacher: retain_share={self.retain_share!r} must be in (0, 1]")
        for field, value in (("lr", self.lr), ("temperature", self.temperature)):
            if not 0 < value < math.inf:
                raise InvalidInput(f"bad_teacher: {field}={value!r} must be positive and finite")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        request, data = deletion.request, deletion.data
        bad = fresh_model(deletion.recipe, data, seed=deletion.seed()).to(data.device).eval()
        part = max(1, round(self.retain_share * request.retain.size))
        kept = deletion.rng.choice(np.sort(request.retain), part, replace=False)
        forget = torch.zeros(data.ids.size, dtype=torch.bool, device=data.device)
        forget[data.positions(request.forget)] = True
        stream = deletion.stream(np.concatenate([request.forget, kept]), batch_size=self.batch_size)
        optimizer = deletion.optimizer(work, self.lr, kind="adam", momentum=0.9, weight_decay=0.0)
        for _ in deletion.epochs(self.epochs):
            for batch in deletion.batches(stream):
                target = self._target(bad, deletion, batch, forget[batch.positions])
                deletion.descend(optimizer, divergence(target, deletion.answer(work, batch.x), self.temperature))
        return work

    @torch.no_grad()
    def _target(self, bad: nn.Module, deletion: Deletion, batch: Batch, forget: Tensor) -> Tensor:
        good = (deletion.answer(deletion.original, batch.x) / self.temperature).softmax(dim=1)
        poor = (deletion.answer(bad, batch.x) / self.temperature).softmax(dim=1)
        return torch.where(forget[:, None], poor, good)
