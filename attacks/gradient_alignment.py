"""White-box attack on the direction of a record's gradient: our reading of an idea that has no single publication.

Two directions, each with its reason:

- "population": at the end of training the gradients of the members sum to about nothing, while those of records that
  were not trained on still have the population's mean gradient g as their mean. So the inner product with g averages
  zero over members and |g|^2 over non-members; the score is minus the cosine. This is the mean-gradient test of
  Leemann et al. 2023 (arXiv 2306.07273), turned from a released training gradient to the population's gradient at
  the final model.
- "deletion": unlearning that undoes a record moves the parameters up its gradient, so the way back from the model
  after deletion to the one before points down the gradients of what was forgotten. The score is minus the cosine
  between the record's gradient after deletion and (before - after). To first order that inner product is the change
  of the record's loss; the cosine asks how much of the whole change served this record. It says little where the
  model was retrained from other initial weights: then the change is mostly chance.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.gradients import directional_cosines, mean_gradient

__all__ = ["Direction", "GradientAlignment"]

Floats = NDArray[np.float64]
Direction = Literal["population", "deletion"]


@dataclass(frozen=True)
class GradientAlignment:
    """How little a record's gradient points where the population's, or the deletion's, does (white box; our reading).

    Attributes:
        direction: "population", the mean gradient of population records; or "deletion", the change of parameters from
            after to before, for which the model before deletion is needed with its parameters.
    """

    direction: Direction = "population"

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise InvalidInput(f"direction={self.direction!r} is unknown; allowed: {', '.join(get_args(Direction))}")

    @property
    def name(self) -> str:
        """``gradient_alignment``, with the direction where it is the deletion's."""
        return "gradient_alignment" + ("" if self.direction == "population" else "_deletion")

    @property
    def needs(self) -> Need:
        """The parameters of the target, with population records or the model before deletion."""
        return Need.ORACLE | Need.GRADIENT | (Need.POPULATION if self.direction == "population" else Need.BEFORE)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "AlignmentScorer":
        """Nothing to learn; nothing is drawn from ``rng``."""
        return AlignmentScorer(self)


@dataclass(frozen=True)
class AlignmentScorer:
    """The cosine with its direction; computed once for a model and its ids."""

    attack: GradientAlignment

    def score(self, view: View) -> Floats:
        """Return (n,) float64 in [-1, 1]."""
        oracle = view.oracle
        if oracle is None:
            raise MissingNeed(f"{self.attack.name} needs live access to the model, with its parameters")
        ids = np.sort(view.ids)  # rounding depends on who shares a batch: one order for all
        at = np.searchsorted(ids, view.ids)
        digest = hashlib.sha256(ids.tobytes())
        if self.attack.direction == "deletion":
            before = None if view.before is None else view.before.oracle
            if before is None or not before.white_box:
                raise MissingNeed(
                    f"{self.attack.name} needs live access to the model before deletion, with its parameters"
                )
            # Two versions can be paired in many ways, and an oracle recalls by key alone: nothing is kept.
            return -_with_deletion(oracle, before, ids)[at]
        if view.population is None:
            raise MissingNeed(f"{self.attack.name} needs population records that no model was trained on")
        view.require_disjoint(view.population, "population")
        population = np.sort(view.population.ids)
        digest.update(b"|" + population.tobytes())
        key = f"{self.attack.name} {digest.hexdigest()}"
        return -oracle.recall(key, lambda: _with_population(oracle, population, ids))[at]


def _with_population(oracle: Oracle, population: NDArray[np.int64], ids: NDArray[np.int64]) -> Floats:
    module = oracle.module()
    direction = mean_gradient(module, oracle.inputs(population), oracle.labels(population))
    oracle.count_gradients(population.size + ids.size)
    values: Floats = directional_cosines(module, oracle.inputs(ids), oracle.labels(ids), direction).cpu().numpy()
    return values


def _with_deletion(oracle: Oracle, before: Oracle, ids: NDArray[np.int64]) -> Floats:
    module = oracle.module()
    earlier = {name: weight.detach().to(oracle.device) for name, weight in before.module().named_parameters()}
    now = dict(module.named_parameters())
    if {name: w.shape for name, w in earlier.items()} != {name: w.shape for name, w in now.items()}:
        raise InvalidInput(
            "the models before and after deletion have other parameters: there is no direction between them. "
            "Leave gradient_alignment_deletion out"
        )
    direction = {name: earlier[name] - weight.detach() for name, weight in now.items()}
    oracle.count_gradients(ids.size)
    values: Floats = directional_cosines(module, oracle.inputs(ids), oracle.labels(ids), direction).cpu().numpy()
    return values
