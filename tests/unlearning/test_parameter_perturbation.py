"""Top-K and Random-k perturbation: the mask is of squared gradients, the noise is in units of the tensor."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import N, mlp_subject, network_subject
from toy_models import request as deletion
from twins import accuracy, mean_loss, unlearn

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.parameter_perturbation import symmetric_divergence

TOP, RANDOM = "top_k_perturbation_reading", "random_k_perturbation_reading"


def change(got):
    pairs = zip(got.parameters(), mlp_subject().model.parameters(), strict=True)
    return [(a - b).detach() for a, b in pairs]


def test_top_k_moves_the_weights_of_the_largest_squared_gradients():
    """The forget set is one batch, so that the batch is known; weights and gradients rank differently."""
    s, request = mlp_subject(), deletion(range(30))
    positions = s.data.positions(request.forget)
    loss = nn.functional.cross_entropy(s.model(s.data.inputs(positions)), s.data.y[positions])
    slopes = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(s.model.parameters()))])
    k = round(0.02 * slopes.numel())
    expected = set(torch.topk(slopes.square(), k).indices.tolist())
    got = unlearn(METHODS[TOP](share=0.02, repair=0), request)
    moved = set(torch.cat([c.flatten() for c in change(got)]).nonzero()[:, 0].tolist())
    assert len(moved) == k
    assert len(moved & expected) >= k - 2  # equal to rounding at the border
    by_weight = torch.topk(torch.cat([w.detach().flatten().abs() for w in s.model.parameters()]), k).indices.tolist()
    assert len(moved & set(by_weight)) < k / 2


def test_random_k_moves_each_weight_with_the_same_chance():
    moved = torch.cat([c.flatten() for c in change(unlearn(METHODS[RANDOM](share=0.1, repair=0), deletion(range(30))))])
    n = moved.numel()
    assert abs(int((moved != 0).sum()) - 0.1 * n) < 5 * (n * 0.09) ** 0.5


def test_noise_is_in_units_of_the_tensor():
    got = unlearn(METHODS[RANDOM](share=1.0, noise=0.5, repair=0), deletion(range(30)))
    for part, weight in zip(change(got), mlp_subject().model.parameters(), strict=True):
        if part.numel() > 500:
            assert float(part.std() / weight.detach().std()) == pytest.approx(0.5, rel=0.1)


def test_top_k_hurts_a_class_more_than_the_others_and_random_k_does_not():
    """On average over draws: noise has no sign, and some draws make the class more likely."""
    request = deletion(np.flatnonzero(mlp_subject().data.y[:N].numpy() == 3), kind="class")
    excess = {}
    for name in (TOP, RANDOM):
        runs = [unlearn(METHODS[name](noise=8.0, repair=0), request, seed=k) for k in range(20)]
        excess[name] = np.mean([accuracy(r, request.retain) - accuracy(r, request.forget) for r in runs])
    assert excess[TOP] > 0.1
    assert abs(excess[RANDOM]) < 0.1


def test_repair_brings_retained_records_back():
    request = deletion(range(60))
    bare, mended = (unlearn(METHODS[TOP](share=0.03, noise=8.0, repair=r, lr=0.02), request, seed=1) for r in (0, 10))
    assert accuracy(bare, request.retain) < 0.9
    assert accuracy(mended, request.retain) > accuracy(bare, request.retain) + 0.05


@pytest.mark.slow
def test_random_k_and_its_repair_move_forget_records_towards_what_retraining_makes_of_them():
    """The noise hurts all records alike; the repair brings back those that are retained, and no others."""
    ids, method = np.arange(60), METHODS[RANDOM](share=0.1, repair=30)
    retrained = mean_loss(unlearn(METHODS["retrain"](), deletion(ids)), ids)
    repaired = mean_loss(unlearn(METHODS[RANDOM](share=0.0, repair=30), deletion(ids)), ids)
    models = [unlearn(method, deletion(ids), seed=k) for k in range(10)]
    # The same records where others are forgotten, by the same draws:
    others = [unlearn(method, deletion(range(60, 120)), seed=k) for k in range(10)]
    gone, kept = (np.array([mean_loss(model, ids) for model in made]) for made in (models, others))
    assert mean_loss(mlp_subject().model, ids) < repaired < gone.mean() / 2
    assert gone.mean() < retrained
    assert (gone > 1.5 * kept).all()
    assert kept.mean() < repaired
    assert all(accuracy(model, deletion(ids).retain) == 1.0 for model in models)


def test_the_pull_keeps_forget_records_as_they_were():
    """Which is why it is off: it undoes what the perturbation did."""
    request = deletion(range(60))
    s, positions = mlp_subject(), mlp_subject().data.positions(deletion(range(60)).forget)
    x = s.data.inputs(positions)
    away = [
        float(symmetric_divergence(unlearn(METHODS[TOP](pull=p), request)(x), s.model(x)).detach()) for p in (0.0, 5.0)
    ]
    assert away[1] < 0.7 * away[0]


def test_divergence_by_hand():
    p, q = torch.tensor([[0.7, 0.3]]), torch.tensor([[0.4, 0.6]])
    expected = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    torch.testing.assert_close(symmetric_divergence(p.log(), q.log()), expected)


def test_the_number_that_top_k_moves_is_rounded_to_the_nearest():
    request, total = deletion(range(30)), sum(w.numel() for w in mlp_subject().model.parameters())
    for number, near in ((3, 2.6), (3, 3.4), (0, 0.4)):
        got = unlearn(METHODS[TOP](share=near / total, repair=0), request)
        assert sum(int((c != 0).sum()) for c in change(got)) == number


def test_no_perturbation_and_no_repair_give_the_same_bits():
    for name in (TOP, RANDOM):
        for settings in ({"share": 0.0}, {"noise": 0.0}):
            got = unlearn(METHODS[name](repair=0, **settings), deletion(range(60)))
            assert not any(c.any() for c in change(got))


def test_a_single_retained_record_does_not_stop_batch_normalisation():
    s = network_subject("batchnorm")
    request = deletion(range(N - 1))
    got = unlearn(METHODS[RANDOM](repair=1), request, subject=s)
    assert all(torch.isfinite(w).all() for w in got.parameters())


@pytest.mark.parametrize("settings", [{"share": 1.1}, {"noise": -1.0}, {"repair": -1}, {"lr": 0.0}, {"pull": -1.0}])
def test_impossible_settings_are_refused(settings):
    for name in (TOP, RANDOM):
        assert METHODS[name]().reading
        with pytest.raises(InvalidInput, match=next(iter(settings))):
            METHODS[name](**settings)
