"""Work shared out among threads: the same bits in the same order, and no more threads than are allowed."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from mnemoscope.audit.answers import blocks, views
from mnemoscope.audit.answers.blocks import available_threads, over_blocks
from mnemoscope.audit.answers.signals import SIGNALS, compute_signal
from mnemoscope.audit.answers.views import Answers, Reference


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(blocks, "LEAST_VALUES", 1)
    monkeypatch.setattr(blocks, "_processors", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")


@pytest.mark.parametrize(
    ("limit", "threads"), [("1", 1), ("2", 2), ("64", 4), ("", 4), ("0", 4), ("2,1", 2), ("many", 4), (None, 4)]
)
def test_a_lower_limit_of_the_environment_is_kept(monkeypatch, limit, threads):
    monkeypatch.setattr(blocks, "_processors", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if limit is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert available_threads() == threads


def test_results_keep_the_order_of_the_pieces_and_threads_work_side_by_side(three_threads):
    together = threading.Barrier(3, timeout=20)

    def work(piece):
        if piece < 3:
            together.wait()  # passes only when three pieces are under way at once
        return piece * piece, threading.get_ident()

    found = over_blocks(work, range(50), values=50)
    assert [square for square, _ in found] == [k * k for k in range(50)]
    assert len({thread for _, thread in found[:3]}) == 3
    assert threading.get_ident() not in {thread for _, thread in found}


def test_little_work_and_one_processor_stay_in_this_thread(three_threads, monkeypatch):
    here = threading.get_ident()
    assert set(over_blocks(lambda _: threading.get_ident(), range(4), values=0)) == {here}
    assert set(over_blocks(lambda _: threading.get_ident(), [0], values=9)) == {here}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set(over_blocks(lambda _: threading.get_ident(), range(4), values=9)) == {here}


def test_a_piece_does_not_share_its_own_work_out_again(three_threads):
    def inner(_):
        return threading.get_ident()

    found = over_blocks(lambda _: (threading.get_ident(), over_blocks(inner, range(5), values=5)), range(6), values=6)
    assert all(set(parts) == {thread} for thread, parts in found)


def test_the_first_error_in_order_is_raised_and_no_piece_follows(three_threads):
    taken = []

    def work(piece):
        taken.append(piece)
        if piece >= 5:
            raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 5"):
        over_blocks(work, range(1000), values=1000)
    assert len(taken) < 20


def test_threads_treat_overflow_as_their_caller_does(three_threads):
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        over_blocks(lambda x: np.exp(np.array([x])), [1000.0] * 4, values=4)


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_have_the_same_bits_with_threads(three_threads, monkeypatch, name):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (5, 9001, 2, 7)).astype(np.float32)
    logits[0, :50] *= 300
    logits[1, :50] = 1.0
    labels = rng.integers(0, 7, 9001)
    shared = compute_signal(name, logits, labels, temperature=1.5)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = compute_signal(name, logits, labels, temperature=1.5)
    assert shared.tobytes() == alone.tobytes()


def fleet(models=6, n=20):
    rng = np.random.default_rng(1)
    side = (np.arange(models)[:, None] + np.arange(n)[None]) % 2
    ids, labels = np.arange(n), rng.integers(0, 3, n)
    population = Answers(np.arange(5) + n, np.zeros(5, np.int64), rng.normal(size=(models, 5, 1, 3)).astype(np.float32))
    logits = rng.normal(size=(models, n, 1, 3)).astype(np.float32)
    return Reference(ids, labels, logits, side=side.astype(np.int8), population=population)


@pytest.fixture
def computed(monkeypatch):
    models = []
    plain = views.compute_signal

    def counted(name, logits, labels, **settings):
        models.append(1 if logits.ndim == 3 else logits.shape[0])
        return plain(name, logits, labels, **settings)

    monkeypatch.setattr(views, "compute_signal", counted)
    return models


@pytest.mark.parametrize("kept", [[0, 2, 4], [0, 1, 5], [3, 2, 1, 0], [-1, 0, 1]])
def test_most_models_of_a_fleet_take_their_signals_from_it(computed, kept):
    whole = fleet()
    part = whole.select(kept)
    first = part.signal("margin")
    assert computed == [6]
    np.testing.assert_array_equal(first, compute_signal("margin", whole.logits[kept], whole.labels))
    np.testing.assert_array_equal(part.logits, whole.logits[kept])
    np.testing.assert_array_equal(whole.target(kept[0]).signal("margin"), first[0])
    np.testing.assert_array_equal(part.target(1).signal("margin"), first[1])
    np.testing.assert_array_equal(part.select([1, 2]).signal("margin"), first[1:3])
    assert computed == [6]
    assert part.population is not None
    known = compute_signal("hinge", whole.population.logits[kept], whole.population.labels)
    np.testing.assert_array_equal(part.population.signal("hinge"), known)
    assert not first.flags.writeable


def test_a_few_models_are_worked_on_by_themselves(computed):
    whole = fleet()
    whole.select([1, 4]).signal("margin")
    whole.target(3).signal("margin")
    assert computed == [2, 1]
    whole.signal("margin")
    whole.select([1, 4]).signal("margin")
    assert computed == [2, 1, 6]


def test_changed_answers_do_not_take_the_signals_of_the_unchanged(computed):
    whole = fleet()
    whole.signal("margin")
    part = whole.select([0, 1, 2])
    changed = replace(part, logits=part.logits * 2)
    np.testing.assert_array_equal(
        changed.signal("margin"), compute_signal("margin", 2 * whole.logits[:3], whole.labels)
    )


def test_averaged_is_the_mean_over_queries():
    whole = fleet()
    two = Reference(whole.ids, whole.labels, np.repeat(whole.logits, 2, axis=2) * [[1], [3]], side=whole.side)
    np.testing.assert_array_equal(two.averaged("margin"), two.signal("margin").mean(axis=-1))
    np.testing.assert_array_equal(whole.averaged("margin"), whole.signal("margin")[..., 0])
