"""A real kill -9 in the middle: the same command goes on, loses what was in flight, and ends with the same bits."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mnemoscope.audit.work.store import Store

SCRIPT = Path(__file__).with_name("small_fleet.py")
LONGEST = 240
"""Seconds that one process may take, ten times what it does on a busy machine."""


def start(store: Path, stack: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store), str(stack)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    # Reading its first line must not wait for ever should it hang.
    watchdog = threading.Timer(LONGEST, process.kill)
    watchdog.daemon = True
    watchdog.start()
    return process


def finish(store: Path, stack: int) -> tuple[int, int, float]:
    """Run to the end; returns pieces reused, pieces computed, seconds of work."""
    process = start(store, stack)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, err
    words = out.split()
    return int(words[1]), int(words[3]), time.monotonic() - begun


def contents(store: Path) -> dict[str, dict[str, str]]:
    return {entry.key: {name: f.sha256 for name, f in entry.files.items()} for entry in Store(store).ls()}


@pytest.mark.slow
def test_five_kills_then_the_same_bits(tmp_path: Path) -> None:
    stack = 2  # a kill can fall within a stack and between the commits of its members
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    reused, computed, seconds = finish(undisturbed, stack)
    assert reused == 0
    assert computed == 36  # 6 models in 3 fleets, and the answers of each
    expected = contents(undisturbed)
    assert len(expected) == 36
    rng = random.Random(stack)
    committed: dict[str, dict[str, str]] = {}
    hits = 0
    for _ in range(5):
        process = start(killed, stack)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0, seconds * 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=LONGEST)
        hits += process.returncode == -signal.SIGKILL
        report = Store(killed).verify()
        assert report.ok, report  # nothing half written counts, at any moment
        now = contents(killed)
        assert committed.items() <= now.items()  # nothing that was committed is ever lost
        assert now.items() <= expected.items()  # and every commit has the undisturbed bits
        committed = now
    assert hits >= 3
    reused, computed, _ = finish(killed, stack)
    assert reused == len(committed)  # only what was in flight was lost
    assert computed == 36 - len(committed)
    assert contents(killed) == expected
    assert Store(killed).gc(grace=0).keys == ()
    assert Store(killed).verify().orphans == ()


@pytest.mark.slow
def test_ctrl_c_leaves_a_consistent_store(tmp_path: Path) -> None:
    process = start(tmp_path / "store", 1)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    deadline = time.monotonic() + 30
    while not Store(tmp_path / "store").ls() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONGEST)
    store = Store(tmp_path / "store")
    if process.returncode != 0:
        assert "KeyboardInterrupt" in err
        assert 1 <= len(store.ls()) < 36
        assert list((store.root / "tmp").iterdir()) == []  # a polite interruption cleans up behind itself
    assert store.verify().ok
