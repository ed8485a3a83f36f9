"""Adversarial examples of many records at once: the nearest in l2 by growing radii, and one-shot ones in l_inf.

Distances are measured, and bounds kept, in coordinates that mean something: images of bytes in [0, 1], where every
pixel stays; everything else (tables, images of floats, what a user's transform makes) in the model's own inputs, and
without bounds: no range of a column is known beforehand, and one taken from the records would depend on which
records are asked about.

All gradients are directions of the cross-entropy. They are propagated from p - e_y at norm one, out of float64 logits
(``audit/models/gradients.py``), so that a model that is sure of a record still shows which way it could be moved:
in float32 its loss is a flat zero and a search stands still. Everything is float32 without autocast, in eval mode.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.gradients import residual

__all__ = ["Neighbours", "Search", "Space", "calibrate_radius", "input_space", "linf_examples", "nearest_adversarial"]

Search = Literal["restart", "continue"]

DOUBLINGS = 20
"""Radii tried for a record: a million times the first one, and then its class does not change."""

SMALLEST = 0.005
"""Radius that a probe starts from, an eighth of what the authors' code takes for CIFAR-10."""

PROBE_SHARE, PROBE_RUNS = 0.95, 3
"""A first radius is good when this share of a probe is done within so many runs, and their mean is below that."""


@dataclass(frozen=True, eq=False)
class Space:
    """Coordinates u of inputs x = u * scale + offset.

    Attributes:
        offset: broadcast over a batch of inputs.
        scale: the same, positive.
        low: least value of u, or None.
        high: largest value of u, or None.
    """

    offset: Tensor
    scale: Tensor
    low: float | None = None
    high: float | None = None

    def enter(self, x: Tensor) -> Tensor:
        """Return the coordinates of inputs."""
        return self.keep((x - self.offset) / self.scale)

    def leave(self, u: Tensor) -> Tensor:
        """Return the inputs at coordinates."""
        return u * self.scale + self.offset

    def keep(self, u: Tensor) -> Tensor:
        """Return coordinates moved into the bounds, each on its own: no point comes farther from one inside."""
        return u if self.low is None and self.high is None else u.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What a search found, a row for each record that was asked about.

    Attributes:
        x: (n, ...) float32 inputs of the last point tried.
        y: (n,) int64 classes that the model gives there.
        radius: (n,) float32 radius of the last run.
        distance: (n,) float32 l2 distance to the record, in the coordinates of ``input_space``.
        found: (n,) bool: whether the class there is not the record's label.
        runs: (n,) int64 runs of the projected ascent that the record took part in.
    """

    x: Tensor
    y: Tensor
    radius: Tensor
    distance: Tensor
    found: Tensor
    runs: Tensor


def input_space(data: DeviceData) -> Space:
    """Return the coordinates of a data set's inputs: pixels in [0, 1] where they are bytes, else the inputs."""
    constants = data.constants
    if constants is None or not data.is_image:
        zero = torch.zeros((), device=data.device)
        return Space(zero, zero + 1.0)
    mean, std = (torch.tensor(values, device=data.device).view(-1, 1, 1) for values in constants)
    return Space(-mean / std, 255.0 / std, 0.0, 1.0)


def nearest_adversarial(
    module: nn.Module,
    data: DeviceData,
    positions: Tensor,
    *,
    radius: float,
    search: Search = "restart",
    steps: int = 50,
    step: float = 0.1,
    doublings: int = DOUBLINGS,
    batch_size: int = 1024,
) -> Neighbours:
    """Find for each record a near point that the model puts into another class (AMUN, arXiv 2503.00917, algorithm 1).

    Each record has a radius of its own. A run makes ``steps`` steps of normalised gradient ascent on its cross-entropy,
    each ``step`` times the radius long, projected onto the l2 ball around the record and into the bounds. Records
    whose class is then another than their label are done; the others go on with the radius doubled. The runs of all
    records that are left are made together, and a record costs only the runs that it needs.

    Args:
        module: in eval mode, with weights that need no gradient; left as it is.
        data: the records.
        positions: (n,) int64 rows of the data.
        radius: of the first run, in the coordinates of ``input_space``.
        search: "restart": every run starts at the record and makes all its steps, as the paper writes it.
            "continue": as the authors' code does it, a run starts where the last one ended, and a record stops at
            the first point of another class, so that what it finds is nearer.
        steps: of a run.
        step: length of a step as a share of the radius.
        doublings: runs with a doubled radius, at most; a record whose class has not changed by then is not found.
        batch_size: records of a forward pass.

    Returns:
        A row for each position, in their order.
    """
    space, labels = input_space(data), data.y[positions]
    n = positions.numel()
    start = _gather(data, positions, space, batch_size)
    point = start.clone()
    radii = torch.full((n,), float(radius), device=data.device)
    classes, runs = labels.clone(), torch.zeros_like(labels)
    left = torch.arange(n, device=data.device)
    for doubled in range(doublings + 1):
        for part in torch.split(left, batch_size):
            begin = (start if search == "restart" else point)[part]
            point[part], classes[part] = _climb(
                module, space, start[part], begin, labels[part], radii[part], steps, step, stop=search == "continue"
            )
        runs[left] += 1
        left = left[classes[left] == labels[left]]
        if not left.numel():
            break
        if doubled < doublings:
            radii[left] *= 2
    distance = (point - start).flatten(1).norm(dim=1)
    return Neighbours(space.leave(point), classes, radii, distance, classes != labels, runs)


