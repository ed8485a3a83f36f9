"""Output vectors as features for attackers that learn: exact from logits, in blocks, queries averaged."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Answers
from mnemoscope.audit.errors import InvalidInput, MissingNeed

__all__ = ["Scale", "check_scale", "posteriors", "top_posteriors"]

Floats = NDArray[np.float64]
Scale = Literal["probability", "log"]

BLOCK_VALUES = 4_000_000
"""Logit values converted to float64 at a time: bounds the extra memory at a few copies of 32 MB."""


def check_scale(scale: str) -> None:
    """Raise ``InvalidInput`` unless ``scale`` names a scale of output vectors."""
    if scale not in get_args(Scale):
        raise InvalidInput(f"scale={scale!r} is unknown; allowed: {', '.join(get_args(Scale))}")


def posteriors(answers: Answers, scale: Scale = "probability") -> Floats:
    """Return the output vector of every record, averaged over the queries.

    Args:
        answers: of one model, logits (n, q, c).
        scale: "probability", p in [0, 1]; or "log", log p, which does not saturate and is finite for finite logits.

    Returns:
        (n, c) float64, columns in the order of the classes.

    Raises:
        InvalidInput: answers of several models, or an unknown scale.
        MissingNeed: a model that answers with labels only.

    >>> ids = np.array([0])
    >>> posteriors(Answers(ids, ids, np.log([[[0.7, 0.2, 0.1]]]))).round(6).tolist()
    [[0.7, 0.2, 0.1]]
    """
    if answers.logits.ndim != 3:
        raise InvalidInput(f"output vectors are read of one model at a time: logits (n, q, c), {answers.logits.shape}")
    check_scale(scale)
    if answers.labels_only:
        raise MissingNeed(
            "this model answers with labels only: there is no output vector to read. "
            "Use attacks that read labels: correctness, label_augmentation, boundary_distance"
        )
    n, q, c = answers.logits.shape
    out = np.empty((n, c), np.float64)
    step = max(1, BLOCK_VALUES // max(1, q * c))
    for start in range(0, n, step):
        logp = _log_softmax(answers.logits[start : start + step].astype(np.float64))
        out[start : start + step] = (logp if scale == "log" else np.exp(logp)).mean(axis=1)
    return out


def top_posteriors(answers: Answers, k: int = 3, scale: Scale = "probability") -> Floats:
    """Return the k largest entries of ``posteriors`` in descending order; it knows no class.

    Returns:
        (n, k) float64. A model with fewer than k classes has columns of zeros (probability zero), or on the log
        scale of its smallest entry, at the end.
    """
    values = -np.sort(-posteriors(answers, scale), axis=1)[:, :k]
    missing = k - values.shape[1]
    if missing <= 0:
        return np.ascontiguousarray(values)
    fill = np.zeros((values.shape[0], 1)) if scale == "probability" else values[:, -1:]
    return np.concatenate([values, np.repeat(fill, missing, axis=1)], axis=1)


def _log_softmax(z: Floats) -> Floats:
    """Log probabilities; the likeliest class keeps its digits as -log1p(sum of the others)."""
    z = z - z.max(axis=-1, keepdims=True)
    rest = np.exp(z)
    np.put_along_axis(rest, z.argmax(axis=-1)[..., None], 0.0, axis=-1)
    z -= np.log1p(rest.sum(axis=-1, keepdims=True))
    return z
