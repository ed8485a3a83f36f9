"""Tasks are run, told of, and counted: seconds of each step, how many pieces were computed and how many were there."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import TYPE_CHECKING

from mnemoscope.audit.models.steps import Listener, listening
from mnemoscope.audit.verdict.result import Cost
from mnemoscope.audit.work.engines import Engine, Task

if TYPE_CHECKING:
    from mnemoscope.audit.work.tasks import Bench

__all__ = ["Progress", "Running", "no_progress"]

LONG = 10.0
"""Seconds after which progress inside of a task is told."""

Progress = Callable[[str, int, int], None]
"""Told (step, tasks done, tasks in total) as work goes on."""


def no_progress(step: str, done: int, total: int) -> None:
    """Tell nobody."""


class Running:
    """Runs tasks step by step.

    Args:
        engine: who computes.
        bench: what tasks are computed with.
        tell: told of steps.
    """

    def __init__(self, engine: Engine, bench: "Bench", tell: Progress) -> None:
        self.tell = tell
        self._engine, self._bench = engine, bench
        self._costs: dict[str, Cost] = {}

    @property
    def costs(self) -> tuple[Cost, ...]:
        """Seconds of each step, with how many pieces were computed now and how many were in the store."""
        return tuple(self._costs.values())

    def close(self) -> None:
        """Let go of the engine's workers."""
        self._engine.close()

    def run(self, step: str, tasks: list[tuple[Task, int]], total: int) -> None:
        """Run tasks that each make some of ``total`` pieces; each commits on its own, so an interruption is safe."""
        todo = sum(count for _, count in tasks)
        done, begun = total - todo, time.perf_counter()
        self.tell(step, done, total)
        pending: dict[Future[tuple[str, ...]], int] = {}
        try:
            for task, count in tasks:
                with listening(self._inner(step)):
                    pending[self._engine.submit(task, self._bench)] = count
                done += self._settle(step, pending, done, total, block=False)
            while pending:
                done += self._settle(step, pending, done, total, block=True)
        except BaseException:
            self._engine.close()
            raise
        finally:
            earlier = self._costs.get(step, Cost(step, 0.0))
            finished = max(0, done - (total - todo))
            self._costs[step] = replace(
                earlier,
                seconds=round(earlier.seconds + time.perf_counter() - begun, 3),
                computed=earlier.computed + finished,
                reused=earlier.reused + total - todo,
            )

    def _inner(self, step: str) -> Listener:
        """Tell of steps inside of a task once it has taken long enough for somebody to wonder."""
        begun = time.perf_counter()

        def listener(what: str, done: int, total: int) -> None:
            if time.perf_counter() - begun > LONG:
                self.tell(f"{step}, {what}", done, total)

        return listener

    def _settle(
        self, step: str, pending: dict[Future[tuple[str, ...]], int], done: int, total: int, *, block: bool
    ) -> int:
        finished = 0
        if block:
            ready, _ = wait(pending, return_when=FIRST_COMPLETED)
        else:
            ready = {future for future in pending if future.done()}
        for future in ready:
            future.result()
            finished += pending.pop(future)
            self.tell(step, done + finished, total)
        return finished
