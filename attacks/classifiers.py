"""The classifiers that learned attacks choose from, behind one small interface: rows in, log odds of membership out.

All are scikit-learn's. Features are standardised by the training rows alone. Scores are log odds, not probabilities:
a probability near one is rounded and ties the most exposed records. The share of members among the training rows is
taken out, so that zero means even odds whatever that share was.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from mnemoscope.audit.errors import InvalidInput

__all__ = [
    "ClassifierKind",
    "ClassifierSettings",
    "FittedClassifier",
    "check_classifier",
    "fit_classifier",
    "joint_forest",
]

Floats = NDArray[np.float64]
ClassifierKind = Literal["logistic", "tree", "forest", "mlp"]

LEAF_SHARE = 0.01
"""A leaf holds at least this share of the training rows (and 5 of them): odds from fewer are noise."""

FARTHEST = 1e6
"""In standard deviations: a row farther out than this is scored as if it lay here (trees read float32)."""

DECIMALS = 10
"""Of log odds."""

BLOCK_ROWS = 16_384
"""Rows that walk through a forest together: a few times 4 MB."""

TREES = 30
HIDDEN = 64
MLP_STEPS = 50
MLP_DECAY = 1e-2


@dataclass(frozen=True)
class ClassifierSettings:
    """What a publication prescribes for its trees and networks; the defaults are this module's own.

    Attributes:
        trees: of a forest.
        least_leaf: least rows of a leaf; None means 1 % of the rows, and 5 at least.
        most_leaves: of a tree; None leaves it to ``least_leaf``. A forest does not read it.
        early_stopping: the network is 100 units wide, trained by Adam at a rate of 0.01 until a tenth of its rows,
            held out, gets no better; otherwise it is trained by L-BFGS on all rows.
    """

    trees: int = TREES
    least_leaf: int | None = None
    most_leaves: int | None = None
    early_stopping: bool = False

    def leaf(self, rows: int) -> int:
        """Least rows of a leaf among ``rows``."""
        return max(5, round(LEAF_SHARE * rows)) if self.least_leaf is None else self.least_leaf


OWN_SETTINGS = ClassifierSettings()


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A fitted classifier with its scaler.

    Attributes:
        mean: (d,) float64 of the training rows.
        scale: (d,) float64, their standard deviations, 1 for constant columns.
        prior: log odds of membership among the training rows, subtracted from every score.
        raw: log odds of standardised features (r, d).
    """

    mean: Floats
    scale: Floats
    prior: float
    raw: Callable[[Floats], Floats]

    def log_odds(self, features: Floats) -> Floats:
        """Score rows.

        Args:
            features: (r, d) float64, columns as in training.

        Returns:
            (r,) float64, finite; higher = more likely a member, 0 = even odds.

        Raises:
            InvalidInput: another number of columns than in training.
        """
        if features.ndim != 2 or features.shape[1] != self.mean.size:
            raise InvalidInput(f"features {features.shape} must be (rows, {self.mean.size}), as in training")
        if not features.shape[0]:
            return np.zeros(0)
        scores = self.raw(_standardised(features, self.mean, self.scale)) - self.prior
        # Equal rows must tie: the last bits of a matrix product change with the place of a row.
        return np.asarray(np.round(scores, DECIMALS), np.float64)


def check_classifier(kind: str) -> None:
    """Raise ``InvalidInput`` unless ``kind`` names a classifier."""
    if kind not in get_args(ClassifierKind):
        raise InvalidInput(f"classifier={kind!r} is unknown; allowed: {', '.join(get_args(ClassifierKind))}")


def fit_classifier(
    kind: ClassifierKind,
    features: Floats,
    member: NDArray[np.bool_],
    *,
    rng: np.random.Generator,
    settings: ClassifierSettings = OWN_SETTINGS,
) -> FittedClassifier:
    """Fit one classifier; the same rows in the same order and the same generator give the same scores.

    Args:
        kind: "logistic" (L2, C = 1); "tree" (leaves of at least 1 % of the rows); "forest" (30 such trees); or
            "mlp" (one hidden layer of 64 rectified units, L-BFGS, as deep as the attack models of the literature).
        features: (r, d) float64, finite.
        member: (r,) bool.
        rng: seeds the tree, the forest and the network; always one draw.
        settings: other sizes of trees and networks.

    Returns:
        A classifier whose scores are log odds at equal shares of members and non-members.

    Raises:
        InvalidInput: an unknown kind, features that are not finite or not (r, d), or rows of one side only.
    """
    check_classifier(kind)
    features = np.ascontiguousarray(features, np.float64)
    if features.ndim != 2 or features.shape[0] != member.size or not np.isfinite(features).all():
        raise InvalidInput(f"features {features.shape} must be finite, (rows, d) with {member.size} rows")
    n_in = int(member.sum())
    n_out = member.size - n_in
    if not (n_in and n_out):
        raise InvalidInput(
            f"{n_in} member and {n_out} non-member rows: a classifier needs both. "
            "Provide shadow models or known records on both sides"
        )
    mean, scale = features.mean(axis=0), features.std(axis=0)
    # Rounding leaves a constant column a tiny spread; dividing by it would turn rounding into a feature.
    scale = np.where(scale > np.maximum(1e-12 * np.abs(mean), 1e-30), scale, 1.0)
    seed = int(rng.integers(2**31 - 1))
    with warnings.catch_warnings():
        # The number of steps is a setting of the attack: reaching it is no accident.
        warnings.simplefilter("ignore", ConvergenceWarning)
        raw = _FITS[kind]((features - mean) / scale, member.astype(np.int64), seed, settings)
    return FittedClassifier(mean, scale, float(np.log(n_in) - np.log(n_out)), raw)


