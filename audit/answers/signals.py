"""Membership signals from logits, float64, larger = more member-like.

Sources: Carlini et al. 2022 (arXiv 2112.03570) for the margin, Song and Mittal 2021 (arXiv 2003.10595) for
the modified entropy, Zarifzadeh et al. 2024 (arXiv 2312.03262) for the temperature and the Taylor softmax.
Everything is computed from logits: a float32 softmax saturates and ties the most confident records. Of logits that were
recorded in float32 or less, margin, loss and entropies take their exponentials in float32, in half the time or less,
and add them up in float64. Margin and loss move by less than 2e-7, which is what the rounding of such logits moves
them; entropies by less than 2e-7 of 1 or of themselves, whichever is more. What float32 cannot hold, answers that are
sure beyond e^-64 among it, is taken again in float64. Of answers that are surer than e^-16 or so an entropy has the
digits of a float32 gap: two of them can tie where their logits differ by less than that.

The functions take a block with the classes in front, (c, r) for r answers: numpy then reduces over the classes of many
answers at a time, which it cannot do along a short last axis.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.errors import InvalidInput

__all__ = ["SIGNALS", "Signal", "compute_signal"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
AnyFloats = NDArray[np.floating]
Signal = Callable[[Floats, Ints], Floats]
"""From logits (c, r), C-ordered, which it may overwrite, and labels (r,) to the signal (r,) in float64. The logits are
float64, or float32 for those in ``IN_SINGLE``, which then give NaN where float32 loses digits."""

BLOCK_BYTES = 1 << 20
"""Logits of a block: the copies made of it stay in the cache, and each call of numpy works for tens of microseconds. In
smaller blocks the threads wait for the interpreter more than they compute."""

LEAST_RECORDS = 16
"""Records of a block, however many classes there are: along shorter rows numpy is slow."""

LEAST_SUM, MOST_SUM = 1e-280, 1e300
"""Sums of exponentials between them have lost nothing to underflow or overflow."""

LEAST_SINGLE_SUM, MOST_SINGLE_SUM = 1e-28, 1e37
"""The same of exponentials in float32; outside, the answer is taken again in float64."""


ARTANH = (
    np.polynomial.Chebyshev.interpolate(lambda w: np.arctanh(np.sqrt(w)) / np.sqrt(w), 4, domain=[0.0, 1.0 / 9.0])
    .convert(kind=np.polynomial.Polynomial)
    .coef.astype(np.float32)
)
"""artanh(u) / u as a polynomial in u^2 for u up to 1/3, off by less than 2e-8."""


def _log_sum_exp(z: AnyFloats) -> Floats:
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


def _relative(z: AnyFloats) -> tuple[AnyFloats, Floats, NDArray[np.bool_]]:
    """Return exponentials of the logits below the highest one, 0 for the highest, their sum, and which are below it.

    ``z`` holds the logits below the highest one afterwards. The sum, float64, counts each tie but the first as 1; it is
    NaN where float32 has lost digits.
    """
    z -= z.max(axis=0)
    relative = np.exp(z)
    below = relative < 1.0
    relative *= below
    rest: Floats = relative.sum(axis=0, dtype=np.float64)
    if below.size - np.count_nonzero(below) > rest.size:  # ties are rare, and counting along an axis is slow
        rest += z.shape[0] - 1 - np.count_nonzero(below, axis=0)
    if z.dtype == np.float32:
        rest[rest < LEAST_SINGLE_SUM] = np.nan
    return relative, rest, below


def _log1m(part: AnyFloats, whole: AnyFloats) -> AnyFloats:
    """log(1 - p) for p = part / whole in [0, 1/2], to three units in the last place of the type.

    NumPy's log1p works number by number. In float32 the series of log((1 - u) / (1 + u)) = -2 artanh(u), with
    u = p / (2 - p) <= 1/3, takes a fifth of the time.
    """
    if part.dtype != np.float32:
        return np.asarray(np.log1p(-part / whole))
    u: AnyFloats = np.subtract(whole + whole, part)
    np.divide(part, u, out=u)
    square = u * u
    series: AnyFloats = square * ARTANH[-1]
    for coefficient in ARTANH[-2:0:-1]:
        series += coefficient
        series *= square
    series += ARTANH[0]
    series *= u
    series *= np.float32(-2.0)
    return series


def _places(y: Ints) -> Ints:
    """Where the true classes lie in a flattened block."""
    places: Ints = y * y.size
    places += np.arange(y.size)
    return places


def correctness(z: AnyFloats, y: Ints) -> Floats:
    """1.0 where the arg-max is the label, else 0.0 (a tie for the top counts as its first class)."""
    return np.asarray(z.argmax(axis=0) == y, np.float64)


def negative_loss(z: AnyFloats, y: Ints) -> Floats:
    """Negative cross-entropy log p_y (Yeom et al. 2018, arXiv 1709.01604), from the margin: exact where p_y -> 1."""
    phi = margin(z, y)
    log_p = np.minimum(phi, 0.0)
    np.abs(phi, out=phi)
    np.negative(phi, out=phi)
    np.exp(phi, out=phi)
    log_p -= np.log1p(phi, out=phi)
    return log_p


def confidence(z: AnyFloats, y: Ints) -> Floats:
    """p_y; saturates at 1: rank with ``negative_loss`` or ``margin`` instead."""
    probability: Floats = np.exp(negative_loss(z, y))
    return probability


def margin(z: AnyFloats, y: Ints) -> Floats:
    """Logit of p_y, log p_y - log(1 - p_y), as z_y - log sum_{k != y} exp z_k: exact where the softmax saturates.

    Exponentials are taken in the type of ``z``, float32 or float64.
    """
    at = _places(y)
    with np.errstate(over="ignore"):
        terms = np.exp(z)
    terms.reshape(-1)[at] = 0.0
    total: Floats = terms.sum(axis=0, dtype=np.float64)
    true = z.reshape(-1)[at].astype(np.float64, copy=False)
    if z.dtype == np.float32:
        total[~((total > LEAST_SINGLE_SUM) & (total < MOST_SINGLE_SUM))] = np.nan
        return np.asarray(true - np.log(total, out=total))
    far = np.flatnonzero(~((total > LEAST_SUM) & (total < MOST_SUM)))
    if far.size:
        total[far] = 1.0
    phi: Floats = true - np.log(total, out=total)
    if far.size:  # answer by answer, so that what a record scores never depends on its neighbours
        rest = z[:, far]
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


def negative_entropy(z: AnyFloats, y: Ints) -> Floats:
    """sum_k p_k log p_k; the label is not used."""
    relative, rest, _ = _relative(z)
    relative *= z  # 0 for the likeliest classes, whose own z is 0
    total: Floats = relative.sum(axis=0, dtype=np.float64) / (1.0 + rest) - np.log1p(rest)  # both parts are negative
    return total


def negative_modified_entropy(z: AnyFloats, y: Ints) -> Floats:
    """(1 - p_y) log p_y + sum_{k != y} p_k log(1 - p_k) (Song and Mittal 2021), exact where saturated."""
    at = _places(y)
    relative, rest, below = _relative(z)
    below_top = z.reshape(-1)[at].astype(np.float64, copy=False)
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
    log1mp = _log1m(relative, total.astype(z.dtype, copy=False))
    is_top = ~below.reshape(-1)[at]
    rest_of_true = np.exp(np.where(is_top, log1mp_top, log1mp.reshape(-1)[at]))
    log1mp.reshape(-1)[at] = 0.0
    # Of the likeliest classes 0 here; they follow. Squares of small numbers need float64.
    squares = np.einsum("cr,cr->r", log1mp, relative, dtype=np.float64, casting="same_kind")
    entropy: Floats = rest_of_true * (below_top - log_total) + squares / total
    number: Ints | int = 1  # classes that tie with the likeliest, itself included
    if below.size - np.count_nonzero(below) > rest.size:
        number = z.shape[0] - np.count_nonzero(below, axis=0)
    entropy += (number - is_top) * (log1mp_top / total)
    return entropy


def top_confidence(z: AnyFloats, y: Ints) -> Floats:
    """max_k log p_k: what a label-free adversary sees (Salem et al. 2018, arXiv 1806.01246, adversary 3)."""
    _, rest, _ = _relative(z)
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


IN_SINGLE: tuple[Callable[..., Floats], ...] = (
    margin, negative_loss, confidence, negative_entropy, negative_modified_entropy, top_confidence,
)  # fmt: skip
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
    flat = logits.reshape(math.prod(lead), n, q, c)
    out = np.empty(flat.shape[:3], np.float64)
    function = SIGNALS[name]
    # Divided by a temperature, float32 logits are rounded once more, unless it is a power of two.
    exact = math.frexp(temperature)[0] == 0.5 and 2**-20 <= temperature <= 2**20
    single = function in IN_SINGLE and exact and logits.dtype.kind == "f" and logits.dtype.itemsize <= 4
    kind: np.dtype[np.floating] = np.dtype(np.float32) if single else np.dtype(np.float64)
    step = max(LEAST_RECORDS, BLOCK_BYTES // max(1, q * c * kind.itemsize))
    together = max(1, step // max(1, n))  # small models share a block, large ones are cut into several

    def in_block(given: AnyFloats, y: Ints, kind: np.dtype[np.floating]) -> Floats:
        # Of a single column numpy would sum the classes in another order: the last digits that a record scores would
        # depend on its block.
        held = y.size
        z = np.zeros((c, max(2, held)), kind)
        z[:, :held].reshape(given.shape)[:] = given
        if temperature != 1.0:
            z /= temperature
        return function(z, np.pad(y, (0, z.shape[1] - held)))[:held]

    def work(part: tuple[slice, slice]) -> None:
        given = np.moveaxis(flat[part], -1, 0)
        if function is correctness:  # an arg-max is quickest where the classes of an answer lie side by side
            out[part] = correctness(given, labels[None, part[1], None])
            return
        y = np.broadcast_to(labels[None, part[1], None], given.shape[1:]).reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            values = in_block(given, y, kind)
        if single and not np.isfinite(values).all():
            again = np.flatnonzero(~np.isfinite(values))
            values[again] = in_block(given.reshape(c, -1)[:, again], y[again], np.dtype(np.float64))
        out[part] = values.reshape(given.shape[1:])

    rows = [slice(first, first + together) for first in range(0, flat.shape[0], together)]
    columns = [slice(start, start + step) for start in range(0, n, step)]
    over_blocks(work, [(row, column) for row in rows for column in columns], values=flat.size)
    return out.reshape(*lead, n, q)
