"""Shadow-model classifiers, one for each class, on the output vector (Shokri et al. 2017, arXiv 1610.05820).

Deviations: shadow models are the audit's own fleet, whose training sets overlap, instead of models on disjoint draws;
the classifier is a choice (the paper's network is "mlp"); its features are standardised; members and non-members are
drawn in equal numbers and scores are log odds instead of a yes or no; a class with too few rows on either side is
served by one model of all classes, where the paper has no answer: it reads the probability of the record's own class,
then the others from the largest to the smallest, because classes in their own order mean nothing to it. Several queries
average their output vectors.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.classifiers import ClassifierKind, FittedClassifier, check_classifier, fit_classifier
from mnemoscope.attacks.posteriors import Scale, check_scale, posteriors
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.audit.answers.views import Need, Reference, View
from mnemoscope.audit.errors import InvalidInput

__all__ = ["Shokri", "ShokriScorer", "own_class_first"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shokri:
    """Log odds of membership by a classifier of the record's class on the output vector.

    Attributes:
        classifier: "logistic", "tree", "forest" or "mlp".
        scale: features are probabilities, as published, or their logarithms ("log"), which do not saturate.
        rows: at most this many shadow rows, half on each side, shared evenly over the models.
        least: rows on each side that a class needs for a classifier of its own; below, one of all classes serves it.
    """

    classifier: ClassifierKind = "logistic"
    scale: Scale = "probability"
    rows: int = 20_000
    least: int = 100
    any_records = True

    def __post_init__(self) -> None:
        check_classifier(self.classifier)
        check_scale(self.scale)
        if self.rows < 2:
            raise InvalidInput(f"rows={self.rows!r} must be at least 2, one a side")
        if self.least < 1:
            raise InvalidInput(f"least={self.least!r} must be at least 1 row a side")

    @property
    def name(self) -> str:
        """``shokri``, with the classifier and the scale that differ from the default."""
        kind = "" if self.classifier == "logistic" else f"_{self.classifier}"
        return "shokri" + kind + ("" if self.scale == "probability" else f"_{self.scale}")

    @property
    def needs(self) -> Need:
        """Scores, and shadow models with records on both sides; they need not be the audited ones."""
        return Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "ShokriScorer":
        """Fit a classifier for each class with enough rows, and one for the classes without."""
        rows = shadow_rows(reference, partial(posteriors, scale=self.scale), cap=self.rows, rng=rng)
        by_class: list[FittedClassifier | None] = [None] * reference.n_classes
        for label in range(reference.n_classes):
            own = rows.where(rows.labels == label)
            if min(int(own.member.sum()), int((~own.member).sum())) >= self.least:
                by_class[label] = fit_classifier(self.classifier, own.features, own.member, rng=rng)
        pooled = None
        if None in by_class:
            pooled = fit_classifier(self.classifier, own_class_first(rows.features, rows.labels), rows.member, rng=rng)
        return ShokriScorer(self, tuple(by_class), pooled)


def own_class_first(vectors: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return output vectors with the entry of the true class first and the others in descending order, (r, c).

    >>> own_class_first(np.array([[0.1, 0.2, 0.7]]), np.array([1])).tolist()
    [[0.2, 0.7, 0.1]]
    """
    own = np.take_along_axis(vectors, labels[:, None], axis=1)
    rest = vectors.copy()
    np.put_along_axis(rest, labels[:, None], np.inf, axis=1)
    return np.concatenate([own, -np.sort(-rest, axis=1)[:, 1:]], axis=1)


@dataclass(frozen=True, eq=False)
class ShokriScorer:
    """Fitted classifiers by class; None where ``pooled`` serves. Even odds are the threshold."""

    attack: Shokri
    by_class: tuple[FittedClassifier | None, ...]
    pooled: FittedClassifier | None
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64.

        Raises:
            InvalidInput: a target with another number of classes than the shadow models.
        """
        if view.n_classes != len(self.by_class):
            raise InvalidInput(
                f"the target has {view.n_classes} classes and the shadow models {len(self.by_class)}: classifiers by "
                "class do not carry over. Use shadow models of the same classes, or ml_leaks_2, which reads no class"
            )
        features = posteriors(view, self.attack.scale)
        scores = np.zeros(view.n_records)
        for label in np.unique(view.labels):
            own, fitted = view.labels == label, self.by_class[label]
            if fitted is not None:
                scores[own] = fitted.log_odds(features[own])
            elif self.pooled is not None:
                scores[own] = self.pooled.log_odds(own_class_first(features[own], view.labels[own]))
        return scores
