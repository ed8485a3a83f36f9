"""Our reading of Silver Linings: each estimate of the leak by its formula, what the method forgets, and the bounds."""

import copy
import math

import numpy as np
import pytest
import torch
from shuffled_digits import FORGET, RETAIN, UNSEEN, accuracy, losses, shuffled_subject, unlearn, unseen_auc
from torch import nn
from toy_models import RUNTIME, mlp_subject, network_subject

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.statistics.counts import auc
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.base import Deletion
from mnemoscope.unlearning.leakage import Information, Kernel, Network, inner_answers, make_leakage
from mnemoscope.unlearning.leakage_bounds import advantage, chance, leakage_bounds
from mnemoscope.unlearning.silver_linings_reading import SilverLiningsReading, forget_share


def tensor(*shape, seed=0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) + shift)


def test_inner_answers_are_activations_logits_and_loss():
    s = network_subject("batchnorm")
    x, y = s.data.inputs(s.data.positions(FORGET[:6])), s.data.y[:6]
    work = copy.deepcopy(s.model).train()
    with torch.no_grad():
        h = inner_answers(work, x, y)
        activations = s.model.eval()[:-1](x)
        logits = s.model[-1](activations)
    expected = torch.cat(
        [activations, logits, nn.functional.cross_entropy(logits, y, reduction="none")[:, None]], dim=1
    )
    assert torch.allclose(h, expected.double(), atol=1e-5)
    assert work.training


def test_activations_of_several_places_lie_side_by_side():
    work = nn.Sequential(nn.Unflatten(1, (4, 16)), nn.Linear(16, 10), nn.Flatten(), nn.AvgPool1d(4))
    x = tensor(3, 64).float()
    h = inner_answers(work, x, torch.tensor([0, 1, 2]))
    assert h.shape == (3, 64 + 10 + 1)
    assert torch.equal(h[:, :64], x.double())


def test_information_is_its_formula_and_zero_for_sides_alike():
    first, second = tensor(40, 3, seed=1), tensor(50, 3, seed=2, shift=0.7)
    m, v = first.mean(dim=0), first.var(dim=0, unbiased=False)
    n, w = second.mean(dim=0), second.var(dim=0, unbiased=False)
    total = (v + w) / 2 + (m - n).square() / 4
    noise = total / 100
    logs = [(part + noise).log() for part in (total, v, w)]
    expected = float((logs[0] / 2 - logs[1] / 4 - logs[2] / 4).sum())
    assert float(Information()(first, second)) == pytest.approx(expected, rel=1e-6)
    assert float(Information()(first, first.flip(0))) == pytest.approx(0.0, abs=1e-9)
    constant = torch.ones(5, 2, dtype=torch.float64)
    assert float(Information()(constant, constant)) == 0.0
    rounded = constant + 1e-16 * tensor(5, 2, seed=3)
    assert float(Information()(rounded, constant)) == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(InvalidInput, match="two or more"):
        Information()(first[:1], second)


def test_information_of_gaussians_apart_is_near_the_true_one():
    """Two unit Gaussians 1 apart: 0.112 nats, by numerical integration here."""
    x = np.linspace(-8, 9, 40001)
    p, q = (np.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0.0, 1.0))
    mean = (p + q) / 2
    true = np.trapezoid((p * np.log(p / mean) + q * np.log(q / mean)) / 2, x)
    estimate = float(Information()(tensor(20000, 1, seed=3), tensor(20000, 1, seed=4, shift=1.0)))
    assert estimate == pytest.approx(true, abs=0.01)


