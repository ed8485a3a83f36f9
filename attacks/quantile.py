"""Quantile regression (Bertran et al. 2023, arXiv 2307.03694): how high would a non-member like this record score?

A regression on population records, non-members of the target, predicts the distribution of the target's hinge margin
given the record; members lie high in their own. One model, no reference models. ``quantile`` conditions on the record's
input and class, ``quantile_by_class`` on the class alone and works from recorded answers.

The regression never sees an audited record, and of the population records each is scored by regressions that did not
see it (``population_scores``): an attack fitted on the non-members that it scores finds leaks where there are none.

Deviations: the paper trains a large image network on inputs at 224 pixels; here principal components of the
population's inputs feed a small network, three of which, fitted on two thirds of the records each, are averaged. Its
heads are the paper's: a Gaussian (mean and log deviation), or 41 quantiles by the pinball loss, sorted to undo
crossings. With quantile heads the score is the level at which a record lies, continued on a line beyond the outermost.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Answers, Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed

if TYPE_CHECKING:
    from mnemoscope.attacks.quantile_heads import Heads

__all__ = ["Quantile", "QuantileByClass"]

Floats = NDArray[np.float64]

PRIOR_WEIGHT = 4.0
"""Records that the mean variance within classes counts for in the variance of a class."""

LEAST_POPULATION = 20
"""Population records below which there is nothing to regress on."""

BLOCK_RECORDS = 10_000
"""Records whose inputs are brought into float64 at a time."""

PCA_RECORDS = 2_000
"""Population records, evenly spread over their ids, that principal components are computed from."""


@dataclass(frozen=True)
class Quantile:
    """Height of a record's margin above what non-members with its input and class are expected to have.

    Attributes:
        head: "gaussian" scores (s - mean) / deviation; "pinball" the level among 41 predicted quantiles.
        components: principal components of the inputs that the regression reads, at most.
        hidden: units of its hidden layer.
        steps: of gradient descent, at most; the best on held-out population records are kept.
        signal: key of ``SIGNALS``; several queries are averaged first.
    """

    head: Literal["gaussian", "pinball"] = "gaussian"
    components: int = 32
    hidden: int = 48
    steps: int = 600
    signal: str = "hinge"
    name = "quantile"
    needs = Need.SCORES | Need.POPULATION | Need.ORACLE

    def __post_init__(self) -> None:
        if self.head not in ("gaussian", "pinball"):
            raise InvalidInput(f"head={self.head!r} must be 'gaussian' or 'pinball'")
        for name in ("components", "hidden", "steps"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name}={getattr(self, name)!r} must be at least 1")
        _check_signal(self.signal)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "QuantileScorer":
        """Draw the seed of the regressions; they are fitted on each target's own answers to population records."""
        return QuantileScorer(self, int(rng.integers(2**63)))


@dataclass(frozen=True)
class QuantileScorer:
    """Quantile regression for any target that answered on population records and can be asked for inputs."""

    attack: Quantile
    seed: int

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        population = _population(view)
        heads, features = self._fitted(view, population)
        # In the order of the ids: sums of a matrix product are rounded by the place of a row.
        order = np.argsort(view.ids)
        score = np.empty(view.n_records)
        score[order] = heads.mean_score(features(view)[order], _signal(view, self.attack.signal)[order])
        return score

    def population_scores(self, view: View) -> Floats:
        """Return (z,) float64 for the view's population records, each scored by regressions that did not see it."""
        population = _population(view)
        heads, features = self._fitted(view, population)
        order = np.argsort(population.ids)
        score = np.empty(population.n_records)
        known = _signal(population, self.attack.signal)[order]
        score[order] = heads.held_out_score(features(population)[order], known)
        return score

    def _fitted(self, view: View, population: Answers) -> "tuple[Heads, _Features]":
        from mnemoscope.attacks.quantile_heads import fit_heads

        if view.oracle is None:
            raise MissingNeed("quantile needs live access to the model, for the records' inputs. Leave it out")
        if population.n_records < LEAST_POPULATION:
            raise InvalidInput(
                f"quantile needs at least {LEAST_POPULATION} population records, given {population.n_records}. "
                "Give more, or use quantile_by_class or population"
            )
        rng = np.random.default_rng(self.seed)
        features = _Features.of(view, population, self.attack.components, int(rng.integers(2**31)))
        order = np.argsort(population.ids)
        known = _signal(population, self.attack.signal)[order]
        settings = (self.attack.head, self.attack.hidden, self.attack.steps)
        return fit_heads(features(population)[order], known, *settings, rng), features


