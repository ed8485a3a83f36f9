"""What ``mnemoscope gate`` asks of a result beside its words: the ``[gate]`` table of a policy file."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult, Subject, Tier

__all__ = ["CONTROLS", "GateRules", "Treatment", "counted_subjects", "gate_rules"]

CONTROLS = ("noop",)
"""Methods that delete nothing: an audit runs them to see that it can see. OUTSIDE BOUND is what they are there for."""

Treatment = Literal["block", "warn"]
TREATED = ("inconclusive", "controls", "exploratory", "not_fit_for_use")
LISTS = ("subjects", "attacks", "coverage", "gates")
GATES = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "drift")


@dataclass(frozen=True)
class GateRules:
    """The rules of the gate. A bound that is exceeded and an audit that could not speak block always.

    Attributes:
        subjects: names of the subjects that count; None = all but ``noop``, the control that deletes nothing.
        inconclusive: whether INCONCLUSIVE blocks, or passes with a warning.
        min_tier: least tier; None asks for none.
        max_age_days: oldest result that still counts, in days; None = any age.
        attacks: attacks that must have produced a number for each subject that counts.
        coverage: classes of attack that must have been executed, as the result's coverage table names them.
        gates: validity gates that must have been run and passed, e.g. "G5".
        controls: whether a word without G1 (positive control) or G2 (negative control) blocks, or warns.
        exploratory: whether an audit whose plan was not fixed before the first score blocks, or warns.
        not_fit_for_use: whether a model that lost more accuracy than the policy allows blocks, or warns.
    """

    subjects: tuple[str, ...] | None = None
    inconclusive: Treatment = "block"
    min_tier: Tier | None = None
    max_age_days: float | None = None
    attacks: tuple[str, ...] = ()
    coverage: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    controls: Treatment = "block"
    exploratory: Treatment = "block"
    not_fit_for_use: Treatment = "block"

    def __post_init__(self) -> None:
        for name in TREATED:
            value = getattr(self, name)
            if value not in get_args(Treatment):
                raise InvalidInput(f"gate.{name}={value!r}: allowed are 'block' and 'warn'")
        if self.min_tier is not None and self.min_tier not in get_args(Tier):
            raise InvalidInput(f"gate.min_tier={self.min_tier!r}: allowed are 'A', 'B', 'C', 'D', or leave it out")
        age = self.max_age_days
        if age is not None and (isinstance(age, bool) or not isinstance(age, int | float) or not 0 < age < 1e6):
            raise InvalidInput(f"gate.max_age_days={age!r}: must be a number of days above 0, or be left out")
        for name in LISTS:
            value = getattr(self, name)
            if value is None and name == "subjects":
                continue
            if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
                raise InvalidInput(f"gate.{name}={value!r}: must be a list of names")
        if self.subjects == ():
            raise InvalidInput("gate.subjects=[]: a gate over no subject decides nothing; name some, or leave it out")
        unknown = [gate for gate in self.gates if gate not in GATES]
        if unknown:
            raise InvalidInput(f"gate.gates: {unknown[0]!r} is no gate; allowed: {', '.join(GATES)}")

    def as_json(self) -> dict[str, str]:
        """Every rule that is not the default, key -> value in JSON: what a result records."""
        ours, default = asdict(self), asdict(GateRules())
        return {key: json.dumps(value) for key, value in ours.items() if value != default[key]}


def gate_rules(values: object) -> GateRules:
    """Read the ``[gate]`` table of a policy.

    Raises:
        InvalidInput: no table, an unknown key (the nearest is suggested), or a value that is not allowed.

    >>> gate_rules({"inconclusive": "warn"}).inconclusive
    'warn'
    """
    if not isinstance(values, Mapping):
        raise InvalidInput(f"gate={values!r}: must be a table, e.g. [gate] with max_age_days = 90")
    known = [f.name for f in fields(GateRules)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise InvalidInput(f"gate: unknown key {key!r}; {hint}")
    clean: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return GateRules(**clean)


def counted_subjects(result: AuditResult, rules: GateRules) -> tuple[Subject, ...]:
    """Return the subjects that count: those the policy names, else all but controls that delete nothing.

    Exact retraining counts like any other way of deleting: it may be the very way that is used, and where it is a
    reference only, an audit that cannot clear it has no power to clear anything.

    Raises:
        InvalidInput: the policy names a subject that is not there.
    """
    if rules.subjects is None:
        return tuple(s for s in result.subjects if s.method not in CONTROLS)
    names: dict[str, set[str]] = {}
    for s in result.subjects:
        names.setdefault(s.name, set()).add(s.name)
    for row in result.requests:  # one way of deleting, audited after each of several requests
        names.setdefault(row.subject, set()).add(row.audit)
    unknown = [name for name in rules.subjects if name not in names]
    if unknown:
        raise InvalidInput(
            f"gate.subjects: {unknown[0]!r} is no subject of this result; it holds {', '.join(sorted(names)) or 'none'}"
        )
    wanted = set().union(*(names[name] for name in rules.subjects))
    return tuple(s for s in result.subjects if s.name in wanted)
