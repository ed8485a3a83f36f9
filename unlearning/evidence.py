"""Why a method may be believed: its algorithm against a known answer, what it forgets, and what is left on real data.

What is left is what the strongest attack of a league finds. A league of single models measures no such rate, so a
method that ran in no other has the gap of its accuracies to those of retrained models in that place: it tells how near
the method comes to retraining, and not that an attack would find nothing. ``Figure.what`` begins with "TPR at" or with
"gap of accuracies", and so says which of both it is.

The rows are package data, written by ``benchmarks/method_evidence.py`` from a league that was run; a test compares them
with the tests and the results that they name. A method without a whole row runs, but is listed as not available.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mnemoscope.attacks.evidence import Figure

__all__ = ["MethodEvidence", "load_method_evidence"]


@dataclass(frozen=True)
class MethodEvidence:
    """One row.

    Attributes:
        known_answer: test of the algorithm against its formula, a plain twin or a closed form, "tests/...py::name".
        forgets: test that it forgets what it should where it should work; for controls, that it does what they are for:
            ``retrain`` is training without the records, and after ``noop`` an attack finds as much as before.
        measured: what the strongest attack of a league finds after it, on real data; where no league measured that, its
            gap of accuracies to retrained models.
    """

    known_answer: str
    forgets: str
    measured: Figure | None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parts that are not there."""
        parts = {
            "known answer": self.known_answer or None,
            "test that it forgets": self.forgets or None,
            "figure on real data": self.measured,
        }
        return tuple(name for name, part in parts.items() if part is None)


@cache
def load_method_evidence() -> dict[str, MethodEvidence]:
    """Return the rows by registered name."""
    text = (files("mnemoscope.unlearning") / "evidence.json").read_text(encoding="utf-8")
    rows: dict[str, MethodEvidence] = {}
    for name, row in json.loads(text).items():
        figure = None if row["measured"] is None else Figure(**row["measured"])
        rows[name] = MethodEvidence(row["known_answer"], row["forgets"], figure)
    return rows
