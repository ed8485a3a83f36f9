"""Numbers as words: every rate with its counts and interval, every missing value with its reason."""

import math
import unicodedata
from typing import Literal

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import Endpoint, Tier, Word

__all__ = [
    "SHAPES",
    "TIERS",
    "amount",
    "bound",
    "bytes_text",
    "duration",
    "estimate",
    "interval",
    "kind_of",
    "percent",
    "plain",
    "power",
    "short_digest",
]

Kind = Literal["rate", "difference", "score", "shift"]

SHAPES: dict[Word, str] = {
    "WITHIN BOUND": "circle",
    "OUTSIDE BOUND": "triangle",
    "INCONCLUSIVE": "square",
    "NOT ASSESSED": "ring",
}
"""A shape for each word, so that no reader depends on colour."""

TIERS: dict[Tier, str] = {
    "A": "process evidence, at least 19 retrained models, a per-record attack, every gate run",
    "B": "at least 5 retrained models, or a fleet with roles, and a per-record attack",
    "C": "1 to 4 retrained models, or a population attack only, or a control that was not run",
    "D": "no retrained model: nothing can be said about likeness to retraining",
}

SHOWN_CHARACTERS = 120
"""Longer names keep their two ends in a view; the whole name is in result.json."""

_BIDI = "\u200e\u200f\u061c" + "".join(chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def plain(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    r"""Make a string of unknown origin fit to show: control and direction marks visible, the middle of long ones cut.

    >>> plain("a\u202eb")
    'a\\u202eb'
    """
    raw = str(text)
    if len(raw) > limit:
        half = (limit - 3) // 2
        raw = f"{raw[:half]}...{raw[-half:]}"
    if raw.isascii() and raw.isprintable():  # nearly all text, and tables hold a hundred thousand cells
        return raw
    return "".join(c if _shows(c) else c.encode("unicode_escape").decode() for c in raw)


def _shows(c: str) -> bool:
    return c == " " or (c not in _BIDI and unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp", "Cf"))


def percent(value: float, *, unit: bool = True, sign: bool = False) -> str:
    """A proportion as percent: one decimal, two below 1 %, more below 0.01 %.

    >>> percent(0.1213), percent(0.0042), percent(0.00004)
    ('12.1 %', '0.42 %', '0.004 %')
    """
    p = 100 * value
    size = abs(p)
    digits = 1 if size >= 0.995 or size == 0 else 2 if size >= 0.00995 else min(8, 1 - math.floor(math.log10(size)) - 1)
    text = f"{p:+.{digits}f}" if sign else f"{p:.{digits}f}"
    if size == 0:
        text = "0"
    elif size >= 99.95 and size != 100 and text.lstrip("+-") == "100.0":
        text = f"{p:.2f}"
    return f"{text} %" if unit else text


def amount(value: float, kind: Kind) -> str:
    """One number: a rate in percent, a difference in signed points, a score (AUC) or its shift with 3 decimals."""
    if kind == "rate":
        return percent(value)
    if kind == "difference":
        return f"{percent(value, unit=False, sign=True)} points"
    return f"{value:+.3f}" if kind == "shift" else f"{value:.3f}"


def interval(e: Estimate, kind: Kind = "rate") -> str:
    """The interval with its level, e.g. ``"95 % CI 0.1 to 1.1 %"``; one-sided limits are named as such."""
    ci = e.ci
    if ci is None:
        return "no interval"
    level = f"{100 * ci.level:.4g} %"
    if ci.sides == "upper":
        return f"{level} upper limit {amount(ci.upper, kind)}"
    if ci.sides == "lower":
        return f"{level} lower limit {amount(ci.lower, kind)}"
    if kind in ("score", "shift"):
        return f"{level} CI {amount(ci.lower, kind)} to {amount(ci.upper, kind)}"
    sign = kind == "difference"
    low, high = percent(ci.lower, unit=False, sign=sign), percent(ci.upper, unit=False, sign=sign)
    return f"{level} CI {low} to {high} {'points' if sign else '%'}"


def estimate(e: Estimate, kind: Kind = "rate") -> str:
    """An estimate as one phrase: ``"3 of 800 (0.38 %; 95 % CI 0.08 to 1.1 %)"``, or why there is none."""
    if e.value is None:
        return f"not available: {plain(e.reason or 'no reason given', 300)}"
    value = amount(e.value, kind)
    if e.k is not None and e.n is not None:
        return f"{e.k:,} of {e.n:,} ({value}; {interval(e, kind)})"
    n = "" if e.n is None else f"; n = {e.n:,}"
    return f"{value} ({interval(e, kind)}{n})"


def power(e: Estimate) -> str:
    """A simulated chance, its interval, and how it follows from the simulated audits.

    Results of earlier releases hold no reason; their counts alone would contradict the percentage.
    """
    if e.value is None:
        return estimate(e)
    return f"{percent(e.value)} ({interval(e)}{f'; {plain(e.reason, 300)}' if e.reason else ''})"


def kind_of(endpoint: Endpoint) -> Kind:
    """What an endpoint's number is: P2, P4 and P5 are differences, P3 too; AUC stays on its own scale."""
    if "AUC" in endpoint.part:
        return "shift" if endpoint.id == "P2" else "score"
    if endpoint.estimate.k is not None or endpoint.id in ("P1", "P6"):
        return "rate"
    return "score" if endpoint.id == "P7" else "difference"


def bound(endpoint: Endpoint) -> str:
    """The bound of an endpoint in its own unit: "at most", "within plus or minus", or "no worse than"."""
    if endpoint.bound is None:
        return "description only"
    size = abs(endpoint.bound)
    if endpoint.id == "P2":
        return f"within ±{size:.3g}" if kind_of(endpoint) == "shift" else f"within ±{percent(size, unit=False)} points"
    if endpoint.id == "P5":
        return f"no worse than −{percent(size, unit=False)} points"
    if kind_of(endpoint) == "difference":
        return f"at most {percent(size, unit=False)} points"
    if kind_of(endpoint) == "score":
        return f"at most {endpoint.bound:.3g}"
    return f"at most {percent(endpoint.bound)}"


def duration(value: float) -> str:
    """Seconds in the unit that reads best.

    >>> duration(0.42), duration(75), duration(7322)
    ('0.42 s', '1 min 15 s', '2 h 2 min')
    """
    if value < 9.95:
        return f"{value:.2g} s" if value >= 0.01 else "under 0.01 s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bytes_text(value: int) -> str:
    """Bytes as GiB or MiB."""
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def short_digest(digest: str, length: int = 12) -> str:
    """The first hex digits of a digest, enough to compare by eye; the whole one is in the provenance."""
    return plain(digest.removeprefix("sha256:"))[:length]