@dataclass(frozen=True, eq=False)
class _Features:
    """Whitened principal components of standardised inputs, then the class one-hot."""

    view: View
    mean: Floats
    scale: Floats
    axes: Floats

    @classmethod
    def of(cls, view: View, population: Answers, components: int, seed: int) -> "_Features":
        """Fit them on population records alone."""
        ids = np.sort(population.ids)
        some = _inputs(view, ids[:: max(1, -(-ids.size // PCA_RECORDS))])
        mean, spread = some.mean(axis=0), some.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        some = (some - mean) / scale
        kept = min(components, *some.shape)
        if some.shape[1] <= components:
            return cls(view, mean, scale, np.eye(some.shape[1]))
        from sklearn.utils.extmath import randomized_svd

        _, singular, rows = randomized_svd(some, kept, random_state=seed)
        deviation = singular / np.sqrt(some.shape[0])
        return cls(view, mean, scale, rows.T / np.maximum(deviation, 1e-6 * max(deviation[0], 1e-300)))

    def __call__(self, answers: Answers) -> Floats:
        """Return (n, d) float64."""
        parts = []
        for start in range(0, answers.n_records, BLOCK_RECORDS):
            inputs = _inputs(self.view, answers.ids[start : start + BLOCK_RECORDS])
            parts.append(((inputs - self.mean) / self.scale) @ self.axes)
        one_hot = (answers.labels[:, None] == np.arange(answers.n_classes)).astype(np.float64)
        return np.concatenate([np.concatenate(parts), one_hot], axis=1)


def _inputs(view: View, ids: NDArray[np.int64]) -> Floats:
    assert view.oracle is not None
    inputs = view.oracle.inputs(ids).detach().cpu().numpy()
    return inputs.reshape(ids.size, -1).astype(np.float64)


@dataclass(frozen=True)
class QuantileByClass:
    """Height of a record's margin above what non-members of its class have, in their deviations.

    A class has its own mean and a variance to which the mean variance within classes adds four records; a class without
    population records takes the mean and variance of all.

    Attributes:
        signal: key of ``SIGNALS``; several queries are averaged first.
    """

    signal: str = "hinge"
    name = "quantile_by_class"
    needs = Need.SCORES | Need.POPULATION

    def __post_init__(self) -> None:
        _check_signal(self.signal)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "ByClassScorer":
        """Nothing to learn: the population speaks through the target itself."""
        return ByClassScorer(self.signal)


@dataclass(frozen=True)
class ByClassScorer:
    """Class-wise standard scores for any target that answered on population records."""

    signal: str

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        population = _population(view)
        known = _signal(population, self.signal)
        number, mean, squares = _by_class(known, population.labels, view.n_classes)
        freedom = np.maximum(number - 1.0, 0.0)
        within = float(squares.sum() / freedom.sum()) if freedom.sum() > 0 else float(known.var())
        variance = (squares + PRIOR_WEIGHT * within) / (freedom + PRIOR_WEIGHT)
        variance *= 1.0 + 1.0 / np.maximum(number, 1.0)
        empty = number == 0
        mean, variance = np.where(empty, known.mean(), mean), np.where(empty, known.var(), variance)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        score: Floats = (_signal(view, self.signal) - mean[view.labels]) / deviation[view.labels]
        return score


def _by_class(known: Floats, labels: NDArray[np.int64], n_classes: int) -> tuple[Floats, Floats, Floats]:
    # In the order of the values: sums are then the same for any order of the records.
    order = np.argsort(known)
    known, labels = known[order], labels[order]
    number = np.bincount(labels, minlength=n_classes).astype(np.float64)
    mean = np.bincount(labels, known, minlength=n_classes) / np.maximum(number, 1.0)
    squares: Floats = np.bincount(labels, (known - mean[labels]) ** 2, minlength=n_classes).astype(np.float64)
    return number, mean, squares


def _signal(answers: Answers, name: str) -> Floats:
    mean: Floats = answers.averaged(name)
    return mean


def _population(view: View) -> Answers:
    if view.population is None:
        raise MissingNeed("quantile regression needs population records that no model was trained on")
    view.require_disjoint(view.population, "population")
    return view.population


def _check_signal(signal: str) -> None:
    if signal not in SIGNALS:
        raise InvalidInput(f"signal={signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")
