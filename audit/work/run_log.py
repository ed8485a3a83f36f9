"""The log of a run: one JSON line a step, each with the digest of the line before, so that none can be moved or cut.

The head, the digest of the last line, stands in the result. It shows that the lines are in the order in which they were
written and that none was changed since; the clock is the machine's own.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.keys import canonical_json

__all__ = ["FIRST_SCORE", "MODELS_READY", "PLAN", "RESULT", "RunLog", "Step", "check_order", "read_log"]

PLAN, MODELS_READY, FIRST_SCORE, RESULT = "plan committed", "models ready", "first score", "result"
START = "sha256:" + "0" * 64
MOST_BYTES = 64 << 20
MOST_LINES = 1_000_000


@dataclass(frozen=True)
class Step:
    """One line of a log.

    Attributes:
        step: what was reached.
        time: RFC 3339 in UTC, by the machine's clock.
        seconds: since the run began, by a clock that does not go back.
        about: what it names, e.g. the plan's digest.
    """

    step: str
    time: str
    seconds: float
    about: str = ""


class RunLog:
    """Lines as they are written; ``head`` is the digest of the last.

    Args:
        now: seconds, for ``Step.seconds``.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._begun = now, now()
        self._lines: list[bytes] = []
        self.head = START

    def add(self, step: str, about: str = "") -> None:
        """Write a line."""
        self._lines.append(
            canonical_json(
                {
                    "step": step,
                    "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                    "seconds": round(self._now() - self._begun, 6),
                    "about": about,
                    "previous": self.head,
                }
            )
        )
        self.head = "sha256:" + hashlib.sha256(self._lines[-1]).hexdigest()

    def to_bytes(self) -> bytes:
        """The file."""
        return b"".join(line + b"\n" for line in self._lines)


def read_log(data: bytes) -> tuple[tuple[Step, ...], str]:
    """Read a log and follow its chain.

    Returns:
        The steps, and the head.

    Raises:
        InvalidInput: a line that is none of ours, or that does not follow from the line before; named by its number.
    """
    if len(data) > MOST_BYTES or data.count(b"\n") > MOST_LINES:
        raise InvalidInput(f"log: {len(data):,} bytes; allowed are {MOST_BYTES:,} and {MOST_LINES:,} lines")
    steps: list[Step] = []
    head = START
    if not data.endswith(b"\n"):
        raise InvalidInput("log: it is empty, or its last line is cut off")
    for number, line in enumerate(data[:-1].split(b"\n"), 1):
        try:
            found = json.loads(line)
            step = Step(found["step"], found["time"], found["seconds"], found["about"])
            previous = found["previous"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput(f"log line {number}: is no line of a log ({type(error).__name__})") from error
        known = all(isinstance(text, str) for text in (step.step, step.time, step.about))
        if not known or isinstance(step.seconds, bool) or not isinstance(step.seconds, int | float):
            raise InvalidInput(f"log line {number}: a value is of the wrong kind")
        if previous != head:
            raise InvalidInput(f"log line {number}: does not follow from the line before; one was changed or cut")
        steps.append(step)
        head = "sha256:" + hashlib.sha256(line).hexdigest()
    return tuple(steps), head


def check_order(steps: Sequence[Step]) -> str:
    """Return what is wrong with the order plan, first score, result, and with the clock; "" where nothing is."""
    places = {name: [i for i, step in enumerate(steps) if step.step == name] for name in (PLAN, FIRST_SCORE, RESULT)}
    if missing := [name for name, at in places.items() if not at]:
        return f"no line says {', '.join(missing)}"
    if not max(places[PLAN]) < min(places[FIRST_SCORE]) < min(places[RESULT]):
        return "the plan was not committed before the first score, or the result is not last"
    times, seconds = [step.time for step in steps], [step.seconds for step in steps]
    if times != sorted(times) or seconds != sorted(seconds):
        return "the clock goes back between two lines"
    return ""
