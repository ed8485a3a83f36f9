"""What can be named in a plan, with one line about each."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnemoscope.attacks.evidence import Evidence
    from mnemoscope.unlearning.evidence import MethodEvidence

__all__ = ["LISTINGS"]

Rows = list[tuple[str, str]]

DEFENCE_EXAMPLES = {"top": "1", "temperature": "5", "round": "2", "smooth": "0.1"}
"""A setting for each defence that takes one, so that what is listed can be copied into a plan."""


def _described(entries: Iterable[tuple[str, object]]) -> Rows:
    return [(name, _first_line(value)) for name, value in entries]


def _first_line(value: object) -> str:
    about = value if isinstance(value, type) or callable(value) else type(value)
    return ((about.__doc__ or "").strip().splitlines() or [""])[0]


def _with_evidence(registry: Mapping[str, Callable[..., object]]) -> Rows:
    """Each name with its line; what lacks part of its evidence says so in front."""
    from mnemoscope.attacks.evidence import load_evidence

    return _marked(registry, load_evidence())


def _marked(registry: Mapping[str, Callable[..., object]], evidence: "Mapping[str, Evidence | MethodEvidence]") -> Rows:
    rows: Rows = []
    for name, make in registry.items():
        row = evidence.get(name)
        lacks = ("all evidence",) if row is None else row.missing
        mark = f"[not available: lacks {', '.join(lacks)}] " if lacks else ""
        rows.append((name, mark + _first_line(type(make()))))
    return rows


def _attacks() -> Rows:
    from mnemoscope.attacks import ATTACKS

    return _with_evidence(ATTACKS)


def _measures() -> Rows:
    from mnemoscope.attacks import MEASURES

    return _with_evidence(MEASURES)


def _reconstructions() -> Rows:
    from mnemoscope.attacks import RECONSTRUCTIONS

    return _with_evidence(RECONSTRUCTIONS)


def _defences() -> Rows:
    from mnemoscope.audit.answers.defences import DEFENCES, parse_defence

    shown = {name: name if name == "label-only" else f"{name}:{DEFENCE_EXAMPLES[name]}" for name in DEFENCES}
    return [(text, _first_line(type(parse_defence(text)))) for text in shown.values()]


def _methods() -> Rows:
    from mnemoscope.unlearning import METHODS
    from mnemoscope.unlearning.evidence import load_method_evidence

    return _marked(METHODS, load_method_evidence())


def _datasets() -> Rows:
    from mnemoscope.audit.records.datasets import DATASETS

    described: Mapping[str, object] = DATASETS
    return _described(described.items())


def _models() -> Rows:
    from mnemoscope.audit.models.architectures import architecture_names
    from mnemoscope.audit.models.recipes import RECIPES

    recipes = [(name, f"recipe: {recipe.architecture}, {recipe.epochs} epochs") for name, recipe in RECIPES.items()]
    return recipes + [(name, "architecture") for name in architecture_names()]


LISTINGS: dict[str, Callable[[], Rows]] = {
    "attacks": _attacks,
    "measures": _measures,
    "reconstructions": _reconstructions,
    "defences": _defences,
    "methods": _methods,
    "datasets": _datasets,
    "models": _models,
}
