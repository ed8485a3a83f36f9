"""White-box attack on the norm of a record's own gradient (Nasr et al. 2019, arXiv 1812.00910, its strongest feature).

Training drives the gradients of members towards zero. The score is minus the logarithm of the Euclidean norm over all
parameters, or over the last linear layer alone, where it is |p - e_y| * |(h, 1)| in closed form. The logarithm orders
alike and keeps the most confident records apart. Calibration subtracts the mean of models that never saw the record
(Watson et al. 2022, arXiv 2111.08440): a record's gradient is also large because the record is hard. Deviation: Nasr
et al. feed gradients to a network that is fitted on records of the target with known membership; here the norm itself
is the score, and no membership of the target is known.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.gradients import last_layer_log_norms, log_norms

__all__ = ["GradientNorm", "Layers"]

Floats = NDArray[np.float64]
Layers = Literal["all", "last"]


@dataclass(frozen=True)
class GradientNorm:
    """How little the model would still learn from a record: minus the norm of its gradient (white box).

    Attributes:
        layers: "all" parameters, or the "last" linear layer, which costs one prediction and no gradient.
        calibrated: subtracts the mean over the OUT models, which then are needed with their gradients.
    """

    layers: Layers = "all"
    calibrated: bool = False

    def __post_init__(self) -> None:
        if self.layers not in get_args(Layers):
            raise InvalidInput(f"layers={self.layers!r} is unknown; allowed: {', '.join(get_args(Layers))}")

    @property
    def name(self) -> str:
        """``gradient_norm``, with what differs from the default."""
        return "gradient_norm" + "_last_layer" * (self.layers == "last") + "_calibrated" * self.calibrated

    @property
    def needs(self) -> Need:
        """The parameters of the target; OUT models for the calibration."""
        return Need.ORACLE | Need.GRADIENT | (Need.SHADOW_OUT if self.calibrated else Need.NOTHING)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "GradientNormScorer":
        """Take the mean over the OUT models where it is asked for; nothing is drawn from ``rng``."""
        if not self.calibrated:
            return GradientNormScorer(self, None, None)
        require_models(reference.side, 1, False, reference.ids)
        outside = reference.side == Side.OUT
        mean = np.where(outside, self._norms(reference), 0.0).sum(axis=0) / outside.sum(axis=0)
        return GradientNormScorer(self, reference, mean)

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model, with itself left out of the mean it is compared with."""
        norms = self._norms(reference)
        if not self.calibrated:
            return -norms
        require_models(reference.side, 2, False, reference.ids)
        outside = reference.side == Side.OUT
        total = np.where(outside, norms, 0.0).sum(axis=0)
        # The model itself is taken out of its own mean by its side, and the score is the same whatever that side is.
        others: Floats = (total - np.where(outside, norms, 0.0)) / (outside.sum(axis=0) - outside)
        return others - norms

    def _norms(self, reference: Reference) -> Floats:
        if reference.oracles is None:
            raise MissingNeed(f"{self.name} needs live access to the reference models, with their parameters")
        return np.stack([self.log_norms(oracle, reference.ids) for oracle in reference.oracles])

    def log_norms(self, oracle: Oracle, ids: NDArray[np.int64]) -> Floats:
        """Return (n,) float64, the logarithm of each record's gradient norm; computed once for a model and its ids."""
        ordered = np.sort(ids)  # rounding depends on who shares a batch: one order for all
        key = f"gradient_norm {self.layers} {hashlib.sha256(ordered.tobytes()).hexdigest()}"
        return oracle.recall(key, lambda: self._compute(oracle, ordered))[np.searchsorted(ordered, ids)]

    def _compute(self, oracle: Oracle, ids: NDArray[np.int64]) -> Floats:
        compute = log_norms if self.layers == "all" else last_layer_log_norms
        oracle.count_gradients(ids.size)
        values: Floats = compute(oracle.module(), oracle.inputs(ids), oracle.labels(ids)).cpu().numpy()
        return values


@dataclass(frozen=True, eq=False)
class GradientNormScorer:
    """The norm, with the OUT models' mean of each record of the reference where it is calibrated."""

    attack: GradientNorm
    reference: Reference | None
    mean: Floats | None

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        if view.oracle is None:
            raise MissingNeed(f"{self.attack.name} needs live access to the model, with its parameters")
        norms = self.attack.log_norms(view.oracle, view.ids)
        if self.reference is None or self.mean is None:
            return -norms
        return self.mean[self.reference.positions(view.ids)] - norms
