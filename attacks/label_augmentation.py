"""Membership from the labels of altered copies of a record (Choquette-Choo et al. 2021, arXiv 2007.14321).

The model is asked about fixed variations of a record, and what is read is which of them it still labels rightly: a
vector of zeros and ones. A classifier fitted on shadow models turns the vector into a score ("augmentation attack");
without shadow models the number of right answers is the score, as in the same paper's noise attack, which is
cheaper than the distance to the decision boundary that it stands for.

Deviations: translations are (dx, dy) with |dx| + |dy| = d and the record itself, 4d + 1 queries, as in the release,
but zeros come in where the release may wrap or interpolate; the classifier is standardised and named by a setting
instead of a network of 10 and 10 units, and one for all classes instead of one a class unless ``by_class`` asks for
it: with a handful of bits there is little to learn, and few shadow records a class to learn it from. Noise is added
to normalised inputs, so its scale is in standard deviations of a pixel or column.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.classifiers import FittedClassifier, check_classifier, fit_classifier
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.audit.answers.views import Need, Reference, View
from mnemoscope.audit.errors import InvalidInput

__all__ = ["Family", "LabelAugmentation"]

Floats = NDArray[np.float64]
Family = Literal["shifts", "rotations", "noise", "flips"]
Classifier = Literal["count", "logistic", "tree", "forest", "mlp"]

NAMES = {"shifts": "label_augmentation", "rotations": "label_rotation", "noise": "label_noise", "flips": "label_flips"}
LEARNED_BY_DEFAULT = ("shifts", "rotations")
AMOUNTS: dict[str, float] = {"shifts": 1, "rotations": 9, "noise": 0.1, "flips": 0.02}
STEPS: dict[str, int] = {"shifts": 0, "rotations": 9, "noise": 32, "flips": 32}
LEAST_ROWS = 20
"""Rows a side that a class needs for a classifier of its own."""


@dataclass(frozen=True)
class LabelAugmentation:
    """Which altered copies of a record the model still labels rightly; reads predicted labels only.

    Attributes:
        family: "shifts" and "rotations" of images, "noise" on any record, "flips" of bits in tables of zeros and ones.
        amount: largest shift in pixels, largest rotation in degrees, standard deviation of the noise in normalised
            inputs, or probability of a flip; 0 takes the family's own: 1, 9, 0.1, 0.02.
        draws: rotations on each side (2 draws + 1 angles), or draws of noise or flips; 0 takes 9, 32 and 32.
        classifier: "count" of right answers, without any shadow model; or a ``ClassifierKind`` fitted on some.
        by_class: one classifier for each true class that has enough shadow rows, else the common one.
    """

    family: Family = "shifts"
    amount: float = 0
    draws: int = 0
    classifier: Classifier = "mlp"
    by_class: bool = False

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise InvalidInput(f"family={self.family!r} is unknown; allowed: {', '.join(get_args(Family))}")
        if self.classifier != "count":
            check_classifier(self.classifier)
        elif self.by_class:
            raise InvalidInput("by_class=True, classifier='count': a count is the same for every class; choose one")
        if self.amount < 0 or self.draws < 0 or not np.isfinite(self.amount):
            raise InvalidInput(f"amount={self.amount!r}, draws={self.draws!r} must be 0 or more, and finite")
        if self.family == "shifts" and (self.amount != int(self.amount) or self.draws):
            raise InvalidInput(
                f"amount={self.amount!r}, draws={self.draws!r}: shifts go by whole pixels, all of one distance; "
                "leave draws at 0"
            )
        if self.family == "flips" and self.amount > 1:
            raise InvalidInput(f"amount={self.amount!r} must be a probability for flips")

    @property
    def name(self) -> str:
        """The family's name, with ``_count`` or ``_learned`` and ``_by_class`` where that is not its default."""
        learned = self.classifier != "count"
        default = self.family in LEARNED_BY_DEFAULT
        suffix = "" if learned == default else "_learned" if learned else "_count"
        return NAMES[self.family] + suffix + "_by_class" * self.by_class

    @property
    def needs(self) -> Need:
        """Shadow models with both sides for a classifier; no scores in any case."""
        return Need.NOTHING if self.classifier == "count" else Need.SHADOW_IN | Need.SHADOW_OUT

    @property
    def queries(self) -> tuple[str, ...]:
        """The record itself and its variations, by the names that models are asked by."""
        amount = self.amount or AMOUNTS[self.family]
        draws = self.draws or STEPS[self.family]
        if self.family == "shifts":
            d = int(amount)
            ring = sorted({(dx, s * (d - abs(dx))) for dx in range(-d, d + 1) for s in (-1, 1)})
            varied = [f"shift:{dx},{dy}" for dx, dy in ring]
        elif self.family == "rotations":
            angles = [amount * k / draws for k in range(-draws, draws + 1) if k]
            varied = [f"rotate:{angle:.12g}" for angle in angles]
        else:
            varied = [f"{self.family}:{amount:.12g}:{k}" for k in range(draws)]
        return ("identity", *varied)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "LabelScorer":
        """Fit the classifier on the shadow models' vectors, or nothing for the count."""
        if self.classifier == "count":
            return LabelScorer(self, None, {}, None)
        rows = shadow_rows(reference, self.vectors, rng=rng)
        common = fit_classifier(self.classifier, rows.features, rows.member, rng=rng)
        own: dict[int, FittedClassifier] = {}
        for label in np.unique(rows.labels) if self.by_class else ():
            part = rows.where(rows.labels == label)
            if min(int(part.member.sum()), int((~part.member).sum())) >= LEAST_ROWS:
                own[int(label)] = fit_classifier(self.classifier, part.features, part.member, rng=rng)
        return LabelScorer(self, common, own, 0.0)

    def vectors(self, view: View) -> Floats:
        """Return (n, q) float64 of zeros and ones: which variations of each record are labelled rightly."""
        return view.signal("correctness")[:, view.query_positions(self.queries)]


@dataclass(frozen=True, eq=False)
class LabelScorer:
    """The count, or the log odds of the fitted classifiers; ``threshold`` is even odds, None for the count."""

    attack: LabelAugmentation
    common: FittedClassifier | None
    own: dict[int, FittedClassifier]
    threshold: float | None

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        vectors = self.attack.vectors(view)
        if self.common is None:
            return np.asarray(vectors.sum(axis=1), np.float64)
        scores = self.common.log_odds(vectors)
        for label, classifier in self.own.items():
            at = view.labels == label
            scores[at] = classifier.log_odds(vectors[at])
        return scores
