"""Progress on a terminal and in a log."""

import io
import re

from mnemoscope.progress import PlainProgress, Quiet, TerminalProgress, progress_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_are_rare_and_tell_the_time_left() -> None:
    stream, times = io.StringIO(), iter([0.0, 1.0, 30.0, 31.0, 60.0])
    plain = PlainProgress(stream, every=10.0, clock=times.__next__)
    for done in (0, 1, 5, 6, 10):
        plain.step("train", done, 10)
    lines = stream.getvalue().splitlines()
    assert lines == ["train: 0/10", "train: 5/10, about 30 s left", "train: 10/10 in 60 s"]


def test_a_step_can_come_back_after_its_end() -> None:
    stream = io.StringIO()
    plain = PlainProgress(stream, clock=iter([0.0, 0.0, 1.0, 1.0]).__next__)
    for done in (0, 1, 0, 1):
        plain.step("score", done, 1)
    assert stream.getvalue().count("score: 1/1") == 2


def test_a_terminal_gets_bars_and_a_file_gets_lines() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with progress_for(stream) as progress:
            progress.step("train", 1, 2)
            progress.note("[72 models]")
            progress.step("train", 2, 2)
    with progress_for(terminal) as progress:
        assert isinstance(progress, TerminalProgress)
    assert re.search(r"train .*2/2", terminal.getvalue())
    assert "[72 models]" in terminal.getvalue()
    assert "\x1b" not in file.getvalue()
    assert "[72 models]" in file.getvalue()


def test_quiet_tells_nothing(capsys: object) -> None:
    Quiet().step("train", 1, 2)
    Quiet().note("x")
    assert capsys.readouterr() == ("", "")  # type: ignore[attr-defined]
