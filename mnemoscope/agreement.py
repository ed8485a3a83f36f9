"""When two numbers, endpoints or verdicts count as the same, at each level of recomputation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import Endpoint, Verdict

__all__ = ["AUC_TOLERANCE", "EXACT", "WITHIN", "RecomputedRow", "Rows", "Tolerance", "shown", "shown_endpoint"]

AUC_TOLERANCE = 0.005
"""How far an AUC, or a difference of two, may lie from the recorded one where attacks or trainings ran again."""

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""From the same scores only the last digits may differ, by the arithmetic of another machine."""


@dataclass(frozen=True)
class RecomputedRow:
    """One thing that was compared.

    Attributes:
        what: what it is, with the subject's name.
        recorded: as the result has it.
        recomputed: as it follows from what was stored; says why where it could not be computed.
        agrees: whether both are the same within the tolerance.
    """

    what: str
    recorded: str
    recomputed: str
    agrees: bool


@dataclass(frozen=True)
class Tolerance:
    """How near is near enough.

    Attributes:
        name: in words, for the reader.
        exact: numbers must be equal up to the last digits; otherwise an AUC may move by ``AUC_TOLERANCE`` and every
            other number must lie in the recorded interval.
    """

    name: str
    exact: bool

    def endpoint(self, recorded: Endpoint, recomputed: Endpoint) -> bool:
        """Whether two endpoints agree."""
        if self.exact:
            return alike(recorded, recomputed)
        same = (recorded.bound, recorded.primary, recorded.required) == (
            recomputed.bound, recomputed.primary, recomputed.required,
        )  # fmt: skip
        return same and self.estimate(recorded.estimate, recomputed.estimate, auc="AUC" in recorded.part)

    def estimate(self, recorded: Estimate, recomputed: Estimate, *, auc: bool) -> bool:
        """Whether two estimates agree."""
        if self.exact:
            return alike(recorded, recomputed)
        a, b = recorded.value, recomputed.value
        if a is None or b is None:
            return a is None and b is None
        if auc:
            return abs(a - b) <= AUC_TOLERANCE
        low, high = recorded.low, recorded.high
        return _close(a, b) if low is None or high is None else low <= b <= high or _close(a, b)

    def verdict(self, recorded: Verdict, recomputed: Verdict) -> list[tuple[str, str, str, bool]]:
        """(what, recorded, recomputed, agrees) of the word, and of all else a verdict says where it must be equal."""
        names = [f.name for f in fields(Verdict)] if self.exact else ["word"]
        return [
            (name, _text(getattr(recorded, name)), _text(getattr(recomputed, name)),
             getattr(recorded, name) == getattr(recomputed, name))
            for name in names
        ]  # fmt: skip


EXACT = Tolerance(f"equal, last digits apart ({RELATIVE:g} relative)", exact=True)
WITHIN = Tolerance(
    f"words equal; AUC within {AUC_TOLERANCE:g}; every other number inside the interval that is recorded for it",
    exact=False,
)


class Rows:
    """Rows as they are compared, and what was taken over."""

    def __init__(self) -> None:
        self.rows: list[RecomputedRow] = []
        self.taken_over: list[str] = []

    def add(self, what: str, recorded: object, recomputed: object, agrees: bool | None = None) -> bool:
        """Add a row; without ``agrees`` both must be equal. Returns whether they agree."""
        same = recorded == recomputed if agrees is None else agrees
        self.rows.append(RecomputedRow(what, _text(recorded), _text(recomputed), same))
        return same

    def take(self, what: str) -> None:
        """Say once that something was taken over."""
        if what not in self.taken_over:
            self.taken_over.append(what)

    @property
    def agrees(self) -> bool:
        """Whether all rows do."""
        return all(row.agrees for row in self.rows)


def shown(e: Estimate) -> str:
    """A number with its limits, with digits enough to see a small change."""
    if e.value is None:
        return f"none ({e.reason or 'no reason given'})"
    counts = "" if e.k is None or e.n is None else f" ({e.k} of {e.n})"
    limits = "" if e.ci is None else f" [{e.ci.lower:.6g}, {e.ci.upper:.6g}]"
    return f"{e.value:.6g}{counts}{limits}"


def shown_endpoint(e: Endpoint) -> str:
    """An endpoint: number, limits, outcome, and the p-value and bound it rests on."""
    p = "" if e.p_value is None else f", p {e.p_value:.3g}"
    bound = "" if e.bound is None else f", bound {e.bound:g}"
    return f"{shown(e.estimate)} {e.outcome}{bound}{p}"


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return " | ".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def alike(a: Any, b: Any) -> bool:
    """Whether two values are equal, floats up to their last digits; classes, tuples and mappings part by part."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return _close(float(a), float(b))
    if is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and all(alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, Sequence) and isinstance(b, Sequence) and not isinstance(a, str) and not isinstance(b, str):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
