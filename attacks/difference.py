"""The attack on the difference of two versions (Chen et al. 2021, arXiv 2005.02205).

Who holds a model before and after a deletion compares its posteriors: the deletion of a record moves the answer on it.
One classifier for all records learns from the attacker's own pairs of models what a deleted record looks like.

Deviations from the release, each because its choice costs power or truth:
- The logistic attack's scaler is the training rows' own; the release fits it anew on the rows it scores, so that a
  record's score depends on which others are scored with it.
- Records are ordered by the posterior before deletion with ties broken by the one after it; the release leaves ties,
  all of which a truncated or label-only answer has, in the order of the classes.
- Features are always made from the answers that the adversary is given; the release makes two of its features, the
  classical baseline's among them, from undefended posteriors while it tests a defence.
- Trees, forest and network see standardised features, which changes nothing for the former two; rows count as if both
  sides were equally many (the release trains on four positives to a negative); scores are log odds.
- ``sorted_basic`` is added. The paper's classical baseline reads the posterior in the order of the classes and no
  label: a linear attacker can find nothing in it where classes are alike, and any attack beats it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mnemoscope.attacks.before_after import logits_before
from mnemoscope.attacks.classifiers import (
    ClassifierKind,
    ClassifierSettings,
    FittedClassifier,
    check_classifier,
    fit_classifier,
)
from mnemoscope.attacks.posteriors import posteriors
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.audit.answers.views import Answers, Need, Reference, View
from mnemoscope.audit.errors import InvalidInput

__all__ = ["FEATURES", "Difference", "DifferenceScorer", "difference_features"]

Floats = NDArray[np.float64]

DEFAULT_FEATURE = "sorted_concat"


def _both_sorted(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Both in the ascending order of the first, ties by the second."""
    order = np.lexsort((after, before), axis=-1)
    return np.take_along_axis(before, order, axis=-1), np.take_along_axis(after, order, axis=-1)


def _sorted_diff(before: Floats, after: Floats) -> Floats:
    first, second = _both_sorted(before, after)
    return first - second


FEATURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "direct_diff": lambda before, after: before - after,
    "sorted_diff": _sorted_diff,
    "direct_concat": lambda before, after: np.concatenate([before, after], axis=-1),
    "sorted_concat": lambda before, after: np.concatenate(_both_sorted(before, after), axis=-1),
    "l2_distance": lambda before, after: np.linalg.norm(before - after, axis=-1, keepdims=True),
    "basic": lambda before, after: before,
    "sorted_basic": lambda before, after: np.sort(before, axis=-1),
}
"""The five constructions of the paper, and the classical attack on the original model: as published, and sorted."""


@dataclass(frozen=True)
class Difference:
    """Classifier on the posteriors before and after deletion, trained on the attacker's own pairs (Chen 2021).

    Attributes:
        feature: key of ``FEATURES``. Concatenations suit originals that overfit, differences those that generalise
            well; those named direct know the classes and need a classifier that is not linear.
        classifier: "logistic", "tree" (10 leaves), "forest" (leaves of at least 30 rows) or "mlp" (100 units, early
            stopping), as in the release.
        trees: of the forest; the release has 500.
        cap: at most this many training rows, half of them a side.
    """

    feature: str = DEFAULT_FEATURE
    classifier: ClassifierKind = "logistic"
    trees: int = 40
    cap: int = 200_000

    def __post_init__(self) -> None:
        if self.feature not in FEATURES:
            raise InvalidInput(f"feature={self.feature!r} is unknown; allowed: {', '.join(FEATURES)}")
        check_classifier(self.classifier)
        if self.trees < 1:
            raise InvalidInput(f"trees={self.trees!r} must be at least 1")
        if self.cap < 2:
            raise InvalidInput(f"cap={self.cap!r} must be at least 2 rows, one a side")

    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT | Need.BEFORE

    @property
    def name(self) -> str:
        """``difference``, with what differs from the default."""
        feature = "" if self.feature == DEFAULT_FEATURE else f"_{self.feature}"
        return "difference" + feature + ("" if self.classifier == "logistic" else f"_{self.classifier}")

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "DifferenceScorer":
        """Train on all pairs of the reference that have a side."""
        rows = shadow_rows(reference, self._features, cap=self.cap, rng=rng)
        return self._fitted(rows.features, rows.member, rng)

    def fit_posteriors(
        self, before: Floats, after: Floats, member: NDArray[np.bool_], *, rng: np.random.Generator
    ) -> "DifferenceScorer":
        """Train on rows of posteriors, for designs in which each pair of models answers on records of its own.

        Args:
            before: (r, c) float64 posteriors before deletion.
            after: (r, c) float64 posteriors after it.
            member: (r,) bool, whether the row's record was deleted.
            rng: seeds the classifier.
        """
        return self._fitted(difference_features(before, after, self.feature), member, rng)

    def _features(self, view: View) -> Floats:
        return _features(view, self.feature)

    def _fitted(self, features: Floats, member: NDArray[np.bool_], rng: np.random.Generator) -> "DifferenceScorer":
        if self.classifier == "tree":
            settings = ClassifierSettings(least_leaf=1, most_leaves=10)
        else:
            settings = ClassifierSettings(trees=self.trees, least_leaf=30, early_stopping=True)
        fitted = fit_classifier(self.classifier, features, member, rng=rng, settings=settings)
        return DifferenceScorer(self.feature, fitted)


@dataclass(frozen=True, eq=False)
class DifferenceScorer:
    """A fitted classifier; ``threshold`` is even odds."""

    feature: str
    fitted: FittedClassifier
    threshold = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64 log odds of "deleted", at equal shares of both sides."""
        return self.fitted.log_odds(_features(view, self.feature))

    def score_posteriors(self, before: Floats, after: Floats) -> Floats:
        """Return (r,) float64 log odds for rows of posteriors (r, c)."""
        return self.fitted.log_odds(difference_features(before, after, self.feature))

    @staticmethod
    def probability(log_odds: Floats) -> Floats:
        """Return the probability of "deleted" that DegCount and DegRate compare."""
        return np.asarray(expit(log_odds), np.float64)


def difference_features(before: Floats, after: Floats, feature: str) -> Floats:
    """Turn posteriors before and after deletion into one of the paper's features.

    Args:
        before: (r, c) float64 posteriors of the original model.
        after: (r, c) float64 posteriors of the unlearned model.
        feature: key of ``FEATURES``.

    Returns:
        (r, d) float64: d = c for differences and the baselines, 2c for concatenations, 1 for the distance.

    Raises:
        InvalidInput: an unknown feature, or shapes that differ.

    >>> before, after = np.array([[0.2, 0.7, 0.1]]), np.array([[0.4, 0.5, 0.1]])
    >>> difference_features(before, after, "sorted_diff").round(6).tolist()
    [[0.0, -0.2, 0.2]]
    """
    if feature not in FEATURES:
        raise InvalidInput(f"feature={feature!r} is unknown; allowed: {', '.join(FEATURES)}")
    if before.shape != after.shape or before.ndim != 2:
        raise InvalidInput(f"posteriors before {before.shape} and after {after.shape} must both be (rows, classes)")
    return FEATURES[feature](before, after)


def _features(view: View, feature: str) -> Floats:
    earlier = posteriors(Answers(view.ids, view.labels, logits_before(view)))
    return difference_features(earlier, posteriors(view), feature)
