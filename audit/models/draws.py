"""Random numbers that belong to a record: a function of (index, record id, place in the record), with no state.

A counter-based generator in 64-bit integers, SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195),
seeded for each (index, record): the same bits on every device, in any batch and in every version of torch.
"""

import math
from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

__all__ = ["DRAWN", "Drawn", "record_normals", "record_uniforms"]

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shifted(x: Tensor, by: int) -> Tensor:
    """Shift right and let zeros in: torch's own shift of int64 copies the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection of 64-bit integers."""
    x = (x ^ _shifted(x, 30)) * _signed(_FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(_SECOND)
    return x ^ _shifted(x, 31)


def _bits(ids: Tensor, index: int, size: int) -> Tensor:
    """Return (b, size) int64 of 64 random bits each: SplitMix64's outputs for the seed of (index, id)."""
    # Two rounds of mixing part the seeds of neighbouring indices and ids, which are small integers in rows.
    seed = _mixed(_mixed(torch.full_like(ids, index) * _signed(_GOLDEN)) + (ids + 1) * _signed(_GOLDEN))
    places = torch.arange(1, size + 1, device=ids.device, dtype=torch.int64) * _signed(_GOLDEN)
    return _mixed(seed[:, None] + places)


def record_uniforms(ids: Tensor, index: int, size: int) -> Tensor:
    """Draw uniforms for records.

    Args:
        ids: (b,) int64 record ids, on the device that draws.
        index: which draw, 0 <= index < 2**62.
        size: numbers a record.

    Returns:
        (b, size) float64 in (0, 1), odd multiples of 2**-54.
    """
    return (_shifted(_bits(ids, index, size), 11).to(torch.float64) + 0.5) * 2.0**-53


def record_normals(ids: Tensor, index: int, size: int) -> Tensor:
    """Draw standard normals for records, by Box and Muller's transform of the two halves of 64 bits.

    Args:
        ids: (b,) int64 record ids, on the device that draws.
        index: which draw, 0 <= index < 2**62.
        size: numbers a record.

    Returns:
        (b, size) float64, at most 6.8 in size.
    """
    bits = _bits(ids, index, -(-size // 2))
    radius = torch.sqrt(-2.0 * torch.log((_shifted(bits, 32).to(torch.float64) + 0.5) * 2.0**-32))
    angle = (bits & 0xFFFFFFFF).to(torch.float64) * (2.0 * math.pi * 2.0**-32)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :size]


class Drawn:
    """Draws kept for the next model that is asked the same of the same records; results never depend on it.

    When the space is full the draws in it stay: many models asked about more than fits find the same part of it again.
    Only when that is of no use to anybody any more does it make room.

    Args:
        most_bytes: of all draws together.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: dict[tuple[object, ...], Tensor] = {}
        self._bytes = self._missed = 0
        self._lock = Lock()

    def get(self, name: tuple[object, ...], ids: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """Return ``make()``, or what it returned for this name and these records; not to be written to.

        Args:
            name: everything but the records that the draw depends on.
            ids: (b,) int64 record ids.
            make: draws.
        """
        key = (*name, ids.cpu().numpy().tobytes())
        with self._lock:
            if key in self._kept:
                self._missed = 0
                return self._kept[key]
        # Also in inference mode an ordinary tensor, which may take part in a gradient elsewhere.
        with torch.inference_mode(False), torch.no_grad():
            drawn = make()
        size = drawn.numel() * drawn.element_size()
        with self._lock:
            if self._bytes + size > self.most_bytes:
                self._missed += size
                if self._missed > FORGET * self.most_bytes:
                    self._kept, self._bytes, self._missed = {}, 0, 0
            if key not in self._kept and self._bytes + size <= self.most_bytes:
                self._kept[key] = drawn
                self._bytes += size
        return drawn


FORGET = 8
"""So many times its space may be drawn in vain, without one use of what is kept, before a full one is emptied."""

DRAWN = Drawn(1 << 28)
"""Of this process: 256 MB."""
