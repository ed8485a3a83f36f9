"""ML-Leaks (Salem et al. 2018, arXiv 1806.01246): three adversaries who know less and less.

1. Shadow models on data like the target's; one classifier for all classes on the three largest posteriors.
2. The same classifier from shadow models of *another data set*: hand such a reference to ``fit``. Neither ids nor
   classes need to match, because the features name neither. In the audit of one fleet the shadow models are of the
   target's own data and the adversary is then no other than the first, with the same scores.
3. No shadow model: the target's own confidence, with a threshold from answers to records that cannot be members.

Deviations: all shadow models of the reference serve, not one; classifier, standardisation and log odds as in
``shokri``. Adversary 3 ranks by the statistic on the log scale, where it does not saturate; its threshold lies at the
top share of the answers to uniform noise between the least and the greatest value of each input ("noise", needs live
access; the paper's text leaves the share open, a tenth here), or of the answers to population records ("population"),
where the share is the rate of false alarms; scores are then relative to it. The ranking of one model's records needs
neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.classifiers import ClassifierKind, FittedClassifier, check_classifier, fit_classifier
from mnemoscope.attacks.posteriors import Scale, check_scale, posteriors, top_posteriors
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Answers, Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed

__all__ = ["STATISTICS", "MLLeaks", "MLLeaksUnsupervised", "Statistic", "ThresholdFrom", "top_share"]

Floats = NDArray[np.float64]
Statistic = Literal["maximum", "deviation", "entropy"]
ThresholdFrom = Literal["nothing", "population", "noise"]

TOP = 3
"""Posteriors that the attacker reads, the largest first."""


@dataclass(frozen=True)
class MLLeaks:
    """Log odds of membership by one classifier for all classes on the three largest posteriors.

    Attributes:
        adversary: 1, shadow models of the target's data; 2, of another data set (see the module).
        classifier: "logistic", "tree", "forest" or "mlp".
        scale: features are probabilities, as published, or their logarithms ("log"), which do not saturate.
        rows: at most this many shadow rows, half on each side, shared evenly over the models.
    """

    adversary: Literal[1, 2] = 1
    classifier: ClassifierKind = "logistic"
    scale: Scale = "probability"
    rows: int = 20_000
    any_records = True

    def __post_init__(self) -> None:
        if self.adversary not in (1, 2):
            raise InvalidInput(f"adversary={self.adversary!r} must be 1 or 2; the third is ml_leaks_3")
        check_classifier(self.classifier)
        check_scale(self.scale)
        if self.rows < 2:
            raise InvalidInput(f"rows={self.rows!r} must be at least 2, one a side")

    @property
    def name(self) -> str:
        """``ml_leaks_1`` or ``ml_leaks_2``, with the classifier and the scale that differ from the default."""
        kind = "" if self.classifier == "logistic" else f"_{self.classifier}"
        return f"ml_leaks_{self.adversary}" + kind + ("" if self.scale == "probability" else f"_{self.scale}")

    @property
    def needs(self) -> Need:
        """Scores, and shadow models with records on both sides; they need not be the audited ones."""
        return Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "MLLeaksScorer":
        """Fit the one classifier."""
        rows = shadow_rows(reference, self._features, cap=self.rows, rng=rng)
        fitted = fit_classifier(self.classifier, rows.features, rows.member, rng=rng)
        return MLLeaksScorer(self, fitted, reference.n_classes)

    def _features(self, view: View) -> Floats:
        return top_posteriors(view, TOP, self.scale)


@dataclass(frozen=True, eq=False)
class MLLeaksScorer:
    """The fitted classifier; even odds are the threshold."""

    attack: MLLeaks
    fitted: FittedClassifier
    n_classes: int
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64.

        Raises:
            InvalidInput: adversary 1, and a target with another number of classes than the shadow models.
        """
        if self.attack.adversary == 1 and view.n_classes != self.n_classes:
            raise InvalidInput(
                f"the target has {view.n_classes} classes and the shadow models {self.n_classes}: they are of "
                "another data set. Use shadow models of the target's data, or ml_leaks_2 for the transfer"
            )
        return self.fitted.log_odds(top_posteriors(view, TOP, self.attack.scale))


def _maximum(answers: Answers) -> Floats:
    return np.asarray(answers.signal("top_confidence").mean(axis=-1), np.float64)


def _deviation(answers: Answers) -> Floats:
    return np.asarray(np.log(np.maximum(posteriors(answers).std(axis=1), np.finfo(np.float64).tiny)), np.float64)


def _entropy(answers: Answers) -> Floats:
    return np.asarray(answers.signal("negative_entropy").mean(axis=-1), np.float64)


