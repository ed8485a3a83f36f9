"""What the word would have been under another rule: plain rows, to read them loads no SciPy."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["SensitivityRow"]


@dataclass(frozen=True)
class SensitivityRow:
    """The word at one varied choice, all others as in the plan; every row is decided by the rules themselves.

    Attributes:
        varied: which choice: "bound" (how many times the false positive rate the TPR may be), "alpha" (the false
            positive rate), "primary" (the attack that decides WITHIN BOUND), "attacks" (those that can add a finding),
            "endpoints" (which questions are asked).
        value: what was chosen, in words.
        word: the word that the rules give.
        tier: its tier; None where there is none.
        actual: whether this is the audit as it was planned.
        note: where the row cannot know all that an audit planned like this would.
    """

    varied: Literal["bound", "alpha", "primary", "attacks", "endpoints"]
    value: str
    word: Literal["WITHIN BOUND", "OUTSIDE BOUND", "INCONCLUSIVE", "NOT ASSESSED"]
    tier: Literal["A", "B", "C", "D"] | None
    actual: bool
    note: str = ""
