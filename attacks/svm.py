"""The SVM attacks of the unlearning literature (Jia et al. 2023, arXiv 2304.04934; Fan et al. 2023, arXiv 2310.12508).

A support vector machine (C = 3, radial kernel, gamma = 1 / number of features, features as they are) learns one
feature of members and of non-members. The tables of that literature print it as "MIA" or "MIA-efficacy": the share of
forget records that it calls non-members, to be compared with the same share under retraining, not with 0 or 100. It
treats all records alike and the smooth kernel acts as one threshold, so it is weak: kept for comparison, never the
headline.

As a registered attack it learns on the reference's models (or on the labelled answers handed in as one); with
``known=True`` it is the published attack on one model, which learns on records of the target whose membership is
known. Deviations: records are ranked by the signed distance from the boundary where the literature counts
predictions; both sides are drawn at random, where the release takes the first records of the loader; the modified
entropy is Song and Mittal's. The release's own function under that name, with the logarithm of the wrong probability
and whole columns overwritten, is ``svm_modified_entropy_as_published``: for comparison with published tables alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import NDArray
from sklearn.svm import SVC

from mnemoscope.attacks.posteriors import posteriors
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.audit.answers.views import Answers, Known, Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.proportions import rate
from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["SVM", "SVM_FEATURES", "mia_efficacy", "modified_entropy_as_published", "training_privacy"]

Floats = NDArray[np.float64]
Decision = Callable[[Floats], Floats]

SERIES_ERROR = 1e-8
"""In the units of the decision, whose margins lie at -1 and 1."""

MOST_TERMS = 600
"""A feature that needs a longer series, with a range of 50 and more kernel widths, is summed as it stands."""

PUBLISHED_FLOOR = np.log(1e-30)
"""What the release puts for the logarithm of a probability that float32 rounds to zero."""


def modified_entropy_as_published(answers: Answers) -> Floats:
    """Return what the release of Unlearn-Sparse calls modified entropy, faults included; smaller = more member-like.

    Two faults: log p stands where log(1 - p) is meant, and the "true class" is every class that occurs among the
    labels *of the batch*, for all of its records. The value therefore hardly depends on a record's own label, and it
    changes with the company a record is scored in.

    Args:
        answers: of one model; all records together are the batch, as there.

    Returns:
        (n,) float64; several queries are averaged.
    """
    listed = np.isin(np.arange(answers.n_classes), answers.labels)
    total: Floats = np.zeros(answers.n_records)
    n_queries = answers.logits.shape[-2]
    for query in range(n_queries):
        one = Answers(answers.ids, answers.labels, answers.logits[:, [query]], labels_only=answers.labels_only)
        logp = posteriors(one, "log")
        p = np.exp(logp)
        logp = np.where(p.astype(np.float32) > 0, logp, PUBLISHED_FLOOR)
        total -= (np.where(listed, 1.0 - p, p) * logp).sum(axis=1)
    total /= n_queries
    return total


def _signal(name: str, sign: float) -> Callable[[Answers], Floats]:
    def feature(answers: Answers) -> Floats:
        column: Floats = sign * answers.signal(name).mean(axis=-1)[:, None]
        return column

    return feature


SVM_FEATURES: dict[str, Callable[[Answers], Floats]] = {
    "correctness": _signal("correctness", 1.0),
    "confidence": _signal("confidence", 1.0),
    "entropy": _signal("negative_entropy", -1.0),
    "modified_entropy": _signal("negative_modified_entropy", -1.0),
    "probability": posteriors,
    "modified_entropy_as_published": lambda answers: modified_entropy_as_published(answers)[:, None],
}
"""What each SVM reads: (n, d) float64 from one model's answers; d is 1, and the number of classes for "probability"."""


