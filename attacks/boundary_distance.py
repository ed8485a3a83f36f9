"""Distance to the decision boundary from predicted labels alone (Choquette-Choo et al. 2021, arXiv 2007.14321).

The search is HopSkipJump (Chen, Jordan and Wainwright 2020, arXiv 1904.02144) in the Euclidean norm. Deviations: all
records are searched at once, and at one step they share their random directions, so that every model is asked by the
same rule and no distance depends on the order of the records; inputs are not clipped to a range of valid values, so
that the distance to a hyperplane is the textbook's; the binary search is at least as fine as a thousandth; a record
that no noise moves starts from the nearest audited record of another predicted class, others from the nearest of
several noise inputs instead of the first; the smallest distance of all steps counts, not the last one.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.rng import child_seed

__all__ = ["BoundaryDistance", "Search", "hop_skip_jump"]

Floats = NDArray[np.float64]
Predict = Callable[[Tensor], Tensor]

BLOCK_VALUES = 1 << 24
"""Input values asked at a time: bounds the memory at a few copies of 64 MB."""

FINEST = 1e-3
"""Binary searches end at this share of the distance, or earlier where the paper asks for a finer one."""

HALVINGS = 40
"""A step that still stays on the record's side after so many halvings is not made: the boundary is under it."""


class Search(NamedTuple):
    """What a search found, for each record.

    Attributes:
        distance: (n,) float64, smallest Euclidean distance at which another class was seen; 0 where the record is
            predicted wrongly as it is.
        queries: (n,) int64, inputs asked about the record.
        moved: (n,) bool, whether another class was seen for a record predicted rightly; where not, ``distance`` is
            the farthest try.
    """

    distance: Floats
    queries: NDArray[np.int64]
    moved: NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryDistance:
    """How far a record can be moved before the predicted label changes; asks for labels only (HopSkipJump).

    Members of an overfitted model lie deeper inside their class. The score is the distance, 0 where the label is wrong.

    Attributes:
        queries_per_record: budget of inputs asked about each record, its first prediction included.
        directions: directions of the first gradient estimate; step t takes sqrt(t) times as many.
        tries: noise inputs tried for a start.
        seed: of the directions; a setting, not drawn in the audit, so that every model is asked by the same rule.
    """

    queries_per_record: int = 2500
    directions: int = 100
    tries: int = 20
    seed: int = 0
    name = "boundary_distance"
    needs = Need.ORACLE

    def __post_init__(self) -> None:
        least = 2 * (self.directions + self.tries)
        if self.directions < 1 or self.tries < 1 or self.seed < 0:
            raise InvalidInput(
                f"directions={self.directions!r}, tries={self.tries!r}, seed={self.seed!r}: "
                "directions and tries must be 1 or more, the seed 0 or more"
            )
        if self.queries_per_record < least:
            raise InvalidInput(
                f"queries_per_record={self.queries_per_record!r} is too few for one step; "
                f"allow at least {least}, twice directions + tries"
            )

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "BoundaryScorer":
        """Nothing to learn; nothing is drawn from ``rng``."""
        return BoundaryScorer(self)


@dataclass(frozen=True)
class BoundaryScorer:
    """The search with its settings; every model is searched once for the same records."""

    settings: BoundaryDistance

    def search(self, view: View) -> Search:
        """Return distances, queries and success for each record of the view, in its order."""
        oracle = view.oracle
        if oracle is None:
            raise MissingNeed("boundary_distance needs live access to the model")
        ids = np.sort(view.ids)  # rounding depends on who shares a batch: one order for all
        parts = {**asdict(self.settings), "ids": hashlib.sha256(ids.tobytes()).hexdigest()}
        found = oracle.recall("boundary_distance " + json.dumps(parts, sort_keys=True), lambda: self._run(oracle, ids))[
            np.searchsorted(ids, view.ids)
        ]
        return Search(found[:, 0], found[:, 1].astype(np.int64), found[:, 2] > 0)

    def score(self, view: View) -> Floats:
        """Return (n,) float64, the distance."""
        return self.search(view).distance

    def _run(self, oracle: Oracle, ids: NDArray[np.int64]) -> Floats:
        found = hop_skip_jump(oracle.predict, oracle.inputs(ids), oracle.labels(ids), self.settings)
        return np.stack([np.asarray(part, np.float64) for part in found], axis=1)


def hop_skip_jump(predict: Predict, x: Tensor, y: Tensor, settings: BoundaryDistance) -> Search:
    """Search the boundary of each record's class from predicted labels.

    Args:
        predict: classes (k,) int64 of inputs (k, ...).
        x: (n, ...) float32 inputs.
        y: (n,) int64 classes on the same device; the search is for any other prediction.
        settings: budget and numbers.
    """
    search = _Search(predict, x, y, settings)
    search.start()
    step = 1
    while search.step(step):
        step += 1
    return search.result()


