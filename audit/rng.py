"""Child generators by task key: order of work and parallelism cannot change a draw."""

import hashlib

import numpy as np

__all__ = ["child_seed", "generator"]


def child_seed(root: int, *key: str | int) -> int:
    """Derive a 63-bit seed for the task named by ``key`` from a root seed.

    Args:
        root: the audit's root seed, any non-negative integer.
        key: strings and integers that name the task, e.g. ``("train", 17)``.

    Returns:
        An integer in [0, 2**63), accepted by NumPy and by ``torch.Generator.manual_seed``.

    >>> child_seed(0, "train", 1) == child_seed(0, "train", 1) != child_seed(0, "train", 2)
    True
    """
    text = "\x1f".join([str(int(root)), *(f"{type(part).__name__}:{part}" for part in key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(root: int, *key: str | int) -> np.random.Generator:
    """Return the NumPy generator of the task named by ``key`` (see :func:`child_seed`)."""
    return np.random.default_rng(child_seed(root, *key))
