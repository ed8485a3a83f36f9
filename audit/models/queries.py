"""The questions that models are asked about a record, by name: fixed functions of the record, drawn nowhere.

Imports no torch, so that a plan can check its queries before anything is loaded.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mnemoscope.audit.errors import InvalidInput

__all__ = ["Query", "check_queries", "parse_query"]

Kind = Literal["identity", "flip", "shift", "rotate", "noise", "flips"]

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_SHIFT = re.compile(r"shift:(-?\d+),(-?\d+)")
_ROTATE = re.compile(rf"rotate:(-?{_NUMBER})")
_DRAWN = re.compile(rf"(noise|flips):({_NUMBER}):(\d+)")
_MOVES = ("flip", "shift", "rotate")

LARGEST_INDEX = 2**62
"""Indices are 64-bit integers on the device."""


@dataclass(frozen=True)
class Query:
    """One parsed query.

    Attributes:
        kind: what is done to the record.
        shift: pixels right and down, for "shift".
        degrees: counter-clockwise, for "rotate".
        amount: standard deviation for "noise", probability of a flip for "flips".
        index: which draw, for "noise" and "flips".
    """

    kind: Kind
    shift: tuple[int, int] = (0, 0)
    degrees: float = 0.0
    amount: float = 0.0
    index: int = 0

    @property
    def moves(self) -> bool:
        """Whether it moves pixels, which only images have."""
        return self.kind in _MOVES


def parse_query(query: str) -> Query:
    """Read the name of a query.

    Args:
        query: one of

            - "identity": the record as it is;
            - "flip": an image mirrored left to right;
            - "shift:DX,DY": an image moved by whole pixels, DX right and DY down; zeros come in;
            - "rotate:DEGREES": an image turned counter-clockwise about its centre, bilinear; zeros come in;
            - "noise:SCALE:INDEX": any record; SCALE times a standard normal draw for each input value is added after
              normalisation, so SCALE is in units of normalised inputs. INDEX and the record id alone fix the draw:
              every model gets the same, in any batch, and SCALE stretches one and the same draw;
            - "flips:RATE:INDEX": a row of zeros and ones, each turned over with probability RATE; fixed likewise.

    Raises:
        InvalidInput: any other name, or an amount out of range.

    >>> parse_query("shift:2,-1").shift
    (2, -1)
    >>> parse_query("noise:0.001:3")
    Query(kind='noise', shift=(0, 0), degrees=0.0, amount=0.001, index=3)
    """
    if query == "identity":
        return Query("identity")
    if query == "flip":
        return Query("flip")
    if match := _SHIFT.fullmatch(query):
        return Query("shift", shift=(int(match[1]), int(match[2])))
    if (match := _ROTATE.fullmatch(query)) and math.isfinite(float(match[1])):
        return Query("rotate", degrees=float(match[1]))
    if match := _DRAWN.fullmatch(query):
        amount, index = float(match[2]), int(match[3])
        if index >= LARGEST_INDEX:
            raise InvalidInput(f"query={query!r}: the index must be below 2**62")
        if match[1] == "flips" and amount <= 1:
            return Query("flips", amount=amount, index=index)
        if match[1] == "noise" and math.isfinite(amount):
            return Query("noise", amount=amount, index=index)
        raise InvalidInput(f"query={query!r}: the rate of flips is a probability, the scale of noise is finite")
    raise InvalidInput(
        f"query={query!r} is unknown; queries are 'identity', 'flip', 'shift:dx,dy' (whole pixels), 'rotate:degrees', "
        "'noise:scale:index' and 'flips:rate:index' (tables of zeros and ones)"
    )


def check_queries(queries: Sequence[str], *, is_image: bool) -> tuple[Query, ...]:
    """Read several queries and refuse what the kind of data cannot be asked.

    Args:
        queries: names, see ``parse_query``.
        is_image: whether records are images.

    Raises:
        InvalidInput: no query, an unknown one, one that moves pixels on a table, or flips of bits on images.
    """
    if not queries:
        raise InvalidInput("queries is empty; ask at least 'identity'")
    parsed = tuple(parse_query(query) for query in queries)
    if not is_image and any(query.moves for query in parsed):
        raise InvalidInput(
            f"queries={_shown(queries)}: a table can only be asked 'identity', 'noise:scale:index' or "
            "'flips:rate:index'"
        )
    if is_image and any(query.kind == "flips" for query in parsed):
        raise InvalidInput(f"queries={_shown(queries)}: 'flips' turns over zeros and ones of tables; these are images")
    return parsed


def _shown(queries: Sequence[str]) -> str:
    return ", ".join(queries[:6]) + (", ..." if len(queries) > 6 else "")
