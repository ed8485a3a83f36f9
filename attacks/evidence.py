"""Why an attack may be believed: its known answer, what it finds where a leak was planted, and where none is.

The rows are package data, written by ``benchmarks/attack_evidence.py`` from what it measured; a test compares them with
the tests and the results that they name. An attack without a whole row runs, but is listed as not available.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Evidence", "Figure", "load_evidence"]


@dataclass(frozen=True)
class Figure:
    """A figure measured on real data.

    Attributes:
        what: e.g. "AUC, forgetting game, no-op".
        value: the figure.
        low: lower limit at 95 %.
        high: upper limit at 95 %.
        data: the data set.
        plan: digest of the plan, "sha256:...".
        result: file with all numbers of the run, from the top of the repository.
    """

    what: str
    value: float
    low: float
    high: float
    data: str
    plan: str
    result: str


@dataclass(frozen=True)
class Evidence:
    """One row.

    Attributes:
        known_answer: test whose right answer is known beforehand, "tests/...py::name".
        planted_leak: what the thing finds where a leak was planted: a pooled AUC for attacks, the excess over the
            floor for measures, the advantage over chance for reconstructions.
        threshold: the least that ``planted_leak`` must exceed (in its own direction, where both are negative): what
            the contract asks of attacks, half a 95 % interval for the others.
        null: the same as ``planted_leak`` where nothing leaks.
        null_band: within what ``null`` must lie; None where that side is free.
        worlds: which worlds these two are.
        measured: a figure on real data.
    """

    known_answer: str
    planted_leak: float | None
    threshold: float
    null: float | None
    null_band: tuple[float | None, float]
    worlds: str
    measured: Figure | None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parts that are not there."""
        parts = {
            "known answer": self.known_answer or None,
            "planted leak": self.planted_leak,
            "clean world": self.null,
            "figure on real data": self.measured,
        }
        return tuple(name for name, part in parts.items() if part is None)

    @property
    def sees(self) -> bool:
        """Whether it finds the planted leak, and nothing where nothing leaks."""
        if self.planted_leak is None or self.null is None:
            return False
        sign, (low, high) = (-1.0 if self.threshold < 0 else 1.0), self.null_band
        found = sign * self.planted_leak > sign * self.threshold
        return found and (low is None or low < self.null) and self.null < high


@cache
def load_evidence() -> dict[str, Evidence]:
    """Return the rows by registered name."""
    text = (files("mnemoscope.attacks") / "evidence.json").read_text(encoding="utf-8")
    rows: dict[str, Evidence] = {}
    for name, row in json.loads(text).items():
        figure = None if row["measured"] is None else Figure(**row["measured"])
        low, high = row.pop("null_band")
        rows[name] = Evidence(**{**row, "null_band": (low, high), "measured": figure})
    return rows
