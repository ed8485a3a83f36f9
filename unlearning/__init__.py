"""One file a method; ``METHODS`` names them all and loads a file only when its method is made."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnemoscope.audit.models.protocol import UnlearningMethod

__all__ = ["DEFAULT_METHODS", "METHODS"]


def _make(module: str, kind: str, **settings: str | int | float | bool | None) -> "UnlearningMethod":
    method: UnlearningMethod = getattr(import_module(f"mnemoscope.unlearning.{module}"), kind)(**settings)
    return method


METHODS: dict[str, Callable[..., "UnlearningMethod"]] = {
    "retrain": partial(_make, "retrain", "Retrain"),
    "noop": partial(_make, "noop", "NoOp"),
    "finetune": partial(_make, "finetune", "FineTune"),
    "gradient_ascent": partial(_make, "gradient_ascent", "GradientAscent"),
}
"""Every method by name; an entry takes the method's settings, e.g. ``METHODS["finetune"](epochs=5)``."""

DEFAULT_METHODS = ("noop", "finetune", "gradient_ascent", "retrain")
"""What a full audit compares: the two controls, and the two baselines of nearly every paper."""
