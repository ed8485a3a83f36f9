"""What can be named in a plan, with one line about each."""

from collections.abc import Callable, Iterable, Mapping

__all__ = ["LISTINGS"]

Rows = list[tuple[str, str]]


def _described(entries: Iterable[tuple[str, object]]) -> Rows:
    return [(name, _first_line(value)) for name, value in entries]


def _first_line(value: object) -> str:
    about = value if isinstance(value, type) or callable(value) else type(value)
    return ((about.__doc__ or "").strip().splitlines() or [""])[0]


def _attacks() -> Rows:
    from mnemoscope.attacks import ATTACKS

    return _described((name, type(make())) for name, make in ATTACKS.items())


def _methods() -> Rows:
    from mnemoscope.unlearning import METHODS

    return _described((name, type(make())) for name, make in METHODS.items())


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
    "methods": _methods,
    "datasets": _datasets,
    "models": _models,
}
