"""Dataset condensation: clusters and their inputs, three parts of any network, and the author's loops written out."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import HELD, RUNTIME, N, TinyViT, digits, mlp_subject, other_requests
from toy_models import request as deletion
from twins import accuracy, mean_loss, spoil, state, tensors, unlearn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import build_model, seeded
from mnemoscope.audit.records.request import Request
from mnemoscope.audit.testing_methods import MethodSubject
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.base import Deletion
from mnemoscope.unlearning.condensation import reduced_set
from mnemoscope.unlearning.condense import clusters_of, condensed
from mnemoscope.unlearning.joined import Joined
from mnemoscope.unlearning.network_parts import features_of, three_parts

FORGET, RETAIN = np.arange(60), np.arange(60, N)
IMAGE = torch.zeros(1, 1, 8, 8)


def run_of(request, subject=None, seed=0):
    s = mlp_subject() if subject is None else subject
    return Deletion("condensation", s.model, request, s.recipe, s.data, RUNTIME, np.random.default_rng(seed))


def three_layers():
    with seeded(5):
        return nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 10)).eval()


# Parts


@pytest.mark.parametrize(
    ("module", "beginning", "intermediate"),
    [
        (build_model("mlp:8-4", input_shape=(5,), n_classes=3, seed=0), ("1.",), ("3.",)),
        (build_model("mlp:8", input_shape=(5,), n_classes=3, seed=0), ("1.",), ()),
        (
            build_model("resnet18", input_shape=(3, 32, 32), n_classes=10, seed=0),
            ("conv1.", "bn1.", "layer1.", "layer2."),
            ("layer3.",),
        ),
        (
            nn.Sequential(
                *(part for n in (3, 4, 5, 6) for part in (nn.Conv2d(n, n + 1, 3, padding=1), nn.BatchNorm2d(n + 1))),
                nn.Flatten(),
                nn.Linear(7 * 32 * 32, 10),
            ),
            ("0.", "1.", "2.", "3."),
            ("4.", "5.", "6.", "7."),
        ),
    ],
    ids=["three layers", "two layers", "resnet18", "cnn"],
)
def test_parts_are_the_published_ones(module, beginning, intermediate):
    x = torch.zeros(1, 5) if next(iter(module.parameters())).ndim == 2 else torch.zeros(1, 3, 32, 32)
    parts = three_parts(module, x, beginning=0.48, intermediate=0.24)
    names = set(module.state_dict())
    assert parts.beginning == {name for name in names if name.startswith(beginning)}
    assert parts.intermediate == ({name for name in names if name.startswith(intermediate)} if intermediate else set())
    assert parts.final == names - parts.beginning - parts.intermediate
    assert parts.final


def test_every_weight_of_a_transformer_is_in_one_part_in_the_order_of_its_layers():
    module = TinyViT()
    parts = three_parts(module, IMAGE, beginning=0.48, intermediate=0.24)
    three = (parts.beginning, parts.intermediate, parts.final)
    assert sum(map(len, three)) == len(set().union(*three)) == len(module.state_dict())
    assert {"places", "patches.weight", "encoder.layers.0.linear2.weight"} <= parts.beginning
    assert "encoder.layers.1.self_attn.in_proj_weight" in parts.intermediate
    assert {"encoder.layers.1.linear2.weight", "head.weight"} <= parts.final


def test_a_weight_that_layers_share_belongs_to_the_first_of_them_and_is_trained_once():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    parts = three_parts(module, torch.zeros(1, 4), beginning=0.48, intermediate=0.24)
    assert parts.beginning == {"0.weight", "2.weight", "0.bias"}
    assert parts.final == {"2.bias"}
    assert len(parts.weights(module, parts.beginning)) == 2


def test_one_layer_cannot_be_cut():
    with pytest.raises(UnsupportedModel, match="1 layer"):
        three_parts(nn.Linear(4, 2), torch.zeros(1, 4), beginning=0.48, intermediate=0.24)


# Clusters and their inputs


def blobs(n_classes=2, centres=3, each=8):
    """Records in well separated blobs, and a model whose features are the inputs."""
    rng = np.random.default_rng(3)
    places = rng.normal(size=(n_classes * centres, 5)) * 20
    label = np.repeat(np.arange(n_classes), centres)
    order = rng.permutation(n_classes * centres * each)
    blob = np.repeat(np.arange(n_classes * centres), each)[order]
    x = torch.tensor(places[blob] + rng.normal(size=(blob.size, 5)) * 0.1, dtype=torch.float32)
    data = copy.copy(digits())
    data.x, data.y, data.ids = x, torch.tensor(label[blob]), np.arange(blob.size)
    data._mean = data._scale = None
    return data, blob, nn.Linear(5, n_classes).eval().requires_grad_(False)


def test_kmeans_finds_planted_clusters_within_each_class():
    data, blob, module = blobs()
    found = clusters_of(module, data, data.ids, clusters=3, rng=np.random.default_rng(0))
    assert sorted(np.concatenate(found).tolist()) == data.ids.tolist()
    assert sorted(sorted(one.tolist()) for one in found) == sorted(np.flatnonzero(blob == b).tolist() for b in range(6))


def test_the_published_number_of_clusters_and_no_more_than_there_are_different_records():
    data, _, module = blobs(n_classes=2, centres=5, each=10)
    assert len(clusters_of(module, data, data.ids, clusters=None, rng=np.random.default_rng(0))) == 2 * round(50 * 0.09)
    data.x[:] = 1.0
    assert len(clusters_of(module, data, data.ids, clusters=7, rng=np.random.default_rng(0))) == 2


def test_features_are_what_enters_the_last_layer():
    s = mlp_subject()
    x, _ = tensors(FORGET[:5])
    with features_of(s.model, x[:1]) as ask:
        assert torch.equal(ask(x), s.model[:-1](x))
    assert not s.model[-1]._forward_pre_hooks


def test_where_features_are_linear_the_input_is_the_mean():
    data, _, module = blobs()
    groups = clusters_of(module, data, data.ids, clusters=3, rng=np.random.default_rng(0))
    means = torch.stack([data.x[torch.tensor(one)].mean(dim=0) for one in groups])
    torch.testing.assert_close(condensed(module, data, groups), means, rtol=0, atol=1e-4)


def test_inputs_are_those_learnt_for_each_cluster_alone():
    """The paper's loop, a cluster after another, in float64."""
    data, module = digits(), three_layers()
    groups = [np.array([3]), np.arange(10, 15), np.arange(40, 51)]
    ours = condensed(module.requires_grad_(False), data, groups, epochs=25, lr=3e-3, batch_size=12)
    plain = condensed(module, data, groups, epochs=0)
    exact = copy.deepcopy(module).double()
    gaps = []
    for ids, one, mean in zip(groups, ours, plain, strict=True):
        x = data.inputs(data.positions(ids)).double()
        target = exact[:-1](x).mean(dim=0)
        weight = torch.full((ids.size,), 1 / ids.size, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([weight], lr=3e-3)
        for _ in range(25):
            adam.zero_grad()
            ((exact[:-1]((weight[:, None] * x).sum(dim=0)) - target) ** 2).sum().backward()
            adam.step()
        torch.testing.assert_close(one.double(), (weight.detach()[:, None] * x).sum(dim=0), rtol=0, atol=1e-5)
        gaps.append([float(((exact[:-1](z.double()) - target) ** 2).sum()) for z in (mean, one)])
    assert gaps[0][1] < 1e-9  # a single record stands for itself
    assert all(after < 0.5 * before for before, after in gaps[1:])


def test_retained_records_are_condensed_or_kept_and_forget_records_are_neither():
    s, request = mlp_subject(), deletion(range(0, N, 12))
    groups = clusters_of(s.model, s.data, np.arange(N), clusters=6, rng=np.random.default_rng(0))
    kept, residual = reduced_set(groups, request.forget)
    assert kept
    assert residual.size
    assert np.array_equal(np.sort(np.concatenate([*kept, residual])), request.retain)
    touched = [one for one in groups if np.isin(one, request.forget).any()]
    assert all(np.isin(np.setdiff1d(one, request.forget), residual).all() for one in touched)
    spoilt = spoil(request.forget)
    assert torch.equal(condensed(s.model, spoilt, kept, epochs=5), condensed(s.model, s.data, kept, epochs=5))


def test_an_epoch_of_the_reduced_set_has_every_input_once_under_its_label():
    s, run = mlp_subject(), run_of(deletion(range(60)))
    made, labels = torch.arange(7.0)[:, None].expand(7, 64) + 100, torch.arange(7)
    reduced = Joined(run, made, labels, np.arange(200, 213), 6)
    seen, sizes = {}, []
    for batch in reduced.batches():
        sizes.append(batch.y.numel())
        for x, y, place in zip(batch.x, batch.y.tolist(), batch.positions.tolist(), strict=True):
            assert place >= 0 or torch.equal(x, made[y])
            assert place < 0 or (torch.equal(x, s.data.x[place]) and y == int(s.data.y[place]))
            seen[(place, y if place < 0 else None)] = seen.get((place, y if place < 0 else None), 0) + 1
    assert sizes == [5, 5, 5, 5]
    assert seen == {**{(-1, y): 1 for y in range(7)}, **{(row, None): 1 for row in range(200, 213)}}
    again = [batch.positions.tolist() for batch in reduced.batches()]
    assert again != [batch.positions.tolist() for batch in reduced.batches()]


# The pitfall: remembered records of the test set, and of the forgotten class


def test_remembered_records_are_retained_ones_ten_of_each_class():
    labels = digits().y.numpy()
    for request in (deletion(range(60)), other_requests(digits())["class"][0]):
        few = run_of(request).per_class(10)
        assert np.isin(few, request.retain).all()
        classes, counts = np.unique(labels[few], return_counts=True)
        assert set(counts) == {10}
        assert classes.tolist() == np.unique(labels[request.retain]).tolist()
    assert 3 not in classes
    assert run_of(deletion(range(60))).per_class(10**6).tolist() == RETAIN.tolist()


@pytest.mark.slow
def test_forget_records_are_read_for_clusters_and_offline_alone():
    """With one cluster a class nothing is left of the first, without the offline stage or with it on retained records
    nothing of the second.
    """
    s = small_subject()
    for settings, same in (
        ({"alternations": 0}, True),
        ({"alternations": 1, "offline_records": "retained"}, True),
        ({"alternations": 1, "offline_records": "all"}, False),
    ):
        method = METHODS["condensation"](epochs=2, clusters=1, offline_epochs=2, **settings)
        given = state(unlearn(method, subject=s))
        assert (given == state(unlearn(method, subject=s, data=spoil(s.request.forget, s)))) == same


# The algorithm


def small_subject():
    """A network of three layers and 40 records, few enough that every pass is one batch whatever its order."""
    data = digits()
    recipe = dataclasses.replace(mlp_subject().recipe, batch_size=64)
    labels = data.y.numpy()
    pool = np.concatenate([np.flatnonzero(labels[:N] == label)[:8] for label in range(5)])
    forget = pool[[0, 1, 8, 9, 16]]  # of the classes 0, 1 and 2: those of 3 and 4 can be condensed
    request = Request("records", np.sort(forget), np.setdiff1d(pool, forget), np.arange(N, N + 10))
    return MethodSubject(three_layers(), request, request, recipe, data, RUNTIME)


def test_offline_and_online_are_the_authors_loops():
    s = small_subject()
    request = s.request
    method = METHODS["condensation"](
        epochs=4,
        lr=1e-2,
        clusters=1,
        condensation_epochs=10,
        remembered=6,
        alternations=2,
        offline_epochs=3,
        final_epochs=2,
        final_steps=3,
        intermediate_epochs=2,
    )
    ours = unlearn(method, subject=s)

    # Written out on whole sets: 35 retained records, at most 30 of them remembered, go into a batch each.
    net = copy.deepcopy(s.model).requires_grad_(True)
    labels = s.data.y.numpy()
    safe = [request.retain[labels[request.retain] == label] for label in (3, 4)]
    rest = request.retain[labels[request.retain] < 3]
    made = condensed(copy.deepcopy(s.model).requires_grad_(False), s.data, safe, epochs=10)
    reduced = (torch.cat([made, tensors(rest)[0]]), torch.cat([torch.tensor([3, 4]), tensors(rest)[1]]))
    whole = tensors(np.union1d(request.forget, request.retain))
    remembered = tensors(_remembered_by_the_method(s, method))

    def train(adam, part, x, y, times):
        for _ in range(times):
            for weight in net.parameters():
                weight.grad = None
            nn.functional.cross_entropy(net(x), y).backward()
            for weight in net.parameters():
                if not any(weight is ours for ours in part.parameters()):
                    weight.grad = None
            adam.step()

    first, middle, last = net[0], net[2], net[4]
    for _ in range(2):
        last.load_state_dict(s.model[4].state_dict())
        train(torch.optim.Adam(last.parameters(), lr=1e-3), last, *remembered, 3)
        train(torch.optim.Adam(middle.parameters(), lr=1e-4), middle, *whole, 3)
    adams = {part: torch.optim.Adam(part.parameters(), lr=1e-2) for part in (first, last)}
    for epoch in range(4):
        train(adams[first], first, *reduced, 1)
        train(adams[last], last, *remembered, 3 if epoch < 2 else 0)
    train(torch.optim.Adam(middle.parameters(), lr=1e-3), middle, *reduced, 2)

    moved = [(weight - old).abs().max() for weight, old in zip(net.parameters(), s.model.parameters(), strict=True)]
    assert min(moved) > 1e-4
    for weight, theirs in zip(ours.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(weight, theirs.detach(), rtol=0, atol=2e-5)


def _remembered_by_the_method(s, method):
    """Which records the method draws: the generator is asked before for the run's seed, K-means and the order."""
    rng = np.random.default_rng(0)
    run = Deletion("condensation", s.model, s.request, s.recipe, s.data, RUNTIME, rng)
    run.seed()
    clusters_of(s.model, s.data, np.union1d(s.request.forget, s.request.retain), clusters=1, rng=rng)
    run.seed()
    return run.per_class(method.remembered)


@pytest.mark.parametrize("name", ["alternations", "offline_epochs"])
def test_without_the_offline_stage_the_final_part_changes_by_remembered_records_alone(name):
    """In a network whose final part learns no step online, only the offline stage could have moved it."""
    s = small_subject()
    method = METHODS["condensation"](epochs=1, final_epochs=0, clusters=1, offline_epochs=2)
    moved = unlearn(method, subject=s)
    held = unlearn(dataclasses.replace(method, **{name: 0}), subject=s)
    assert torch.equal(held[4].weight, s.model[4].weight)
    assert not torch.equal(moved[4].weight, s.model[4].weight)
    assert not torch.equal(held[0].weight, s.model[0].weight)


@pytest.mark.slow
def test_forget_records_move_towards_what_retraining_makes_of_them_and_retained_ones_stay():
    given, retrained = mean_loss(mlp_subject().model, FORGET), mean_loss(unlearn(METHODS["retrain"]()), FORGET)
    tuned = mean_loss(unlearn(METHODS["finetune"]()), FORGET)
    model = unlearn(METHODS["condensation"](alternations=2))
    assert given < tuned < mean_loss(model, FORGET) < retrained
    assert accuracy(model, RETAIN) == 1.0
    assert accuracy(model, np.arange(N, HELD)) >= 0.97 * accuracy(mlp_subject().model, np.arange(N, HELD))


@pytest.mark.slow
def test_a_class_is_forgotten_at_a_higher_rate():
    request = other_requests(digits())["class"][0]
    model = unlearn(METHODS["condensation"](alternations=0, lr=0.01), request)
    assert accuracy(mlp_subject().model, request.forget) == 1.0
    assert accuracy(model, request.forget) <= 0.1
    assert accuracy(model, request.retain) >= 0.95


def test_a_frozen_part_learns_nothing_and_a_frozen_beginning_is_refused():
    s = small_subject()
    method = METHODS["condensation"](epochs=1, clusters=1, alternations=1, offline_epochs=1)
    model = copy.deepcopy(s.model)
    model[2].requires_grad_(False)
    result = unlearn(method, subject=dataclasses.replace(s, model=model))
    assert torch.equal(result[2].weight, s.model[2].weight)
    assert not torch.equal(result[0].weight, s.model[0].weight)
    model[0].requires_grad_(False)
    with pytest.raises(UnsupportedModel, match="beginning part is frozen"):
        unlearn(method, subject=dataclasses.replace(s, model=model))


def test_features_need_a_row_for_each_record():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            return self.last(x.mean(dim=0))[None].expand(x.shape[0], 2)

    with features_of(Odd(), torch.zeros(1, 4)) as ask, pytest.raises(UnsupportedModel, match="'last'"):
        ask(torch.zeros(3, 4))


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": -1},
        {"lr": 0.0},
        {"clusters": 0},
        {"condensation_epochs": -1},
        {"condensation_lr": float("inf")},
        {"remembered": 0},
        {"alternations": -1},
        {"offline_epochs": -1},
        {"offline_records": "some"},
        {"final_epochs": -1},
        {"final_steps": -1},
        {"intermediate_epochs": -1},
        {"beginning": 0.0},
        {"intermediate": 0.6},
        {"batch_size": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["condensation"](**settings)


def test_inputs_of_any_shape_are_condensed():
    data, module = digits(images=True), TinyViT().eval().requires_grad_(False)
    made = condensed(module, data, [np.arange(5), np.arange(9, 12)], epochs=3)
    assert made.shape == (2, 1, 8, 8)
    assert condensed(module, data, []).shape == (0, 1, 8, 8)
