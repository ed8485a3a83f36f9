"""Exposed individuals: a per-record scorer with an honest tail, and a list under false-discovery control.

A record's score in one model is compared with its own never-seen models only. With k of them a nominal Gaussian
threshold is too low (at nominal 1 % the true rate is 3.3 / 2.0 / 1.5 / 1.2 % with 8 / 16 / 32 / 64 models), so the
exact predictive t quantile with k - 1 degrees of freedom and the factor sqrt(1 + 1/k) is used (Jalko et al. 2026,
arXiv 2605.25819, discuss the bias). The t tail assumes that a record's scores are Gaussian over training seeds.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from mnemoscope.audit.statistics.fleet_differences import mean_share_difference
from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["RecordScorer", "record_p_values"]

Floats = NDArray[np.float64]


def _leave_one_out(values: Floats, out: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Count, mean and variance (ddof 1) of a record's out models, the cell itself left out; each (m, n)."""
    centre = np.where(out, values, 0.0).sum(axis=0) / np.maximum(1, out.sum(axis=0))
    x = values - centre  # centred, so that down-dating the squares loses no digits
    count = out.sum(axis=0) - out
    total = np.where(out, x, 0.0).sum(axis=0) - np.where(out, x, 0.0)
    square = np.where(out, x * x, 0.0).sum(axis=0) - np.where(out, x * x, 0.0)
    safe = np.maximum(1, count)
    mean = total / safe
    variance = np.maximum(0.0, square - total * mean) / np.maximum(1, count - 1)
    return count.astype(np.float64), mean + centre, variance


@dataclass(frozen=True, eq=False)
class RecordScorer:
    """Every cell against its own record's never-seen models, the cell itself left out.

    Attributes:
        z: (m, n) float64 predictive t statistic, -inf where it is not tested.
        degrees: (m, n) float64 degrees of freedom.
        tested: (m, n) bool, cells with at least 3 other never-seen models of their record.
        side: (m, n) int8, 1 forgotten, 0 never seen, -1 takes no part.
    """

    z: Floats
    degrees: Floats
    tested: NDArray[np.bool_]
    side: NDArray[np.int8]

    @classmethod
    def of(cls, values: Floats, side: NDArray[np.int8]) -> "RecordScorer":
        """Score a signal (m, n) float64 whose high values are to be flagged."""
        count, mean, variance = _leave_one_out(values, side == 0)
        tested = (count >= 3) & (variance > 0)
        scale = np.sqrt(np.where(tested, variance, 1.0) * (1.0 + 1.0 / np.maximum(1.0, count)))
        z = np.where(tested, (values - mean) / scale, -np.inf)
        return cls(z, np.maximum(1.0, count - 1.0), tested, side)

    def hits(self, alpha: float) -> NDArray[np.bool_]:
        """(m, n) bool: above the own record's threshold of nominal rate alpha."""
        # A record has one of two counts (its own cell is out or not), so few quantiles serve all cells.
        values, place = np.unique(self.degrees, return_inverse=True)
        above: NDArray[np.bool_] = self.z > stdtrit(values, 1.0 - alpha)[place].reshape(self.z.shape)
        return above

    def difference(self, alpha: float, level: float = 0.95, sides: Literal["upper", "lower"] = "upper") -> Estimate:
        """Share of forgotten cells above their thresholds minus that of never-seen cells, with a one-sided limit."""
        forgotten, never = (self.side == 1) & self.tested, (self.side == 0) & self.tested
        return mean_share_difference(self.hits(alpha), forgotten, never, level, sides)


def record_p_values(values: Floats, side: NDArray[np.int8]) -> Floats:
    """Two-sided Welch p-value of each record: its forgotten models against its never-seen ones.

    Returns:
        (n,) float64; 1.0 where a side has fewer than 3 models or nothing varies.
    """

    def moments(mask: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        count = mask.sum(axis=0).astype(np.float64)
        mean = np.where(mask, values, 0.0).sum(axis=0) / np.maximum(1.0, count)
        square = np.where(mask, (values - mean) ** 2, 0.0).sum(axis=0)
        return count, mean, square / np.maximum(1.0, count - 1.0)

    n1, m1, v1 = moments(side == 1)
    n0, m0, v0 = moments(side == 0)
    usable = (n1 >= 3) & (n0 >= 3) & (v1 + v0 > 0)
    a, b = v1 / np.maximum(1.0, n1), v0 / np.maximum(1.0, n0)
    total = np.where(usable, a + b, 1.0)
    t = (m1 - m0) / np.sqrt(total)
    nu = total**2 / np.where(usable, a**2 / np.maximum(1.0, n1 - 1) + b**2 / np.maximum(1.0, n0 - 1), 1.0)
    p: Floats = np.where(usable, 2.0 * stdtr(np.maximum(1.0, nu), -np.abs(t)), 1.0)
    return p
