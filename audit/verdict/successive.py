"""Deletion requests that come one after another: what of each is found after each, and whether early ones come back.

The primary attack scores all records that were asked for so far, once; its thresholds rest on never-seen records alone.
What is counted changes: all of them, those of the newest request, those of the first.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.statistics.fleet import FleetRate, FleetScores
from mnemoscope.audit.statistics.fleet_differences import difference
from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["SuccessiveRates"]


@dataclass(eq=False)
class SuccessiveRates:
    """The rates of one subject, request by request.

    Attributes:
        number: (m, n) request that names each audited record in each model, from 1 on; 0 where it is not forgotten.
        alpha: the FPR; None where the counts bear none.
        level: confidence of the intervals.
    """

    number: NDArray[np.int16]
    alpha: float | None
    level: float
    _first: FleetRate | None = field(default=None, repr=False)

    def rates(self, scores: FleetScores, retrained: FleetScores, request: int) -> dict[str, Estimate]:
        """Return the estimates of a ``RequestRow`` that rest on scores, by their names; requests come in order.

        Args:
            scores: of the subject after the request, forgotten against never-seen.
            retrained: of models trained again without all records asked for so far.
            request: number of the newest request.
        """
        if self.alpha is None:
            none = Estimate(None, reason="the counts bear no rate")
            return dict.fromkeys(("tpr", "newest", "first", "first_change", "over_forgotten", "retrained"), none)
        whole = scores.rates([self.alpha])[0]
        first = self._of(scores, 1)
        if request == 1:
            self._first = first
            change = Estimate(None, reason="the first request has just been carried out")
        elif self._first is None:
            change = Estimate(None, reason="the models right after the first request were not scored")
        else:
            change = difference(first, self._first, self.level)
        return {
            "tpr": whole.tpr_estimate(self.level),
            "newest": self._of(scores, request).tpr_estimate(self.level),
            "first": first.tpr_estimate(self.level),
            "first_change": change,
            "over_forgotten": scores.rates([self.alpha], "over-forgotten")[0].tpr_estimate(self.level),
            "retrained": retrained.rates([self.alpha])[0].tpr_estimate(self.level),
        }

    def _of(self, scores: FleetScores, request: int) -> FleetRate:
        """The rate on one request's records; thresholds stay those of all never-seen ones."""
        assert self.alpha is not None
        others = (scores.side == Side.IN) & (self.number != request)
        side = np.where(others, np.int8(Side.LEAVE_OUT), scores.side)
        return FleetScores(scores.score, side, scores.fold).rates([self.alpha])[0]
