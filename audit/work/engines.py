"""Who computes: this process, or spawned ones. Workers commit to the store and return keys, never tensors."""

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self

from mnemoscope.audit.errors import InvalidInput

__all__ = ["Engine", "ProcessEngine", "SerialEngine", "Task"]

Task = Callable[[Any], tuple[str, ...]]
"""Work on a shared context: called with it, commits what it made, returns the keys. Picklable for ``ProcessEngine``."""


class Engine(Protocol):
    """Where tasks run."""

    def submit(self, task: Task, context: Any) -> "Future[tuple[str, ...]]":
        """Start a task; its future gives the keys it committed, or its error."""
        ...

    def close(self) -> None:
        """Drop what has not begun and let go of the workers."""
        ...


class SerialEngine:
    """Runs each task in this process, at once.

    >>> SerialEngine().submit(lambda context: (context,), "key").result()
    ('key',)
    """

    def submit(self, task: Task, context: Any) -> "Future[tuple[str, ...]]":
        """Run the task; an interruption (Ctrl-C) is raised here, an error is kept in the future."""
        future: Future[tuple[str, ...]] = Future()
        try:
            future.set_result(task(context))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing to let go of."""


_context: Any = None


def _receive(context: Any) -> None:
    global _context
    _context = context
    # Ctrl-C reaches the whole process group: the parent stops, a worker finishes and commits what it has in hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(task: Task) -> tuple[str, ...]:
    return task(_context)


class ProcessEngine:
    """Runs tasks in spawned processes; the context travels to each once, when it starts.

    Args:
        workers: number of processes, 1 or more.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InvalidInput(f"runtime: workers={workers} must be 1 or more")
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._context: Any = None

    def submit(self, task: Task, context: Any) -> "Future[tuple[str, ...]]":
        """Queue the task for the next free process."""
        if self._pool is not None and context is not self._context:
            self.close()
        if self._pool is None:
            self._context = context
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_receive,
                initargs=(context,),
            )
        return self._pool.submit(_work, task)

    def close(self) -> None:
        """Drop tasks that have not begun; those at work finish, and what they commit counts."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._context = None

    def __enter__(self) -> Self:
        """Use as a context manager to close in any case."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
