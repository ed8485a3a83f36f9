"""Attack-P, the population attack (Ye et al. 2022, arXiv 2111.09679)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.places import places

__all__ = ["Population"]


@dataclass(frozen=True)
class Population:
    """Minus the exact p-value of a record among population records, non-members of the target.

    Attributes:
        signal: key of ``SIGNALS``; several queries are averaged first.
    """

    signal: str = "negative_loss"
    name = "population"
    needs = Need.SCORES | Need.POPULATION

    def __post_init__(self) -> None:
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "PopulationScorer":
        """Nothing to learn: the population speaks through the target itself."""
        return PopulationScorer(self.signal)


@dataclass(frozen=True)
class PopulationScorer:
    """Attack-P for any target that answered on population records."""

    signal: str

    def p_values(self, view: View) -> NDArray[np.float64]:
        """Return (n,) float64, (1 + #{z : signal_z >= signal_x}) / (z + 1), valid for non-members at every size."""
        if view.population is None:
            raise MissingNeed("population needs population records that no model was trained on")
        view.require_disjoint(view.population, "population")
        known = np.sort(view.population.averaged(self.signal))
        below = places(known, view.averaged(self.signal))
        return np.asarray((1.0 + known.size - below) / (known.size + 1.0), np.float64)

    def score(self, view: View) -> NDArray[np.float64]:
        """Return (n,) float64: minus the p-value, so that score >= -alpha decides at level alpha."""
        return -self.p_values(view)
