"""Students of a model: trained on its soft answers to population records, watched as they learn.

Loss: the Kullback-Leibler divergence from the teacher's answers to the student's (Hinton et al. 2015, arXiv
1503.02531, at temperature one). Inputs are as recorded, without augmentation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.rng import child_seed

__all__ = ["Distillation", "distil", "student_logits"]


@dataclass(frozen=True)
class Distillation:
    """How students are trained: SGD with Nesterov momentum and a rate that falls to zero along a cosine.

    Attributes:
        epochs: passes over the population.
        lr: first learning rate.
        momentum: in [0, 1).
        weight_decay: on all parameters.
        batch_size: at most this many records a step; steps of an epoch differ by at most one record.
    """

    epochs: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128

    def __post_init__(self) -> None:
        allowed = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "lr": (0 < self.lr < float("inf"), "positive and finite"),
            "momentum": (0 < self.momentum < 1, "in (0, 1)"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or more, and finite"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
        }
        for field, (ok, rule) in allowed.items():
            if not ok:
                raise InvalidInput(f"{field}={getattr(self, field)!r} is not allowed; {field} must be {rule}")


def distil(
    student: nn.Module,
    inputs: Tensor,
    answers: Tensor,
    settings: Distillation,
    *,
    seed: int,
    on_epoch: Callable[[nn.Module], None] | None = None,
) -> None:
    """Train a student in place on a teacher's answers.

    Args:
        student: on the device of the inputs; left in eval mode.
        inputs: (z, ...) float32 population records.
        answers: (z, c) logits of the teacher on them, any float type.
        settings: how.
        seed: of the order of records and of the student's own randomness; global generators are left as they were.
        on_epoch: called with the student in eval mode after each epoch.

    Raises:
        InvalidInput: no records, or not as many answers.
        AuditError: the student's loss stopped being finite.
    """
    z = inputs.shape[0]
    if not z or answers.shape[0] != z or answers.ndim != 2:
        raise InvalidInput(f"answers {tuple(answers.shape)} must be (records, classes) for {z} records, at least one")
    soft = torch.log_softmax(answers.to(inputs.device, torch.float64), dim=1).to(torch.float32)
    order = torch.Generator().manual_seed(child_seed(seed, "order"))
    steps = -(-z // settings.batch_size)
    optimizer = torch.optim.SGD(
        [p for p in student.parameters() if p.requires_grad],
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    step, all_steps = 0, settings.epochs * steps
    with torch.enable_grad(), seeded(child_seed(seed, "noise")):
        for _ in range(settings.epochs):
            student.train()
            for part in torch.tensor_split(torch.randperm(z, generator=order).to(inputs.device), steps):
                logits = torch.log_softmax(student(inputs[part]).to(torch.float32), dim=1)
                loss = nn.functional.kl_div(logits, soft[part], reduction="batchmean", log_target=True)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * (1 + math.cos(math.pi * step / all_steps)) / 2
                optimizer.step()
                step += 1
            if not bool(torch.isfinite(loss)):
                raise AuditError(
                    f"distillation diverged: the loss is {float(loss)} at lr={settings.lr:g}; lower the learning rate"
                )
            student.eval()
            if on_epoch is not None:
                on_epoch(student)
    student.eval()


def student_logits(student: nn.Module, inputs: Tensor, *, batch: int = 1024) -> Tensor:
    """Return a student's logits (k, c) float32 in eval mode, in batches, without gradient."""
    with torch.no_grad():
        return torch.cat([student(part).to(torch.float32) for part in torch.split(inputs, batch)])
