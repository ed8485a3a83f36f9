"""Refusals that belong before hours of work: a place that cannot be written, a seed that no report can hold."""

import os
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput

__all__ = ["LARGEST_SEED", "check_out", "check_seed"]

LARGEST_SEED = 2**53 - 1
"""``result.json`` records the seed, and JSON readers keep integers exact only up to here."""


def check_out(out: str | Path | None) -> None:
    """Refuse a folder that results could not be written to; nothing is made.

    Args:
        out: the folder, which need not exist; None writes nothing.

    Raises:
        InvalidInput: it, or the nearest of its parents that exists, is a file or cannot be written.
    """
    if out is None:
        return
    place = Path(out)
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InvalidInput(f"--out {out}: {place} is a file; give a folder (it is made when it does not exist)")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InvalidInput(f"--out {out}: {place} cannot be written; give another folder")


def check_seed(seed: int) -> None:
    """Refuse a seed that ``result.json`` could not hold exactly.

    >>> check_seed(2**53)
    Traceback (most recent call last):
    mnemoscope.audit.errors.InvalidInput: seed=9007199254740992: must be from 0 to 9007199254740991 (2**53 - 1)
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InvalidInput(f"seed={seed}: must be from 0 to {LARGEST_SEED} (2**53 - 1)")
