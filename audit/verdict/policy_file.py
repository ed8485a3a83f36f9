"""A whole policy: the bounds with their owner, the reasons for them, and the rules of the gate.

As a TOML file::

    reason = "why these bounds"
    [owner]
    name = "..."
    role = "..."
    [policy]
    auc_margin = 0.05
    [reasons]
    auc_margin = "why this one"
    [gate]
    max_age_days = 90

A plan may hold the same tables under its ``[policy]``: ``[policy.owner]``, ``[policy.reasons]``, ``[policy.gate]``.
"""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.gate_rules import GateRules, gate_rules
from mnemoscope.audit.verdict.policy import BESIDE, Policy, load_policy, policy_values
from mnemoscope.audit.verdict.policy_record import PolicyRecord

__all__ = ["PolicyDocument", "policy_lines", "policy_record", "read_policy"]

LONGEST = 2_000
"""Characters of a name or a reason: a report prints them."""


@dataclass(frozen=True)
class PolicyDocument:
    """A policy with what stands beside its bounds.

    Attributes:
        bounds: the bounds.
        owner: who answers for them; "" where nobody is named.
        role: the owner's role.
        reason: why these bounds, as a whole.
        reasons: key -> why this value.
        gate: the rules of the gate.
        given: keys of bounds that the source sets itself.
    """

    bounds: Policy
    owner: str = ""
    role: str = ""
    reason: str = ""
    reasons: dict[str, str] = field(default_factory=dict)
    gate: GateRules = field(default_factory=GateRules)
    given: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON (RFC 8785) of everything in it."""
        import rfc8785

        content = {
            "bounds": self.bounds.digest,
            "owner": {"name": self.owner, "role": self.role},
            "reason": self.reason,
            "reasons": self.reasons,
            "gate": self.gate.as_json(),
        }
        return "sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest()  # type: ignore[arg-type]

    def changed(self) -> dict[str, tuple[object, object]]:
        """Bounds that differ from the defaults: key -> (default, given)."""
        ours, default = self.bounds.as_dict(), Policy().as_dict()
        return {key: (default[key], value) for key, value in ours.items() if value != default[key]}

    def record(self) -> PolicyRecord:
        """What a result keeps of it beside the bounds."""
        return PolicyRecord(self.digest, self.owner, self.role, self.reason, dict(self.reasons), self.gate.as_json())


def read_policy(source: "Policy | Path | str | Mapping[str, object] | None" = None) -> PolicyDocument:
    """Read a policy with owner, reasons and gate; what is not given keeps its default.

    Args:
        source: a TOML file, a mapping, a ``Policy`` (which has no owner), or None = defaults.

    Raises:
        InvalidInput: the file cannot be read, or a key or value is not allowed.

    >>> read_policy({"alpha": 0.05, "owner": {"name": "A. Person"}}).owner
    'A. Person'
    """
    if source is None or isinstance(source, Policy):
        return PolicyDocument(source or Policy())
    values = policy_values(source)
    bounds = {key: value for key, value in values.items() if key not in BESIDE}
    owner = values.get("owner", {})
    if isinstance(owner, str):
        owner = {"name": owner}
    if not isinstance(owner, Mapping) or not set(owner) <= {"name", "role"}:
        raise InvalidInput(f"policy.owner={owner!r}: must be a table with name and role")
    reasons = values.get("reasons", {})
    if not isinstance(reasons, Mapping):
        raise InvalidInput(f"policy.reasons={reasons!r}: must be a table, key of the policy -> a sentence")
    known = [f.name for f in fields(Policy)]
    for key in reasons:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise InvalidInput(f"policy.reasons: {key!r} is no key of the policy; {hint}")
    return PolicyDocument(
        bounds=load_policy(bounds),
        owner=_text(owner.get("name", ""), "owner.name"),
        role=_text(owner.get("role", ""), "owner.role"),
        reason=_text(values.get("reason", ""), "reason"),
        reasons={str(key): _text(value, f"reasons.{key}") for key, value in reasons.items() if value != ""},
        gate=gate_rules(values.get("gate", {})),
        given=tuple(key for key in known if key in bounds),
    )


def policy_record(source: "Policy | Path | str | Mapping[str, object] | None") -> PolicyRecord | None:
    """Return what a result keeps of a policy beside its bounds; None where the policy says nothing beside them."""
    document = read_policy(source)
    said = (document.owner, document.role, document.reason, document.reasons, document.gate != GateRules())
    return document.record() if any(said) else None


def policy_lines(document: PolicyDocument) -> list[str]:
    """Say what a policy decides, what it changes, and what is not said, line by line."""
    role = f", {document.role}" if document.role else ""
    lines = [
        f"policy {document.digest}",
        f"bounds {document.bounds.digest}",
        f"owner: {document.owner}{role}"
        if document.owner
        else "owner: nobody is named; name who answers for the bounds",
        f"reason: {document.reason}" if document.reason else "reason: none is given",
    ]
    changed = document.changed()
    for key, (default, value) in changed.items():
        why = document.reasons.get(key)
        said = f"because {why}" if why else "no reason is given; add one under [reasons]"
        lines.append(f"{key} = {_shown(value)} instead of {_shown(default)}: {said}")
    if not changed:
        lines.append("every bound has its default")
    for key, value in document.gate.as_json().items():
        lines.append(f"gate.{key} = {value}")
    if not document.gate.as_json():
        lines.append("the gate has its defaults: OUTSIDE BOUND, INCONCLUSIVE and NOT ASSESSED block")
    if document.bounds.profile == "smoke":
        lines.append("a smoke run: every word will be NOT ASSESSED, on purpose")
    return lines


def _shown(value: object) -> str:
    return "what follows from the counts" if value is None else str(value)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST:
        shown = f"{value[:40]}..." if isinstance(value, str) else repr(value)[:80]
        raise InvalidInput(f"policy.{name}={shown}: must be text of at most {LONGEST:,} characters")
    return value.strip()
