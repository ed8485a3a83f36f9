"""Threshold attacks on one signal: correctness, loss, confidence, entropy, modified entropy.

Sources: Yeom et al. 2018 (arXiv 1709.01604) for loss and correctness, Song and Mittal 2021 (arXiv 2003.10595) for the
rest and for thresholds by class set on shadow models. Confidence is ranked by its logit, which orders alike and does
not saturate. Deviations: of several thresholds with the same shadow accuracy the largest is taken (fewest false
alarms), where the release takes the first one it meets, which depends on the order of the records. To pool classes on
one curve, records are ranked by signal minus threshold; a loss or entropy near 0 rounds to the threshold itself there,
so that the records a model is surest of would tie: these are ordered by its ratio to the threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.views import Need, Reference, Side, View
from mnemoscope.audit.errors import InvalidInput

__all__ = ["RULES", "Threshold", "best_threshold"]

Floats = NDArray[np.float64]

RULES = {
    "correctness": "correctness",
    "loss": "negative_loss",
    "confidence": "margin",
    "entropy": "negative_entropy",
    "modified_entropy": "negative_modified_entropy",
}
"""Rule -> key of ``SIGNALS`` that ranks by it."""

NEGATED = frozenset({"negative_loss", "negative_entropy", "negative_modified_entropy"})
"""Signals from minus infinity to 0, which sure records approach over many orders of magnitude."""

LEAST_DIFFERENCE = 2.0**-30
"""Weight of log(threshold / signal) beside their difference: it orders what the difference ties, and no more. Both have
the same sign, so that the decision at 0 stays what it is."""


@dataclass(frozen=True)
class Threshold:
    """The signal itself, or how far it lies above the threshold of the record's class.

    By class the score is signal minus threshold, so that 0 decides.

    Attributes:
        rule: key of ``RULES``; several queries are averaged first.
        by_class: one threshold for each true class, learned on shadow models. The global variant needs no shadow
            model to rank, and gives a decision threshold only where there are some with IN and OUT records.
    """

    rule: str = "modified_entropy"
    by_class: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InvalidInput(f"rule={self.rule!r} is unknown; allowed: {', '.join(RULES)}")

    @property
    def name(self) -> str:
        """The rule, with ``_by_class`` where it has class thresholds."""
        return self.rule + ("_by_class" if self.by_class else "")

    @property
    def needs(self) -> Need:
        """Scores for every rule but correctness; shadow models with both sides for class thresholds."""
        answers = Need.NOTHING if self.rule == "correctness" else Need.SCORES
        return answers | (Need.SHADOW_IN | Need.SHADOW_OUT if self.by_class else Need.NOTHING)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "ThresholdScorer":
        """Search the thresholds of highest balanced accuracy on the shadow models; ``rng`` is not used."""
        side = reference.side
        if not ((side == Side.IN).any() and (side == Side.OUT).any()):
            return ThresholdScorer(RULES[self.rule], None, None)
        signal = reference.averaged(RULES[self.rule])

        def overall() -> float:
            return best_threshold(signal[side == Side.IN], signal[side == Side.OUT])

        if not self.by_class:
            return ThresholdScorer(RULES[self.rule], None, overall())

        def of_class(label: int) -> float | None:
            own = np.flatnonzero(reference.labels == label)
            known, sides = signal.take(own, axis=1), side.take(own, axis=1)
            inside, outside = known[sides == Side.IN], known[sides == Side.OUT]
            return best_threshold(inside, outside) if inside.size and outside.size else None

        found = over_blocks(of_class, range(reference.n_classes), values=signal.size)
        if None in found:  # a class without records on one side takes the threshold of all
            everyone = overall()
            found = [everyone if threshold is None else threshold for threshold in found]
        return ThresholdScorer(RULES[self.rule], np.array(found, np.float64), 0.0)


def _magnitude(values: Floats) -> Floats:
    """Return log(-values) for values <= 0; 0 itself as the smallest number there is."""
    return np.log(np.maximum(-values, np.finfo(np.float64).smallest_subnormal))


@dataclass(frozen=True, eq=False)
class ThresholdScorer:
    """A signal with its decision threshold, None without shadow models; ``by_class`` (c,) holds class thresholds."""

    signal: str
    by_class: Floats | None
    threshold: float | None

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        signal = view.averaged(self.signal)
        if self.by_class is None:
            return signal
        above = signal - self.by_class[view.labels]
        if self.signal not in NEGATED:
            return above
        return above + LEAST_DIFFERENCE * (_magnitude(self.by_class)[view.labels] - _magnitude(signal))


def best_threshold(in_scores: Floats, out_scores: Floats) -> float:
    """Return the observed value t whose rule "in at score >= t" has the highest balanced accuracy.

    Exact, O(k log k), in whole counts; the largest of several best ones.

    Args:
        in_scores: (a,) float64, a >= 1.
        out_scores: (b,) float64, b >= 1.

    >>> best_threshold(np.array([2.0, 3.0, 5.0]), np.array([0.0, 1.0, 4.0]))
    2.0
    """
    # A value of OUT records alone is never best: the next higher one flags as many IN records and fewer OUT records.
    inside = np.sort(in_scores)
    first = np.flatnonzero(np.concatenate([[True], inside[1:] > inside[:-1]]))
    levels = inside[first]
    flagged_in = inside.size - first
    flagged_out = out_scores.size - np.searchsorted(np.sort(out_scores), levels, side="left")
    gain = flagged_in * out_scores.size - flagged_out * in_scores.size
    return float(levels[levels.size - 1 - int(np.argmax(gain[::-1]))])
