"""Random labels and SalUn: the draws, the mask, the updates written out, and the mask's known hole."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toy_models import N, mlp_subject, network_subject
from twins import accuracy, mean_loss, spoil, state, tensors, unlearn, weights

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.base import Deletion
from mnemoscope.unlearning.random_labels import Relabelled, draw_labels
from mnemoscope.unlearning.saliency import forget_gradient, largest, only, saliency_mask, top_share
from mnemoscope.unlearning.salun import shrink_change

FORGET = np.arange(60)


def deletion(wanted=None, subject=None, seed=0):
    s = mlp_subject() if subject is None else subject
    original = copy.deepcopy(s.model).eval()
    wanted = s.request if wanted is None else wanted
    return Deletion("test", original, wanted, s.recipe, s.data, s.runtime, np.random.default_rng(seed))


@pytest.mark.parametrize(("choice", "allowed"), [("wrong", 4), ("any", 5)])
def test_labels_are_drawn_uniformly_among_the_allowed(choice, allowed):
    true = torch.arange(5).repeat(20_000)
    drawn = draw_labels(true, 5, choice, torch.Generator().manual_seed(0))
    for label in range(5):
        counts = torch.bincount(drawn[true == label], minlength=5).double()
        possible = torch.arange(5) != label if choice == "wrong" else torch.ones(5, dtype=torch.bool)
        assert counts[~possible].sum() == 0
        expected = 20_000 / allowed
        chi_square = ((counts[possible] - expected).square() / expected).sum()
        assert chi_square < 25  # 4 degrees of freedom at most: above it once in 20 thousand


@pytest.mark.parametrize("order", ["mixed", "forget_first"])
def test_an_epoch_holds_every_record_once_and_only_forget_records_under_other_labels(order):
    d = deletion()
    records = Relabelled(d, labels="wrong", order=order, redraw=True)
    seen = []
    for _ in range(2):
        parts = [(batch.positions, batch.y, alone) for batch, alone in records.epoch()]
        assert len(parts) == records.steps
        positions = torch.cat([part[0] for part in parts])
        given = torch.cat([part[1] for part in parts])
        assert torch.equal(positions.sort().values, torch.arange(N))
        forget = positions < 60
        true = d.data.y[positions]
        assert (given[~forget] == true[~forget]).all()
        assert (given[forget] != true[forget]).all()
        alone = torch.cat([torch.full_like(part[0], part[2], dtype=torch.bool) for part in parts])
        if order == "mixed":
            assert not alone.any()
        else:
            assert torch.equal(alone, forget)
            assert forget[:60].all()
        seen.append(given[forget][positions[forget].argsort()])
    assert not torch.equal(*seen)


def test_labels_are_kept_where_they_are_not_drawn_anew():
    records = Relabelled(deletion(), labels="any", order="forget_first", redraw=False)
    epochs = []
    for _ in range(2):
        pairs = [(batch.positions, batch.y) for batch, alone in records.epoch() if alone]
        positions, given = (torch.cat(part) for part in zip(*pairs, strict=True))
        epochs.append(given[positions.argsort()])
    assert torch.equal(*epochs)


def drawn_for(seed, choice, epochs):
    """The labels a run with this seed draws: its first seed is for dropout, its second for labels."""
    rng = np.random.default_rng(seed)
    rng.integers(2**63)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    true = mlp_subject().data.y[:60]
    return [draw_labels(true, 10, choice, generator) for _ in range(epochs)]


def test_random_labels_train_on_with_wrong_labels():
    ours = unlearn(METHODS["random_labels"](epochs=3, lr=0.05), batch_size=1000, momentum=0.5)
    twin = copy.deepcopy(mlp_subject().model)
    x, y = tensors(range(N))
    y = torch.cat([drawn_for(0, "wrong", 1)[0], y[60:]])
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(twin(x), y).backward()
        optimizer.step()
    assert torch.allclose(weights(ours), weights(twin), rtol=1e-4, atol=1e-6)


def test_salun_is_the_papers_update_with_other_weights_held():
    keep, rate, decay = 0.3, 0.05, 0.1
    method = METHODS["salun"](epochs=3, lr=rate, keep=keep)
    ours = unlearn(method, batch_size=1000, momentum=0.5, weight_decay=decay)
    twin = copy.deepcopy(mlp_subject().model)
    (u, v), (x, y) = tensors(FORGET), tensors(range(60, N))
    loss = cross_entropy(twin(u), v)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(twin.parameters()))]).abs()
    chosen = torch.zeros(gradient.numel(), dtype=torch.bool)
    chosen[gradient.argsort(descending=True)[: int(keep * gradient.numel())]] = True
    momentum = torch.zeros(gradient.numel())
    for drawn in drawn_for(0, "any", 3):
        for inputs, wanted in ((u, drawn), (x, y)):
            step = torch.autograd.grad(cross_entropy(twin(inputs), wanted), list(twin.parameters()))
            flat = torch.cat([g.reshape(-1) for g in step]) + decay * weights(twin)
            momentum = (0.5 * momentum + flat) * chosen
            torch.nn.utils.vector_to_parameters(weights(twin) - rate * momentum, twin.parameters())
    assert torch.allclose(weights(ours), weights(twin), rtol=1e-4, atol=1e-6)
    held = weights(ours) == weights(mlp_subject().model)
    assert held[~chosen].all()
    assert not held[chosen].all()


def test_the_gradient_is_that_of_the_mean_loss_in_eval_mode():
    s = network_subject("batchnorm")
    work = copy.deepcopy(s.model).train()
    before = {name: value.clone() for name, value in work.named_buffers()}
    found = forget_gradient(work, deletion(subject=s))
    twin = copy.deepcopy(s.model).eval().double()
    x, y = tensors(FORGET, s)
    cross_entropy(twin(x.double()), y).backward()
    for name, weight in twin.named_parameters():
        assert torch.allclose(found[name].double(), weight.grad, atol=1e-6), name
    assert all(torch.equal(value, before[name]) for name, value in work.named_buffers())
    assert work.training
    assert all(weight.grad is None for weight in work.parameters())


def test_the_top_share_is_exact_also_among_ties():
    scores = {"a": torch.ones(50), "b": torch.ones(5, 10)}
    for share, count in ((0.0, 0), (0.29, 29), (1.0, 100)):
        marked = top_share(scores, share)
        assert sum(int(part.sum()) for part in marked.values()) == count
        assert all(torch.equal(part, marked[name]) for name, part in largest(scores, count).items())
    assert top_share(scores, 0.29)["a"][:29].all()
    with pytest.raises(InvalidInput, match="share"):
        top_share(scores, 1.5)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_momentum_and_decay_cannot_move_what_is_masked(kind):
    x, y = tensors(FORGET)
    moved = {}
    for whole in (True, False):
        d = deletion()
        work = copy.deepcopy(mlp_subject().model).train()
        start = [weight.detach().clone() for weight in work.parameters()]
        mask = saliency_mask(work, d, 0.2)
        optimizer = d.optimizer(work, 0.01, kind=kind, momentum=0.9, weight_decay=0.1)
        d.descend(optimizer, cross_entropy(work(x), y))  # momentum of every weight, before the mask comes
        with torch.no_grad():
            for weight, value in zip(work.parameters(), start, strict=True):
                weight.copy_(value)
        if whole:
            with only(mask, work, optimizer):
                for _ in range(3):
                    d.descend(optimizer, cross_entropy(work(x), y))
        else:  # as published at first: the gradient alone is masked
            for _ in range(3):
                optimizer.zero_grad()
                cross_entropy(work(x), y).backward()
                for name, weight in work.named_parameters():
                    weight.grad *= mask[name]
                optimizer.step()
        moved[whole] = sum(
            int((weight != value)[~mask[name]].sum())
            for (name, weight), value in zip(work.named_parameters(), start, strict=True)
        )
        changed = any(
            bool((weight != value)[mask[name]].any())
            for (name, weight), value in zip(work.named_parameters(), start, strict=True)
        )
        assert changed
    assert moved[True] == 0
    assert moved[False] > 1000


def test_nothing_is_held_after_the_block():
    d, work = deletion(), copy.deepcopy(mlp_subject().model).train()
    start = weights(work).clone()
    mask = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in work.named_parameters()}
    optimizer = d.optimizer(work, 0.1)
    x, y = tensors(range(N, N + 60))
    with only(mask, work, optimizer):
        d.descend(optimizer, cross_entropy(work(x), y))
    assert torch.equal(weights(work), start)
    d.descend(optimizer, cross_entropy(work(x), y))
    assert not torch.equal(weights(work), start)


def test_the_soft_threshold_shrinks_changes_and_drops_the_small_ones():
    work = torch.nn.Linear(2, 2, bias=False)
    start = {"weight": torch.zeros(2, 2)}
    for level, expected in (
        (0.0, [1.0, -2.0, 3.0, 0.5]),
        (0.5, [0.0, -1.0, 2.0, 0.0]),
        (1.0, [0.0, 0.0, 0.0, 0.0]),
    ):
        work.weight.data = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
        shrink_change(work, start, level)
        assert work.weight.flatten().tolist() == expected


def test_soft_changes_sparsely_at_first_and_freely_at_last():
    s = mlp_subject()
    start, settings = weights(s.model), {"variant": "soft", "epochs": 1, "lr": 0.05}
    # Two steps: the first is thresholded at the median, the second at nothing.
    soft = weights(unlearn(METHODS["salun"](**settings), batch_size=1000))
    hard = weights(unlearn(METHODS["salun"](variant="hard", keep=1.0, epochs=1, lr=0.05), batch_size=1000))
    assert not torch.equal(soft, hard)
    assert (soft - start).abs().sum() < (hard - start).abs().sum()


@pytest.mark.parametrize("name", ["random_labels", "salun"])
def test_forget_records_are_forgotten_and_retained_ones_kept(name):
    s = mlp_subject()
    after = unlearn(METHODS[name](lr=0.1))
    assert mean_loss(after, FORGET) > 10 * mean_loss(s.model, FORGET)
    assert accuracy(after, FORGET) < 0.9 < accuracy(s.model, FORGET)
    assert accuracy(after, range(60, N)) > 0.95


@pytest.mark.parametrize("name", ["random_labels", "salun"])
def test_a_pass_on_forget_records_leaves_normalisation_statistics(name):
    s = network_subject("batchnorm")
    method = METHODS[name](epochs=1, lr=1e-20, order="forget_first")
    one = unlearn(method, subject=s, weight_decay=0.0)
    other = unlearn(method, subject=s, data=spoil(FORGET, s), weight_decay=0.0)
    buffers = list(one.named_buffers())
    assert buffers
    for (name, value), (_, twin) in zip(buffers, other.named_buffers(), strict=True):
        assert torch.equal(value, twin), name
        assert not torch.equal(value, dict(s.model.named_buffers())[name])


def test_frozen_weights_are_not_counted_and_do_not_move():
    s = mlp_subject()
    model = copy.deepcopy(s.model)
    names = [name for name, _ in model.named_parameters()]
    model.get_parameter(names[0]).requires_grad_(False)
    mask = saliency_mask(model, deletion(), 0.5)
    assert set(mask) == set(names[1:])
    total = sum(part.numel() for part in mask.values())
    assert sum(int(part.sum()) for part in mask.values()) == total // 2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("random_labels", {"labels": "right"}),
        ("random_labels", {"order": "random"}),
        ("random_labels", {"epochs": -1}),
        ("salun", {"keep": 0.0}),
        ("salun", {"quantile": 1.1}),
        ("salun", {"variant": "medium"}),
        ("salun", {"lr": float("nan")}),
    ],
)
def test_impossible_settings_are_refused(name, settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS[name](**settings)


def test_no_epochs_give_the_model():
    for name in ("random_labels", "salun"):
        assert state(unlearn(METHODS[name](epochs=0))) == state(mlp_subject().model)
