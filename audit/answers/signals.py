"""Membership signals from logits, in float64, larger = more member-like.

Sources: Carlini et al. 2022 (arXiv 2112.03570) for the margin, Song and Mittal 2021 (arXiv 2003.10595) for
the modified entropy, Zarifzadeh et al. 2024 (arXiv 2312.03262) for the temperature and the Taylor softmax.
Everything is computed from logits: a float32 softmax saturates and ties the most confident records. Of logits that were
recorded in float32 or less the margin and the loss take their exponentials in float32 and add them up in float64: no
result moves by more than 1e-6, which is what the rounding of such logits moves it, in a third of the time.

The functions take a block with the classes in front, (c, r) for r answers: numpy then reduces over the classes of many
answers at a time, which it cannot do along a short last axis.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.errors import InvalidInput

__all__ = ["SIGNALS", "Signal", "compute_signal"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Signal = Callable[[Floats, Ints], Floats]
"""From logits (c, r), float64, C-ordered, which it may overwrite, and labels (r,) to the signal (r,)."""

BLOCK_VALUES = 32_000
"""Logit values converted to float64 at a time: two copies of 256 kB stay in the second-level cache."""

LEAST_RECORDS = 16
"""Records of a block, however many classes there are: along shorter rows numpy is slow."""

LEAST_SUM, MOST_SUM = 1e-280, 1e300
"""Sums of exponentials between them have lost nothing to underflow or overflow."""

LEAST_SINGLE_SUM, MOST_SINGLE_SUM = 1e-28, 1e37
"""The same of exponentials in float32."""


def _log_sum_exp(z: Floats) -> Floats:
    top = z.max(axis=0)
    total: Floats = np.log(np.exp(z - top).sum(axis=0)) + top
    return total


def _log_softmax(z: Floats) -> Floats:
    """Log probabilities (..., c); the likeliest class keeps its digits as -log1p(sum of the others)."""
    shifted: Floats = z - z.max(axis=-1, keepdims=True)
    rest = np.exp(shifted)
    np.put_along_axis(rest, z.argmax(axis=-1)[..., None], 0.0, axis=-1)
    shifted -= np.log1p(rest.sum(axis=-1, keepdims=True))
    return shifted


def _relative(z: Floats) -> tuple[Floats, Floats, Floats]:
    """Return logits below the highest one (in place of ``z``), their exponentials, and the sum of these but one 1."""
    z -= z.max(axis=0)
    relative = np.exp(z)
    below = relative < 1.0
    rest: Floats = (relative * below).sum(axis=0)
    rest += z.shape[0] - 1 - np.count_nonzero(below, axis=0)  # classes that tie with the likeliest
    return z, relative, rest


def _places(y: Ints) -> Ints:
    """Where the true classes lie in a flattened block."""
    places: Ints = y * y.size
    places += np.arange(y.size)
    return places


def correctness(z: NDArray[np.floating], y: Ints) -> Floats:
    """1.0 where the arg-max is the label, else 0.0 (a tie for the top counts as its first class)."""
    return np.asarray(z.argmax(axis=0) == y, np.float64)


def negative_loss(z: NDArray[np.floating], y: Ints) -> Floats:
    """Negative cross-entropy log p_y (Yeom et al. 2018, arXiv 1709.01604), from the margin: exact where p_y -> 1."""
    phi = margin(z, y)
    log_p = np.minimum(phi, 0.0)
    np.abs(phi, out=phi)
    np.negative(phi, out=phi)
    np.exp(phi, out=phi)
    log_p -= np.log1p(phi, out=phi)
    return log_p


def confidence(z: NDArray[np.floating], y: Ints) -> Floats:
    """p_y; saturates at 1: rank with ``negative_loss`` or ``margin`` instead."""
    probability: Floats = np.exp(negative_loss(z, y))
    return probability


def margin(z: NDArray[np.floating], y: Ints) -> Floats:
    """Logit of p_y, log p_y - log(1 - p_y), as z_y - log sum_{k != y} exp z_k: exact where the softmax saturates.

    Exponentials are taken in the type of ``z``, float32 or float64.
    """
    at = _places(y)
    with np.errstate(over="ignore"):
        terms = np.exp(z)
    terms.reshape(-1)[at] = 0.0
    total: Floats = terms.sum(axis=0, dtype=np.float64)
    true = z.reshape(-1)[at].astype(np.float64, copy=False)
    least, most = (LEAST_SINGLE_SUM, MOST_SINGLE_SUM) if z.dtype == np.float32 else (LEAST_SUM, MOST_SUM)
    far = np.flatnonzero(~((total > least) & (total < most)))
    if far.size:
        total[far] = 1.0
    phi: Floats = true - np.log(total, out=total)
    if far.size:  # answer by answer, so that what a record scores never depends on its neighbours
        rest = z[:, far].astype(np.float64, copy=False)
        rest[y[far], np.arange(far.size)] = -np.inf
        phi[far] = true[far] - _log_sum_exp(rest)
    return phi


def hinge(z: Floats, y: Ints) -> Floats:
    """z_y - max_{k != y} z_k."""
    flat, at = z.reshape(-1), _places(y)
    true = flat[at]
    flat[at] = -np.inf
    gap: Floats = true - z.max(axis=0)
    return gap


def negative_entropy(z: Floats, y: Ints) -> Floats:
    """sum_k p_k log p_k; the label is not used."""
    shifted, relative, rest = _relative(z)
    relative *= shifted
    total: Floats = relative.sum(axis=0) / (1.0 + rest) - np.log1p(rest)  # both parts are negative
    return total


def negative_modified_entropy(z: Floats, y: Ints) -> Floats:
    """(1 - p_y) log p_y + sum_{k != y} p_k log(1 - p_k) (Song and Mittal 2021), exact where saturated."""
    z -= z.max(axis=0)
    at = _places(y)
    below_top = z.reshape(-1)[at]
    p = np.exp(z)
    tops = p == 1.0
    np.copyto(p, 0.0, where=tops)
    number = np.count_nonzero(tops, axis=0)  # classes that tie with the likeliest, itself included
    rest: Floats = p.sum(axis=0)
    rest += number - 1
    log_total = np.log1p(rest)
    # log(1 - p_k) loses all digits where p_k -> 1; at most one class can exceed one half, and there it is the
    # sum of the others' mass that is exact.
    log_rest = np.log(np.maximum(rest, LEAST_SUM))
    far = np.flatnonzero(rest < LEAST_SUM)
    if far.size:
        others = z[:, far]
        others[others.argmax(axis=0), np.arange(far.size)] = -np.inf
        log_rest[far] = _log_sum_exp(others)
    total = 1.0 + rest
    log1mp_top = log_rest - log_total
    p /= -total
    log1mp = np.log1p(p, out=z)
    is_top = tops.reshape(-1)[at]
    rest_of_true = np.exp(np.where(is_top, log1mp_top, log1mp.reshape(-1)[at]))
    log1mp *= p  # of the likeliest classes 0 here; they follow
    log1mp.reshape(-1)[at] = 0.0
    entropy: Floats = rest_of_true * (below_top - log_total) - log1mp.sum(axis=0)
    entropy += (number - is_top) * (log1mp_top / total)
    return entropy


def top_confidence(z: Floats, y: Ints) -> Floats:
    """max_k log p_k: what a label-free adversary sees (Salem et al. 2018, arXiv 1806.01246, adversary 3)."""
    _, _, rest = _relative(z)
    highest: Floats = -np.log1p(rest)
    return highest


def log_taylor_softmax(z: Floats, y: Ints, soft_margin: float = 0.6) -> Floats:
    """Log of the soft-margin Taylor softmax of RMIA's code, m = 0.6, terms up to the cubic.

    Deviation: the logits are centred per record and the polynomial is floored at 1e-6, because it is negative
    below -1.596 and not invariant to a constant added to the logits.
    """

    def poly(v: Floats) -> Floats:
        floored: Floats = np.maximum(1.0 + v + v * v / 2.0 + v * v * v / 6.0, 1e-6)
        return floored

    at = _places(y)
    z -= z.mean(axis=0)
    true = poly(z.reshape(-1)[at] - soft_margin)
    terms = poly(z)
    terms.reshape(-1)[at] = 0.0
    score: Floats = np.log(true) - np.log(true + terms.sum(axis=0))
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


IN_SINGLE: tuple[Callable[..., Floats], ...] = (margin, negative_loss, confidence)
"""Signals that take float32 logits as they are."""


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
    step = max(LEAST_RECORDS, BLOCK_VALUES // max(1, q * c))
    together = max(1, step // max(1, n))  # small models share a block, large ones are cut into several
    function = SIGNALS[name]
    # Divided by a temperature, float32 logits would be rounded once more.
    single = function in IN_SINGLE and temperature == 1.0 and logits.dtype.kind == "f" and logits.dtype.itemsize <= 4
    kind = np.float32 if single else np.float64

    def work(part: tuple[slice, slice]) -> None:
        given = np.moveaxis(flat[part], -1, 0)
        if function is correctness:  # an arg-max is quickest where the classes of an answer lie side by side
            out[part] = correctness(given, labels[None, part[1], None])
            return
        held = given[0].size
        # Of a single column numpy would sum the classes in another order: the last digits that a record scores would
        # depend on its block.
        z = np.empty((c, held), kind) if held > 1 else np.zeros((c, 2), kind)
        z[:, :held].reshape(given.shape)[:] = given
        if temperature != 1.0:
            z /= temperature
        y = np.zeros(z.shape[1], np.int64)
        y[:held].reshape(given.shape[1:])[:] = labels[None, part[1], None]
        out[part] = function(z, y)[:held].reshape(given.shape[1:])

    rows = [slice(first, first + together) for first in range(0, flat.shape[0], together)]
    columns = [slice(start, start + step) for start in range(0, n, step)]
    over_blocks(work, [(row, column) for row in rows for column in columns], values=flat.size)
    return out.reshape(*lead, n, q)