class _Search:
    """State of all searches: the nearest point of another class found, and what is spent."""

    def __init__(self, predict: Predict, x: Tensor, y: Tensor, settings: BoundaryDistance) -> None:
        self.predict, self.settings = predict, settings
        self.shape = tuple(x.shape[1:])
        self.x, self.y = x.flatten(1), y
        self.n, self.dim = self.x.shape
        self.fine = min(FINEST, self.dim**-1.5)
        self.bisections = int(np.ceil(-np.log2(self.fine)))
        self.spent = torch.zeros(self.n, dtype=torch.int64, device=x.device)
        self.point = self.x.clone()
        self.best = torch.zeros(self.n, dtype=torch.float64, device=x.device)
        self.inside = torch.zeros(self.n, dtype=torch.bool, device=x.device)  # predicted right as it is
        self.moved = torch.zeros(self.n, dtype=torch.bool, device=x.device)
        self.classes = torch.zeros_like(y)

    def other(self, points: Tensor, at: Tensor) -> Tensor:
        """Tell whether points (k, d), of the records ``at`` (k,), are seen as another class; they are paid for."""
        self.spent.index_add_(0, at, torch.ones_like(at))
        return self.predict(points.reshape(-1, *self.shape)) != self.y[at]

    def start(self) -> None:
        """Find a point of another class for each record, by noise or else from the records themselves."""
        everyone = torch.arange(self.n, device=self.x.device)
        self.spent += 1
        self.classes = self.predict(self.x.reshape(-1, *self.shape))
        self.inside = self.classes == self.y
        low, high = self.x.min(dim=0).values, self.x.max(dim=0).values
        draw = torch.Generator().manual_seed(child_seed(self.settings.seed, "start"))
        noise = low + torch.rand((self.settings.tries, self.dim), generator=draw).to(self.x.device) * (high - low)
        for part in torch.split(everyone[self.inside], max(1, BLOCK_VALUES // (self.settings.tries * self.dim))):
            self._try(part, noise)
        # The adversary holds the records: where no noise moves one, another of them does.
        for record in torch.nonzero(self.inside & ~self.moved).flatten().tolist():
            rivals = everyone[self.classes != self.y[record]]
            if rivals.numel():
                nearest = rivals[_length(self.x[rivals] - self.x[record]).argmin()]
                self.point[record] = self.x[nearest]
                self.moved[record] = True
        at = everyone[self.inside & self.moved]
        self.best[at] = _length(self.point[at] - self.x[at])
        self.approach(at, self.point[at])

    def _try(self, at: Tensor, noise: Tensor) -> None:
        """Start records from the nearest noise of another class, and note how far was tried where there is none."""
        hit = self.other(noise.expand(at.numel(), -1, -1).flatten(0, 1), at.repeat_interleave(len(noise)))
        away = torch.cdist(self.x[at].double(), noise.double())
        self.best[at] = away.amax(dim=1)
        away[~hit.view(away.shape)] = torch.inf
        nearest = away.min(dim=1)
        self.moved[at] = torch.isfinite(nearest.values)
        self.point[at] = noise[nearest.indices]

    def approach(self, at: Tensor, points: Tensor) -> None:
        """Search the segment from each record to its point of another class for the boundary."""
        low = torch.zeros(at.numel(), 1, device=self.x.device)
        high = torch.ones_like(low)
        origin = self.x[at]
        gap = points - origin
        width = 1.0
        while width > self.fine and at.numel():
            width /= 2
            middle = low + width
            hit = self.other(origin + middle * gap, at)[:, None]
            low = torch.where(hit, low, middle)
            high = torch.where(hit, middle, high)
        # A share of one is the point itself, which was seen; rounding must not move it.
        self.point[at] = torch.where(high < 1, origin + high * gap, points)
        self.best[at] = torch.minimum(self.best[at], _length(self.point[at] - origin))

    def step(self, number: int) -> bool:
        """Make one step with every record that can pay for it; return whether there was any."""
        wanted = max(2, round(self.settings.directions * number**0.5))
        # The rest of a step: halvings of its length, few as a rule, and the binary search.
        reserve = 4 + self.bisections
        left = self.settings.queries_per_record - self.spent
        at = torch.nonzero(self.inside & self.moved & (left >= wanted + reserve) & (self.best > 0)).flatten()
        if not at.numel():
            return False
        draw = torch.Generator().manual_seed(child_seed(self.settings.seed, "step", number))
        directions = torch.randn((wanted, self.dim), generator=draw).to(self.x.device)
        directions /= directions.norm(dim=1, keepdim=True)
        size = max(1, BLOCK_VALUES // (wanted * self.dim))
        for part in torch.split(at, size):
            self._move(part, directions, number)
        return True

    def _move(self, at: Tensor, directions: Tensor, number: int) -> None:
        points, count = self.point[at], directions.shape[0]
        distance = _length(points - self.x[at]).to(points.dtype)[:, None]
        probes = points[:, None] + (distance / self.dim)[..., None] * directions
        seen = self.other(probes.flatten(0, 1), at.repeat_interleave(count)).view(-1, count)
        sign = seen.to(points.dtype) * 2 - 1
        mean = sign.mean(dim=1, keepdim=True)
        # Where all agree there is no contrast, and the mean of what was seen is all there is to go by.
        way = torch.where(mean.abs() < 1, sign - mean, sign) @ directions
        way /= way.norm(dim=1, keepdim=True).clamp_min(torch.finfo(way.dtype).tiny)
        length = distance / number**0.5
        going = torch.arange(at.numel(), device=at.device)
        arrived = torch.zeros(at.numel(), dtype=torch.bool, device=at.device)
        target = points.clone()
        for _ in range(HALVINGS):
            # The search on the segment must still be paid for once a step arrives.
            affordable = self.spent[at[going]] + self.bisections < self.settings.queries_per_record
            going = going[affordable]
            if not going.numel():
                break
            trial = points[going] + length[going] * way[going]
            hit = self.other(trial, at[going])
            target[going[hit]] = trial[hit]
            arrived[going[hit]] = True
            going = going[~hit]
            length[going] /= 2
        self.approach(at[arrived], target[arrived])

    def result(self) -> Search:
        """Return what was found so far."""
        distance: Floats = self.best.cpu().numpy()
        queries: NDArray[np.int64] = self.spent.cpu().numpy()
        moved: NDArray[np.bool_] = self.moved.cpu().numpy()
        return Search(np.where(self.inside.cpu().numpy(), distance, 0.0), queries, moved)


def _length(difference: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(difference.to(torch.float64), dim=-1)
    return length
