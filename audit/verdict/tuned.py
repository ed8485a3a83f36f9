"""What tuning tried and chose, as a result carries it."""

from dataclasses import dataclass

__all__ = ["Trial", "Tuned"]

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        settings: what differs from the subject's own; {} are the defaults.
        gap: average gap to the selection target, in percentage points; None where it did not finish.
        note: why not.
        accuracy: test accuracy minus the selection target's, in percentage points; None where it did not finish, and
            in results of releases that did not look at it.
    """

    settings: dict[str, Value]
    gap: float | None
    note: str = ""
    accuracy: float | None = None


@dataclass(frozen=True)
class Tuned:
    """The search for a subject's settings.

    Attributes:
        method: its name.
        chosen: settings that were chosen.
        rule: by what.
        budget: settings that could be tried.
        seed: root of the models set aside.
        trials: everything that was tried, in order.
    """

    method: str
    chosen: dict[str, Value]
    rule: str
    budget: int
    seed: int
    trials: tuple[Trial, ...]