def test_the_kernel_estimate_is_its_formula():
    first, second = tensor(7, 3, seed=1), tensor(5, 3, seed=2, shift=1.0)
    both = torch.cat([first, second])
    both = (both / both.std(dim=0, unbiased=False)).numpy()
    squares = [[float(((a - b) ** 2).sum()) for b in both] for a in both]
    width = float(torch.tensor([squares[i][j] for i in range(12) for j in range(12) if i != j]).median())
    k = np.exp(-np.array(squares) / width)
    expected = k[:7, :7].mean() + k[7:, 7:].mean() - 2 * k[:7, 7:].mean()
    assert float(Kernel()(first, second)) == pytest.approx(expected)
    assert float(Kernel()(first, first)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("estimate", ["network", "information", "kernel"])
def test_every_estimate_is_larger_for_sides_apart_and_has_a_slope(estimate):
    leak = make_leakage(estimate, seed=0)
    near, unseen, far = tensor(60, 4, seed=1), tensor(60, 4, seed=2), tensor(60, 4, seed=3, shift=1.5).requires_grad_()
    leak.refit(far, unseen)
    assert float(leak(far, unseen).detach()) > 1.5 * float(leak(near, unseen))
    assert float(leak(near, unseen)) >= 0
    (slope,) = torch.autograd.grad(leak(far, unseen), far)
    assert bool(slope.isfinite().all())
    with torch.no_grad():
        assert float(leak(far - 0.1 * slope / slope.norm(), unseen)) < float(leak(far, unseen))


def test_the_networks_leak_is_the_divergence_from_what_it_says_of_unseen_records():
    leak = Network(seed=0, steps=30)
    trained, unseen = tensor(50, 4, seed=1, shift=1.0), tensor(50, 4, seed=2)
    with pytest.raises(InvalidInput, match="refit"):
        leak(trained, unseen)
    leak.refit(trained, unseen)
    m = torch.sigmoid(leak.log_odds(trained).double())
    q = torch.sigmoid(leak.log_odds(unseen).double()).mean()
    expected = (q * torch.log(q / m) + (1 - q) * torch.log((1 - q) / (1 - m))).mean()
    assert float(leak(trained, unseen)) == pytest.approx(float(expected), rel=1e-5)
    assert auc(leak.log_odds(trained).numpy(), leak.log_odds(unseen).numpy()) > 0.8


def test_weights_that_speak_of_the_forget_records_are_found():
    s = mlp_subject()
    request = s.others["class"][0]
    run = Deletion("x", s.model, request, s.recipe, s.data, RUNTIME, np.random.default_rng(0))
    share = forget_share(s.model, run)

    def mean_square(ids):
        total = {name: 0.0 for name, _ in s.model.named_parameters()}
        for place in s.data.positions(ids):
            value = nn.functional.cross_entropy(s.model(s.data.inputs(place[None])), s.data.y[place[None]])
            for name, g in zip(total, torch.autograd.grad(value, list(s.model.parameters())), strict=True):
                total[name] = total[name] + g.double().square() / ids.size
        return total

    forget, retain = mean_square(request.forget), mean_square(request.retain)
    for name, found in share.items():
        expected = torch.nan_to_num((forget[name] - retain[name]).clamp_min(0) / (forget[name] + retain[name]))
        assert torch.allclose(found.double(), expected, atol=1e-4)
    assert float(share["3.bias"].argmax()) == 3


def test_constant_coordinates_tell_the_network_nothing_even_when_they_move_later():
    trained, unseen = tensor(50, 3, seed=1, shift=1.0), tensor(50, 3, seed=2)
    trained[:, 1] = unseen[:, 1] = 0.1
    leak = Network(seed=0, steps=30)
    leak.refit(trained, unseen)
    moved = trained.clone()
    moved[:, 1] = 5.0
    assert torch.equal(leak.log_odds(moved), leak.log_odds(trained))


SETTINGS = {"network": {"weight": 1.0}, "information": {"weight": 0.3}, "kernel": {"weight": 20.0}}


@pytest.mark.slow
@pytest.mark.parametrize("estimate", list(SETTINGS))
def test_forget_records_become_harder_to_tell_from_unseen_ones(estimate):
    """In outputs and in inner answers, beyond what fine-tuning does, at some cost to what is kept."""
    s = shuffled_subject()
    result = unlearn(SilverLiningsReading(leakage=estimate, lr=0.05, epochs=10, **SETTINGS[estimate]))
    tuned = unlearn(SilverLiningsReading(weight=0.0, decay=0.0, lr=0.05, epochs=10))
    assert unseen_auc(s.model) > 0.69
    assert unseen_auc(result) < unseen_auc(tuned) - 0.04
    assert bounds(result).auc < bounds(tuned).auc - 0.02
    assert accuracy(result, RETAIN) > 0.75
    assert accuracy(result, UNSEEN) > accuracy(s.model, UNSEEN) - 0.08


def test_without_either_part_it_is_fine_tuning():
    plain = unlearn(SilverLiningsReading(weight=0.0, decay=0.0, lr=0.05, epochs=6))
    tuned = unlearn(METHODS["finetune"](lr=0.05, epochs=6))
    assert abs(unseen_auc(plain) - unseen_auc(tuned)) < 0.02
    assert losses(plain, RETAIN).mean() == pytest.approx(losses(tuned, RETAIN).mean(), rel=0.2)


def test_the_decay_alone_shrinks_what_speaks_of_a_class():
    s = mlp_subject()
    request = s.others["class"][0]

    def after(decay):
        method = SilverLiningsReading(weight=0.0, decay=decay)
        rng = np.random.default_rng(0)
        result = method.unlearn(s.model, request, recipe=s.recipe, data=s.data, runtime=RUNTIME, rng=rng)
        logits = [torch.from_numpy(infer_logits(result, s.data, ids, runtime=RUNTIME)[:, 0]) for ids in sides]
        return float(nn.functional.cross_entropy(logits[0], labels[0])), float(
            (logits[1].argmax(1) == labels[1]).double().mean()
        )

    sides = (request.forget, request.retain)
    labels = [s.data.y[s.data.positions(ids)] for ids in sides]
    plain, decayed = after(0.0), after(0.3)
    assert decayed[0] > plain[0] + 0.5
    assert decayed[1] > 0.95


def bounds(model, forget=FORGET, **more):
    s = shuffled_subject()
    given = {"forget": forget, "retain": RETAIN, "unseen": UNSEEN, "rng": np.random.default_rng(0), **more}
    return leakage_bounds(model, s.data, runtime=RUNTIME, **given)


@pytest.mark.slow
def test_bounds_see_what_is_known_by_heart_and_nothing_where_nothing_was_learned():
    s = shuffled_subject()
    known = bounds(s.model)
    clean = bounds(train_model(s.recipe, s.data, RETAIN, seed=5, runtime=RUNTIME).module)
    assert known.auc > 0.65
    assert abs(clean.auc - 0.5) < 0.1
    assert clean.advantage < 0.25 < known.advantage
    assert clean.upper < known.upper
    for found in (known, clean):
        assert found.upper == pytest.approx(
            found.advantage + math.sqrt(math.log(80) / 120) + math.sqrt(math.log(80) / 300)
        )
        slack = math.sqrt(math.log(80 * 76) / 120) + math.sqrt(math.log(80 * 76) / 300)
        assert found.upper_any == pytest.approx(min(1.0, found.advantage_any + slack))
        assert found.advantage_any >= found.advantage
        assert (found.n_scores, found.n_forget, found.n_unseen) == (64 + 10 + 1 + 1, 60, 150)
    assert bounds(s.model) == known


def test_the_widest_single_answer_is_found():
    """The loss is one of them: the plain loss attack is never above the advantage of any answer."""
    s, ids = shuffled_subject(), np.arange(300, 400)
    rng = np.random.default_rng(3)
    found = bounds(s.model, rng=rng)
    judged = np.sort(np.random.default_rng(3).permutation(UNSEEN)[150:])
    assert found.advantage_any >= advantage(-losses(s.model, FORGET), -losses(s.model, judged)) - 1e-9
    assert advantage(losses(s.model, ids), losses(s.model, ids)) == 0.0


@pytest.mark.parametrize("scores", [1, 20])
def test_bounds_hold_at_least_as_often_as_they_say(scores):
    """Two uniform distributions 0.2 apart, true advantage 0.2, for every one of some scores at once."""
    rng, level, held = np.random.default_rng(1), 0.9, 0
    slack = chance(60, 150, level=level, scores=scores)
    for _ in range(100):
        found = [advantage(rng.random(60) + 0.2, rng.random(150)) for _ in range(scores)]
        held += all(abs(gap - 0.2) <= slack for gap in found)
    assert held >= 100 * level
    assert chance(60, 150, level=level, scores=20) > chance(60, 150, level=level)


@pytest.mark.parametrize(
    ("given", "match"),
    [({"level": 1.0}, "level"), ({"forget": FORGET[:2]}, "forget has 2"), ({"unseen": RETAIN}, "one part")],
)
def test_impossible_bounds_are_refused(given, match):
    with pytest.raises(InvalidInput, match=match):
        bounds(shuffled_subject().model, **given)


@pytest.mark.parametrize(
    "settings", [{"leakage": "mine"}, {"lr": 0.0}, {"weight": -1.0}, {"decay": -1.0}, {"epochs": -1}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["silver_linings_reading"](**settings)
