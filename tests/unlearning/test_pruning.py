"""Pruning: which weights survive, that nothing brings the others back, and what a sparse model is made by."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import RUNTIME, N, TinyViT, mlp_subject, network_subject
from toy_models import request as deletion

from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, MissingNeed, StaleArtifact, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.training import train_model
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.base import Method
from mnemoscope.unlearning.masks import Masks, prunable
from mnemoscope.unlearning.pruning import Pruning, early_weights, make_masks, sparse_original
from mnemoscope.unlearning.synflow import flow_scores

SHAPE = (64,)


def net(seed=0):
    with seeded(seed):
        return nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


def masks_of(module, strategy, sparsity, **more):
    return make_masks(module, strategy, sparsity, input_shape=SHAPE, seed=3, **more)


def state(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def zeros(module):
    return {name: (weight == 0).sum().item() for name, weight in prunable(module).items()}


def count_zeros(module):
    return {name: (weight == 0).sum().item() for name, weight in module.named_parameters() if weight.ndim > 1}


def test_the_largest_weights_of_all_layers_survive():
    module = net()
    masks = masks_of(module, "magnitude", 0.9)
    every = torch.cat([module[0].weight.abs().flatten(), module[2].weight.abs().flatten()]).detach().numpy()
    bound = np.sort(every)[-round(0.1 * every.size)]
    for name, weight in prunable(module).items():
        assert torch.equal(masks.keep[name], weight.detach().abs() >= float(bound))
    assert masks.sparsity == pytest.approx(0.9, abs=1e-3)


def test_each_layer_keeps_its_own_share():
    masks = masks_of(net(), "layerwise", 0.9)
    assert {name: int(mask.sum()) for name, mask in masks.keep.items()} == {"0.weight": 128, "2.weight": 20}


def test_random_masks_come_from_the_seed_alone():
    first, again = masks_of(net(0), "random", 0.5), masks_of(net(1), "random", 0.5)
    assert all(torch.equal(first.keep[name], again.keep[name]) for name in first.keep)
    other = make_masks(net(), "random", 0.5, input_shape=SHAPE, seed=4)
    assert any(not torch.equal(first.keep[name], other.keep[name]) for name in first.keep)


def test_flow_scores_are_sums_over_paths():
    module = net()
    first, second = (module[place].weight.detach().double().abs() for place in (0, 2))
    bias = module[0].bias.detach().double().abs()
    scores = flow_scores(module, ("0.weight", "2.weight"), SHAPE)
    assert torch.allclose(scores["0.weight"], first * second.sum(dim=0)[:, None])
    assert torch.allclose(scores["2.weight"], second * (first.sum(dim=1) + bias))


def test_flow_through_batch_normalisation_is_its_gain():
    with seeded(0):
        module = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2, bias=False))
    module[1].running_mean.fill_(100.0)
    module[1].running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    module[1].weight.data.copy_(torch.tensor([1.0, -2.0, 3.0]))
    gain = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) / (module[1].running_var.double() + 1e-5).sqrt()
    first, second = module[0].weight.detach().double().abs(), module[3].weight.detach().double().abs()
    scores = flow_scores(module, ("0.weight",), (4,))
    assert torch.allclose(scores["0.weight"], first * (gain * second.sum(dim=0))[:, None])


@pytest.mark.slow
def test_synflow_in_rounds_spares_the_layer_that_one_round_prunes_away():
    with seeded(1):
        module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))
    before = state(module)
    masks = masks_of(module, "synflow", 0.99)
    assert all(int(mask.sum()) > 0 for mask in masks.keep.values())
    assert masks.sparsity == pytest.approx(0.99, abs=1e-4)
    assert state(module) == before
    masks.apply(module)
    alive = flow_scores(module, tuple(masks.keep), SHAPE)
    assert all(float(score.sum()) > 0 for score in alive.values())


def test_synflow_refuses_attention_and_magnitude_prunes_its_packed_projections():
    with seeded(0):
        module = TinyViT()
    with pytest.raises(UnsupportedModel, match="attention"):
        make_masks(module, "synflow", 0.5, input_shape=(1, 8, 8), seed=0)
    masks = make_masks(module, "magnitude", 0.5, input_shape=(1, 8, 8), seed=0)
    assert any(name.endswith("in_proj_weight") for name in masks.keep)
    assert not any("norm" in name or "bias" in name or "places" in name for name in masks.keep)


def test_a_layer_that_would_vanish_is_refused():
    module = net()
    module[0].weight.data *= 1e-6
    with pytest.raises(InvalidInput, match="0.weight"):
        masks_of(module, "magnitude", 0.9)


def test_frozen_weights_are_not_pruned():
    module = net()
    module[0].weight.requires_grad_(False)
    assert set(prunable(module)) == {"2.weight"}
    module[2].weight.requires_grad_(False)
    with pytest.raises(UnsupportedModel, match="nothing to prune"):
        prunable(module)


OPTIMIZERS = {
    "sgd": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda w: torch.optim.Adam(w, lr=0.1, weight_decay=0.1),
    "adamw": lambda w: torch.optim.AdamW(w, lr=0.1, weight_decay=0.1),
    "rmsprop": lambda w: torch.optim.RMSprop(w, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_no_optimiser_brings_a_pruned_weight_back(kind):
    module = net()
    optimizer = OPTIMIZERS[kind](module.parameters())
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32))

    def step(noise=0.0):
        optimizer.zero_grad()
        module(x).square().sum().backward()
        for weight in module.parameters():
            weight.grad += noise
        optimizer.step()

    for _ in range(3):
        step()  # momentum that would move the weights on
    masks = masks_of(module, "magnitude", 0.8)
    masks.apply(module)
    unguarded = copy.deepcopy(module)
    step()
    assert zeros(module) != zeros(unguarded)
    with masks.enforced(module):
        for noise in (0.0, 1.0, 0.0):
            step(noise)
            assert zeros(module) == zeros(unguarded)
        with torch.no_grad():
            module[0].weight += 1.0
    assert zeros(module) == zeros(unguarded)
    assert not torch.equal(module[0].weight, unguarded[0].weight)
    step(1.0)
    assert zeros(module) != zeros(unguarded)  # the guard ends with its block


def test_a_guard_leaves_other_modules_alone():
    guarded, other, alone = net(), net(1), net(1)
    masks = masks_of(guarded, "magnitude", 0.9)
    with masks.enforced(guarded):
        for module in (other, alone):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            module(torch.ones(2, 64)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert state(other) == state(alone)
    assert sum(zeros(other).values()) == 0


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInput, match="do not fit"):
        Masks({"9.weight": torch.ones(2, 2, dtype=torch.bool)}).apply(net())


def test_iterative_pruning_takes_a_fifth_a_round():
    assert Pruning("iterative", 0.36).levels == pytest.approx((0.2, 0.36))
    levels = Pruning("iterative", 0.95).levels
    assert len(levels) == 14
    assert levels[-1] == 0.95
    assert np.allclose(1 - np.array(levels[:-1]), 0.8 ** np.arange(1, 14))
    s = mlp_subject()
    module = copy.deepcopy(s.model)
    masks = Pruning("iterative", 0.5, epochs=1).run(module, s.recipe, s.data, s.request.retain, seed=0, runtime=RUNTIME)
    assert masks.sparsity == pytest.approx(0.5, abs=1e-3)
    assert sum(zeros(module).values()) == sum(int((~mask).sum()) for mask in masks.keep.values())


@pytest.mark.slow
def test_early_weights_are_those_of_the_training():
    s = mlp_subject()
    history = History(np.arange(N), s.seed)
    kept = {}
    steps = 8  # 240 records in batches of 32

    class Watch:
        count = 0

        def before_step(self, module, batch, inputs, rate):
            kept.setdefault(self.count, copy.deepcopy(module.state_dict()))

        def after_step(self, module, batch):
            self.count += 1

    train_model(s.recipe, s.data, history.ids, seed=s.seed, runtime=RUNTIME, watcher=Watch())
    for epochs in (0, 3):
        early = early_weights(history, s.model, s.recipe, s.data, epochs=epochs, runtime=RUNTIME)
        assert all(torch.equal(value, kept[epochs * steps][name]) for name, value in early.items())
    with pytest.raises(InvalidInput, match="rewind"):
        early_weights(history, s.model, s.recipe, s.data, epochs=21, runtime=RUNTIME)
    with pytest.raises(StaleArtifact):
        early_weights(History(history.ids, 99), s.model, s.recipe, s.data, epochs=1, runtime=RUNTIME)


@pytest.mark.slow
def test_a_sparse_original_is_sparse_and_knows_its_records():
    s = mlp_subject()
    ids = np.arange(N)
    sparse = sparse_original(s.recipe, s.data, ids, seed=4, runtime=RUNTIME, pruning=Pruning("magnitude", 0.9))
    assert sum(zeros(sparse.module).values()) == sum(int((~mask).sum()) for mask in sparse.masks.keep.values())
    assert accuracy(sparse.module, ids) > 0.95
    again = sparse_original(s.recipe, s.data, ids, seed=4, runtime=RUNTIME, pruning=Pruning("magnitude", 0.9))
    assert state(again.module) == state(sparse.module)
    full = Masks({name: torch.ones_like(mask) for name, mask in sparse.masks.keep.items()})
    plain = sparse_original(s.recipe, s.data, ids, seed=s.seed, runtime=RUNTIME, masks=full)
    assert state(plain.module) == state(s.model)


def accuracy(model, ids):
    s = mlp_subject()
    with torch.no_grad():
        answers = model(s.data.inputs(s.data.positions(np.asarray(ids)))).argmax(dim=1)
    return float((answers == s.data.y[s.data.positions(np.asarray(ids))]).float().mean())


def unlearn(method, request=None, *, subject=None, history=None, model=None):
    s = mlp_subject() if subject is None else subject
    return method.unlearn(
        s.model if model is None else model,
        s.request if request is None else request,
        recipe=s.recipe,
        data=s.data,
        runtime=s.runtime,
        rng=np.random.default_rng(0),
        history=history,
    )


@pytest.mark.parametrize("strategy", ["magnitude", "layerwise", "random", "synflow"])
def test_pruned_models_stay_sparse_through_the_inner_method(strategy):
    inner = {"epochs": 2}
    result = unlearn(METHODS["pruned"](strategy=strategy, sparsity=0.8, recovery=12, settings=inner))
    assert sum(zeros(result).values()) == round(0.8 * (64 * 64 + 64 * 10))
    assert accuracy(result, range(60, N)) > 0.9


def loss(model, ids):
    s, ids = mlp_subject(), np.asarray(ids)
    return -compute_signal("negative_loss", infer_logits(model, s.data, ids, runtime=RUNTIME), labels_of(ids)).mean()


def labels_of(ids):
    s = mlp_subject()
    return s.data.y[s.data.positions(np.asarray(ids))].numpy()


def test_a_sparse_model_forgets_more_by_the_same_inner_method():
    forget, before = np.arange(60), loss(mlp_subject().model, np.arange(60))
    dense = loss(unlearn(METHODS["finetune"](epochs=3)), forget)
    sparse = unlearn(METHODS["pruned"](settings={"epochs": 3}))
    assert dense < 1.5 * before
    assert loss(sparse, forget) > 3 * dense
    assert accuracy(sparse, range(60, N)) > 0.97


def test_nothing_pruned_and_nothing_forgotten_is_the_model():
    still = METHODS["pruned"](sparsity=0.0, settings={"epochs": 0})
    assert state(unlearn(still)) == state(mlp_subject().model)


def test_zeros_of_a_sparse_model_are_kept_and_nothing_is_trained_before_the_inner_method():
    s = mlp_subject()
    sparse = sparse_original(
        s.recipe, s.data, np.arange(N), seed=4, runtime=RUNTIME, pruning=Pruning("magnitude", 0.9)
    ).module
    keep = METHODS["pruned"](strategy="zeros", settings={"epochs": 0})
    assert state(unlearn(keep, model=sparse)) == state(sparse)
    tuned = unlearn(METHODS["pruned"](strategy="zeros", settings={"epochs": 2}), model=sparse)
    assert zeros(tuned) == zeros(sparse)
    assert state(tuned) != state(sparse)
    with pytest.raises(InvalidInput, match="has none"):
        unlearn(keep)


def test_the_inner_method_sees_the_sparse_model_as_the_original(monkeypatch):
    seen = []

    @dataclass(frozen=True)
    class Spy(Method):
        name = "spy"
        needs = Need.FORGET_DATA

        def _forget(self, work, deletion):
            original = deletion.original
            seen.append((count_zeros(original), state(original) == state(work), original.training))
            return copy.deepcopy(work)  # unguarded: what comes back is masked all the same

    monkeypatch.setitem(METHODS, "spy", Spy)
    result = unlearn(METHODS["pruned"](sparsity=0.8, recovery=2, method="spy"))
    ((there, same, training),) = seen
    assert there == zeros(result)
    assert sum(there.values()) == round(0.8 * 4736)
    assert same
    assert not training


def test_with_its_history_survivors_go_back_to_early_values():
    s = mlp_subject()
    history = History(np.arange(N), s.seed)
    rewound = METHODS["pruned"](sparsity=0.9, recovery=0, rewind=2, method="noop")
    result = unlearn(rewound, history=history)
    early = early_weights(history, s.model, s.recipe, s.data, epochs=2, runtime=RUNTIME)
    masks = masks_of(s.model, "magnitude", 0.9)
    for name, value in result.state_dict().items():
        expected = early[name] * masks.keep[name] if name in masks.keep else early[name]
        assert torch.equal(value, expected)
    plain = unlearn(rewound)
    assert torch.equal(plain.state_dict()["1.weight"], s.model.state_dict()["1.weight"] * masks.keep["1.weight"])


def test_retraining_with_masks_reads_no_weight_but_where_they_are():
    s = mlp_subject()
    method = METHODS["pruned"](strategy="zeros", method="retrain")
    sparse = copy.deepcopy(s.model)
    masks = masks_of(sparse, "magnitude", 0.9)
    masks.apply(sparse)
    other = copy.deepcopy(sparse)
    with torch.no_grad():
        for weight in other.parameters():
            weight *= 3.0
    result = unlearn(method, model=sparse)
    assert state(result) == state(unlearn(method, model=other))
    assert zeros(result) == zeros(sparse)
    assert accuracy(result, range(60, N)) > 0.9


def test_a_network_with_normalisation_is_pruned_too():
    s = network_subject("batchnorm")
    result = unlearn(METHODS["pruned"](sparsity=0.8, recovery=2, settings={"epochs": 1}), subject=s)
    share = sum(zeros(result).values()) / sum(w.numel() for w in prunable(result).values())
    assert share == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": "pruned"}, "allowed"),
        ({"method": "nothing"}, "allowed"),
        ({"method": "unrolling_sgd"}, "undoes steps"),
        ({"settings": "[1]"}, "JSON object"),
        ({"settings": {"epoch": 3}}, "JSON object"),
        ({"strategy": "largest"}, "strategy"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"recovery": -1}, "epochs"),
        ({"rewind": -1}, "rewind"),
    ],
)
def test_impossible_settings_are_refused(settings, match):
    with pytest.raises(InvalidInput, match=match):
        METHODS["pruned"](**settings)


def test_what_the_inner_method_cannot_serve_is_refused_before_any_work():
    with pytest.raises(InvalidInput, match="of kind"):
        unlearn(METHODS["pruned"](), mlp_subject().others["labels"][0])
    with pytest.raises(MissingNeed, match="retain"):
        unlearn(METHODS["pruned"](), deletion(range(N)))


def test_a_mapping_of_settings_becomes_text():
    method = METHODS["pruned"](settings={"lr": 0.01, "epochs": 3})
    assert method == METHODS["pruned"](settings='{"epochs": 3, "lr": 0.01}')
