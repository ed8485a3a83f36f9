"""One file an attack; ``ATTACKS`` names them all and loads a file only when its attack is made."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.answers.reconstruction import Reconstruction
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.statistics.measures import Measure

__all__ = ["ATTACKS", "DEFAULT_ATTACKS", "MEASURES", "PRIMARY_ORDER", "RECONSTRUCTIONS", "default_attacks"]


def _make(module: str, kind: str, **settings: str | int | float | bool) -> Attack:
    attack: Attack = getattr(import_module(f"mnemoscope.attacks.{module}"), kind)(**settings)
    return attack


ATTACKS: dict[str, Callable[..., Attack]] = {
    "lira": partial(_make, "lira", "LiRA"),
    "lira_shared": partial(_make, "lira", "LiRA", variance="shared"),
    "lira_per_record": partial(_make, "lira", "LiRA", variance="per-record"),
    "lira_offline": partial(_make, "lira", "LiRA", online=False),
    "lira_offline_shared": partial(_make, "lira", "LiRA", online=False, variance="shared"),
    "lira_offline_per_record": partial(_make, "lira", "LiRA", online=False, variance="per-record"),
    "rmia": partial(_make, "rmia", "RMIA"),
    "rmia_offline": partial(_make, "rmia", "RMIA", online=False),
    "population": partial(_make, "population", "Population"),
    "loss": partial(_make, "threshold", "Threshold", rule="loss"),
    "confidence": partial(_make, "threshold", "Threshold", rule="confidence"),
    "entropy": partial(_make, "threshold", "Threshold", rule="entropy"),
    "modified_entropy": partial(_make, "threshold", "Threshold", rule="modified_entropy"),
    "correctness": partial(_make, "threshold", "Threshold", rule="correctness"),
    "loss_by_class": partial(_make, "threshold", "Threshold", rule="loss", by_class=True),
    "confidence_by_class": partial(_make, "threshold", "Threshold", rule="confidence", by_class=True),
    "entropy_by_class": partial(_make, "threshold", "Threshold", rule="entropy", by_class=True),
    "modified_entropy_by_class": partial(_make, "threshold", "Threshold", rule="modified_entropy", by_class=True),
    "correctness_by_class": partial(_make, "threshold", "Threshold", rule="correctness", by_class=True),
}
"""Every attack by name; an entry also takes other settings of the attack, e.g. ``ATTACKS["rmia"](gamma=1.0)``."""

MEASURES: dict[str, Callable[..., Measure]] = {}
"""Every measure of forgetting by name: functions of whole fleets, each with its floor beside it."""


def _reconstruction(module: str, kind: str, **settings: str | int | float | bool) -> Reconstruction:
    made: Reconstruction = getattr(import_module(f"mnemoscope.attacks.{module}"), kind)(**settings)
    return made


RECONSTRUCTIONS: dict[str, Callable[..., Reconstruction]] = {
    "linear_reconstruction": partial(_reconstruction, "linear_reconstruction", "LinearReconstruction"),
    "unlearning_inversion": partial(_reconstruction, "unlearning_inversion", "UnlearningInversion"),
    "label_inversion": partial(_reconstruction, "unlearning_inversion", "LabelInversion"),
    "model_inversion": partial(_reconstruction, "model_inversion", "ModelInversion"),
    "attribute_inference": partial(_reconstruction, "attribute_inference", "AttributeInference"),
}
"""Every attack that recovers data instead of scoring records, by name."""

PRIMARY_ORDER = ("lira", "lira_offline", "rmia", "rmia_offline", "population", "modified_entropy")
"""Strongest first: the primary attack of a plan is the first one that the input allows."""

DEFAULT_ATTACKS = (
    "lira",
    "lira_offline",
    "rmia",
    "rmia_offline",
    "population",
    "loss",
    "correctness",
    "modified_entropy_by_class",
    "modified_entropy",
)
"""What an audit runs unless told otherwise: each published idea once, in its best variant."""


def default_attacks(offered: Need) -> tuple[str, ...]:
    """Return the default attacks that the given inputs allow, offline variants only where online ones are not.

    Args:
        offered: what view and reference provide, see ``offered_by``.

    Returns:
        Names in ``ATTACKS``; the first one in ``PRIMARY_ORDER`` among them is the default primary attack.

    >>> default_attacks(Need.SCORES | Need.SHADOW_OUT | Need.POPULATION)
    ('lira_offline', 'rmia_offline', 'population', 'loss', 'correctness', 'modified_entropy')
    >>> default_attacks(Need.SCORES)
    ('loss', 'correctness', 'modified_entropy')
    >>> default_attacks(Need.NOTHING)
    ('correctness',)
    """
    allowed = [name for name in DEFAULT_ATTACKS if not ATTACKS[name]().needs & ~offered]
    online = {name for name in allowed if not name.endswith("_offline")}
    return tuple(name for name in allowed if name in online or name.removesuffix("_offline") not in online)
