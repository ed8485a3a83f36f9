"""Small networks that predict the distribution of a value given features, cross-fitted; for ``quantile``.

Loss of the Gaussian head: log deviation + (s - mean)^2 / (2 deviation^2); of the quantile heads: the pinball loss at
q = 1 - 10^g for 41 values of g from -4 to 0 (Bertran et al. 2023, arXiv 2307.03694). One hidden layer, so the gradients
are written out: with a few hundred records a step takes a tenth of what a general library needs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Heads", "Network", "fit_heads", "loss_and_slope"]

Floats = NDArray[np.float64]

FOLDS, BATCH = 3, 512
"""Folds of records, and records a step."""

RATE, DECAY, CLIP, BETAS = 5e-3, 1e-3, 1.0, (0.9, 0.999)
"""Of AdamW: rate, weight decay, largest norm of a network's gradient, and how slowly its averages forget."""

VALIDATION, EVERY, PATIENCE = 0.2, 10, 60
"""Share of a fit's records held out to choose when to stop, steps between looks at them, and steps without a gain."""

LEVELS = 1.0 - 10.0 ** np.linspace(0.0, -4.0, 41)
"""Levels of the quantile heads, ascending from 0."""

LARGEST_LOG = 5.0
"""A deviation stays within e^5 of that of all records: beyond lies no record, only a fit that ran away."""


