"""Scores that have met the truth, and the one shape in which an estimate leaves this package."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["Estimate", "Interval", "Trials"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval or one-sided limit.

    Attributes:
        lower: lower limit (the parameter's minimum for an upper limit).
        upper: upper limit (the parameter's maximum for a lower limit).
        level: confidence in (0, 1), e.g. 0.95.
        sides: "two", or which single limit is meant.
        method: how it was computed, for the reader.
    """

    lower: float
    upper: float
    level: float
    sides: Literal["two", "lower", "upper"]
    method: str


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and counts; an impossible one is ``value=None`` with a reason, never NaN.

    Attributes:
        value: the point estimate, a proportion in [0, 1] for rates.
        ci: its interval.
        k: events, for rates.
        n: trials or records behind it.
        reason: why there is no value, or a caution about it.
    """

    value: float | None
    ci: Interval | None = None
    k: int | None = None
    n: int | None = None
    reason: str | None = None

    @property
    def low(self) -> float | None:
        """Lower limit, or None."""
        return None if self.ci is None else self.ci.lower

    @property
    def high(self) -> float | None:
        """Upper limit, or None."""
        return None if self.ci is None else self.ci.upper


@dataclass(frozen=True, eq=False)
class Trials:
    """Scores with truth: one row a (model, record) pair.

    Attributes:
        score: (t,) float64, higher = more likely in.
        is_in: (t,) bool, the truth.
        record_id: (t,) int64.
        model_id: (t,) int64; all equal for one model.
    """

    score: NDArray[np.float64]
    is_in: NDArray[np.bool_]
    record_id: NDArray[np.int64]
    model_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = {a.shape for a in (self.score, self.is_in, self.record_id, self.model_id)}
        if len(shapes) != 1 or self.score.ndim != 1:
            raise InvalidInput(f"Trials: all four arrays must be (t,) of one length, given {sorted(shapes)}")
        if not np.isfinite(self.score).all():
            raise InvalidInput(
                f"Trials: {int((~np.isfinite(self.score)).sum())} scores are not finite; "
                "name these records and leave them out"
            )

    @classmethod
    def from_fleet(cls, scores: NDArray[np.float64], side: NDArray[np.int8], record_ids: NDArray[np.int64]) -> "Trials":
        """Pool (m, n) scores of a fleet; entries whose side is neither IN (1) nor OUT (0) are left out."""
        model, record = np.nonzero(side >= 0)
        return cls(
            scores[model, record],
            side[model, record] == 1,
            record_ids[record],
            model.astype(np.int64),
        )

    @classmethod
    def one_model(cls, score: NDArray[np.float64], is_in: NDArray[np.bool_], record_ids: NDArray[np.int64]) -> "Trials":
        """Trials of a single target model."""
        return cls(score, is_in, record_ids, np.zeros(score.shape, np.int64))

    @property
    def in_scores(self) -> NDArray[np.float64]:
        """Scores of the "in" trials."""
        return self.score[self.is_in]

    @property
    def out_scores(self) -> NDArray[np.float64]:
        """Scores of the "out" trials."""
        return self.score[~self.is_in]