STATISTICS: dict[str, Callable[[Answers], Floats]] = {
    "maximum": _maximum,
    "deviation": _deviation,
    "entropy": _entropy,
}
"""What adversary 3 reads of each output vector, larger = more member-like: log of the largest posterior, log of the
standard deviation of the posteriors, minus their entropy. Several queries are averaged."""


@dataclass(frozen=True)
class MLLeaksUnsupervised:
    """The target's own confidence, whatever the label, without any shadow model.

    Attributes:
        statistic: key of ``STATISTICS``.
        threshold_from: "nothing" (ranks alone), "population" or "noise" (see the module).
        share: of those answers that lies at or above the threshold, in (0, 1).
        noise_inputs: number of noise inputs asked, under "noise".
    """

    statistic: Statistic = "maximum"
    threshold_from: ThresholdFrom = "nothing"
    share: float = 0.1
    noise_inputs: int = 1000

    def __post_init__(self) -> None:
        if self.statistic not in STATISTICS:
            raise InvalidInput(f"statistic={self.statistic!r} is unknown; allowed: {', '.join(STATISTICS)}")
        if self.threshold_from not in get_args(ThresholdFrom):
            allowed = ", ".join(get_args(ThresholdFrom))
            raise InvalidInput(f"threshold_from={self.threshold_from!r} is unknown; allowed: {allowed}")
        if not 0 < self.share < 1:
            raise InvalidInput(f"share={self.share!r} must lie strictly between 0 and 1")
        if self.noise_inputs < 1:
            raise InvalidInput(f"noise_inputs={self.noise_inputs!r} must be at least 1")

    @property
    def name(self) -> str:
        """``ml_leaks_3``, with the statistic and the source of the threshold that differ from the default."""
        statistic = "" if self.statistic == "maximum" else f"_{self.statistic}"
        return "ml_leaks_3" + statistic + ("" if self.threshold_from == "nothing" else f"_{self.threshold_from}")

    @property
    def needs(self) -> Need:
        """Scores, and the population or live access where the threshold comes from them."""
        more = {"nothing": Need.NOTHING, "population": Need.POPULATION, "noise": Need.ORACLE}
        return Need.SCORES | more[self.threshold_from]

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "MLLeaks3Scorer":
        """Learn nothing; draw the seed of the noise."""
        return MLLeaks3Scorer(self, int(rng.integers(2**31 - 1)) if self.threshold_from == "noise" else 0)


@dataclass(frozen=True, eq=False)
class MLLeaks3Scorer:
    """Adversary 3 for any target; 0 is its threshold where the scores are relative to one, else it has none."""

    attack: MLLeaksUnsupervised
    seed: int

    @property
    def threshold(self) -> float | None:
        """0.0, or None where nothing gives a threshold."""
        return None if self.attack.threshold_from == "nothing" else 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        statistic = STATISTICS[self.attack.statistic]
        score = statistic(view)
        if self.attack.threshold_from == "population":
            if view.population is None:
                raise MissingNeed(f"{self.attack.name} needs population records that no model was trained on")
            view.require_disjoint(view.population, "population")
            score = score - top_share(statistic(view.population), self.attack.share)
        if self.attack.threshold_from == "noise":
            if view.oracle is None:
                raise MissingNeed(f"{self.attack.name} needs live access to the model, to ask it about noise")
            score = score - top_share(statistic(self._noise(view.oracle, view.ids)), self.attack.share)
        return score

    def _noise(self, oracle: Oracle, ids: NDArray[np.int64]) -> Answers:
        """Answers to uniform noise between the least and the greatest value of each input among the records."""
        import torch

        number = self.attack.noise_inputs
        # A few hundred records show the range; their choice follows the ids, not the order in which they came.
        inputs = oracle.inputs(np.sort(ids)[:RANGE_RECORDS])
        low, high = inputs.amin(dim=0), inputs.amax(dim=0)
        unit = np.random.default_rng(self.seed).random((number, *inputs.shape[1:]), dtype=np.float32)
        with torch.no_grad():
            noise = low + (high - low) * torch.from_numpy(unit).to(inputs.device)
            logits = oracle.logits(noise).to("cpu", torch.float32).numpy()
        return Answers(np.arange(number), np.zeros(number, np.int64), logits[:, None])


RANGE_RECORDS = 512
"""Records whose inputs show the range of the noise."""


def top_share(values: Floats, share: float) -> float:
    """Return the least value such that at most ``share`` of the values lie at or above it.

    Above all of them (by the least step) where even the largest one is tied too often.

    Args:
        values: (k,) float64, k >= 1.
        share: in (0, 1).

    >>> top_share(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 0.4)
    4.0
    """
    levels, counts = np.unique(values, return_counts=True)
    at_or_above = counts[::-1].cumsum()[::-1]
    allowed = np.flatnonzero(at_or_above <= share * values.size)
    return float(levels[allowed[0]] if allowed.size else np.nextafter(levels[-1], np.inf))
