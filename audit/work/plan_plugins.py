"""Attacks and methods of a plan: from a registry that is handed in, or from the user's own file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.keys import Json
from mnemoscope.audit.work.plan_parts import AttackSpec, SubjectPlan, as_json, nearest
from mnemoscope.audit.work.plan_whole import Plan
from mnemoscope.audit.work.plugins import is_plugin, load_plugin, make_plugin
from mnemoscope.audit.work.tuned import resolved_settings

__all__ = ["check_names", "load_attack", "load_method"]

T = TypeVar("T")


def load_attack(spec: AttackSpec, registry: Mapping[str, Callable[..., T]]) -> T:
    """Make one attack of a plan: from the registry, or from the user's own file.

    Raises:
        InvalidInput: an unknown name (the nearest is suggested) or settings that do not fit.
    """
    return _make("attacks.run", spec.name, spec.settings, spec.folder, registry)


def load_method(subject: SubjectPlan, registry: Mapping[str, Callable[..., T]], *, folder: str | Path = ".") -> T:
    """Make the method of one subject: from the registry, or from the user's own file.

    Args:
        subject: of the plan.
        registry: name -> what makes a method from its settings.
        folder: ``plan.folder``.

    Raises:
        InvalidInput: an unknown name (the nearest is suggested) or settings that do not fit.
    """
    settings = as_json(resolved_settings(subject, folder))
    return _make(f"subjects.{subject.name}.method", subject.method, settings, Path(folder), registry)


def _make(
    where: str, name: str, settings: Mapping[str, Json], folder: Path, registry: Mapping[str, Callable[..., T]]
) -> T:
    if is_plugin(name):
        made: Any = make_plugin(name, settings, folder)
        return made  # type: ignore[no-any-return]
    if name not in registry:
        raise InvalidInput(_unknown(where, name, registry))
    try:
        return registry[name](**settings)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: {name!r} does not take settings {dict(settings)}: {error}") from error


def _unknown(where: str, name: str, registry: Mapping[str, object]) -> str:
    return (
        f"{where}={name!r} is unknown{nearest(name, registry)} "
        f"(allowed: {', '.join(sorted(registry))}, or 'path/to/file.py:Name')"
    )


def check_names(plan: Plan, *, methods: Mapping[str, object], attacks: Mapping[str, object]) -> None:
    """Refuse unknown methods and attacks, and plug-ins that cannot be loaded, all at once, before any work."""
    faults = []
    named = [(f"subjects.{s.name}.method", s.method, methods) for s in plan.subjects]
    named += [("attacks.run", name, attacks) for name in plan.attacks.run]
    for where, name, registry in named:
        if is_plugin(name):
            try:
                load_plugin(name, Path(plan.folder))
            except InvalidInput as error:
                faults.append(f"{where}: {error}")
        elif name not in registry:
            faults.append(_unknown(where, name, registry))
    if faults:
        raise InvalidInput("; ".join(faults))