@dataclass(frozen=True)
class SVM:
    """Signed distance from an SVM's boundary on one feature: the literature's "MIA", weak, for comparison.

    Attributes:
        feature: key of ``SVM_FEATURES``.
        known: learn on the target's own records of known membership instead of on the reference's models.
        rows: at most this many training rows, half on each side; time grows with their square.
    """

    feature: str = "confidence"
    known: bool = False
    rows: int = 2_000

    def __post_init__(self) -> None:
        _check_feature(self.feature)
        if self.rows < 2:
            raise InvalidInput(f"rows={self.rows!r} must be at least 2, one a side")

    @property
    def any_records(self) -> bool:
        """Whether it learns from labelled answers on any records: not where it learns on the target's own."""
        return not self.known

    @property
    def name(self) -> str:
        """``svm_`` and the feature, with ``_known`` where it learns on the target's own records."""
        return f"svm_{self.feature}" + ("_known" if self.known else "")

    @property
    def needs(self) -> Need:
        """Scores for every feature but correctness, and shadow models with both sides or known records."""
        answers = Need.NOTHING if self.feature == "correctness" else Need.SCORES
        return answers | (Need.KNOWN if self.known else Need.SHADOW_IN | Need.SHADOW_OUT)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "SVMScorer | KnownSVMScorer":
        """Fit on shadow rows; with ``known`` only draw the seed, because what it learns on comes with the target."""
        if self.known:
            return KnownSVMScorer(self, int(rng.integers(2**31 - 1)))
        rows = shadow_rows(reference, SVM_FEATURES[self.feature], cap=self.rows, rng=rng)
        return SVMScorer(self, _fit(rows.features, rows.member), rows.features.shape[1])


@dataclass(frozen=True, eq=False)
class SVMScorer:
    """A fitted SVM on ``width`` features; its boundary is the threshold."""

    attack: SVM
    decision: Decision
    width: int
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64.

        Raises:
            InvalidInput: a probability vector of another number of classes than in training.
        """
        features = SVM_FEATURES[self.attack.feature](view)
        if features.shape[1] != self.width:
            raise InvalidInput(
                f"the target has {features.shape[1]} classes and the shadow models {self.width}: {self.attack.name} "
                "does not carry over. Use shadow models of the same classes, or another feature, e.g. svm_confidence"
            )
        return self.decision(features)


@dataclass(frozen=True, eq=False)
class KnownSVMScorer:
    """The published attack on one model: fits on each target's known records."""

    attack: SVM
    seed: int
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64.

        Raises:
            MissingNeed: a target without known members or known non-members.
            InvalidInput: known records that are audited too.
        """
        known = view.known
        if known is None:
            raise MissingNeed(f"{self.attack.name} needs records of the target with known membership")
        for part in (known.members, known.nonmembers):
            view.require_disjoint(part, "known")
        rng = np.random.default_rng(self.seed)
        decision = _fit_known(known, self.attack.feature, self.attack.rows // 2, rng)
        return decision(SVM_FEATURES[self.attack.feature](view))


def mia_efficacy(
    known: Known,
    forget: Answers,
    *,
    feature: str = "confidence",
    per_side: int = 5_000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Return the "MIA-efficacy" of unlearning tables: the share of forget records that the SVM calls non-members.

    A high value is no success in itself: the aim is the value of a retrained model, and several retrained models show
    how far two such values lie apart by chance.

    Args:
        known: the unlearned model's answers on retained records (members) and on test records (non-members).
        forget: its answers on the forget set; ids apart from those of ``known``.
        feature: key of ``SVM_FEATURES``; "confidence" is the one usually printed.
        per_side: the SVM learns on this many records of each side, drawn at random, or on as many as the smaller
            side has.
        level: of the interval.
        rng: for the draw.

    Returns:
        k of n forget records with Clopper and Pearson's interval, given the model and the fitted SVM; 100 times the
        value is what the tables print.

    Raises:
        InvalidInput: an unknown feature, no known record on a side, or forget records among the known ones.
    """
    _check_feature(feature)
    for part in (known.members, known.nonmembers):
        forget.require_disjoint(part, "known")
    decision = _fit_known(known, feature, per_side, rng)
    if not forget.n_records:
        return rate(0, 0, level)
    return rate(int((decision(SVM_FEATURES[feature](forget)) <= 0).sum()), forget.n_records, level)


