"""U-LiRA, the likelihood-ratio test of unlearning (Hayes et al. 2024, arXiv 2403.01218).

Two Gaussians per record, on margins: models that trained on the record and unlearned it, and models that never saw it,
all of which went through the same unlearning. Each has its own mean and variance, so that a record whose margin ends
*below* that of never-seen records, over-forgotten, is found as well as one that stays above.

``lira`` in the forgetting game asks the same question. It shrinks one variance common to both sides, which is stronger
with few models; here each side keeps its own, as published, which is what finds a side that is merely narrower.

The score is the log ratio, the logit of the published membership probability: the same order, and no ties at 1. Every
model is scored with itself left out exactly, where published code fits and scores the same models (in-sample accuracy
under the null 0.69, 0.62, 0.58, 0.54 with 4, 8, 16, 64 models a side). Left out, a model's own side has one model
fewer and a slightly worse fit: under the null the AUC is 0.47, 0.492, 0.498 with 4, 8, 16 models a side, as the
retrained row shows.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mnemoscope.attacks.lira import LiRA, LiraScorer, lira_scores
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, require_models
from mnemoscope.audit.errors import InvalidInput

__all__ = ["ULiRA", "Variances", "membership_probability", "right_at_even_odds"]

Floats = NDArray[np.float64]
Variances = Literal["auto", "per-record", "shared"]

ENOUGH = 8
"""Models a side from which "auto" trusts a record's own variance."""


@dataclass(frozen=True)
class ULiRA:
    """Trained-then-unlearned against never-seen, one Gaussian a side with a variance of its own.

    Attributes:
        variance: "per-record"; "shared", one within-record variance a side; or "auto", per-record where every record
            has eight models on either side, else shared.
        signal: key of ``SIGNALS``; several queries are scored each by itself and averaged.
    """

    variance: Variances = "auto"
    signal: str = "margin"
    name = "u_lira"
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variances):
            raise InvalidInput(f"variance={self.variance!r} is unknown; allowed: {', '.join(get_args(Variances))}")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> LiraScorer:
        """Fit both distributions of every record; nothing is drawn from ``rng``."""
        chosen = LiRA(variance=self._chosen(_fewest(reference)), signal=self.signal)
        return replace(chosen.fit(reference, rng=rng), flags=self.flags(reference))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, True, reference.ids)
        phi = reference.signal(self.signal)
        fewest = np.full(reference.n_models, reference.n_models)
        for side in (Side.IN, Side.OUT):
            mask = reference.side == side
            number = np.count_nonzero(mask, axis=0)
            np.minimum(fewest, [(number - own).min() for own in mask], out=fewest)
        chosen = np.array([self._chosen(int(number)) for number in fewest])
        scores = np.empty(reference.side.shape)
        for variance in get_args(Variances)[1:]:
            rows = chosen == variance
            if rows.any():
                scores[rows] = lira_scores(phi, reference.side, variance=variance, ids=reference.ids)[rows]
        return scores

    def flags(self, reference: Reference, *, left_out: bool = False) -> tuple[str, ...]:
        """Say where the fit is not per record; empty where it is, or where "shared" was asked for.

        Args:
            reference: what ``fit`` would read.
            left_out: whether each model is left out of it in turn, as ``score_fleet`` does.
        """
        if self.variance == "shared":
            return ()
        if self.variance == "per-record":
            return LiRA(variance="per-record", signal=self.signal).flags(reference, left_out=left_out)
        fewest = _fewest(reference) - left_out
        if fewest >= ENOUGH:
            return ()
        return (
            f"shared variance: a record has {fewest} models on a side, {ENOUGH} are needed for a variance of its own",
        )

    def _chosen(self, fewest: int) -> Literal["per-record", "shared"]:
        if self.variance == "auto":
            return "per-record" if fewest >= ENOUGH else "shared"
        return self.variance


def _fewest(reference: Reference) -> int:
    """Fewest models that a record has on a side."""
    return min(int((reference.side == side).sum(axis=0).min()) for side in (Side.IN, Side.OUT))


def membership_probability(score: Floats) -> Floats:
    """Return the published score, N(phi; unlearned) / (N(phi; unlearned) + N(phi; never seen)), of log ratios."""
    return np.asarray(expit(score), np.float64)


def right_at_even_odds(score: Floats, side: NDArray[np.int8]) -> Floats:
    """Return for each record the share of its models that are judged rightly at even odds, IN and OUT weighing alike.

    Args:
        score: (m, n) float64 log ratios.
        side: (m, n) int8 of ``Side``, every record with models on both sides.

    Returns:
        (n,) float64 in [0, 1]; the paper's accuracy of single records, one half where nothing leaks.
    """
    is_in, is_out = side == Side.IN, side == Side.OUT
    found = ((score >= 0) & is_in).sum(axis=0) / is_in.sum(axis=0)
    spared = ((score < 0) & is_out).sum(axis=0) / is_out.sum(axis=0)
    accuracy: Floats = (found + spared) / 2.0
    return accuracy
