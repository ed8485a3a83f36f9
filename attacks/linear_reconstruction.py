"""HRec: deleted records from two versions of a linear layer and public curvature.

Source: Bertran et al. 2024 (arXiv 2405.20272). For ridge regression with C the regularised second moment of the rows
kept, C (theta_before - theta_after) is exactly the deleted row times its residual. For softmax regression the Newton
step of a deletion is H^-1 times the deleted record's gradient (p - e_y) h^T, so H_public (theta_after - theta_before)
is that gradient: the row of the wrong sign names the label, any row divided by its bias entry gives the input.

Deviations: deep networks are attacked at their last linear layer alone, with the earlier version's embedding taken as
fixed, and what is recovered and judged there is the embedding; it is not inverted to an input. Several deletions are
told apart by a singular value decomposition, which finds at most as many directions as there are classes less one.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.reconstruction import Case, Judged, Secret, VersionPair, centred_cosine
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel

if TYPE_CHECKING:
    from mnemoscope.audit.answers.oracle import Oracle

__all__ = ["LinearReconstruction", "label_of_gradient", "ridge_reconstruction", "softmax_gradient", "split_gradient"]

Floats = NDArray[np.float64]


def ridge_reconstruction(before: Floats, after: Floats, curvature: Floats) -> Floats:
    """Return the deleted row of a ridge regression, up to scale: C (theta_before - theta_after).

    Args:
        before: (d,) coefficients with the row.
        after: (d,) coefficients without it.
        curvature: (d, d) X^T X + penalty of the rows that were kept, or an estimate from public rows.

    Returns:
        (d,) float64; divided by the intercept's coordinate it is the row itself, to rounding with exact curvature.
    """
    direction: Floats = curvature @ (before - after)
    return direction


def softmax_gradient(difference: Floats, weights: Floats, features: Floats, n_after: int, decay: float) -> Floats:
    """Return H (theta_after - theta_before) for softmax regression, the deleted records' summed gradient.

    Args:
        difference: (c, d) weights after minus before, the bias as last column.
        weights: (c, d) at which the curvature is taken.
        features: (z, d) public features, 1 in the last column.
        n_after: number of records that were kept.
        decay: the trainer's L2 penalty, decay / 2 |theta|^2 beside the mean loss.

    Returns:
        (c, d) float64: n_after times the mean Hessian of public records, plus the penalty, applied to the difference.
    """
    logits = features @ weights.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    moved = features @ difference.T
    moved = p * (moved - (p * moved).sum(axis=1, keepdims=True))
    gradient: Floats = n_after * (moved.T @ features / len(features) + decay * difference)
    return gradient


def label_of_gradient(gradient: Floats) -> int:
    """Return the class whose row has the opposite sign: p_y - 1 is the one negative bias entry of (p - e_y)."""
    return int(gradient[:, -1].argmin())


def split_gradient(gradient: Floats, count: int) -> Floats:
    """Return the inputs behind a sum of rank-one gradients, (count, d - 1), the last entry of each scaled to 1.

    Args:
        gradient: (c, d) float64, sum of (p - e_y) [h, 1]^T.
        count: how many to take, at most c; one is the average of the rows, weighted by their bias entry squared.
    """
    if count == 1:
        bias = gradient[:, -1]
        total = float(bias @ bias)
        return (bias @ gradient[:, :-1])[None] / total if total > 0 else np.zeros((1, gradient.shape[1] - 1))
    rows = np.linalg.svd(gradient, full_matrices=False)[2][:count]
    last = rows[:, -1:]
    # Without an intercept part only the direction is known.
    flat = np.abs(last) < 1e-9
    scaled: Floats = rows[:, :-1] / np.where(flat, 1.0, last)
    return scaled


@dataclass(frozen=True)
class LinearReconstruction:
    """Recover deleted inputs or embeddings from the last layer of two versions and public curvature.

    Attributes:
        decay: the trainer's L2 penalty (``weight_decay`` of SGD).
        most: at most so many records are told apart; the classes of the model less one are the limit anyway.
    """

    decay: float = 0.0
    most: int = 3

    def __post_init__(self) -> None:
        if not (self.decay >= 0 and math.isfinite(self.decay)) or self.most < 1:
            raise InvalidInput(f"decay={self.decay!r} must be 0 or more, most={self.most!r} 1 or more")

    @property
    def name(self) -> str:
        """``linear_reconstruction``."""
        return "linear_reconstruction"

    @property
    def needs(self) -> Need:
        """The parameters of both versions."""
        return Need.ORACLE | Need.GRADIENT

    @property
    def unit(self) -> str:
        """Cosine, public mean taken off."""
        return "cosine to the nearest deleted record at the last layer's input"

    @property
    def note(self) -> str:
        """What is tried."""
        return (
            "curvature of public records times the difference of the last layers; chance: the public record whose "
            "prediction changed most (MaxDiff)"
        )

    def told(self, secret: Secret, pair: VersionPair) -> None:
        """Nothing: the label is recovered too."""
        return

    def recover(self, pair: VersionPair, told: None, *, rng: np.random.Generator) -> Floats:
        """Return (r, d) recovered features; ``rng`` is not used."""
        features = _features(pair.before, pair.before.inputs(pair.public))
        before, after = _last_layer(pair.before), _last_layer(pair.after)
        if before.shape != after.shape:
            raise InvalidInput(f"the last layers have shapes {before.shape} and {after.shape}: no version of one model")
        kept = pair.n_before - pair.n_deleted
        with_bias = np.column_stack([features, np.ones(len(features))])
        gradient = softmax_gradient(after - before, before, with_bias, kept, self.decay)
        return split_gradient(gradient, min(self.most, pair.n_deleted, before.shape[0] - 1))

    def judge(self, recovered: Floats, case: Case, *, rng: np.random.Generator) -> Judged:
        """Compare each recovered feature, and as many public ones whose prediction moved most, with the nearest."""
        pair = case.pair
        public_inputs = pair.before.inputs(pair.public)
        public = _features(pair.before, public_inputs)
        truth = _features(pair.before, torch.from_numpy(case.secret.inputs).to(pair.before.device))
        centre = public.mean(axis=0)
        moved = (_probabilities(pair.after, public_inputs) - _probabilities(pair.before, public_inputs)) ** 2
        most_moved = np.argsort(-moved.sum(axis=1), kind="stable")[: len(recovered)]
        return Judged(
            centred_cosine(recovered, truth, centre).max(axis=1),
            centred_cosine(public[most_moved], truth, centre).max(axis=1),
        )


def _linear(oracle: "Oracle") -> nn.Linear:
    layers = [part for part in oracle.module().modules() if isinstance(part, nn.Linear)]
    if not layers or layers[-1].out_features != oracle.n_classes or layers[-1].bias is None:
        raise UnsupportedModel(
            f"linear reconstruction needs a model that ends in a linear layer with bias and {oracle.n_classes} outputs"
        )
    return layers[-1]


def _last_layer(oracle: "Oracle") -> Floats:
    layer = _linear(oracle)
    weight = torch.cat([layer.weight, layer.bias[:, None]], dim=1)
    return np.asarray(weight.detach().cpu().numpy(), np.float64)


def _features(oracle: "Oracle", inputs: Tensor) -> Floats:
    """What the last layer is given, (k, d) float64."""
    seen: list[Tensor] = []
    hook = _linear(oracle).register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    try:
        with torch.no_grad():
            for batch in torch.split(inputs, 1024):
                oracle.module()(batch)
    finally:
        hook.remove()
    return np.asarray(torch.cat(seen).flatten(1).cpu().numpy(), np.float64)


def _probabilities(oracle: "Oracle", inputs: Tensor) -> Floats:
    return np.asarray(torch.softmax(oracle.logits(inputs).double(), dim=1).cpu().numpy(), np.float64)
