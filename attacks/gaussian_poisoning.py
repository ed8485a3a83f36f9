"""Gaussian unlearning score, GUS (Pawelczyk et al. 2025, arXiv 2406.17216): does planted noise still show in gradients?

The auditor adds known Gaussian noise xi to some records before training. A model that learned x + xi has an input
gradient at the clean x that points along xi; a model that never saw xi has one that is independent of it, so that <g,
xi> / (e |g|) is exactly N(0, 1) whatever the model, the record and the training. No shadow models, and a known null.

The gradient is that of the margin, not of the loss: the loss's is the margin's times -(1 - p_y), so both give the same
statistic but for the sign and for saturated records, where the loss's is 0 / 0. Along the margin's gradient a
memorised xi is positive; along the loss's, as papers write it, it is negative.

Deviations: e is the root mean square of the planted noise for each channel (images) or feature (tables) in the model's
own units, which normalisation may have made unequal. Noise that was clipped to the range of pixels is no longer
independent of the record and the null is no longer N(0, 1): on digits with noise of half a standard deviation, canaries
that a model never saw score -0.5 on average. Their mean is therefore taken off wherever there are such canaries, and
"found" is judged by their own mean and spread; perfect forgetting then scores 0 by symmetry of the roles, clipped or
not. What is found is the noise; that its record is forgotten does not follow from its absence.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit
from torch import Tensor

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.influence import influence_variance
from mnemoscope.audit.statistics.measures import Canaries, Measurement, Worlds
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["GaussianPoisoning", "canary_scores", "margin_gradients", "noise_of"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

LEVEL = 0.95
SMALLEST_GRADIENT = 1e-12
"""Per unit of input; below it a direction is rounding error."""


@dataclass(frozen=True)
class GaussianPoisoning:
    """Correlation of input gradients with noise that the auditor planted in records which were then forgotten.

    Attributes:
        batch: records differentiated at a time.
        fpr: false-positive rate of the share of canaries found, under a normal null.
    """

    batch: int = 256
    fpr: float = 0.01
    name = "gaussian_poisoning"
    needs = Need.ORACLE | Need.GRADIENT

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidInput(f"batch={self.batch!r} must be at least 1")
        if not 0 < self.fpr < 1:
            raise InvalidInput(f"fpr={self.fpr!r} must lie in (0, 1)")

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return the mean correlation over forgotten canaries, beyond never-seen ones, and its floor; no randomness.

        Raises:
            MissingNeed: no canaries, or models without gradients.
            InvalidInput: no canary was to be forgotten by any model.
        """
        if worlds.canaries is None:
            raise MissingNeed(
                "gaussian_poisoning needs canaries: records with noise that was planted before training. "
                "Plant some, name their sources, or leave the measure out"
            )
        at = worlds.after.positions(worlds.canaries.ids)
        role = worlds.role[:, at]
        forgotten, never = role == Role.FORGOTTEN, role == Role.NEVER
        if not forgotten.any():
            raise InvalidInput("no canary was to be forgotten by any model; put canaries among the records to forget")
        wanted = forgotten | never
        fleets = (worlds.after, worlds.control, worlds.before)
        scores, flat = zip(*(self._scores(fleet, worlds.canaries, wanted) for fleet in fleets), strict=True)
        # Cells without a direction in any fleet leave all of them, so that differences stay paired.
        usable = ~np.logical_or.reduce(flat)
        forgotten, never = forgotten & usable, never & usable
        if not forgotten.any():
            raise InvalidInput("every forgotten canary has a zero gradient in some fleet: nothing can be correlated")
        value, floor, no_op = (_mean(score, forgotten, never) for score in scores)
        records = forgotten.any(axis=0)
        number = forgotten[:, records].sum(axis=0)
        return Measurement(
            self.name,
            value,
            floor,
            unit="standard deviations",
            direction="larger is more residue; 0 is none",
            per_record=np.where(forgotten, scores[0] - _centre(scores[0], never), 0.0)[:, records].sum(axis=0) / number,
            ids=worlds.canaries.ids[records],
            note=self._note(scores[0], forgotten, never, int((wanted & ~usable).sum())),
            excess=_mean(scores[0] - scores[1], forgotten, never),
            no_op=no_op,
        )

    def _scores(self, fleet: Reference, canaries: Canaries, wanted: Mask) -> tuple[Floats, Mask]:
        """Return (m, c) scores, 0 where not wanted, and where a gradient is too small to have a direction."""
        if fleet.oracles is None or not all(oracle.white_box for oracle in fleet.oracles):
            raise MissingNeed(
                "gaussian_poisoning needs live access to the parameters of all models, also of retrained ones"
            )
        noise = noise_of(fleet.oracles[0], canaries)
        scores, flat = np.zeros(wanted.shape), np.zeros(wanted.shape, np.bool_)
        for k, oracle in enumerate(fleet.oracles):
            for part in np.array_split(np.flatnonzero(wanted[k]), -(-int(wanted[k].sum()) // self.batch) or 1):
                if part.size:
                    gradient = margin_gradients(oracle, canaries.sources[part])
                    scores[k, part], flat[k, part] = canary_scores(gradient, noise[part], _spread(noise))
        return scores, flat

    def _note(self, score: Floats, forgotten: Mask, never: Mask, flat: int) -> str:
        centre, spread = _centre(score, never), float(score[never].std()) if never.any() else 1.0
        threshold = centre + spread * float(ndtri(1.0 - self.fpr))
        found = float((score[forgotten] >= threshold).mean())
        canaries = float(forgotten.sum(axis=1).mean())
        note = (
            f"{found:.1%} of forgotten canaries found at an FPR of {self.fpr:.3g}; one model's mean is within "
            f"{1.96 / max(canaries, 1.0) ** 0.5:.2g} of 0 by chance"
        )
        if never.any():
            realised = float((score[never] >= threshold).mean())
            note += (
                f"; canaries never seen: mean {centre:.2g}, taken off everywhere (0 where no noise was cut off at the "
                f"end of a range), {realised:.1%} found"
            )
        else:
            note += "; no canary is never seen, so that noise cut off at the end of a range would look like a signal"
        return note + (f"; {flat} gradients too small for a direction left out" if flat else "")


def noise_of(oracle: Oracle, canaries: Canaries) -> Floats:
    """Return the planted noise as the model takes it, (c, ...) float64: canary minus source."""
    noise = (oracle.inputs(canaries.ids).double() - oracle.inputs(canaries.sources).double()).cpu().numpy()
    if not np.any(noise):
        raise InvalidInput("canaries equal their sources: no noise was planted")
    return np.asarray(noise, np.float64)


def margin_gradients(oracle: Oracle, ids: Ids) -> Floats:
    """Return the gradient of each record's margin with respect to its own input, (k, ...) float64; counted.

    One backward pass of the sum: in eval mode no record touches another.
    """
    module = oracle.module()
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    inputs = oracle.inputs(ids).to(dtype).detach().clone().requires_grad_()
    labels = oracle.labels(ids)
    with torch.enable_grad():
        logits = module(inputs).double()
        true = logits.gather(1, labels[:, None])[:, 0]
        others = logits.masked_fill(torch.nn.functional.one_hot(labels, logits.shape[1]).bool(), -torch.inf)
        gradient: Tensor = torch.autograd.grad((true - torch.logsumexp(others, dim=1)).sum(), inputs)[0]
    oracle.count_gradients(int(ids.size))
    return np.asarray(gradient.double().cpu().numpy(), np.float64)


def canary_scores(gradient: Floats, noise: Floats, spread: Floats) -> tuple[Floats, Mask]:
    """Correlate gradients with noise: <g, xi> / |e g|, N(0, 1) where the noise had no part in the gradient.

    Args:
        gradient: (k, ...) float64.
        noise: (k, ...) float64, of standard deviation ``spread``.
        spread: float64, broadcastable to one record, e.

    Returns:
        (k,) float64, and (k,) bool where the gradient is too small to have a direction (score 0).
    """
    axes = tuple(range(1, gradient.ndim))
    product = (gradient * noise).sum(axis=axes)
    scaled = gradient * spread
    norm = np.sqrt((scaled * scaled).sum(axis=axes))
    flat = norm <= SMALLEST_GRADIENT * float(np.sqrt((np.broadcast_to(spread, gradient.shape[1:]) ** 2).sum()))
    return np.where(flat, 0.0, product / np.where(flat, 1.0, norm)), flat


def _spread(noise: Floats) -> Floats:
    """Root mean square for each channel or feature, shaped to meet one record."""
    axes = (0, *range(2, noise.ndim))
    rms = np.sqrt((noise * noise).mean(axis=axes))
    return np.asarray(rms.reshape(-1, *(1,) * (noise.ndim - 2)), np.float64)


def _centre(score: Floats, never: Mask) -> float:
    """Mean of never-seen canaries; 0, that of noise which was not clipped, where there are none."""
    return float(score[never].mean()) if never.any() else 0.0


def _mean(score: Floats, cells: Mask, never: Mask) -> Estimate:
    """Mean over cells minus that over never-seen ones, clustered by model and canary."""
    number, level, centre = int(cells.sum()), float(score[cells].mean()), _centre(score, never)
    value = level - centre
    influence = np.where(cells, score - level, 0.0) / number
    influence -= np.where(never, score - centre, 0.0) / max(1, int(never.sum()))
    freedom = max(1, min(int(cells.any(axis=1).sum()), int(cells.any(axis=0).sum())) - 1)
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * influence_variance(influence) ** 0.5
    return Estimate(
        value, Interval(value - half, value + half, LEVEL, "two", "clustered by model and canary"), n=number
    )