class Network:
    """Several networks of one hidden layer, evaluated at once; all their parameters lie in ``flat`` (f, p) float64."""

    def __init__(self, sizes: tuple[int, int, int], flat: Floats) -> None:
        d, h, o = sizes
        cuts = np.cumsum([d * h, h, h * o, o])
        shapes = ((d, h), (1, h), (h, o), (1, o))
        self.sizes, self.flat = sizes, flat
        parts = np.split(flat, cuts[:-1], axis=1)
        self.parts = [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def forward(self, x: Floats) -> tuple[Floats, Floats]:
        """Return hidden values (f, n, h) and outputs (f, n, o) for features (n, d)."""
        first, bias, last, shift = self.parts
        hidden = np.tanh(x @ first + bias)
        return hidden, hidden @ last + shift

    def gradient(self, x: Floats, hidden: Floats, slope: Floats) -> Floats:
        """Return (f, p), the gradient of a loss with derivative ``slope`` (f, n, o) by the outputs."""
        back = (slope @ self.parts[2].transpose(0, 2, 1)) * (1.0 - hidden * hidden)
        pieces = (x.T @ back, back.sum(axis=1), hidden.transpose(0, 2, 1) @ slope, slope.sum(axis=1))
        return np.concatenate([piece.reshape(slope.shape[0], -1) for piece in pieces], axis=1)


@dataclass(frozen=True, eq=False)
class Heads:
    """Fitted networks, one a fold, each fitted without the records of its fold.

    Attributes:
        network: the networks.
        center: mean of the values it was fitted on.
        scale: their deviation.
        fold: (n,) int64, fold of each record that it was fitted on.
    """

    network: Network
    center: float
    scale: float
    fold: NDArray[np.int64]

    def mean_score(self, features: Floats, values: Floats) -> Floats:
        """Return how high each value lies under its record's prediction, (k,), averaged over all networks."""
        mean: Floats = self._scores(features, values).mean(axis=0)
        return mean

    def held_out_score(self, features: Floats, values: Floats) -> Floats:
        """The same for the very records of the fit, in their order: each by the network that did not see it."""
        picked: Floats = np.take_along_axis(self._scores(features, values), self.fold[None], axis=0)[0]
        return picked

    def predicted(self, features: Floats) -> Floats:
        """Return (f, k, o): mean and deviation, or ascending quantiles at ``LEVELS``, in the unit of the values."""
        out = self.network.forward(features)[1]
        if out.shape[-1] == 2:
            moments: Floats = np.stack([out[..., 0], np.exp(_bounded(out[..., 1]))], axis=-1) * self.scale
            moments[..., 0] += self.center
            return moments
        quantiles: Floats = np.sort(out, axis=-1) * self.scale
        quantiles += self.center
        return quantiles

    def _scores(self, features: Floats, values: Floats) -> Floats:
        predicted = self.predicted(features)
        if predicted.shape[-1] == 2:
            score: Floats = (values - predicted[..., 0]) / predicted[..., 1]
            return score
        return _place(predicted, values, self.scale)


def fit_heads(features: Floats, values: Floats, head: str, hidden: int, steps: int, rng: np.random.Generator) -> Heads:
    """Fit one network a fold of records, all at once.

    Args:
        features: (n, d) float64, in an order that means nothing.
        values: (n,) float64.
        head: "gaussian" or "pinball".
        hidden: units.
        steps: at most.
        rng: of folds, first weights and batches.
    """
    n, d = features.shape
    center, scale = float(values.mean()), float(values.std()) or 1.0
    s = (values - center) / scale
    fold = rng.permutation(np.arange(n) % FOLDS)
    sizes = (d, hidden, 2 if head == "gaussian" else LEVELS.size)
    network = _started(sizes, s, rng)
    own = fold == np.arange(FOLDS)[:, None]
    held = ~own & (rng.random((FOLDS, n)) < VALIDATION)
    train = ~own & ~held
    best, lowest, last = network.flat.copy(), np.full(FOLDS, np.inf), 0
    mean, square = np.zeros_like(best), np.zeros_like(best)
    for step in range(steps + 1):
        if step % EVERY == 0:
            loss = loss_and_slope(network.forward(features)[1], s)[0]
            loss = (loss * held).sum(axis=1) / np.maximum(held.sum(axis=1), 1)
            better = loss < lowest
            lowest[better], best[better] = loss[better], network.flat[better]
            last = step if better.any() else last
            if step - last >= PATIENCE:
                break
        part = rng.choice(n, BATCH, replace=False) if n > BATCH else slice(None)
        x, weight = features[part], train[:, part]
        inner, out = network.forward(x)
        slope = loss_and_slope(out, s[part])[1] * (weight / np.maximum(weight.sum(axis=1), 1)[:, None])[..., None]
        gradient = network.gradient(x, inner, slope)
        norm = np.sqrt((gradient * gradient).sum(axis=1, keepdims=True))
        gradient *= np.minimum(1.0, CLIP / np.maximum(norm, 1e-12))
        mean += (1.0 - BETAS[0]) * (gradient - mean)
        square += (1.0 - BETAS[1]) * (gradient * gradient - square)
        ahead = mean / (1.0 - BETAS[0] ** (step + 1))
        ahead /= np.sqrt(square / (1.0 - BETAS[1] ** (step + 1))) + 1e-8
        network.flat -= RATE * (ahead + DECAY * network.flat)
    return Heads(Network(sizes, best), center, scale, fold)


def _started(sizes: tuple[int, int, int], s: Floats, rng: np.random.Generator) -> Network:
    """First weights: outputs are the distribution of all records, so that stopping early costs no more than that."""
    d, h, o = sizes
    network = Network(sizes, np.zeros((FOLDS, d * h + h + h * o + o)))
    network.parts[0][:] = rng.normal(0.0, d**-0.5, (FOLDS, d, h))
    if o > 2:
        network.parts[3][:] = np.quantile(s, LEVELS)
    return network


def loss_and_slope(out: Floats, s: Floats) -> tuple[Floats, Floats]:
    """Return the loss (f, n) of outputs (f, n, o) for standardised values (n,), and its derivative (f, n, o)."""
    slope = np.empty_like(out)
    if out.shape[-1] == 2:
        log_deviation = _bounded(out[..., 1])
        inverse = np.exp(-log_deviation)
        z = (s - out[..., 0]) * inverse
        slope[..., 0] = -z * inverse
        slope[..., 1] = (1.0 - z * z) * (1.0 - (log_deviation / LARGEST_LOG) ** 2)
        return log_deviation + 0.5 * z * z, slope
    gap = s[:, None] - out
    np.divide((gap <= 0.0) - LEVELS, LEVELS.size, out=slope)
    return np.maximum(LEVELS * gap, (LEVELS - 1.0) * gap).mean(axis=-1), slope


def _bounded(log_deviation: Floats) -> Floats:
    bounded: Floats = LARGEST_LOG * np.tanh(log_deviation / LARGEST_LOG)
    return bounded


def _place(quantiles: Floats, values: Floats, scale: float) -> Floats:
    """Place (f, n) of values among ascending quantiles (f, n, o): on lines between them, outside in ``scale``s."""
    last = quantiles.shape[-1] - 1
    below = (quantiles < values[:, None]).sum(axis=-1)
    low = np.take_along_axis(quantiles, np.clip(below - 1, 0, last)[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(quantiles, np.clip(below, 0, last)[..., None], axis=-1)[..., 0]
    inside = np.minimum(1.0, (values - low) / np.maximum(high - low, np.finfo(np.float64).tiny))
    outside = (values - low) / scale
    place: Floats = np.where(below == 0, outside, np.where(below > last, last + outside, below - 1 + inside))
    return place
