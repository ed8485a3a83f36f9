import json

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.run_log import FIRST_SCORE, MODELS_READY, PLAN, RESULT, RunLog, check_order, read_log

ORDER = (PLAN, MODELS_READY, FIRST_SCORE, RESULT)


def log(*steps: str) -> RunLog:
    made = RunLog()
    for step in steps:
        made.add(step, f"about {step}")
    return made


def test_a_log_reads_back_with_its_head_and_in_order() -> None:
    made = log(*ORDER)
    steps, head = read_log(made.to_bytes())
    assert [step.step for step in steps] == list(ORDER)
    assert head == made.head
    assert check_order(steps) == ""
    assert all(step.time.endswith("Z") for step in steps)
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)


def test_any_changed_moved_or_missing_line_breaks_the_chain_or_its_head() -> None:
    made = log(*ORDER)
    lines = made.to_bytes().splitlines(keepends=True)
    changed = [
        [*lines[:1], lines[1].replace(b"about models", b"other models"), *lines[2:]],
        [lines[1], lines[0], *lines[2:]],
        [lines[0], *lines[2:]],
    ]
    for other in changed:
        with pytest.raises(InvalidInput, match="does not follow"):
            read_log(b"".join(other))
    assert read_log(b"".join(lines[:3]))[1] != made.head
    last = lines[3].replace(b"about result", b"other result")
    assert read_log(b"".join([*lines[:3], last]))[1] != made.head


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ((PLAN, RESULT), "no line says first score"),
        ((FIRST_SCORE, PLAN, RESULT), "before the first score"),
        ((PLAN, RESULT, FIRST_SCORE), "not last"),
        ((PLAN, FIRST_SCORE, PLAN, RESULT), "before the first score"),
        ((), "no line says"),
    ],
)
def test_another_order_is_named(steps: tuple[str, ...], fault: str) -> None:
    found = log(*steps)
    read = read_log(found.to_bytes())[0] if steps else ()
    assert fault in check_order(read)


def test_a_clock_that_goes_back_is_named() -> None:
    ticks = iter([0.0, 5.0, 4.0, 6.0])
    made = RunLog(now=lambda: next(ticks))
    for step in (PLAN, FIRST_SCORE, RESULT):
        made.add(step)
    assert "goes back" in check_order(read_log(made.to_bytes())[0])


@pytest.mark.parametrize(
    "line",
    [b"{}", b"[]", b"1", b"\xff", b"{", b'{"step":1,"time":"","seconds":0,"about":"","previous":""}', b"[" * 5000],
)
def test_what_is_no_line_of_a_log_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(InvalidInput, match="line 1"):
        read_log(line + b"\n")


def test_a_log_that_is_cut_off_is_refused() -> None:
    data = log(*ORDER).to_bytes()
    with pytest.raises(InvalidInput, match="cut off"):
        read_log(data[:-1])
    with pytest.raises(InvalidInput, match="empty"):
        read_log(b"")
    assert json.loads(data.splitlines()[0])["previous"] == "sha256:" + "0" * 64
