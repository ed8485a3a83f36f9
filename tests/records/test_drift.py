"""The blind baseline is calibrated without drift, sees planted drift, and its p-value includes the learning."""

import time

import numpy as np
import pytest
from scipy import stats

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.drift import blind_baseline


def null_reports(count, n=40, d=6):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(2 * n, d))
        yield blind_baseline(x[:n], x[n:], rng=rng, permutations=99)


@pytest.mark.slow
def test_p_values_are_uniform_and_intervals_cover_without_drift():
    reports = list(null_reports(200))
    p = np.array([r.p_value for r in reports])
    # An exact permutation p-value is uniform on 0.01, ..., 1: below 5 % in 5 % of runs (binomial 99.9 % limits).
    for level in (0.05, 0.1, 0.5):
        low, high = stats.binom.ppf([0.0005, 0.9995], p.size, level)
        assert low <= (p <= level + 1e-9).sum() <= high
    assert stats.kstest(p - np.random.default_rng(0).uniform(0, 0.01, p.size), "uniform").pvalue > 0.001
    area = np.array([r.auc.value for r in reports])
    assert abs(area.mean() - 0.5) < 0.02
    assert np.mean([r.auc.low <= 0.5 <= r.auc.high for r in reports]) >= 0.9


def test_in_sample_scores_would_cry_drift_and_ours_do_not():
    """A classifier scored on the records it was fitted to separates anything; cross-fitting must not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 150))
    y = np.repeat([1.0, -1.0], 100)
    fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    faulty = (fitted[:100, None] > fitted[100:]).mean()
    assert faulty > 0.95
    assert blind_baseline(x[:100], x[100:], rng=rng).p_value > 0.01


def drift_of(kind, x, rng):
    return {
        "brighter": lambda: np.clip(x * 1.05, 0, 255),
        "noise": lambda: x + rng.normal(0, 0.1 * x.std(), x.shape),
        "moved": lambda: np.roll(x, 1, axis=2),
        "contrast": lambda: (x - x.mean()) * 1.1 + x.mean(),
    }[kind]()


@pytest.mark.parametrize("kind", ["brighter", "noise", "moved", "contrast"])
def test_planted_drift_of_digits_is_seen(kind):
    rng = np.random.default_rng(3)
    values = load_dataset("digits").values.astype(np.float64)
    rows = rng.permutation(len(values))
    report = blind_baseline(values[rows[:200]], drift_of(kind, values[rows[200:400]], rng), rng=rng, permutations=199)
    assert report.p_value == 1 / 200
    assert report.auc.low > 0.5


def test_drift_without_a_shift_of_means_is_seen():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(150, 4)), rng.normal(size=(150, 4)) * 1.6
    assert blind_baseline(a, b, rng=rng).p_value < 0.01
    correlated = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 200)
    assert blind_baseline(rng.normal(size=(200, 2)), correlated, rng=rng).p_value < 0.01


def test_drift_of_labels_is_seen_where_labels_are_given():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 5))
    labels_a, labels_b = np.array(["cat", "dog"] * 100), np.array(["cat"] * 150 + ["dog"] * 50)
    assert blind_baseline(x[:200], x[200:], rng=rng).p_value > 0.01
    with_labels = blind_baseline(x[:200], x[200:], rng=rng, labels_a=labels_a, labels_b=labels_b)
    assert with_labels.p_value < 0.01


@pytest.mark.slow
def test_real_digits_split_at_random_show_no_drift_in_time():
    values = load_dataset("digits").values
    rows = np.random.default_rng(6).permutation(1797)
    before = values.copy()
    start = time.process_time()
    report = blind_baseline(values[rows[:600]], values[rows[600:1200]], rng=np.random.default_rng(0))
    # Less than 2 s on an idle core; the limit leaves room for a busy one.
    assert time.process_time() - start < 6
    assert report.p_value > 0.01
    assert report.auc.low < 0.5 < report.auc.high
    assert (report.n_a, report.n_b, report.auc.n) == (600, 600, 1200)
    assert np.array_equal(values, before)


def test_digits_in_their_order_differ_because_writers_do():
    """The source lists its writers one after the other: first and last records are no exchangeable groups."""
    values = load_dataset("digits").values
    report = blind_baseline(values[:300], values[-300:], rng=np.random.default_rng(0), permutations=199)
    assert report.p_value < 0.01


def test_same_generator_same_report_and_large_groups_are_drawn_from():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(500, 3))
    first, again = (blind_baseline(x[:300], x[300:], rng=np.random.default_rng(1), max_records=100) for _ in range(2))
    assert first == again
    assert (first.n_a, first.n_b) == (100, 100)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (np.zeros((9, 2)), np.zeros((20, 2)), {}, "at least 10 records"),
        (np.zeros((20, 2)), np.zeros((20, 3)), {}, "differ in shape"),
        (np.zeros((20, 2)), np.zeros((20, 2)), {}, "all records are equal"),
        (np.full((20, 2), np.nan), np.zeros((20, 2)), {}, "finite"),
        (np.zeros((20, 2)), np.zeros((20, 2)), {"labels_a": np.zeros(20)}, "both groups or for neither"),
        (np.zeros((20, 2)), np.zeros((20, 2)), {"permutations": 5}, "19 permutations"),
    ],
)
def test_refusals(a, b, options, message):
    with pytest.raises(InvalidInput, match=message):
        blind_baseline(a, b, rng=np.random.default_rng(0), **options)