def _standardised(features: Floats, mean: Floats, scale: Floats) -> Floats:
    x: Floats = np.clip((features - mean) / scale, -FARTHEST, FARTHEST)
    return x


def _logistic(x: Floats, y: NDArray[np.int64], seed: int, settings: ClassifierSettings) -> Callable[[Floats], Floats]:
    model = LogisticRegression(C=1.0, max_iter=500, tol=1e-8).fit(x, y)
    weights, intercept = np.asarray(model.coef_[0], np.float64), float(model.intercept_[0])
    return lambda rows: np.asarray(rows @ weights + intercept, np.float64)


def _tree(x: Floats, y: NDArray[np.int64], seed: int, settings: ClassifierSettings) -> Callable[[Floats], Floats]:
    model = DecisionTreeClassifier(
        min_samples_leaf=settings.leaf(y.size), max_leaf_nodes=settings.most_leaves, random_state=seed
    ).fit(x, y)
    leaves = model.apply(x)
    n_in = np.bincount(leaves, weights=y, minlength=model.tree_.node_count)
    n_out = np.bincount(leaves, minlength=model.tree_.node_count) - n_in
    share = y.mean()
    # One pseudo-row at the overall share keeps the odds of a pure leaf finite and says nothing where a leaf is empty.
    odds = np.log(n_in + share) - np.log(n_out + 1.0 - share)
    return lambda rows: np.asarray(odds[model.apply(rows)], np.float64)


def _forest(x: Floats, y: NDArray[np.int64], seed: int, settings: ClassifierSettings) -> Callable[[Floats], Floats]:
    leaf, trees = settings.leaf(y.size), settings.trees
    model = RandomForestClassifier(trees, min_samples_leaf=leaf, n_jobs=1, random_state=seed).fit(x, y)
    share, probability = float(y.mean()), joint_forest(model)

    def log_odds(rows: Floats) -> Floats:
        p = (probability(rows) * trees + share) / (trees + 1.0)
        return np.asarray(np.log(p) - np.log1p(-p), np.float64)

    return log_odds


def joint_forest(model: RandomForestClassifier) -> Callable[[Floats], Floats]:
    """Return ``model.predict_proba(rows)[:, 1]`` as a function that walks all trees at once.

    An attack scores one model's records at a time, dozens of times over: calling the trees one by one would cost more
    than fitting them.
    """
    trees = [tree.tree_ for tree in model.estimators_]
    starts = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])[:-1]
    here = np.arange(starts[-1] + trees[-1].node_count)
    leaf = np.concatenate([tree.children_left == -1 for tree in trees])

    def child(name: str) -> NDArray[np.int64]:
        moved = [getattr(tree, name) + start for tree, start in zip(trees, starts, strict=True)]
        return np.where(leaf, here, np.concatenate(moved))

    left, right = child("children_left"), child("children_right")
    feature = np.where(leaf, 0, np.concatenate([tree.feature for tree in trees]))
    cut = np.concatenate([tree.threshold for tree in trees])
    value = np.concatenate([tree.value[:, 0, 1] for tree in trees])
    depth = max(tree.max_depth for tree in trees)

    def probability(rows: Floats) -> Floats:
        out = np.empty(rows.shape[0])
        for start in range(0, rows.shape[0], BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS].astype(np.float32)  # the precision in which trees compare
            node = np.broadcast_to(starts, (block.shape[0], starts.size))
            for _ in range(depth):
                below = np.take_along_axis(block, feature[node], axis=1) <= cut[node]
                node = np.where(below, left[node], right[node])
            out[start : start + BLOCK_ROWS] = value[node].mean(axis=1)
        return out

    return probability


def _mlp(x: Floats, y: NDArray[np.int64], seed: int, settings: ClassifierSettings) -> Callable[[Floats], Floats]:
    if settings.early_stopping:
        model = MLPClassifier(early_stopping=True, learning_rate_init=0.01, random_state=seed).fit(x, y)
    else:
        model = MLPClassifier(
            (HIDDEN,), solver="lbfgs", alpha=MLP_DECAY, max_iter=MLP_STEPS, max_fun=10 * MLP_STEPS, random_state=seed
        ).fit(x, y)
    (into, out), (bias, last) = model.coefs_, model.intercepts_

    def log_odds(rows: Floats) -> Floats:
        # The output before its logistic function, which rounds to one.
        return np.asarray(np.maximum(rows @ into + bias, 0.0) @ out[:, 0] + last[0], np.float64)

    return log_odds


_FITS: dict[str, Callable[[Floats, NDArray[np.int64], int, ClassifierSettings], Callable[[Floats], Floats]]] = {
    "logistic": _logistic,
    "tree": _tree,
    "forest": _forest,
    "mlp": _mlp,
}
