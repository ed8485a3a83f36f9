"""Signals against test vectors, saturation, and the faulty formulas of other tools."""

import numpy as np
import pytest

from mnemoscope.audit.answers.signals import SIGNALS, compute_signal
from mnemoscope.audit.answers.views import Answers, Reference, View, require_models
from mnemoscope.audit.errors import InvalidInput

P = np.log(np.array([[[0.7, 0.2, 0.1]]]))


@pytest.mark.parametrize(
    ("name", "sign", "values"),
    [
        ("negative_loss", -1, (0.356675, 1.609438, 2.302585)),
        ("negative_entropy", -1, (0.801819, 0.801819, 0.801819)),
        ("negative_modified_entropy", -1, (0.162167, 2.140867, 2.959736)),
        ("margin", 1, (0.847298, -1.386294, -2.197225)),
        ("confidence", 1, (0.7, 0.2, 0.1)),
        ("correctness", 1, (1.0, 0.0, 0.0)),
    ],
)
def test_vectors_of_the_reference(name, sign, values):
    for label, value in enumerate(values):
        assert compute_signal(name, P, np.array([label])).item() == pytest.approx(sign * value, abs=1e-6)


def test_vectors_for_margin_hinge_and_taylor():
    z = np.array([[[8.0, 1.0, -3.0, 0.5]]])
    assert compute_signal("margin", z, np.array([0])).item() == pytest.approx(6.514587, abs=1e-6)
    assert compute_signal("hinge", z, np.array([0])).item() == pytest.approx(7.0)
    z = np.array([[[2.0, 1.0, 0.0]]])
    # The reference's vector is for logits that are not centred; centred by hand it must agree with the formula.
    u = np.array([0.5, 0.0, -0.5])
    g = lambda v: 1 + v + v * v / 2 + v**3 / 6  # noqa: E731
    expected = np.log(g(u[0] - 0.6) / (g(u[0] - 0.6) + g(u[1]) + g(u[2])))
    found = compute_signal("log_taylor_softmax", z, np.array([0]), temperature=2.0).item()
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_a_constant_added_to_the_logits_changes_nothing(name):
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 3, (50, 1, 6)), rng.integers(0, 6, 50)
    np.testing.assert_allclose(compute_signal(name, z + 100, y), compute_signal(name, z, y), atol=1e-9)


def test_nothing_saturates_or_leaves_the_numbers():
    gaps = np.linspace(40, 300, 100)
    z = np.zeros((100, 1, 3))
    z[:, 0, 0] = gaps
    for name in ("negative_loss", "margin", "negative_entropy", "negative_modified_entropy", "top_confidence"):
        right = compute_signal(name, z, np.zeros(100, np.int64))[:, 0]
        assert (np.diff(right) > 0).all(), name
        wrong = compute_signal(name, z, np.ones(100, np.int64))
        assert np.isfinite(wrong).all(), name


ENTROPIES = ("negative_entropy", "negative_modified_entropy", "top_confidence")


@pytest.mark.parametrize("name", ["margin", "negative_loss", "confidence", *ENTROPIES])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [0.1, 5.0, 60.0, 1e3, 1e30, 5e37])
@pytest.mark.parametrize("classes", [2, 10, 400])
def test_float32_logits_give_what_the_same_numbers_give_in_float64(name, temperature, scale, classes):
    rng = np.random.default_rng(classes)
    z = (scale * rng.normal(size=(3, 40, 2, classes))).astype(np.float32)
    z[1] += np.float32(scale)
    labels = rng.integers(0, classes, 40)
    labels[::2] = z[0, ::2, 0].argmax(axis=1)
    single, double = (
        compute_signal(name, given, labels, temperature=temperature) for given in (z, z.astype(np.float64))
    )
    assert np.isfinite(single).all()
    # Entropies subtract the highest logit in float32, which moves a value by a part of its own size.
    np.testing.assert_allclose(single, double, rtol=2e-7 if name in ENTROPIES else 1e-12, atol=5e-7)
    # Below float32's own digits, too, the surest records are told apart.
    assert np.unique(single).size == np.unique(double).size


