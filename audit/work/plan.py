"""A plan: everything an audit will do, written down before it begins, as TOML.

Unknown keys are refused with the nearest allowed one, all faults at once, each with its path. Nothing here imports
torch, unless the plan names a model of the user's own.
"""

import dataclasses
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.policy import policy_values
from mnemoscope.audit.work.keys import Json, plain_json
from mnemoscope.audit.work.plan_parts import (
    AttackSpec,
    AttacksPlan,
    DataPlan,
    DefencesPlan,
    DesignPlan,
    LeaguePlan,
    RecipePlan,
    RuntimePlan,
    SubjectPlan,
    nearest,
)
from mnemoscope.audit.work.plan_plugins import check_names, load_attack, load_method
from mnemoscope.audit.work.plan_template import plan_template
from mnemoscope.audit.work.plan_whole import Plan, describe_fault

__all__ = [
    "AttackSpec",
    "AttacksPlan",
    "DataPlan",
    "DefencesPlan",
    "DesignPlan",
    "LeaguePlan",
    "Plan",
    "RecipePlan",
    "RuntimePlan",
    "SubjectPlan",
    "check_names",
    "load_attack",
    "load_method",
    "load_plan",
    "nearest",
    "parse_plan",
    "plan_from_values",
    "plan_template",
]


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


def _allowed_at(path: tuple[int | str, ...]) -> tuple[str, ...]:
    """Names of the keys that are allowed in the table at a path of the plan."""
    kind: Any = Plan
    for part in path:
        if isinstance(part, int):
            continue
        found = {f.name: f.type for f in dataclasses.fields(kind)}[part]
        kind = {"subjects": SubjectPlan, "league": LeaguePlan}.get(str(part), found)
    return tuple(f.name for f in dataclasses.fields(kind) if f.name != "folder")


def parse_plan(text: str, *, folder: Path | None = None, source: str = "plan") -> Plan:
    r"""Read a plan from TOML text.

    Args:
        text: the TOML.
        folder: what relative paths start from.
        source: its name in messages.

    Raises:
        InvalidInput: not TOML, unknown keys (with the nearest allowed one), values of a wrong kind: all at once.

    >>> parse_plan("[design]\nmodels = 12").design.models
    12
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source} is not valid TOML: {error}") from error
    return plan_from_values(raw, folder=folder, source=source)


def plan_from_values(raw: object, *, folder: Path | None = None, source: str = "plan") -> Plan:
    """Make a plan from the tables of its file; arguments and errors as of ``parse_plan``."""
    values = plain_json(raw, source)
    if not isinstance(values, dict):
        raise InvalidInput(f"{source} holds no tables")
    start = folder or Path()
    faults = []
    if "folder" in values:
        faults.append(f"folder: unknown key (allowed: {', '.join(_allowed_at(()))})")
        del values["folder"]
    if isinstance(values.get("policy"), str):
        values["policy"] = _policy_file(start / str(values["policy"]))
    try:
        plan = _adapter().validate_json(json.dumps(values))
    except ValidationError as error:
        faults += [describe_fault(dict(part), allowed_at=_allowed_at) for part in error.errors(include_url=False)]
    except InvalidInput as error:
        faults.append(str(error))
    if faults:
        raise InvalidInput(f"{source}: " + "; ".join(faults))
    return dataclasses.replace(plan, folder=str(start))


def load_plan(path: Path) -> Plan:
    """Read a plan from a TOML file; relative paths in it start from its folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text; a plan is a TOML file") from error
    except OSError as error:
        raise InvalidInput(
            f"cannot read the plan {path}: {error.strerror}; `mnemoscope plan new` writes one"
        ) from error
    return parse_plan(text, folder=path.parent, source=str(path))


def _policy_file(path: Path) -> Json:
    try:
        return plain_json(policy_values(path), "policy")
    except InvalidInput as error:
        raise InvalidInput(f"policy={path.name!r}: {error}") from error
