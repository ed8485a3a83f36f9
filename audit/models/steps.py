"""Progress of long work inside a task: whoever waits listens, whoever works tells, and nobody passes a callback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Listener", "listening", "steps"]

Listener = Callable[[str, int, int], None]
"""Told (what is done, steps done, steps in total)."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Tell ``listener`` of every step that is made inside of the block; None tells nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def steps(what: str, total: int) -> Iterator[int]:
    """Count from 0 to ``total`` - 1, telling whoever listens how far it has come.

    >>> with listening(lambda what, done, total: print(what, f"{done}/{total}")):
    ...     sum(steps("epochs", 2))
    epochs 0/2
    epochs 1/2
    epochs 2/2
    1
    """
    for step in range(total):
        _tell(what, step, total)
        yield step
    _tell(what, total, total)


def _tell(what: str, done: int, total: int) -> None:
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)
