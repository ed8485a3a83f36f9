"""Fix a plan before the first score, and list what was changed where another plan had been fixed before."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnemoscope.audit.verdict.policy_record import Deviation
from mnemoscope.audit.work.plan import Plan
from mnemoscope.provenance import timestamp

__all__ = ["PLAN_NAME", "Commitment", "commit_plan", "plan_changes"]

PLAN_NAME = "plan.json"
LONGEST = 400
"""Characters of a value that a list of changes shows; the whole one stands in ``plan.json``."""

MOST = 200
"""Changes listed one by one."""

LARGEST_FILE = 64 << 20


@dataclass(frozen=True)
class Commitment:
    """What was found when a plan was to be fixed.

    Attributes:
        before_scores: False where another plan had been fixed for the same output and scored.
        deviations: what differs from that plan.
    """

    before_scores: bool
    deviations: tuple[Deviation, ...] = ()


def commit_plan(plan: Plan, alpha: float | None, out: Path | None) -> Commitment:
    """Fix the plan's digest before the first score, in ``plan.json`` of the output.

    Where another plan was fixed and scored there, the audit is exploratory. The plan that was fixed first stays in the
    file under ``first``, so that running the changed plan twice does not make it one that was fixed beforehand.

    Args:
        plan: what is about to run.
        alpha: the endpoints' FPR, which follows from its counts.
        out: folder of the output; None writes nothing and commits to nothing.
    """
    if out is None:
        return Commitment(True)
    path = out / PLAN_NAME
    found = _read(path)
    first = found.get("first", found)
    scored = (out / "result.json").exists()
    changed = bool(found) and first.get("digest") != plan.digest and scored
    unreadable = not found and path.exists() and scored
    content = plan.as_dict()
    deviations: tuple[Deviation, ...] = ()
    if changed:
        deviations = plan_changes(first.get("plan"), content)
    out.mkdir(parents=True, exist_ok=True)
    # The same plan again was fixed when it was fixed first.
    same = found.get("digest") == plan.digest and isinstance(found.get("committed_at"), str)
    when = found["committed_at"] if same else timestamp()
    document = {"digest": plan.digest, "alpha": alpha, "committed_at": when, "plan": content}
    if changed:
        document["first"] = {key: first[key] for key in ("digest", "alpha", "committed_at", "plan") if key in first}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return Commitment(not (changed or unreadable), deviations)


def _read(path: Path) -> dict[str, Any]:
    """The file's object; {} where there is none that can be read."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    if not isinstance(found.get("first", {}), dict):
        del found["first"]
    return found


def plan_changes(committed: object, ran: object) -> tuple[Deviation, ...]:
    """List the keys in which two plans differ, in the order of their paths.

    >>> plan_changes({"seed": 0, "policy": {}}, {"seed": 1, "policy": {}})
    (Deviation(key='seed', committed='0', ran='1'),)
    """
    before, after = dict(_leaves(committed, "")), dict(_leaves(ran, ""))
    rows = [
        Deviation(key or "plan", before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
    if len(rows) <= MOST:
        return tuple(rows)
    return (*rows[:MOST], Deviation(f"and {len(rows) - MOST} more keys", None, None))


def _leaves(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list | tuple) and not value:
        return  # nothing in it: what the other plan has there is listed key by key
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)
        # Long values are told apart by what they are, not by what fits on a line.
        if len(text) > LONGEST:
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            text = f"{text[: LONGEST - 80]}... ({len(text):,} characters, sha256 {digest})"
        yield path, text
