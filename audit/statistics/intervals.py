"""Every interval of this room under one name, and the bootstrap that only describes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.delong import (
    DeLong,
    PairedAuc,
    auc_interval,
    delong,
    finite_scores,
    hanley_mcneil_se,
    paired_delong,
    placements,
)
from mnemoscope.audit.statistics.proportions import (
    Sides,
    clopper_pearson,
    clopper_pearson_limits,
    jeffreys,
    rate,
    tail_share,
    wilson,
)
from mnemoscope.audit.statistics.rate_differences import (
    difference_of_rates,
    difference_score,
    paired_difference_of_rates,
    paired_difference_score,
)
from mnemoscope.audit.statistics.trials import Interval

__all__ = [
    "DeLong",
    "PairedAuc",
    "Sides",
    "auc_interval",
    "clopper_pearson",
    "clopper_pearson_limits",
    "delong",
    "difference_of_rates",
    "difference_score",
    "hanley_mcneil_se",
    "jeffreys",
    "paired_delong",
    "paired_difference_of_rates",
    "paired_difference_score",
    "placements",
    "rate",
    "stratified_bootstrap",
    "wilson",
]

Floats = NDArray[np.float64]
BOOTSTRAP_AT_MOST = 50_000
"""No bootstrap above this many records: the analytic intervals are as good and cost one sort."""


def stratified_bootstrap(
    statistic: Callable[[Floats, Floats], float],
    in_scores: NDArray[np.floating],
    out_scores: NDArray[np.floating],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator,
) -> Interval:
    """Percentile interval from resampling both sides separately: description, never an endpoint.

    It covers 92 % at 1,000 records for TPR at a low FPR, and has no width at zero hits.

    Args:
        statistic: maps (in scores, out scores) to a number; a threshold inside it is found anew in each resample.
        in_scores: (n_in,) finite scores.
        out_scores: (n_out,) finite scores.
        level: confidence of the two-sided interval.
        resamples: number of resamples, at least 200.
        rng: generator of the resamples.

    Returns:
        The percentile interval.

    Raises:
        InvalidInput: more than 50,000 records, an empty side, or too few resamples.
    """
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)
    if min(s1.size, s0.size) == 0 or s1.size + s0.size > BOOTSTRAP_AT_MOST:
        raise InvalidInput(
            f"bootstrap of {s1.size} + {s0.size} records: both sides need some and {BOOTSTRAP_AT_MOST:,} are the most; "
            "use the analytic interval"
        )
    if resamples < 200:
        raise InvalidInput(f"resamples={resamples!r}: at least 200 are needed for percentile limits, 2000 are usual")
    tail = tail_share(level, "two")
    values = np.empty(resamples)
    for b in range(resamples):
        values[b] = statistic(s1[rng.integers(0, s1.size, s1.size)], s0[rng.integers(0, s0.size, s0.size)])
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(float(low), float(high), level, "two", f"stratified percentile bootstrap, {resamples} resamples")
