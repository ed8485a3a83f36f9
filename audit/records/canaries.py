"""Canaries: records made from others and planted before training, under ids and keys of their own.

Gaussian canaries carry noise that the auditor knows (Pawelczyk et al. 2025, arXiv 2406.17216); mislabelled ones carry
another class, the records a model can only learn by heart (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846; Aerni,
Zhang and Tramer 2024, arXiv 2404.17399). An exact copy is no canary: its answers are those of its source.

A data set with canaries keeps its name and its classes, and what normalises its records is computed from the records of
the source alone (``Dataset.derived``): planting moves no other record's inputs. Its digest changes, so that no stored
model of the data without canaries is taken for one of the data with them.

For a one-run audit each canary is included by a fair coin of its own; every coin depends on seed and id alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.datasets import Dataset
from mnemoscope.audit.records.design import Design, Role, fixed_request_design
from mnemoscope.audit.records.index import some, value_digests
from mnemoscope.audit.rng import child_seed, generator

__all__ = [
    "PREFIX",
    "Coins",
    "PlantedCanaries",
    "canary_design",
    "in_place_of_sources",
    "one_run_inclusion",
    "plant_canaries",
]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = Literal["gaussian", "mislabelled"]

PREFIX = "canary:"
"""What the key of a canary begins with; the key of its source follows."""


@dataclass(frozen=True, eq=False)
class PlantedCanaries:
    """A data set with canaries, and what was planted.

    Attributes:
        dataset: the records of the source, then the canaries.
        ids: (c,) int64 ids of the canaries, ascending.
        sources: (c,) int64 ids of the records they were made from, in the same order; train on none of them.
        kind: "gaussian" or "mislabelled".
        scale: standard deviation of the noise in raw units, for each channel or column; None without noise.
        clipped: share of values whose noise was cut off at the end of the range of bytes; 0 for floats.
        rms: (asked, planted) root mean squares of the noise in raw units, before and after rounding and clipping.
        seed: root seed of noise or labels.
    """

    dataset: Dataset
    ids: Ids
    sources: Ids
    kind: Kind
    scale: tuple[float, ...] | None
    clipped: float
    rms: tuple[float, float]
    seed: int

    def noise(self) -> Floats:
        """What was planted: canary minus source in raw units, (c, ...) float64, after rounding and clipping."""
        values = self.dataset.values
        return values[self.ids].astype(np.float64) - values[self.sources].astype(np.float64)

    @property
    def note(self) -> str:
        """What was planted, for the reader of a report."""
        if self.kind == "mislabelled":
            return f"{self.ids.size} canaries with the label of another class"
        asked, planted = self.rms
        rounding = "" if self.dataset.values.dtype != np.uint8 else "; rounded to whole bytes"
        cut = f", {self.clipped:.1%} of values cut off at 0 or 255" if self.clipped else ""
        return f"{self.ids.size} canaries with Gaussian noise: rms {planted:.4g} of {asked:.4g} asked{rounding}{cut}"


@dataclass(frozen=True, eq=False)
class Coins:
    """Which canaries are included, by independent fair coins.

    Attributes:
        ids: (c,) int64, ascending.
        included: (c,) bool.
        seed: root seed.
    """

    ids: Ids
    included: NDArray[np.bool_]
    seed: int

    @property
    def digest(self) -> str:
        """``sha256:...`` of ids and coins, to be committed before training."""
        sha = hashlib.sha256(f"coins 1 {self.seed}\n".encode())
        sha.update(np.ascontiguousarray(self.ids, "<i8").data)
        sha.update(np.packbits(self.included).data)
        return f"sha256:{sha.hexdigest()}"


def plant_canaries(
    dataset: Dataset, ids: Ids, *, kind: Kind = "gaussian", scale: float | Sequence[float] | None = None, seed: int
) -> PlantedCanaries:
    """Append records derived from others; nothing of the others changes.

    The noise or label of a canary depends on the seed and the key of its source alone.

    Args:
        dataset: the records; canaries may be planted in it already, of other sources.
        ids: (c,) ids of the sources, each once.
        kind: "gaussian" adds noise to the values, "mislabelled" draws another class that has records.
        scale: standard deviation of the noise in raw units (bytes of uint8 images, the table's own units; tables of
            bytes become float32, so that no noise is cut off): one number,
            or one for each channel or column. For s standard deviations of the model's inputs give s times
            ``DeviceData(dataset).constants[1]``.
        seed: root seed.

    Returns:
        The data set with the canaries at its end, their ids and their sources.

    Raises:
        InvalidInput: unknown ids, ids named twice, sources that are canaries or have one, a missing or wrong scale.

    >>> from mnemoscope.audit.records.datasets import load_dataset
    >>> planted = plant_canaries(load_dataset("digits"), np.array([3, 5]), scale=2.0, seed=0)
    >>> planted.ids.tolist(), planted.dataset.keys_of(planted.ids)
    ([1797, 1798], ('canary:digits/0003', 'canary:digits/0005'))
    """
    if kind not in get_args(Kind):
        raise InvalidInput(f"kind={kind!r} is unknown; allowed: {', '.join(get_args(Kind))}")
    sources = _sources(dataset, ids)
    keys = dataset.keys_of(sources)
    rngs = [generator(seed, "canary", kind, key) for key in keys]
    everything = dataset.values
    if kind == "gaussian" and dataset.kind == "table":
        everything = everything.astype(np.float32)  # bytes would cut off half of the noise on zeros and ones
    values, labels = everything[sources], dataset.labels[sources]
    scales: tuple[float, ...] | None = None
    clipped, rms = 0.0, (0.0, 0.0)
    if kind == "gaussian":
        deviation = _scale(scale, int(values.shape[-1]))
        scales = tuple(deviation.tolist())
        noise = np.stack([rng.standard_normal(values.shape[1:]) for rng in rngs]) * deviation
        exact = values.astype(np.float64) + noise
        made = np.rint(np.clip(exact, 0, 255)).astype(np.uint8) if values.dtype == np.uint8 else exact.astype("f4")
        if values.dtype == np.uint8:
            clipped = float(((exact < 0) | (exact > 255)).mean())
        planted = made.astype(np.float64) - values.astype(np.float64)
        rms = (float(np.sqrt((noise**2).mean())), float(np.sqrt((planted**2).mean())))
        same = (planted == 0).reshape(len(planted), -1).all(axis=1)
        if same.any():
            raise InvalidInput(
                f"scale={scale!r}: {int(same.sum())} of {same.size} canaries equal their sources once the noise is "
                "rounded to whole bytes; plant more noise"
            )
    else:
        if scale is not None:
            raise InvalidInput(f"scale={scale!r}: mislabelled canaries carry no noise; leave it out")
        made = values.copy()
        labels = _other_labels(dataset, labels, rngs)
    digests = value_digests(made, [dataset.classes[label] for label in labels.tolist()])
    count = len(dataset.keys)
    whole = Dataset(
        name=dataset.name,
        kind=dataset.kind,
        ids=np.arange(count + sources.size, dtype=np.int64),
        keys=(*dataset.keys, *(PREFIX + key for key in keys)),
        labels=np.concatenate([dataset.labels, labels]),
        classes=dataset.classes,
        digests=np.concatenate([dataset.digests, digests]),
        values=np.concatenate([everything, made]),
        derived=dataset.derived + sources.size,
    )
    return PlantedCanaries(whole, whole.ids[count:], sources, kind, scales, clipped, rms, seed)


def _sources(dataset: Dataset, ids: Ids) -> Ids:
    sources = dataset.positions(np.asarray(ids))
    if sources.ndim != 1 or not sources.size:
        raise InvalidInput(f"ids must name at least one record to make a canary of, given shape {sources.shape}")
    if np.unique(sources).size != sources.size:
        raise InvalidInput("ids: a record is named twice; each canary has a source of its own")
    derived = [key for key in dataset.keys_of(sources) if key.startswith(PREFIX)]
    if derived:
        raise InvalidInput(f"{len(derived)} ids are canaries themselves: {some(derived)}; name records of the source")
    taken = [key for key in dataset.keys_of(sources) if dataset.has_key(PREFIX + key)]
    if taken:
        raise InvalidInput(f"{len(taken)} records have a canary already: {some(taken)}; name others")
    return np.sort(sources)


def _scale(scale: float | Sequence[float] | None, width: int) -> Floats:
    given = np.asarray(np.nan if scale is None else scale, np.float64)
    if given.ndim > 1 or given.size not in (1, width) or not (np.isfinite(given) & (given > 0)).all():
        raise InvalidInput(
            f"scale={scale!r} must be one positive number, or {width}, one for each channel or column, in raw units"
        )
    return np.broadcast_to(given, (width,)).copy()


def _other_labels(
    dataset: Dataset, labels: NDArray[np.int64], rngs: Sequence[np.random.Generator]
) -> NDArray[np.int64]:
    present = np.unique(dataset.source_labels)
    if present.size < 2:
        raise InvalidInput(f"{dataset.name} has records of one class only: there is no other label to give")
    drawn = []
    for label, rng in zip(labels.tolist(), rngs, strict=True):
        others = present[present != label]
        drawn.append(int(others[rng.integers(others.size)]))
    return np.array(drawn, np.int64)


def one_run_inclusion(ids: Ids, *, seed: int) -> Coins:
    """Toss an independent fair coin for each canary.

    A coin depends on seed and id alone: other canaries, or another order, change none.

    Args:
        ids: (c,) ids of canaries, each once.
        seed: root seed.

    Raises:
        InvalidInput: no ids, ids named twice or no whole numbers.

    >>> coins = one_run_inclusion(np.arange(1000), seed=0)
    >>> 450 < int(coins.included.sum()) < 550
    True
    """
    given = np.asarray(ids)
    if given.ndim != 1 or not given.size or not np.issubdtype(given.dtype, np.integer):
        raise InvalidInput(f"ids must be whole numbers (c,), at least one, given {given.dtype} {given.shape}")
    ordered = np.sort(given.astype(np.int64))
    if (np.diff(ordered) == 0).any():
        raise InvalidInput("ids: a canary is named twice; each has one coin")
    tossed = [child_seed(seed, "one-run inclusion", int(i)) & 1 for i in ordered.tolist()]
    return Coins(ordered, np.array(tossed, np.bool_), seed)


def in_place_of_sources(design: Design, planted: PlantedCanaries) -> Design:
    """Return the design in which each canary plays the roles of its source, and no model sees the source.

    Args:
        design: over the data set before the canaries were planted.
        planted: canaries whose sources the design holds.
    """
    at = np.searchsorted(design.ids, planted.sources)
    role = np.concatenate([design.role, design.role[:, at]], axis=1)
    role[:, at] = Role.UNUSED
    return Design(np.concatenate([design.ids, planted.ids]), role, design.fold, design.seed)


def canary_design(
    planted: PlantedCanaries,
    *,
    background: Ids,
    population: Ids | None = None,
    calibration: Ids | None = None,
    test: Ids | None = None,
    n_models: int = 1,
    included: Role = Role.FORGOTTEN,
    seed: int,
) -> Design:
    """Return the design of a one-run audit: canaries in by fair coins, everything else fixed.

    Coins differ from model to model; one model is enough for a one-run bound, more of them are repetitions.

    Args:
        planted: the data set with its canaries.
        background: ids that every model is trained on.
        population: ids of the attacker's non-members.
        calibration: ids that set thresholds.
        test: ids that measure utility.
        n_models: number of models.
        included: role of the canaries whose coin says in: FORGOTTEN to delete them, KEPT to leave them.
        seed: root seed.

    Returns:
        The design over all records, canaries out being NEVER; sources are UNUSED.

    Raises:
        InvalidInput: a source with a role of its own, a role that is not trained on, unknown ids or ids in two roles.
    """
    if included not in (Role.FORGOTTEN, Role.KEPT):
        raise InvalidInput(f"included={included!r} must be Role.FORGOTTEN or Role.KEPT: what is in is trained on")
    pools = {"background": background, "population": population, "calibration": calibration, "test": test}
    for name, part in pools.items():
        shared = np.intersect1d(planted.sources, np.empty(0, np.int64) if part is None else part)
        if shared.size:
            raise InvalidInput(
                f"{name} holds {shared.size} sources of canaries, the first {shared[:5].tolist()}; a source in play "
                "would answer for its canary: leave sources out"
            )
    empty = np.empty(0, np.int64)
    base = fixed_request_design(
        planted.dataset.ids,
        forget=planted.ids,
        retain=empty,
        holdout=empty,
        population=population,
        calibration=calibration,
        test=test,
        background=background,
        n_models=n_models,
        seed=seed,
    )
    role = base.role.copy()
    for model in range(base.n_models):
        coins = one_run_inclusion(planted.ids, seed=child_seed(base.seed, "canary coins", model))
        role[model, coins.ids] = np.where(coins.included, included, Role.NEVER)
    return replace(base, role=role)
