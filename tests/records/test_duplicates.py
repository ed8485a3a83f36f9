"""Duplicates found in blocks are those that a slow comparison of all pairs finds."""

import os
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records import duplicates
from mnemoscope.audit.records.datasets import Dataset, load_dataset
from mnemoscope.audit.records.duplicates import find_duplicates
from mnemoscope.audit.records.raw import Raw

ROOT = os.environ.get("MNEMOSCOPE_DATA")


def dataset(values):
    n = len(values)
    keys = tuple(f"k{i}" for i in range(n))
    return Dataset.from_raw(Raw("toy", values, keys, np.arange(n, dtype=np.int64) % 2, ("a", "b")))


def slow(data, ids_a, ids_b, near):
    """All pairs, one at a time, with the definition as it is written."""
    flat = data.values.reshape(len(data.values), -1).astype(np.float64)
    if data.kind == "table":
        used = flat[np.union1d(ids_a, ids_b)]
        flat = ((flat - used.mean(0)) / np.where(used.std(0) > 0, used.std(0), 1))[:, used.std(0) > 0]
    exact, close = set(), set()
    for a in ids_a:
        for b in ids_b:
            if a == b:
                continue
            pair = frozenset((int(a), int(b)))
            if data.values[a].tobytes() == data.values[b].tobytes():
                exact.add(pair)
            elif np.linalg.norm(flat[a] - flat[b]) <= near * max(np.linalg.norm(flat[a]), np.linalg.norm(flat[b])):
                close.add(pair)
    records = {i for pair in exact | close for i in pair if i in set(ids_a.tolist())}
    records = {i for i in records if any(i in p and (p - {i}) <= set(ids_b.tolist()) for p in exact | close)}
    return exact, close, records


def planted(rng, n=160, shape=(6, 5, 3)):
    values = rng.integers(0, 256, (n, *shape)).astype(np.uint8)
    for copy, original in rng.integers(0, n, (20, 2)):
        values[copy] = values[original]
    for copy, original in rng.integers(0, n, (30, 2)):
        # Around the threshold on both sides: noise of 1 to 12 grey levels at a norm of about 148 a value.
        noise = rng.normal(0, rng.uniform(1, 12), shape)
        values[copy] = np.clip(values[original] + noise, 0, 255).astype(np.uint8)
    return values


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("groups", ["apart", "overlapping", "same", "inside"])
def test_blocks_agree_with_all_pairs(seed, groups, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", 37)
    monkeypatch.setattr(duplicates, "EXACT_VALUES", 500)
    data = dataset(planted(np.random.default_rng(seed)))
    ids = np.arange(160)
    a, b = {
        "apart": (ids[:70], ids[70:]),
        "overlapping": (ids[:100], ids[60:]),
        "same": (ids, ids),
        "inside": (ids[:50], ids),
    }[groups]
    report = find_duplicates(data, a, b)
    exact, close, records = slow(data, a, b, 0.05)
    assert {frozenset(pair) for pair in report.exact.tolist()} == exact
    assert {frozenset(pair) for pair in report.near.tolist()} == close
    assert (report.n_exact, report.n_near) == (len(exact), len(close))
    assert len(exact) > 3
    assert len(close) > 3
    assert set(report.records.tolist()) == records
    assert report.share == len(records) / a.size


def test_tables_are_compared_in_standard_units():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(120, 4)).astype(np.float32)
    values[:, 0] = values[:, 0] * 1e3 + 1e6  # on raw values this column alone would make all rows near
    values[7] = values[3]
    values[8] = values[4] + np.float32([0.5, 1e-3, 0, 1e-3])
    data = dataset(values)
    ids = np.arange(120)
    report = find_duplicates(data, ids, ids)
    exact, close, _ = slow(data, ids, ids, 0.05)
    assert [set(p) for p in report.exact.tolist()] == [{3, 7}]
    assert {frozenset(p) for p in report.near.tolist()} == close
    assert frozenset((4, 8)) in close
    assert len(close) < 10


def test_many_copies_are_counted_in_full_and_listed_in_part():
    values = np.zeros((3000, 4, 4, 1), np.uint8)
    values[2999] = 9
    data = dataset(values)
    report = find_duplicates(data, np.arange(1000), np.arange(1000, 3000), max_pairs=50)
    assert report.n_exact == 1000 * 1999
    assert len(report.exact) == 50
    assert report.share == 1.0
    every = find_duplicates(data, data.ids, data.ids)
    assert every.n_exact == 2999 * 2998 // 2
    assert every.records.size == 2999


def test_labels_play_no_part_and_the_sentence_speaks_in_keys():
    values = np.random.default_rng(1).integers(0, 256, (10, 3, 3, 1)).astype(np.uint8)
    values[5] = values[2]  # another class
    data = dataset(values)
    report = find_duplicates(data, np.arange(5), np.arange(5, 10), near=0)
    assert report.sentence(data) == "1 exact and 0 near pairs, 1 of 5 records: k2 = k5"


def test_digits_have_none():
    digits = load_dataset("digits")
    report = find_duplicates(digits, digits.ids, digits.ids)
    assert (report.n_exact, report.n_near, report.share) == (0, 0, 0.0)


def test_refusals():
    data = dataset(planted(np.random.default_rng(0)))
    with pytest.raises(InvalidInput, match="near=1.5"):
        find_duplicates(data, np.arange(3), np.arange(3), near=1.5)
    with pytest.raises(InvalidInput, match="no records"):
        find_duplicates(data, np.arange(0), np.arange(3))
    with pytest.raises(InvalidInput, match="unknown"):
        find_duplicates(data, np.array([160]), np.arange(3))


@pytest.mark.skipif(ROOT is None, reason="MNEMOSCOPE_DATA does not name a folder of data sets")
def test_real_duplicates_of_reduced_cifar100():
    """The full set has 10 test images equal to a training image; 200 training images a class keep 4 of them."""
    data = load_dataset("cifar100_20k10k", data_root=Path(ROOT or ""))
    train, test = np.arange(20_000), np.arange(20_000, 30_000)
    across, within = find_duplicates(data, test, train), find_duplicates(data, train, train)
    assert (across.n_exact, across.n_near) == (4, 2)
    assert (within.n_exact, within.n_near) == (3, 3)
    assert find_duplicates(data, test, test).n_exact == 2
    flat = data.values.reshape(30_000, -1)
    distinct = [len(np.unique(flat[ids].view("V3072"))) for ids in (train, test, data.ids)]
    assert distinct == [20_000 - 3, 10_000 - 2, 30_000 - 9]
    for a, b in across.near:
        x, y = flat[a].astype(float), flat[b].astype(float)
        assert 0 < np.linalg.norm(x - y) <= 0.05 * max(np.linalg.norm(x), np.linalg.norm(y))
