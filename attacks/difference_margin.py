"""The record's margin before deletion minus its margin after it: one number for who holds both versions.

Our own reading of the attack of Chen et al. 2021 (arXiv 2005.02205), which compares whole posteriors with one
classifier for all records. Here the difference of the logit margins, which do not saturate, is calibrated for each
record: a likelihood ratio of two Gaussians as in LiRA (Carlini et al. 2022, arXiv 2112.03570), between pairs of models
in which the record was deleted and pairs in which it was not. So retraining noise, which differs from record to record,
is measured in the place where it disturbs.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.before_after import signal_before
from mnemoscope.attacks.lira import LiRA, LiraScorer, Variance
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, View
from mnemoscope.audit.errors import InvalidInput

__all__ = ["DifferenceMargin", "DifferenceMarginAlone", "difference_signal"]

Floats = NDArray[np.float64]

NORMAL_MAD = 1.4826
"""Standard deviations in a median absolute deviation of a normal distribution."""

LEAST_SPREAD = 1e-3
"""In logits, LiRA's own floor: smaller differences are nothing an attacker can use."""


@dataclass(frozen=True)
class DifferenceMargin:
    """Likelihood ratio of a record's margin before minus after deletion, from pairs where it was deleted and not.

    Attributes:
        online: uses pairs of both sides; offline it is the standardised distance from the pairs in which the record
            was not deleted, which also suits an attacker who cannot repeat the deletion.
        variance: as for ``LiRA``.
        signal: key of ``SIGNALS``; several queries are scored each by itself and averaged.
    """

    online: bool = True
    variance: Variance = "shrunk"
    signal: str = "margin"

    def __post_init__(self) -> None:
        LiRA(online=self.online, variance=self.variance, signal=self.signal)  # the same settings are refused

    @property
    def name(self) -> str:
        """``difference_margin``, with what differs from the default."""
        return self._lira.name.replace("lira", "difference_margin", 1)

    @property
    def needs(self) -> Need:
        """Both versions of the target and of OUT pairs, and of IN pairs online."""
        return self._lira.needs | Need.BEFORE

    @property
    def _lira(self) -> LiRA:
        return LiRA(online=self.online, variance=self.variance)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "DifferenceMarginScorer":
        """Fit both distributions of every record's difference; nothing is drawn from ``rng``."""
        fitted = self._lira.fit(_fleet_of_differences(reference, self.signal), rng=rng)
        return DifferenceMarginScorer(fitted, self.signal)

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every pair against all the others, in closed form."""
        return self._lira.score_fleet(_fleet_of_differences(reference, self.signal), rng=rng)


@dataclass(frozen=True, eq=False)
class DifferenceMarginScorer:
    """Fitted on the differences of the reference pairs."""

    lira: LiraScorer
    signal: str

    @property
    def threshold(self) -> float | None:
        """Even odds online; none offline."""
        return self.lira.threshold

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        difference = difference_signal(view, self.signal)
        return self.lira.score(replace(view, before=None, population=None, _signals={("margin", 1.0): difference}))


@dataclass(frozen=True)
class DifferenceMarginAlone:
    """A record's margin before minus after deletion, without any model of the attacker's own.

    Attributes:
        by_class: standardised by median and median absolute deviation of the target's own records of the same class:
            where most of them were not deleted, these are the null of "not deleted". The attack's source of a null
            for who knows no retained record and can train no model.
        signal: key of ``SIGNALS``; several queries are averaged first.
        least: a class with fewer records than this takes the median and deviation of all records.
    """

    by_class: bool = False
    signal: str = "margin"
    least: int = 10

    def __post_init__(self) -> None:
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")
        if self.least < 2:
            raise InvalidInput(f"least={self.least!r} must be at least 2: one record has no spread")

    needs = Need.SCORES | Need.BEFORE

    @property
    def name(self) -> str:
        """``difference_margin_uncalibrated`` or ``difference_margin_by_class``."""
        return "difference_margin_by_class" if self.by_class else "difference_margin_uncalibrated"

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "DifferenceMarginAlone":
        """Nothing to learn."""
        return self

    def score(self, view: View) -> Floats:
        """Return (n,) float64: logits, or by class in standard deviations."""
        difference: Floats = difference_signal(view, self.signal).mean(axis=-1)
        if not self.by_class:
            return difference
        centre, spread = np.empty_like(difference), np.empty_like(difference)
        everyone = np.ones(difference.size, np.bool_)
        for label in np.unique(view.labels):
            own = view.labels == label
            middle, deviation = _robust(difference[own if own.sum() >= self.least else everyone])
            centre[own], spread[own] = middle, deviation
        return (difference - centre) / spread


def difference_signal(answers: View | Reference, name: str = "margin") -> Floats:
    """Return a signal before minus after deletion, (n, q) or (m, n, q) float64.

    Raises:
        MissingNeed: no answers before deletion, or a model that answers with labels only.
        InvalidInput: versions that do not match.
    """
    return signal_before(answers, name) - answers.signal(name)


def _fleet_of_differences(reference: Reference, signal: str) -> Reference:
    """Return the fleet with the difference in the place of the margin, for LiRA to read."""
    difference = difference_signal(reference, signal)
    return replace(reference, before=None, population=None, oracles=None, _signals={("margin", 1.0): difference})


def _robust(values: Floats) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, max(LEAST_SPREAD, NORMAL_MAD * float(np.median(np.abs(values - middle))))