def training_privacy(
    known: Known,
    *,
    feature: str = "confidence",
    per_side: int = 5_000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Return the "training privacy" variant: balanced accuracy of the SVM on retained against test records.

    Half of each side, drawn at random, trains it; the other half, equally many on each side, tests it. One half is
    what a model without leaks gives.

    Args:
        known: the model's answers on members and on non-members.
        feature: key of ``SVM_FEATURES``.
        per_side: records of each side that train it, at most.
        level: of the interval.
        rng: for the draw.

    Returns:
        k right of n test records, equally many a side, with Clopper and Pearson's interval (both sides' rates may
        differ, which only makes it wider than needed).

    Raises:
        InvalidInput: an unknown feature, or fewer than 2 known records on a side.
    """
    _check_feature(feature)
    members, nonmembers = _drawn(known, 2 * per_side, rng)
    size = members.n_records
    if size < 2:
        raise InvalidInput(f"{size} known records a side: training privacy needs 2 at least, half train and half test")
    parts = []
    for side in (members, nonmembers):
        order = rng.permutation(size)
        parts.append([_take(side, np.sort(half)) for half in (order[: size // 2], order[size // 2 :])])
    (train_in, test_in), (train_out, test_out) = parts
    decision = _fit_sides(train_in, train_out, feature)
    right = int((decision(SVM_FEATURES[feature](test_in)) > 0).sum())
    right += int((decision(SVM_FEATURES[feature](test_out)) <= 0).sum())
    return rate(right, test_in.n_records + test_out.n_records, level)


def _check_feature(feature: str) -> None:
    if feature not in SVM_FEATURES:
        raise InvalidInput(f"feature={feature!r} is unknown; allowed: {', '.join(SVM_FEATURES)}")


def _fit_known(known: Known, feature: str, per_side: int, rng: np.random.Generator) -> Decision:
    return _fit_sides(*_drawn(known, per_side, rng), feature)


def _fit_sides(members: Answers, nonmembers: Answers, feature: str) -> Decision:
    parts = [SVM_FEATURES[feature](members), SVM_FEATURES[feature](nonmembers)]
    return _fit(np.concatenate(parts), np.arange(members.n_records + nonmembers.n_records) < members.n_records)


def _drawn(known: Known, per_side: int, rng: np.random.Generator) -> tuple[Answers, Answers]:
    """Equally many records of both sides, by id."""
    size = min(per_side, known.members.n_records, known.nonmembers.n_records)
    if size < 1:
        raise InvalidInput(
            f"{known.members.n_records} known members and {known.nonmembers.n_records} known non-members, at most "
            f"{per_side} a side: an SVM needs both"
        )
    members, nonmembers = (_draw(side, size, rng) for side in (known.members, known.nonmembers))
    return members, nonmembers


def _draw(answers: Answers, size: int, rng: np.random.Generator) -> Answers:
    by_id = np.argsort(answers.ids, kind="stable")
    return _take(answers, by_id[np.sort(rng.choice(by_id.size, size, replace=False))])


def _take(answers: Answers, at: NDArray[np.int64]) -> Answers:
    return Answers(answers.ids[at], answers.labels[at], answers.logits[at], labels_only=answers.labels_only)


def _fit(features: Floats, member: NDArray[np.bool_]) -> Decision:
    # Equal rows are one row with their number as its weight: the same problem, and correctness has but four of them.
    rows, number = np.unique(np.column_stack([features, member]), axis=0, return_counts=True)
    # No probabilities are fitted, so the seed decides nothing; without one, the global random state would be read.
    model = SVC(C=3, kernel="rbf", gamma="auto", random_state=0)
    model.fit(rows[:, :-1], rows[:, -1] > 0, sample_weight=number.astype(np.float64))

    def exact(x: Floats) -> Floats:
        return np.asarray(model.decision_function(x) if x.shape[0] else np.zeros(0), np.float64)

    return exact if features.shape[1] > 1 else _quick(exact, features[:, 0])


def _quick(exact: Decision, trained: Floats) -> Decision:
    """Return the decision on one feature, in the range of the training rows by a Chebyshev series.

    Each score is a sum over up to thousands of support vectors; as a function of one number it is a smooth curve of
    unit kernels, which a short series meets to ``SERIES_ERROR`` (checked here; without that it is not used).
    """
    low, high = float(trained.min()), float(trained.max())
    degree = 40 + math.ceil(10.0 * (high - low))
    if low == high or degree > MOST_TERMS:
        return exact
    series = Chebyshev.interpolate(lambda x: exact(x[:, None]), degree, domain=[low, high])
    grid = np.linspace(low, high, 2 * degree + 1)
    if np.abs(series(grid) - exact(grid[:, None])).max() > SERIES_ERROR:
        return exact

    def decision(x: Floats) -> Floats:
        scores: Floats = series(np.clip(x[:, 0], low, high))
        beyond = (x[:, 0] < low) | (x[:, 0] > high)
        scores[beyond] = exact(x[beyond])
        return scores

    return decision
