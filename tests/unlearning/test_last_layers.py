"""Which layers are last in any network, and what CF-k and EU-k leave alone and start anew."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import N, TinyViT, digits, mislabelled_subject, mlp_subject, network_subject
from twins import accuracy, logits, mean_loss, state, unlearn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import build_model
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.layers import last_layers

FORGET, RETAIN = np.arange(60), np.arange(60, N)


def test_an_mlp_ends_with_its_linear_layers():
    module = build_model("mlp:8-4", input_shape=(5,), n_classes=3, seed=0)
    found = last_layers(module, torch.zeros(1, 5), 1)
    assert found.weights == {"5.weight", "5.bias"}
    assert found.total == 3
    assert last_layers(module, torch.zeros(1, 5), 2).weights == {"3.weight", "3.bias", "5.weight", "5.bias"}
    for k in (3, 7):
        assert last_layers(module, torch.zeros(1, 5), k).weights == set(module.state_dict())


def test_normalisation_goes_with_the_layer_before_it_statistics_included():
    module = copy.deepcopy(network_subject("batchnorm").model).train()
    x = torch.zeros(1, 1, 8, 8)
    assert last_layers(module, x, 1).weights == {"7.weight", "7.bias"}
    second = {name for name in module.state_dict() if name.split(".")[0] in ("3", "4", "7")}
    assert "4.running_mean" in second
    assert last_layers(module, x, 2).weights == second
    assert module.training


def test_a_residual_network_ends_with_its_head_and_last_block():
    module = build_model("resnet18", input_shape=(3, 32, 32), n_classes=10, seed=0)
    found = last_layers(module, torch.zeros(1, 3, 32, 32), 3)
    assert found.total == 21  # 18 layers that are counted in its name, and three shortcuts
    expected = {name for name in module.state_dict() if name.startswith(("fc.", "layer4.1."))}
    assert found.weights == expected


def test_attention_is_one_layer_and_position_embeddings_come_first():
    module = TinyViT()
    x = torch.zeros(1, 1, 8, 8)
    assert last_layers(module, x, 1).weights == {"head.weight", "head.bias"}
    found = last_layers(module, x, 4)
    layer = "encoder.layers.1."
    assert {name for name in found.weights if name.startswith(layer)} == {
        *(
            f"{layer}self_attn.{part}"
            for part in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        ),
        *(f"{layer}{part}.{name}" for part in ("linear1", "linear2", "norm2") for name in ("weight", "bias")),
    }
    assert found.total == 1 + 2 * 3 + 1
    assert not any(name.startswith(("encoder.layers.0", "patches", "places")) for name in found.weights)
    assert "places" in last_layers(module, x, 8).weights


class Tied(nn.Module):
    """One linear layer called first and last."""

    def __init__(self):
        super().__init__()
        self.same = nn.Linear(4, 4)
        self.middle = nn.Linear(4, 4)

    def forward(self, x):
        return self.same(self.middle(self.same(x)))


def test_a_layer_that_is_also_called_earlier_is_not_last():
    assert last_layers(Tied(), torch.zeros(1, 4), 1).weights == {"middle.weight", "middle.bias"}


def test_no_layers_cannot_be_asked_for():
    with pytest.raises(InvalidInput, match="k=0"):
        last_layers(Tied(), torch.zeros(1, 4), 0)


@pytest.mark.parametrize("name", ["cf_k", "eu_k"])
def test_layers_before_the_last_stay_to_the_bit_with_their_statistics(name):
    s = network_subject("batchnorm")
    before, after = s.model.state_dict(), unlearn(METHODS[name](k=2, epochs=1), subject=s).state_dict()
    for place in before:
        same = torch.equal(before[place], after[place])
        assert same == place.startswith(("0.", "1.")), place


def test_all_layers_of_cf_k_are_finetuning_to_the_bit():
    assert state(unlearn(METHODS["cf_k"](k=9))) == state(unlearn(METHODS["finetune"]()))


@pytest.mark.slow
def test_wrong_labels_are_lost_in_the_last_layer_as_far_as_it_holds_them():
    """Towards a retrained model, which says none of them; the same records keep them where others are forgotten."""
    s = mislabelled_subject()
    forget, retain, kept = s.request.forget, s.request.retain, s.other_request
    method = METHODS["cf_k"](epochs=40, lr=0.2)
    one, both = (unlearn(dataclasses.replace(method, k=k), subject=s) for k in (1, 2))
    others = unlearn(method, kept, subject=s)
    short, retrained = unlearn(METHODS["cf_k"](), subject=s), unlearn(METHODS["retrain"](), subject=s)
    assert accuracy(s.model, forget, s) > 0.9
    assert accuracy(one, forget, s) < 0.4
    assert accuracy(retrained, forget, s) < 0.1
    assert accuracy(others, forget, s) > 0.9
    true = digits().y[forget].numpy()
    right = [(logits(model, forget, s)[:, 0].argmax(axis=1) == true).mean() for model in (s.model, one)]
    assert right[1] > right[0] + 0.5
    assert accuracy(one, retain, s) == 1.0
    # Ten epochs at a tenth of the rate go part of the way, and what the first layer holds stays with it:
    losses = [mean_loss(model, forget, s) for model in (s.model, short, one, both, retrained)]
    assert losses == sorted(losses)
    assert losses[1] > 1.5 * losses[0]
    assert losses[3] > 1.5 * losses[2]


def test_eu_k_reads_nothing_of_the_layers_it_starts_anew():
    s = network_subject("batchnorm")
    method = METHODS["eu_k"](k=2, epochs=2)
    spoilt = dataclasses.replace(s, model=copy.deepcopy(s.model))
    with torch.no_grad():
        for part in (spoilt.model[3], spoilt.model[4], spoilt.model[7]):
            for value in part.state_dict().values():
                value.fill_(3)
    assert state(unlearn(method, subject=s)) == state(unlearn(method, subject=spoilt))
    assert state(unlearn(METHODS["cf_k"](k=2, epochs=2), subject=s)) != state(
        unlearn(METHODS["cf_k"](k=2, epochs=2), subject=spoilt)
    )


def test_all_layers_of_eu_k_forget_like_retraining():
    recipe = {"epochs": 20, "lr": 0.2}
    retrained = mean_loss(unlearn(METHODS["retrain"]()), FORGET)
    whole = unlearn(METHODS["eu_k"](k=2, **recipe))
    head = unlearn(METHODS["eu_k"](k=1, **recipe))
    assert accuracy(whole, RETAIN) == accuracy(head, RETAIN) == 1.0
    assert mean_loss(mlp_subject().model, FORGET) < mean_loss(head, FORGET) < mean_loss(whole, FORGET)
    assert mean_loss(whole, FORGET) == pytest.approx(retrained, rel=0.5)


def test_last_layers_that_are_all_frozen_are_refused():
    s = mlp_subject()
    model = copy.deepcopy(s.model)
    for weight in model[3].parameters():
        weight.requires_grad_(False)
    with pytest.raises(UnsupportedModel, match="last 1 of 2 layers"):
        unlearn(METHODS["cf_k"](), subject=dataclasses.replace(s, model=model))


@pytest.mark.parametrize("settings", [{"k": 0}, {"epochs": -1}, {"lr": 0.0}])
@pytest.mark.parametrize("name", ["cf_k", "eu_k"])
def test_impossible_settings_are_refused(name, settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS[name](**settings)
