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
    "sisa": partial(_make, "sisa", "SISA"),
    "noop": partial(_make, "noop", "NoOp"),
    "finetune": partial(_make, "finetune", "FineTune"),
    "gradient_ascent": partial(_make, "gradient_ascent", "GradientAscent"),
    "influence": partial(_make, "influence", "Influence"),
    "influence_exact": partial(_make, "influence_exact", "InfluenceExact"),
    "influence_first_order": partial(_make, "influence_first_order", "InfluenceFirstOrder"),
    "influence_second_order": partial(_make, "influence_second_order", "InfluenceSecondOrder"),
    "fisher": partial(_make, "fisher", "Fisher"),
    "fisher_empirical": partial(_make, "fisher_empirical", "FisherEmpirical"),
    "ssd": partial(_make, "ssd", "SSD"),
    "ssd_label_free": partial(_make, "ssd", "SSDLabelFree"),
    "unrolling_sgd": partial(_make, "unrolling_sgd", "UnrollingSGD"),
    "top_k_perturbation_reading": partial(_make, "parameter_perturbation", "TopKPerturbation"),
    "random_k_perturbation_reading": partial(_make, "parameter_perturbation", "RandomKPerturbation"),
    "pruned": partial(_make, "pruned", "Pruned"),
    "neggrad_plus": partial(_make, "neggrad_plus", "NegGradPlus"),
    "random_labels": partial(_make, "random_labels", "RandomLabels"),
    "salun": partial(_make, "salun", "SalUn"),
    "scrub": partial(_make, "scrub", "Scrub"),
    "scrub_r": partial(_make, "scrub", "ScrubRewind"),
    "bad_teacher": partial(_make, "bad_teacher", "BadTeacher"),
    "l1_sparse": partial(_make, "l1_sparse", "L1Sparse"),
    "amnesiac": partial(_make, "amnesiac", "Amnesiac"),
    "cf_k": partial(_make, "last_layers", "CFk"),
    "eu_k": partial(_make, "last_layers", "EUk"),
    "amun": partial(_make, "amun", "Amun"),
    "boundary_shrink": partial(_make, "boundary", "BoundaryShrink"),
    "boundary_expand": partial(_make, "boundary", "BoundaryExpand"),
    "relevance_perturbation": partial(_make, "relevance", "RelevancePerturbation"),
    "noisy_finetune_reading": partial(_make, "noisy_finetune_reading", "NoisyFineTune"),
    "pseudo_probability_reading": partial(_make, "pseudo_probability_reading", "PseudoProbability"),
    "scissorhands": partial(_make, "scissorhands", "Scissorhands"),
    "unsir": partial(_make, "unsir", "UNSIR"),
    "condensation": partial(_make, "condensation", "Condensation"),
    "silver_linings_reading": partial(_make, "silver_linings_reading", "SilverLiningsReading"),
    "mini_unlearning_reading": partial(_make, "mini_unlearning_reading", "MiniUnlearning"),
    "adversarial": partial(_make, "adversarial", "Adversarial"),
    "controlled": partial(_make, "control", "Controlled"),
}
"""Every method by name; an entry takes the method's settings, e.g. ``METHODS["finetune"](epochs=5)``."""

DEFAULT_METHODS = ("noop", "finetune", "gradient_ascent", "retrain")
"""What a plan without subjects compares: the control that must be caught, the two baselines of nearly every paper, and
exact retraining."""
