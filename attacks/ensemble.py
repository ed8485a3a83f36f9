"""Several attacks' scores stacked by a classifier that is fitted on shadow models alone.

The rows that the classifier learns from hold scores that no attack gave to a model it was fitted on: closed-form
attacks leave each model out exactly, learned ones are cross-fitted in folds of the reference's own models. In-sample
scores would teach it to trust the attack that overfits most. For a target each attack is fitted on all models of the
reference. Stacking as in Wolpert 1992 (Neural Networks 5:241); for membership it is our own composition.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.classifiers import ClassifierKind, FittedClassifier, check_classifier, fit_classifier
from mnemoscope.attacks.shadow_rows import canonical_models, drawn_pairs
from mnemoscope.audit.answers.model_counts import least_models
from mnemoscope.audit.answers.protocols import Attack, FleetAttack, Scorer, queries_of, score_fleet
from mnemoscope.audit.answers.views import Need, Reference, Side, View
from mnemoscope.audit.errors import InvalidInput

__all__ = ["Ensemble", "EnsembleScorer", "stacked_scores"]

Floats = NDArray[np.float64]

DEFAULT_BASES = "lira, rmia, loss, modified_entropy"


@dataclass(frozen=True)
class Ensemble:
    """Log odds of membership from several attacks' scores, stacked by a classifier fitted on shadow models alone.

    Attributes:
        bases: names in ``ATTACKS``, separated by commas; two at least, each once, no ensemble, and none that asks
            queries of its own.
        classifier: "logistic", "tree", "forest" or "mlp".
        folds: of the reference's models, 2 to 4, in which learned attacks are cross-fitted.
        rows: the classifier learns from at most this many rows, half on each side, shared evenly over the models.
    """

    bases: str = DEFAULT_BASES
    classifier: ClassifierKind = "logistic"
    folds: int = 2
    rows: int = 50_000

    def __post_init__(self) -> None:
        check_classifier(self.classifier)
        names, known = self.base_names, _registry()
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 3) or sorted(known)
                raise InvalidInput(f"bases: {name!r} is no attack; the nearest: {', '.join(near)}")
        if len(names) < 2 or len(set(names)) < len(names):
            raise InvalidInput(f"bases={self.bases!r} must name two attacks at least, each once, separated by commas")
        if any(name.startswith("ensemble") for name in names):
            raise InvalidInput(f"bases={self.bases!r}: an ensemble is made of attacks, not of ensembles")
        if not 2 <= self.folds <= 4:
            raise InvalidInput(f"folds={self.folds!r} must be 2 to 4")
        if self.rows < 2:
            raise InvalidInput(f"rows={self.rows!r} must be at least 2, one a side")

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names of the stacked attacks."""
        return tuple(name.strip() for name in self.bases.split(","))

    @property
    def name(self) -> str:
        """``ensemble``, with bases and classifier that differ from the default."""
        default = tuple(name.strip() for name in DEFAULT_BASES.split(","))
        bases = "" if self.base_names == default else "_of_" + "+".join(self.base_names)
        return "ensemble" + bases + ("" if self.classifier == "logistic" else f"_{self.classifier}")

    @property
    def needs(self) -> Need:
        """What any of the stacked attacks needs, and shadow models on both sides."""
        needs = Need.SHADOW_IN | Need.SHADOW_OUT
        for attack in self.attacks():
            needs |= attack.needs
        return needs

    @property
    def least_models(self) -> int:
        """Models on each side of a record that the reference must have: one more than any base that leaves one out."""
        least = [(least_models(attack), isinstance(attack, FleetAttack)) for attack in self.attacks()]
        return max(number + closed if number else 0 for number, closed in least)

    def attacks(self) -> tuple[Attack, ...]:
        """Make the stacked attacks.

        Raises:
            InvalidInput: one that asks queries of its own, which the audit's answers cannot serve all at once.
        """
        made = tuple(_registry()[name]() for name in self.base_names)
        asking = [attack.name for attack in made if queries_of(attack) is not None]
        if asking:
            raise InvalidInput(
                f"bases: {', '.join(asking)} ask queries of their own. Stack attacks that read the audit's answers"
            )
        return made

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "EnsembleScorer":
        """Fit the stacking classifier on out-of-model scores, then every attack on all models.

        Raises:
            InvalidInput: too few models for an attack to leave one out; the records are named.
        """
        self._require(reference)
        attacks = self.attacks()
        seeds = rng.integers(2**63 - 1, size=(2, len(attacks)))
        scores = stacked_scores(attacks, reference, folds=self.folds, seeds=seeds[0])
        pairs = drawn_pairs(reference, cap=self.rows, rng=rng)
        features = np.concatenate([scores[model, at] for model, at in pairs])
        member = np.concatenate([reference.side[model, at] == Side.IN for model, at in pairs])
        fitted = fit_classifier(self.classifier, features, member, rng=rng)
        scorers = [
            attack.fit(reference, rng=np.random.default_rng(seed))
            for attack, seed in zip(attacks, seeds[1], strict=True)
        ]
        return EnsembleScorer(tuple(scorers), fitted)

    def _require(self, reference: Reference) -> None:
        for need, side in ((Need.SHADOW_IN, Side.IN), (Need.SHADOW_OUT, Side.OUT)):
            lacking = reference.ids[(reference.side == side).sum(axis=0) < self.least_models]
            if need in self.needs and lacking.size:
                shown = ", ".join(str(i) for i in lacking[:10]) + (", ..." if lacking.size > 10 else "")
                raise InvalidInput(
                    f"{self.name} leaves each of its {reference.n_models} shadow models out in turn: every record "
                    f"needs {self.least_models} or more {side.name} models, and {lacking.size} records have fewer "
                    f"(ids {shown}). Add shadow models (design.models in a plan), or run the stacked attacks alone"
                )


@dataclass(frozen=True, eq=False)
class EnsembleScorer:
    """Fitted attacks and the classifier that weighs them; even odds are the threshold."""

    scorers: tuple[Scorer, ...]
    fitted: FittedClassifier
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        return self.fitted.log_odds(np.column_stack([scorer.score(view) for scorer in self.scorers]))


def stacked_scores(
    attacks: tuple[Attack, ...], reference: Reference, *, folds: int, seeds: NDArray[np.int64]
) -> Floats:
    """Score every model of the reference by attacks that were not fitted on it.

    Args:
        attacks: k attacks.
        reference: m models; its own folds, if any, are not read.
        folds: for attacks without a closed form; models are dealt to folds by a digest of their answers, so that
            their order plays no part.
        seeds: (k,) int64, one for each attack.

    Returns:
        (m, n, k) float64.
    """
    fold = np.empty(reference.n_models, np.int8)
    fold[canonical_models(reference)] = np.arange(reference.n_models) % folds
    inner = replace(reference, fold=fold)
    parts = [
        score_fleet(attack, inner, rng=np.random.default_rng(seed)) for attack, seed in zip(attacks, seeds, strict=True)
    ]
    return np.stack(parts, axis=-1)


def _registry() -> dict[str, Callable[..., Attack]]:
    # The registry names this module: it can only be read once it stands.
    from mnemoscope.attacks import ATTACKS

    return ATTACKS
