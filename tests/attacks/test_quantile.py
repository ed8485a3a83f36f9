"""Quantile regression: a world whose conditional quantiles are known, cross-fitting, gradients, bad input."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mnemoscope.attacks.population import Population
from mnemoscope.attacks.quantile import LEAST_POPULATION, Quantile, QuantileByClass
from mnemoscope.attacks.quantile_heads import LEVELS, Network, fit_heads, loss_and_slope
from mnemoscope.audit.answers.protocols import score_target
from mnemoscope.audit.answers.views import Answers, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed

RNG = np.random.default_rng(0)


def two_class(phi):
    """Logits whose hinge margin is phi: classes (phi, 0), label 0."""
    return np.stack([phi, np.zeros_like(phi)], axis=-1)[..., None, :]


class World:
    """Records x uniform in a square; the margin of a non-member is N(3 x1, exp(x2)), of a member higher by a leak."""

    def __init__(self, seed, n=2000, z=1500, leak=0.0, extra=0):
        rng = np.random.default_rng(seed)
        self.x = rng.uniform(-1, 1, (n + z, 2 + extra)).astype(np.float32)
        self.mean, self.sd = 3.0 * self.x[:, 0], np.exp(self.x[:, 1])
        self.member = (np.arange(n + z) < n) & (rng.random(n + z) < 0.5)
        self.s = self.mean + self.sd * (rng.normal(size=n + z) + leak * self.member)
        self.n, self.z = n, z

    def inputs(self, ids):
        return torch.from_numpy(self.x[ids])

    def view(self, s=None):
        s = self.s if s is None else s
        ids, labels = np.arange(self.n + self.z), np.zeros(self.n + self.z, np.int64)
        z = np.arange(self.n, self.n + self.z)
        population = Answers(z, labels[z], two_class(s[z]))
        own = ids[: self.n]
        oracle = SimpleNamespace(inputs=self.inputs, white_box=False)
        return View(own, labels[own], two_class(s[own]), population=population, oracle=oracle)


def score(attack, view, seed=0):
    nothing = Reference(
        view.ids, view.labels, np.zeros((0, *view.logits.shape)), side=np.zeros((0, view.n_records), np.int8)
    )
    return attack.fit(nothing, rng=np.random.default_rng(seed)).score(view)


def auc(value, member):
    inside, outside = value[member], np.sort(value[~member])
    return float(np.searchsorted(outside, inside).mean() / outside.size)


@pytest.mark.slow
def test_the_known_conditional_distribution_is_found():
    world = World(0)
    features = world.x.astype(np.float64)
    known = slice(world.n, None)
    heads = fit_heads(features[known], world.s[known], "gaussian", 48, 600, np.random.default_rng(1))
    predicted = heads.predicted(features[: world.n]).mean(axis=0)
    mean, sd = world.mean[: world.n], world.sd[: world.n]
    assert np.sqrt(np.mean((predicted[:, 0] - mean) ** 2)) < 0.2
    assert np.sqrt(np.mean((np.log(predicted[:, 1] / sd)) ** 2)) < 0.15
    quantiles = fit_heads(features[known], world.s[known], "pinball", 48, 600, np.random.default_rng(1))
    at = quantiles.predicted(features[: world.n]).mean(axis=0)
    for level in (10, 20):  # q = 0.9 and 0.99
        true = mean + sd * norm.ppf(LEVELS[level])
        assert np.median(np.abs(at[:, level] - true)) < 0.35, level
    assert (np.diff(at, axis=1) >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gaussian", "pinball"])
def test_the_rate_holds_in_every_region_where_one_threshold_for_all_does_not(head):
    """FPR at the nominal 5 % among records with a high and a low expected margin."""
    world = World(2)
    view = world.view()
    ours, plain = score(Quantile(head=head), view), score(Population(), view)
    high = world.x[: world.n, 0] > 0.5
    low = world.x[: world.n, 0] < -0.5
    level = np.quantile(ours, 0.95)
    for region in (high, low):
        assert abs((ours[region] > level).mean() - 0.05) < 0.03
    assert (plain[high] >= -0.05).mean() > 0.1
    assert (plain[low] >= -0.05).mean() < 0.005
    if head == "gaussian":  # the score itself is a standard normal value
        assert abs((ours > norm.ppf(0.95)).mean() - 0.05) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gaussian", "pinball"])
def test_members_are_found_that_the_population_attack_misses(head):
    world = World(3, leak=1.0)
    view, member = world.view(), world.member[: world.n]
    ours, plain = auc(score(Quantile(head=head), view), member), auc(score(Population(), view), member)
    oracle = auc((world.s - world.mean)[: world.n] / world.sd[: world.n], member)
    assert plain < 0.65 < 0.72 < ours <= oracle + 0.01
    assert ours > oracle - 0.03


@pytest.mark.slow
def test_row_19_fitting_on_the_non_members_that_are_scored_finds_a_leak_that_is_not_there():
    """Nothing leaks and nothing can be predicted; a regression explains what it was fitted on, and nothing else."""
    faulty, ours, cross = [], [], []
    for seed in range(5):
        world = World(10 + seed, n=800, z=400, extra=10)
        view, x, member = world.view(), world.x.astype(np.float64), world.member[: world.n]
        known = np.flatnonzero(~world.member)[:400]
        # The fault: non-members of the audit serve as the population, and are scored by what was fitted on them.
        line = regression(x[known], world.s[known])
        found = world.s - line(x)
        faulty.append(tpr(found[: world.n][member], found[known]))
        values = score(Quantile(), view)
        ours.append(tpr(values[member], values[~member]))
        # The same with our own fit records in the place of non-members: each is scored by a fit without it.
        held_out = Quantile().fit(view, rng=np.random.default_rng(0)).population_scores(view)
        cross.append(tpr(values[member], held_out))
    assert np.mean(faulty) > 0.08
    assert abs(np.mean(ours) - 0.05) < 0.015
    assert abs(np.mean(cross) - 0.05) < 0.015


def tpr(inside, outside, fpr=0.05):
    return float((inside > np.quantile(outside, 1 - fpr)).mean())


def regression(x, s):
    """Least squares on all features and their products."""
    i, j = np.triu_indices(x.shape[1])

    def design(v):
        return np.concatenate([np.ones((v.shape[0], 1)), v, v[:, i] * v[:, j]], axis=1)

    weight = np.linalg.lstsq(design(x), s, rcond=None)[0]
    return lambda v: design(v) @ weight


@pytest.mark.parametrize("outputs", [2, 41])
def test_gradients_are_those_of_finite_differences(outputs):
    rng = np.random.default_rng(4)
    d, h, n = 3, 4, 7
    flat = rng.normal(0, 0.5, (3, d * h + h + h * outputs + outputs))
    x, s = rng.normal(size=(n, d)), rng.normal(size=n)
    network = Network((d, h, outputs), flat)
    hidden, out = network.forward(x)
    exact = network.gradient(x, hidden, loss_and_slope(out, s)[1])
    for column in range(flat.shape[1]):
        shifted = []
        for sign in (1, -1):
            moved = flat.copy()
            moved[:, column] += sign * 1e-6
            shifted.append(loss_and_slope(Network((d, h, outputs), moved).forward(x)[1], s)[0].sum(axis=1))
        np.testing.assert_allclose(exact[:, column], (shifted[0] - shifted[1]) / 2e-6, atol=1e-6)


@pytest.mark.slow
def test_wide_inputs_are_reduced_on_population_records_alone():
    world = World(5, n=300, z=600, extra=100)
    view = world.view()
    plain = score(Quantile(components=8), view)
    # Other audited inputs leave the scores of the rest as they were: nothing is fitted on them.
    world.x[5] = 100.0
    moved = score(Quantile(components=8), view)
    rest = np.arange(300) != 5
    np.testing.assert_allclose(moved[rest], plain[rest], rtol=1e-12)
    assert np.isfinite(moved).all()


def test_scores_do_not_depend_on_the_order_of_the_population():
    world = World(6, n=200, z=300)
    view = world.view()
    order = np.random.default_rng(0).permutation(300)
    population = view.population
    moved = dataclasses.replace(
        view, population=Answers(population.ids[order], population.labels[order], population.logits[order])
    )
    for attack in (Quantile(), QuantileByClass()):
        np.testing.assert_allclose(score(attack, moved), score(attack, view), rtol=1e-9, atol=1e-9)


def by_class_view(s, labels, z, z_labels, classes=4):
    def logits(value, label):
        out = np.zeros((value.size, 1, classes))
        out[np.arange(value.size), 0, label] = value
        return out

    population = Answers(np.arange(z.size) + 10_000, z_labels, logits(z, z_labels))
    return View(np.arange(s.size), labels, logits(s, labels), population=population)


def test_by_class_is_a_standard_score_within_the_class():
    """Class 0 by hand: mean 2, squares 2, and four records of the variance within classes; class 3 has the whole's."""
    z, z_labels = np.array([1.0, 2, 3, 10, 14]), np.array([0, 0, 0, 1, 1])
    labels = np.array([0, 1, 3])
    got = score(QuantileByClass(), by_class_view(np.array([4.0, 12.0, 8.0]), labels, z, z_labels))
    within = (2.0 + 8.0) / 3
    expected = [
        2.0 / np.sqrt((2.0 + 4 * within) / 6 * (4 / 3)),
        0.0,
        (8.0 - 6.0) / np.sqrt(z.var()),
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_by_class_beats_one_threshold_where_classes_differ_and_is_silent_where_nothing_leaks():
    rng = np.random.default_rng(7)
    labels, z_labels = rng.integers(0, 4, 4000), rng.integers(0, 4, 1000)
    hard = np.array([0.0, 3.0, 6.0, 9.0])
    member = rng.random(4000) < 0.5
    for leak, ours_low, ours_high in ((1.0, 0.74, 0.78), (0.0, 0.47, 0.53)):
        s = hard[labels] + leak * member + rng.normal(size=4000)
        view = by_class_view(s, labels, hard[z_labels] + rng.normal(size=1000), z_labels)
        assert ours_low < auc(score(QuantileByClass(), view), member) < ours_high
        assert auc(score(Population(), view), member) < 0.62


def test_a_single_class_calibration_set_and_constant_answers_are_finite():
    rng = np.random.default_rng(8)
    view = by_class_view(rng.normal(size=20), rng.integers(0, 4, 20), rng.normal(size=30), np.zeros(30, np.int64))
    assert np.isfinite(score(QuantileByClass(), view)).all()
    constant = by_class_view(np.ones(20), np.zeros(20, np.int64), np.ones(30), np.zeros(30, np.int64))
    assert (score(QuantileByClass(), constant) == 0).all()
    world = World(9, n=30, z=30)
    view = world.view(np.zeros(60))
    assert np.isfinite(score(Quantile(), view)).all()


def test_what_is_missing_is_named_before_any_work():
    world = World(10, n=20, z=40)
    view = world.view()
    nothing = Reference(np.arange(20), np.zeros(20, np.int64), np.zeros((0, 20, 1, 2)), side=np.zeros((0, 20), np.int8))
    with pytest.raises(MissingNeed, match="quantile needs live access to the model"):
        score_target(Quantile(), nothing, dataclasses.replace(view, oracle=None), rng=RNG)
    with pytest.raises(MissingNeed, match="population records that no model was trained on"):
        score_target(QuantileByClass(), nothing, dataclasses.replace(view, population=None), rng=RNG)
    few = World(11, n=20, z=LEAST_POPULATION - 1).view()
    with pytest.raises(InvalidInput, match="needs at least 20 population records, given 19"):
        score(Quantile(), few)
    shared = dataclasses.replace(view, population=Answers(view.ids, view.labels, view.logits))
    with pytest.raises(InvalidInput, match="both audited and population"):
        score(QuantileByClass(), shared)


@pytest.mark.parametrize("settings", [{"head": "x"}, {"components": 0}, {"steps": 0}, {"signal": "loss"}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        Quantile(**settings)
