"""What the user sees while an audit works: bars with remaining time on a terminal, plain lines otherwise.

Everything goes to standard error, so that standard output carries results only.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["PlainProgress", "Progress", "Quiet", "TerminalProgress", "progress_for"]


class Progress(Protocol):
    """Told of steps as they go; a step may be advanced past its total or finished early."""

    def step(self, name: str, done: int, total: int) -> None:
        """``done`` of ``total`` tasks of the step ``name`` are complete."""
        ...

    def note(self, text: str) -> None:
        """Tell one line that is worth keeping on screen."""
        ...


class Quiet:
    """Tells nothing."""

    def step(self, name: str, done: int, total: int) -> None:
        """See :class:`Progress`."""

    def note(self, text: str) -> None:
        """See :class:`Progress`."""


class PlainProgress:
    """Whole lines, for logs: the begin and the end of each step, and at most one line every ``every`` seconds.

    >>> plain = PlainProgress(sys.stdout, every=60.0, clock=iter([0.0, 1.0, 2.0]).__next__)
    >>> for done in range(3):
    ...     plain.step("train", done, 2)
    train: 0/2
    train: 2/2 in 2 s
    """

    def __init__(self, stream: TextIO, every: float = 10.0, clock: object = None) -> None:
        self._stream = stream
        self._every = every
        self._clock = clock if callable(clock) else time.monotonic
        self._begun: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def step(self, name: str, done: int, total: int) -> None:
        """See :class:`Progress`."""
        now = float(self._clock())
        first = name not in self._begun
        begun = self._begun.setdefault(name, now)
        if done >= total:
            self._begun.pop(name)
            self._told.pop(name, None)
            self.note(f"{name}: {done}/{total} in {now - begun:.0f} s")
        elif first or now - self._told[name] >= self._every:
            self._told[name] = now
            left = (now - begun) / done * (total - done) if done and now > begun else None
            self.note(f"{name}: {done}/{total}" + ("" if left is None else f", about {left:.0f} s left"))

    def note(self, text: str) -> None:
        """See :class:`Progress`."""
        print(text, file=self._stream, flush=True)


class TerminalProgress:
    """One bar a step with the time remaining."""

    def __init__(self, bars: "RichProgress") -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def step(self, name: str, done: int, total: int) -> None:
        """See :class:`Progress`."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)

    def note(self, text: str) -> None:
        """See :class:`Progress`."""
        self._bars.console.print(text, markup=False, highlight=False)


@contextmanager
def progress_for(stream: TextIO | None = None) -> Iterator[Progress]:
    """Yield bars where the stream (standard error) is a terminal, plain lines otherwise."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield PlainProgress(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(file=stream)) as bars:
        yield TerminalProgress(bars)
