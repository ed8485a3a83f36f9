"""Where a result came from: versions, hardware, time; and the limitations that every report prints.

Nothing here names a person, a host or a path.
"""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from mnemoscope.audit.verdict.result import Environment

__all__ = ["LIMITATIONS", "PACKAGES", "environment", "timestamp"]

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "safetensors", "pydantic")
"""Packages whose version can change a number."""

LIMITATIONS = (
    "An attack that fails is no proof that the data is gone: another attack, more queries, or access to both "
    "versions of the model may succeed.",
    "Parameters cannot show which data produced them. Process records are needed, and a dishonest operator could "
    "fake both tests and logs.",
    "The results hold for these artefacts, these records, this access and this date. Later fine-tuning, quantisation, "
    "merging or another way of serving needs a new run.",
    "Holding both the model before and the model after can itself reveal which records were removed: state who holds "
    "the model before.",
    "A low average can hide exposed individuals, and a high score of one record may be chance.",
    "Never-seen records stand in for records like the forgotten ones; where the two differ, the numbers shift.",
    "The bounds are a policy of whoever ordered the audit; no authority set them.",
    "Copies, backups, recipients and derived models are outside of this test.",
    "A retrained reference is one procedure with random seeds, not the only correct model.",
    "Repetition to the bit across hardware or library releases is not promised; reproduction is judged by tolerance.",
)
"""Printed in every report, whatever was found."""


def timestamp() -> str:
    """The time now, RFC 3339 in UTC to the second, e.g. "2026-11-21T05:40:00Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def environment(device: str = "cpu", *, packages: Sequence[str] = PACKAGES) -> Environment:
    """Describe versions and hardware without importing anything heavy.

    Args:
        device: where the models ran, in words, e.g. "cpu" or a GPU's name.
        packages: distributions to list; those that are not installed are left out.
    """
    return Environment(
        mnemoscope=_version("mnemoscope") or "unknown",
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={name: found for name in packages if (found := _version(name)) is not None},
        cpu=_cpu(),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        device=device,
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
