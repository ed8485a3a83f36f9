"""Membership signals from logits, in float64, larger = more member-like.

Sources: Carlini et al. 2022 (arXiv 2112.03570) for the margin, Song and Mittal 2021 (arXiv 2003.10595) for
the modified entropy, Zarifzadeh et al. 2024 (arXiv 2312.03262) for the temperature and the Taylor softmax.
Everything is computed from logits: a float32 softmax saturates and ties the most confident records.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["SIGNALS", "Signal", "compute_signal"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Signal = Callable[[Floats, Ints], Floats]

BLOCK_VALUES = 400_000
"""Logit values converted to float64 at a time: a few copies of 3 MB stay in the cache, twice as fast as from memory."""


def _log_sum_exp(z: Floats) -> Floats:
    top = z.max(axis=-1, keepdims=True)
    total: Floats = np.log(np.exp(z - top).sum(axis=-1)) + top[..., 0]
    return total


def _log_softmax(z: Floats) -> Floats:
    """Log probabilities; the likeliest class keeps its digits as -log1p(sum of the others)."""
    shifted: Floats = z - z.max(axis=-1, keepdims=True)
    rest = np.exp(shifted)
    np.put_along_axis(rest, z.argmax(axis=-1)[..., None], 0.0, axis=-1)
    shifted -= np.log1p(rest.sum(axis=-1, keepdims=True))
    return shifted


def _true(z: Floats, y: Ints) -> Floats:
    picked: Floats = np.take_along_axis(z, y[..., None], axis=-1)[..., 0]
    return picked


def _others(z: Floats, y: Ints, fill: float = -np.inf) -> Floats:
    rest = z.copy()
    np.put_along_axis(rest, y[..., None], fill, axis=-1)
    return rest


def correctness(z: Floats, y: Ints) -> Floats:
    """1.0 where the arg-max is the label, else 0.0 (a tie for the top counts as its first class)."""
    return np.asarray(z.argmax(axis=-1) == y, np.float64)


def negative_loss(z: Floats, y: Ints) -> Floats:
    """Negative cross-entropy log p_y (Yeom et al. 2018, arXiv 1709.01604), exact down to losses of 1e-300."""
    return _true(_log_softmax(z), y)


def confidence(z: Floats, y: Ints) -> Floats:
    """p_y; saturates at 1: rank with ``negative_loss`` or ``margin`` instead."""
    probability: Floats = np.exp(negative_loss(z, y))
    return probability


def margin(z: Floats, y: Ints) -> Floats:
    """Logit of p_y, log p_y - log(1 - p_y), as z_y - log sum_{k != y} exp z_k: exact where the softmax saturates."""
    return _true(z, y) - _log_sum_exp(_others(z, y))


def hinge(z: Floats, y: Ints) -> Floats:
    """z_y - max_{k != y} z_k."""
    gap: Floats = _true(z, y) - _others(z, y).max(axis=-1)
    return gap


def negative_entropy(z: Floats, y: Ints) -> Floats:
    """sum_k p_k log p_k; the label is not used."""
    logp = _log_softmax(z)
    total: Floats = (np.exp(logp) * logp).sum(axis=-1)
    return total


def negative_modified_entropy(z: Floats, y: Ints) -> Floats:
    """(1 - p_y) log p_y + sum_{k != y} p_k log(1 - p_k) (Song and Mittal 2021), exact where saturated."""
    logp = _log_softmax(z)
    p = np.exp(logp)
    # log(1 - p_k) loses all digits where p_k -> 1; at most one class can exceed one half, and there it is the
    # sum of the others' mass that is exact.
    top = z.argmax(axis=-1)
    log_rest_of_top = _log_sum_exp(_others(logp, top))
    log1mp = np.log1p(-np.minimum(p, 0.5 + 1e-9))
    np.put_along_axis(log1mp, top[..., None], log_rest_of_top[..., None], axis=-1)
    wrong: Floats = _others(p * log1mp, y, fill=0.0).sum(axis=-1)
    return np.exp(_true(log1mp, y)) * _true(logp, y) + wrong


def top_confidence(z: Floats, y: Ints) -> Floats:
    """max_k log p_k: what a label-free adversary sees (Salem et al. 2018, arXiv 1806.01246, adversary 3)."""
    highest: Floats = _log_softmax(z).max(axis=-1)
    return highest


def log_taylor_softmax(z: Floats, y: Ints, soft_margin: float = 0.6) -> Floats:
    """Log of the soft-margin Taylor softmax of RMIA's code, m = 0.6, terms up to the cubic.

    Deviation: the logits are centred per record and the polynomial is floored at 1e-6, because it is negative
    below -1.596 and not invariant to a constant added to the logits.
    """

    def poly(v: Floats) -> Floats:
        floored: Floats = np.maximum(1.0 + v + v * v / 2.0 + v * v * v / 6.0, 1e-6)
        return floored

    u: Floats = z - z.mean(axis=-1, keepdims=True)
    true = poly(_true(u, y) - soft_margin)
    rest = _others(poly(u), y, fill=0.0).sum(axis=-1)
    score: Floats = np.log(true) - np.log(true + rest)
    return score


SIGNALS: dict[str, Signal] = {
    "correctness": correctness,
    "negative_loss": negative_loss,
    "confidence": confidence,
    "margin": margin,
    "hinge": hinge,
    "negative_entropy": negative_entropy,
    "negative_modified_entropy": negative_modified_entropy,
    "top_confidence": top_confidence,
    "log_taylor_softmax": log_taylor_softmax,
}


def compute_signal(
    name: str, logits: NDArray[np.floating], labels: NDArray[np.int64], *, temperature: float = 1.0
) -> Floats:
    """Compute one signal for recorded logits, in blocks so that memory stays flat.

    Args:
        name: a key of ``SIGNALS``.
        logits: (..., n, q, c), any float type; n records, q queries, c classes.
        labels: (n,) int64, true classes.
        temperature: the logits are divided by it first (1 = as they are).

    Returns:
        (..., n, q) float64, larger = more member-like.

    Raises:
        InvalidInput: unknown name, a temperature that is not positive, or labels outside of the c classes.

    >>> z = np.log([[[0.7, 0.2, 0.1]]])
    >>> compute_signal("margin", z, np.array([0])).round(6).item()
    0.847298
    """
    if name not in SIGNALS:
        raise InvalidInput(f"signal={name!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")
    if not temperature > 0:
        raise InvalidInput(f"temperature={temperature!r} must be positive")
    *lead, n, q, c = logits.shape
    outside = (labels < 0) | (labels >= c)
    if outside.any():
        found = ", ".join(str(int(label)) for label in np.unique(labels[outside])[:5])
        raise InvalidInput(
            f"{int(outside.sum())} of {labels.size} records have labels outside of the {c} classes that the model "
            f"answers (labels {found}); allowed: 0 to {c - 1}. A model that lost classes in unlearning must still give "
            "them a logit, below all others; or leave these records out"
        )
    flat = logits.reshape(-1, n, q, c)
    out = np.empty(flat.shape[:3], np.float64)
    step = max(1, BLOCK_VALUES // max(1, q * c))
    together = max(1, step // max(1, n))  # small models share a block, large ones are cut into several
    function = SIGNALS[name]
    for first in range(0, flat.shape[0], together):
        for start in range(0, n, step):
            part = (slice(first, first + together), slice(start, start + step))
            z = flat[part].astype(np.float64)
            if temperature != 1.0:
                z /= temperature
            out[part] = function(z, np.broadcast_to(labels[None, part[1], None], z.shape[:3]))
    return out.reshape(*lead, n, q)
