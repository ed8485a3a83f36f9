"""A plan from the ``plan.json`` that an audit wrote: the same digest, or none."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.recipes import RECIPES, SUBJECT
from mnemoscope.audit.work.plan import Plan, load_plan, plan_from_values
from mnemoscope.audit.work.plan_parts import RuntimePlan

__all__ = ["plan_again"]

LARGEST = 64 << 20
MADE_UP = ("plugins",)
"""Keys that a plan's document has and a plan has not: they follow from files."""


def plan_again(folder: Path, digest: str, *, plan: Path | None = None, device: str = "auto") -> Plan:
    """Return the plan of an audit.

    Args:
        folder: of its result.
        digest: of the plan, as the result has it.
        plan: the TOML file it came from, for a plan that names files of the user's own; None reads ``plan.json``.
        device: where to compute.

    Raises:
        InvalidInput: there is no such file, the plan names files that only its TOML leads to, or it is another plan.
    """
    made = _from_json(folder / "plan.json") if plan is None else load_plan(plan)
    made = dataclasses.replace(made, runtime=RuntimePlan(device=device)) if plan is None else made
    try:
        found = made.digest
    except InvalidInput as error:
        raise InvalidInput(f"{error}. Give the plan's own file: --plan PLAN.toml") from error
    if found != digest:
        remedy = "give the TOML file of this audit" if plan is not None else "give its own file: --plan PLAN.toml"
        raise InvalidInput(f"the plan has the digest {found}, and the result was made from {digest}; {remedy}")
    return made


def _from_json(path: Path) -> Plan:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        document = json.loads(data)["plan"]
    except OSError as error:
        raise InvalidInput(f"{path.name}: cannot be read ({error.strerror}); give --plan PLAN.toml") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{path.name}: is no plan that an audit wrote; give --plan PLAN.toml") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path.name}: is no plan that an audit wrote; give --plan PLAN.toml")
    if document.get("plugins") or any(isinstance(s, dict) and s.get("tuned") for s in _list(document, "subjects")):
        raise InvalidInput(
            f"{path.name}: this plan names files of your own (plug-ins or tuned settings), which are no part of the "
            "evidence; give its own file, beside which they lie: --plan PLAN.toml"
        )
    values = {key: value for key, value in document.items() if key not in MADE_UP}
    values["recipe"] = _recipe(document.get("recipe"), path.name)
    if isinstance(values.get("design"), dict):
        values["design"] = {k: v for k, v in values["design"].items() if k != "records_digest"}
    return plan_from_values(values, source=path.name)


def _list(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    return found if isinstance(found, list) else []


def _recipe(spelled: object, source: str) -> dict[str, Any]:
    """The name of a recipe, and the fields in which the plan's departs from it."""
    if not isinstance(spelled, dict) or spelled.get("name") not in RECIPES:
        raise InvalidInput(f"{source}: names no recipe of this release; give --plan PLAN.toml")
    if spelled.get("architecture") == SUBJECT:
        raise InvalidInput(
            f"{source}: this plan trains a model of your own, whose code is no part of the evidence; give the plan's "
            "own file, beside which it lies: --plan PLAN.toml"
        )
    base = json.loads(json.dumps(RECIPES[spelled["name"]].key_parts()))
    overrides = {k: v for k, v in spelled.items() if k != "name" and (k not in base or base[k] != v)}
    return {"name": spelled["name"], "overrides": overrides}