@pytest.mark.parametrize("name", ENTROPIES)
def test_entropies_of_sure_float32_answers_keep_their_digits(name):
    gaps = np.linspace(0.5, 300, 500, dtype=np.float32)
    z = np.zeros((500, 1, 4), np.float32)
    z[:, 0, 0] = gaps
    z[:, 0, 3] = -1.0
    for label in (0, 1, 3):
        single, double = (compute_signal(name, given, np.full(500, label)) for given in (z, z.astype(np.float64)))
        # In a float32 a gap of 300 has steps of 3e-5, and e^-gap has them relative to its size.
        np.testing.assert_allclose(single, double, rtol=2e-5, atol=0.0)
        if label == 0:
            assert (np.diff(single[:, 0]) > 0).all()


@pytest.mark.parametrize("name", ENTROPIES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_classes_that_tie_for_the_top_are_as_likely_as_the_formula_says(name, kind):
    z = np.array([[3.0, 3.0, 1.0, 3.0], [2.0, 2.0, -900.0, -900.0], [0.0, 0.0, 0.0, 0.0]], kind)
    p = np.exp(z - z.max(axis=1, keepdims=True), dtype=np.float64)
    p /= p.sum(axis=1, keepdims=True)
    log_p = np.log(np.maximum(p, 1e-300))
    for label in range(2):
        others = (p * np.log1p(-p)).sum(axis=1) - p[:, label] * np.log1p(-p[:, label])
        expected = {
            "negative_entropy": (p * log_p).sum(axis=1),
            "negative_modified_entropy": (1 - p[:, label]) * log_p[:, label] + others,
            "top_confidence": log_p.max(axis=1),
        }[name]
        found = compute_signal(name, z[:, None], np.full(3, label))[:, 0]
        np.testing.assert_allclose(found, expected, rtol=3e-7)


def test_row_24_modified_entropy_is_song_and_mittals():
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(40, 1, 4)), rng.integers(0, 4, 40)
    p = np.exp(z[:, 0]) / np.exp(z[:, 0]).sum(1, keepdims=True)
    rows = np.arange(40)
    slow = (1 - p[rows, y]) * np.log(p[rows, y])
    for i in range(40):
        slow[i] += sum(p[i, k] * np.log(1 - p[i, k]) for k in range(4) if k != y[i])
    ours = compute_signal("negative_modified_entropy", z, y)[:, 0]
    np.testing.assert_allclose(ours, slow, atol=1e-12)
    # The literature's copy: log p where log(1 - p) is meant, and columns overwritten where rows are meant.
    log_p, reverse = -np.log(p), 1 - p
    modified, log_modified = p.copy(), log_p.copy()
    modified[:, y] = reverse[:, y]
    log_modified[:, y] = log_p[:, y]
    faulty = -(modified * log_modified).sum(1)
    assert np.abs(ours - faulty).max() > 0.5


def test_row_28_true_class_values_index_rows_and_the_class_count_is_the_models():
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(3, 1, 10)), np.array([7, 0, 7])
    ours = compute_signal("confidence", z, y)
    assert ours.shape == (3, 1)
    p = np.exp(z[:, 0]) / np.exp(z[:, 0]).sum(1, keepdims=True)
    np.testing.assert_allclose(ours[:, 0], [p[0, 7], p[1, 0], p[2, 7]])
    faulty = p[:, y]  # columns: one value too many for each record
    assert faulty.shape == (3, 3)
    view = View(np.arange(3), y, z)
    assert view.n_classes == 10 != np.unique(y).size


