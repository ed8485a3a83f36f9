"""How many records stand out by themselves, beside how many would by chance: to read it loads no SciPy."""

from dataclasses import dataclass
from typing import Literal

from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["WorstCase"]


@dataclass(frozen=True)
class WorstCase:
    """Trials beyond their own record's threshold in one tail; an average can hide them.

    Attributes:
        tail: "residual" counts answers above the threshold, "over-forgotten" those below.
        alpha: nominal rate of the thresholds.
        forgotten: forgotten trials beyond them, with their share and its interval.
        never_seen: never-seen trials beyond theirs, by the same rule: the false alarms.
        expected: false alarms to expect among the forgotten trials, at the never-seen share; None where nothing was
            tested.
        flagged: records whose answers differ from those of models that never saw them, under false-discovery control
            over all records (both tails together); None where it could not be tested.
        tested: records behind ``flagged``.
        false_discoveries: share of wrong names that this control allows among the flagged on average.
    """

    tail: Literal["residual", "over-forgotten"]
    alpha: float
    forgotten: Estimate
    never_seen: Estimate
    expected: float | None
    flagged: int | None
    tested: int
    false_discoveries: float
