"""Epsilon that follows from a fleet's rates: lower bounds with what they quantify over, beside their ceiling.

The threshold of each model was set on other models. Both rates are averages over records and training runs: were every
record (epsilon, delta)-indistinguishable, the averages would obey the same inequalities, so that a bound from averages
holds for the most exposed record, whose own epsilon may be larger.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mnemoscope.audit.statistics.epsilon import epsilon_ceiling, epsilon_from_rates
from mnemoscope.audit.statistics.epsilon_choice import epsilon_bounds
from mnemoscope.audit.statistics.epsilon_gdp import epsilon_of_gdp
from mnemoscope.audit.statistics.fleet import FleetRate
from mnemoscope.audit.statistics.proportions import clopper_pearson_limits
from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.result import EpsilonRow, ModelRole

__all__ = ["EPSILON_DELTA", "fleet_epsilons", "model_epsilons", "refutations"]

Floats = NDArray[np.float64]

EPSILON_DELTA = 1e-5
LEAST_RECORDS = 20
LARGEST = 1e6
"""Stands for an epsilon without limit: a result holds no infinity."""

PURE = "training runs of this recipe; holds for the most exposed of these records"
GAUSSIAN = PURE + "; extrapolated under a Gaussian trade-off curve, which nothing here tests"


def fleet_epsilons(
    attack: str,
    game: str,
    models: ModelRole,
    rate: FleetRate,
    level: float,
    *,
    delta: float = EPSILON_DELTA,
    fleet: str = "",
    claimed: float | None = None,
) -> list[EpsilonRow]:
    """Bound epsilon from one attack's rates at a threshold that was set on other models.

    Args:
        attack: its name.
        game: the question asked: "in" is what the game says.
        models: which models.
        rate: counts and clustered limits at the threshold.
        level: one-sided confidence of each bound; each rate's limit takes half of the error.
        delta: of (epsilon, delta).
        fleet: which models, where they were trained otherwise than the audited ones.
        claimed: epsilon that is claimed for them at this delta, or None.

    Returns:
        From the rates themselves, and under Gaussian differential privacy (arXiv 2302.07956). The first one alone can
        refute a claim: the second rests on an assumption that nobody claimed.
    """
    each = 1 - (1 - level) / 2
    low = rate.tpr_estimate(each, "lower").low or 0.0
    high = rate.fpr_estimate(each, "upper").high
    fpr_high = 1.0 if high is None else high
    pure = float(epsilon_from_rates(low, fpr_high, delta))
    best_low = float(clopper_pearson_limits(rate.n_in, rate.n_in, each, "lower")[0])
    best_high = float(clopper_pearson_limits(0, rate.n_out, each, "upper")[1])
    ceiling = epsilon_ceiling(rate.n_in, rate.n_out, level, delta)
    stated = None if claimed is None else min(claimed, LARGEST)
    rows = [
        _row("clustered limits of both rates", attack, game, models, pure, ceiling, rate, level, delta, PURE),
        _row(
            "Gaussian DP, clustered limits", attack, game, models, _gaussian(low, fpr_high, delta),
            _gaussian(best_low, best_high, delta), rate, level, delta, GAUSSIAN,
        ),
    ]  # fmt: skip
    rows[0] = replace(rows[0], claimed=stated, refuted=stated is not None and pure > stated)
    return [replace(row, fleet=fleet) for row in rows]


def refutations(rows: Iterable[EpsilonRow]) -> tuple[str, ...]:
    """Return one sentence for each claim that a bound is above."""
    return tuple(
        f"A privacy claim is refuted. {row.fleet}: epsilon {row.claimed:.2f} at delta {row.delta:g} is claimed, and "
        f"{row.attack} tells members from non-members so well that epsilon is at least {row.bound.value:.2f} at the "
        f"same delta (confidence {row.level:.0%}). Training, accounting or the unit of privacy is not what was claimed."
        for row in rows
        if row.refuted
    )


def model_epsilons(
    attack: str,
    game: str,
    models: ModelRole,
    in_scores: Floats,
    out_scores: Floats,
    level: float,
    *,
    rng: np.random.Generator,
) -> tuple[EpsilonRow, ...]:
    """Bound epsilon from one model's scores, each threshold chosen on a random half of the records.

    Args:
        attack: its name.
        game: the question asked.
        models: which model.
        in_scores: (n_in,) float64.
        out_scores: (n_out,) float64.
        level: one-sided confidence of each bound.
        rng: of the splits.

    Returns:
        One row a bound; none where a side has fewer than 20 records.
    """
    if min(in_scores.size, out_scores.size) < LEAST_RECORDS:
        return ()
    rows = []
    for found in epsilon_bounds(in_scores, out_scores, level=level, delta=EPSILON_DELTA, rng=rng):
        said = f"{found.assumption}; {found.choice}"
        rows.append(
            EpsilonRow(
                found.method, attack, game, models, found.estimate(), min(found.ceiling, LARGEST), level,
                EPSILON_DELTA, said,
            )
        )  # fmt: skip
    return tuple(rows)


def _gaussian(tpr_low: float, fpr_high: float, delta: float) -> float:
    """Epsilon of the largest mu that the two limits exclude the smaller ones of; 0 where they exclude none."""
    if tpr_low <= 0 or fpr_high >= 1:
        return 0.0
    mu = float(ndtri(tpr_low) - ndtri(fpr_high)) if fpr_high > 0 and tpr_low < 1 else np.inf
    return 0.0 if mu <= 0 else epsilon_of_gdp(mu, delta)


def _row(
    method: str,
    attack: str,
    game: str,
    models: ModelRole,
    bound: float,
    ceiling: float,
    rate: FleetRate,
    level: float,
    delta: float,
    assumption: str,
) -> EpsilonRow:
    value = min(bound, LARGEST)
    interval = Interval(value, LARGEST, level, "lower", method)
    estimate = Estimate(value, interval, n=rate.n_in + rate.n_out)
    return EpsilonRow(method, attack, game, models, estimate, min(ceiling, LARGEST), level, delta, assumption)
