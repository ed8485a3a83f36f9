"""Fixed texts of every report, kept as data: limitations, classes of attack, cross-references, words explained."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

__all__ = [
    "AttackClass",
    "CrossReference",
    "attack_classes",
    "cross_references",
    "fixed_limitations",
    "glossary",
    "text_version",
]

Mark = Literal["P", "S", "M", "U"]
MARKS: dict[str, str] = {
    "P": "read in the primary text",
    "S": "read in a secondary source",
    "M": "measured",
    "U": "unverified",
}
"""How far a statement about the world outside of this audit was checked by those who wrote the text."""


@dataclass(frozen=True)
class CrossReference:
    """One line of the regulatory cross-reference: what somebody asks for, and where the report has it."""

    framework: str
    reference: str
    asks: str
    section: str
    evidence: str
    mark: str
    note: str


@dataclass(frozen=True)
class AttackClass:
    """A class of attack that a reader expects to find in the coverage table, run or not.

    Attributes:
        name: as ``Coverage.attack_class`` calls it.
        edpb: place in EDPB Opinion 28/2024.
        nist: nearest term of NIST AI 100-2 E2025.
        nist_mark: how far that was checked.
        unless_run: reason printed where a result says nothing of the class.
    """

    name: str
    edpb: str
    nist: str
    nist_mark: str
    unless_run: str


@cache
def _read(name: str) -> dict[str, Any]:
    text = (files("mnemoscope.reports") / "data" / f"{name}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def text_version(name: str) -> str:
    """Version of a fixed text, e.g. of "limitations"."""
    return str(_read(name)["version"])


def fixed_limitations() -> tuple[str, ...]:
    """What every report prints, whatever was found; numbered in this order.

    >>> len(fixed_limitations()), text_version("limitations")
    (10, '1.0')
    """
    return tuple(_read("limitations")["texts"])


def cross_references() -> tuple[CrossReference, ...]:
    """The regulatory cross-reference, in the order of its table."""
    return tuple(CrossReference(**row) for row in _read("cross_reference")["rows"])


def attack_classes() -> tuple[AttackClass, ...]:
    """Classes of attack of the coverage table, those of EDPB Opinion 28/2024, paragraph 55, first."""
    return tuple(
        AttackClass(r["class"], r["edpb"], r["nist"], r["nist_mark"], r["unless_run"])
        for r in _read("coverage")["rows"]
    )


def glossary() -> tuple[tuple[str, str], ...]:
    """Words of the report and what they mean, for readers without statistics."""
    return tuple((row["term"], row["means"]) for row in _read("glossary")["rows"])