def calibrate_radius(
    module: nn.Module,
    data: DeviceData,
    positions: Tensor,
    *,
    search: Search = "restart",
    steps: int = 50,
    step: float = 0.1,
    batch_size: int = 1024,
) -> float:
    """Return a first radius that makes ``nearest_adversarial`` near and cheap, from a probe of records.

    It is the least of 0.005, 0.01, 0.02, ... from which 95 % of the probe is found within three runs, with less
    than three runs on average: the paper's guidance (arXiv 2503.00917, appendix) made into a rule, ours.

    Args:
        module: as in ``nearest_adversarial``.
        data: the records.
        positions: (n,) int64 rows of the probe, n >= 1.
        search: as in ``nearest_adversarial``.
        steps: of a run.
        step: length of a step as a share of the radius.
        batch_size: records of a forward pass.

    Raises:
        AuditError: no record of the probe changes its class at any radius.
    """
    probe = nearest_adversarial(
        module, data, positions, radius=SMALLEST, search=search, steps=steps, step=step, batch_size=batch_size
    )
    if not bool(probe.found.any()):
        raise AuditError(
            f"no adversarial example of any of {positions.numel()} records was found up to a distance of "
            f"{SMALLEST * 2**DOUBLINGS:.0f}: the model gives them their label wherever the search looks. "
            "Check that it was trained; a method without adversarial examples can be used in its place"
        )
    needed = probe.runs[probe.found].tolist()
    for skipped in range(max(needed)):
        runs = [max(1, count - skipped) for count in needed]
        within = sum(count <= PROBE_RUNS for count in runs) / len(runs)
        if within >= PROBE_SHARE and sum(runs) / len(runs) < PROBE_RUNS:
            return SMALLEST * 2.0**skipped
    raise AssertionError("from the largest radius that was needed, every record takes one run")


def linf_examples(
    module: nn.Module,
    data: DeviceData,
    positions: Tensor,
    *,
    bound: float,
    step: float | None = None,
    steps: int = 1,
    batch_size: int = 1024,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield adversarial inputs within an l_inf bound, batch by batch: signs of the gradient, projected.

    One step of the bound's length is FGSM (Goodfellow et al. 2015, arXiv 1412.6572); several are PGD without a random
    start (Madry et al. 2018, arXiv 1706.06083).

    Args:
        module: as in ``nearest_adversarial``.
        data: the records.
        positions: (n,) int64 rows of the data.
        bound: largest change of a value, in the coordinates of ``input_space``.
        step: length of a step; None is the bound.
        steps: how many.
        batch_size: records of a forward pass.

    Yields:
        x (b, ...) float32 inputs and the float32 logits (b, c) that the module answers there.
    """
    space = input_space(data)
    for part in torch.split(positions, batch_size):
        start, labels = space.enter(data.inputs(part)), data.y[part]
        point = start
        for _ in range(steps):
            gradient, _ = _gradient(module, space, point, labels)
            moved = point + (bound if step is None else step) * gradient.sign()
            point = space.keep(start + (moved - start).clamp(-bound, bound))
        x = space.leave(point)
        with torch.no_grad():
            yield x, module(x).float()


def check_search(method: str, radius: float | None, search: str, steps: int) -> None:
    """Refuse impossible settings of a search by name."""
    if radius is not None and not 0 < radius < math.inf:
        raise InvalidInput(f"{method}: radius={radius!r} must be positive, finite, or None (calibrated)")
    if search not in ("restart", "continue"):
        raise InvalidInput(f"{method}: search={search!r} is unknown; allowed: 'restart', 'continue'")
    if steps < 1:
        raise InvalidInput(f"{method}: steps={steps!r} must be at least 1")


def _gather(data: DeviceData, positions: Tensor, space: Space, batch_size: int) -> Tensor:
    return torch.cat([space.enter(data.inputs(part)) for part in torch.split(positions, batch_size)])


def _climb(
    module: nn.Module,
    space: Space,
    start: Tensor,
    point: Tensor,
    labels: Tensor,
    radius: Tensor,
    steps: int,
    step: float,
    *,
    stop: bool,
) -> tuple[Tensor, Tensor]:
    """One run of projected l2 ascent: the last points and their classes."""
    each = radius.view(-1, *(1,) * (start.ndim - 1))
    for _ in range(steps):
        gradient, classes = _gradient(module, space, point, labels)
        going = (classes == labels) | torch.tensor(not stop, device=labels.device)
        if not bool(going.any()):
            return point, classes
        length = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny).view_as(each)
        way = point + step * each * gradient / length - start
        size = way.flatten(1).norm(dim=1).clamp_min(torch.finfo(way.dtype).tiny).view_as(each)
        moved = space.keep(start + way * (each / size).clamp_max(1.0))
        point = torch.where(going.view_as(each), moved, point)
    with torch.no_grad():
        return point, module(space.leave(point)).argmax(dim=1)


def _gradient(module: nn.Module, space: Space, point: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Direction of each record's cross-entropy by its coordinates, up to a positive factor, and the classes there."""
    u = point.detach().requires_grad_()
    with torch.enable_grad():
        logits = module(space.leave(u)).float()
        unit = residual(logits.detach(), labels).unit
        (gradient,) = torch.autograd.grad(logits, u, unit.to(logits.dtype))
    return gradient, logits.detach().argmax(dim=1)