def test_row_33_softmax_twice_is_another_order():
    rng = np.random.default_rng(3)
    z, y = rng.normal(0, 4, (200, 1, 5)), rng.integers(0, 5, 200)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    once, twice = (compute_signal("negative_loss", part, y)[:, 0] for part in (z, p))
    assert once.min() < -5 < twice.min()  # probabilities taken for logits can never lose much
    assert (np.argsort(once) != np.argsort(twice)).mean() > 0.2


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_blocks_neighbours_and_many_models_give_the_same(name, monkeypatch):
    rng = np.random.default_rng(4)
    z, y = (6 * rng.normal(size=(2, 300, 2, 4))).astype(np.float32), rng.integers(0, 4, 300)
    z[:, ::7] *= 100  # some of them are taken again in float64
    whole = compute_signal(name, z, y)
    order = rng.permutation(300)
    for block in (64, 1 << 10, 1 << 14):
        monkeypatch.setattr("mnemoscope.audit.answers.signals.BLOCK_BYTES", block)
        monkeypatch.setattr("mnemoscope.audit.answers.signals.LEAST_RECORDS", 1)
        np.testing.assert_array_equal(compute_signal(name, z, y), whole)
        np.testing.assert_array_equal(compute_signal(name, z[1], y), whole[1])
        np.testing.assert_array_equal(compute_signal(name, z[:, order], y[order]), whole[:, order])
    for record in (0, 1, 7):
        alone = compute_signal(name, z[:, record : record + 1], y[record : record + 1])
        np.testing.assert_array_equal(alone[:, 0], whole[:, record])


def test_no_record_is_no_error():
    assert compute_signal("margin", np.zeros((3, 0, 1, 4), np.float32), np.zeros(0, np.int64)).shape == (3, 0, 1)


def test_a_class_masked_by_the_lowest_number_is_no_answer_less():
    low = np.finfo(np.float32).min
    z = np.array([[[5, low, 4]], [[3, low, 2]], [[2e38, low, -2e38]], [[3e38, 3e38, 0]]], np.float32)
    for name in ("margin", "negative_loss", "confidence", *ENTROPIES):
        for temperature in (0.5, 1.0, 2.0**-20):
            single, double = (
                compute_signal(name, given, np.array([0, 1, 0, 1]), temperature=temperature)
                for given in (z, z.astype(np.float64))
            )
            assert np.isfinite(single).all()
            np.testing.assert_allclose(single, double, rtol=1e-6)


def test_unknown_signal_and_temperature_are_refused():
    with pytest.raises(InvalidInput, match="signal='loss' is unknown; known signals: confidence"):
        compute_signal("loss", P, np.array([0]))
    with pytest.raises(InvalidInput, match="temperature=0 must be positive"):
        compute_signal("margin", P, np.array([0]), temperature=0)


def test_shapes_are_refused_before_work():
    ids, labels, logits = np.arange(3), np.zeros(3, np.int64), np.zeros((3, 1, 4), np.float32)
    with pytest.raises(InvalidInput, match="with n = 3"):
        Answers(ids, labels, logits[:2])
    with pytest.raises(InvalidInput, match="must both be"):
        Answers(ids, labels[:2], logits)
    with pytest.raises(InvalidInput, match="side .* must be"):
        Reference(ids, labels, logits[None], side=np.zeros((2, 3), np.int8))
    with pytest.raises(InvalidInput, match="one model"):
        View(ids, labels, logits[None])


def test_positions_follow_ids_and_name_what_is_missing():
    part = Answers(np.array([5, 3, 9]), np.zeros(3, np.int64), np.zeros((3, 1, 2)))
    np.testing.assert_array_equal(part.positions(np.array([9, 5])), [2, 0])
    with pytest.raises(InvalidInput, match="2 records have no answers here: ids 4, 10"):
        part.positions(np.array([4, 9, 10]))
    twice = Answers(np.array([5, 3, 5]), np.zeros(3, np.int64), np.zeros((3, 1, 2)))
    with pytest.raises(InvalidInput, match="not unique: ids 5"):
        twice.positions(np.array([3]))


def test_records_without_models_are_named():
    side = np.array([[1, 0, -1], [0, 0, 1]], np.int8)
    with pytest.raises(InvalidInput, match="fewer than 1 IN models: ids 11"):
        require_models(side, 1, True, np.array([10, 11, 12]))
    with pytest.raises(InvalidInput, match="fewer than 1 OUT models: ids 2"):
        require_models(side, 1, False)
