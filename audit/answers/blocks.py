"""Independent pieces of work, shared out among the threads that this process may use.

NumPy lets go of the interpreter while it works on an array, so that threads of one process work side by side without
copies of what they read. Each piece writes to a place of its own or returns what it found; whoever adds up does so in
the order of the pieces. So the bits of a result never depend on the number of threads.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from threading import Lock
from typing import TypeVar

__all__ = ["available_threads", "over_blocks"]

Piece = TypeVar("Piece")
Found = TypeVar("Found")

LEAST_VALUES = 500_000
"""Numbers that work has to touch before it is shared out: below, threads cost more than they save."""

_busy: ContextVar[bool] = ContextVar("_busy", default=False)


def available_threads() -> int:
    """Return how many threads may work: the processors of this process, at most OMP_NUM_THREADS where it is set.

    Several workers on one machine set OMP_NUM_THREADS so that they do not disturb each other. Inside a piece of
    ``over_blocks`` it is one.
    """
    if _busy.get():
        return 1
    processors = _processors()
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return max(1, min(processors, int(limit))) if limit.isdecimal() and int(limit) else processors


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_blocks(function: Callable[[Piece], Found], pieces: Iterable[Piece], *, values: int) -> list[Found]:
    """Return ``function`` of every piece, in their order; pieces are worked on side by side where it pays.

    Args:
        function: leaves alone what other pieces read or write.
        pieces: at least a few for each thread, of about equal size.
        values: numbers that all pieces together touch; little work stays in this thread.

    Raises:
        Exception: the first piece's, in their order, that raises one.
    """
    pieces = list(pieces)
    threads = min(available_threads(), len(pieces)) if values >= LEAST_VALUES else 1
    if threads == 1:
        return [function(piece) for piece in pieces]

    untaken, lock = iter(range(len(pieces))), Lock()
    found: dict[int, Found] = {}
    failed: dict[int, Exception] = {}

    def work() -> None:
        _busy.set(True)
        while not failed:
            with lock:
                k = next(untaken, None)
            if k is None:
                return
            try:
                found[k] = function(pieces[k])
            except Exception as error:
                failed[k] = error

    # Each in a copy of this thread's context, which holds NumPy's treatment of overflow.
    contexts = [copy_context() for _ in range(threads)]
    with ThreadPoolExecutor(threads, thread_name_prefix="blocks") as pool:
        for done in [pool.submit(context.run, work) for context in contexts]:
            done.result()
    if failed:
        raise failed[min(failed)]  # pieces are taken in order, so every earlier one has run
    return [found[k] for k in range(len(pieces))]
