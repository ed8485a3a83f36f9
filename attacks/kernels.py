"""Densities of one record's signal from few models: Gaussian kernels in logarithms, with the target left out.

The bandwidth is Silverman's for each sample, 1.06 s k^(-1/5) with a floor (Silverman 1986), or a fixed number of the
signal's units. A kernel far away underflows as a density and not as a logarithm, so ratios of such densities exist.
"""

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.lira import LEAST_FOR_OWN, shared_variance
from mnemoscope.attacks.moments import Moments

__all__ = ["LEAST_BANDWIDTH", "kernel_log_density", "shared_bandwidth"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_BANDWIDTH = 0.1
"""In units of the signal; a sample narrower than that is told from others by its place, not by its width."""
SILVERMAN = 1.06
BLOCK_VALUES = 4_000_000
"""Kernels held at a time: bounds the memory at a few copies of 32 MB."""
HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))


def kernel_log_density(
    x: Floats,
    sample: Floats,
    counts: Mask,
    bandwidth: float | Floats | None,
    *,
    left_out: NDArray[np.int64] | None = None,
) -> Floats:
    """Log density of each record's values under its own sample; O(t k n) for k models a sample.

    Args:
        x: (t, n) float64 values, t of each record.
        sample: (m, n) float64 values of m models.
        counts: (m, n) bool, which of them belong to the sample; one a record, two where one is left out.
        bandwidth: of the kernels; None is Silverman's for each sample. (t, 1) gives each row its own, NaN for
            Silverman's.
        left_out: (t,) int64, the model without which the sample serves row i; out of the sum and out of the bandwidth.

    Returns:
        (t, n) float64, finite, also for rows whose model does not count.
    """
    out = np.empty(x.shape)
    most = int(counts.sum(axis=0).max())
    step = max(1, BLOCK_VALUES // (x.shape[0] * most))
    for start in range(0, x.shape[1], step):
        part = slice(start, start + step)
        # The models that count come first, so that the others need no kernel.
        model = np.argsort(~counts[:, part], axis=0, kind="stable")[:most]
        values = np.take_along_axis(sample[:, part], model, axis=0)
        belongs = np.take_along_axis(counts[:, part], model, axis=0)
        kept = np.broadcast_to(belongs, (x.shape[0], *belongs.shape))
        if left_out is not None:
            kept = kept & (model != left_out[:, None, None])
        width = _bandwidth(values[None], kept, bandwidth)
        out[:, part] = _log_mean(x[:, part], values, kept, width)
    return out


def shared_bandwidth(*sides: Moments) -> Floats:
    """Bandwidth for all records of a row where one of them has a side of too few models to show a width, else NaN.

    A single model has no spread: by itself it would get the floor, and the side that the target was left out of would
    be the narrow one. So all records and both sides take Silverman's bandwidth of the mean within-record variance.

    Args:
        sides: moments (..., n) of both sides.

    Returns:
        (..., 1) float64.
    """
    few = np.any([(side.number < LEAST_FOR_OWN).any(axis=-1, keepdims=True) for side in sides], axis=0)
    number = np.mean([side.number.mean(axis=-1, keepdims=True) for side in sides], axis=0)
    width = np.maximum(SILVERMAN * np.sqrt(shared_variance(*sides)) * number**-0.2, LEAST_BANDWIDTH)
    return np.where(few, width, np.nan)


def _bandwidth(values: Floats, kept: Mask, bandwidth: float | Floats | None) -> Floats:
    """Bandwidths (t, n) of the samples (1, k, n) where kept (t, k, n)."""
    number = kept.sum(axis=1)
    if bandwidth is not None and not np.isnan(bandwidth).any():
        return np.broadcast_to(np.asarray(bandwidth, np.float64), number.shape)
    mean = np.where(kept, values, 0.0).sum(axis=1) / number
    deviation = np.where(kept, values - mean[:, None], 0.0)
    variance = np.einsum("ijk,ijk->ik", deviation, deviation) / np.maximum(number - 1, 1)
    width: Floats = np.maximum(SILVERMAN * np.sqrt(variance) * number**-0.2, LEAST_BANDWIDTH)
    return width if bandwidth is None else np.where(np.isnan(bandwidth), width, bandwidth)


def _log_mean(x: Floats, values: Floats, kept: Mask, width: Floats) -> Floats:
    """Log mean kernel of x (t, n) over values (k, n) where kept (t, k, n); width (t, n)."""
    exponent = x[:, None] - values[None]
    exponent /= width[:, None]
    exponent *= exponent
    exponent *= -0.5
    exponent[~kept] = -np.inf
    top = exponent.max(axis=1)
    exponent -= top[:, None]
    total: Floats = np.log(np.exp(exponent, out=exponent).sum(axis=1))
    total += top
    total -= np.log(kept.sum(axis=1)) + np.log(width) + HALF_LOG_2PI
    return total
