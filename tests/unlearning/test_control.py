"""Equal utility: the line, its ends, where the search stops, statistics of normalisation, and the wrapper."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import RUNTIME, N, mlp_subject, network_subject
from toy_models import request as deletion
from twins import unlearn

from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.control import equal_utility, mixed

FORGET, KEPT = np.arange(60), np.arange(60, N)


def spoilt(model, size, seed=0):
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for weight in other.parameters():
        weight.data += size * weight.data.std() * torch.randn(weight.shape, generator=draw)
    return other


def line(other, **settings):
    s = mlp_subject()
    return equal_utility(s.model, other, s.data, kept=KEPT, forget=FORGET, runtime=RUNTIME, **settings)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_model_that_keeps_its_utility_is_reached_whole():
    s = mlp_subject()
    found = line(spoilt(s.model, 0.01), points=5)
    assert found.alpha == 1.0
    assert same(found.module, spoilt(s.model, 0.01))
    assert [point.alpha for point in found.curve] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("share", [0.95, 0.7])
def test_the_search_stops_where_the_share_of_the_accuracy_is_left(share):
    s, ruined = mlp_subject(), spoilt(mlp_subject().model, 6.0)
    before = [value.clone() for value in [*s.model.parameters(), *ruined.parameters()]]
    found = line(ruined, share=share, points=11, halvings=6)
    assert all(torch.equal(a, b) for a, b in zip(before, [*s.model.parameters(), *ruined.parameters()], strict=True))
    assert 0 < found.alpha < 1
    for a, b, c in zip(s.model.parameters(), ruined.parameters(), found.module.parameters(), strict=True):
        np.testing.assert_allclose(c.detach(), (1 - found.alpha) * a.detach() + found.alpha * b.detach(), atol=1e-5)
    floor = share * found.curve[0].kept
    at = {point.alpha: point.kept for point in found.curve}
    assert at[found.alpha] >= floor
    assert all(kept < floor for alpha, kept in at.items() if alpha > found.alpha)  # everything tried beyond is worse
    assert min(alpha for alpha in at if alpha > found.alpha) - found.alpha <= 0.1 / 2**6 + 1e-9
    labels = s.data.y[:N].numpy()
    with torch.no_grad():
        direct = found.module(s.data.inputs(torch.arange(N))).argmax(dim=1).numpy() == labels
    ours = next(point for point in found.curve if point.alpha == found.alpha)
    assert (ours.kept, ours.forgotten) == pytest.approx((direct[KEPT].mean(), direct[FORGET].mean()))


def test_a_larger_share_goes_less_far():
    ruined = spoilt(mlp_subject().model, 6.0)
    assert line(ruined, share=0.99).alpha < line(ruined, share=0.8).alpha < line(ruined, share=0.3).alpha


def test_statistics_are_interpolated_or_estimated_and_the_ends_are_exact():
    s = network_subject("batchnorm")
    other = spoilt(s.model, 0.5)
    for place, value in other.named_buffers():
        if "running" in place:
            value.mul_(3.0)
    more = {"kept": KEPT, "runtime": RUNTIME}
    for statistics in ("interpolate", "estimate"):
        assert same(mixed(s.model, other, 0.0, s.data, statistics=statistics, **more), s.model)
        assert same(mixed(s.model, other, 1.0, s.data, statistics=statistics, **more), other)
    half = mixed(s.model, other, 0.5, s.data, **more)
    np.testing.assert_allclose(half[1].running_mean, 2 * s.model[1].running_mean, rtol=1e-5)
    fresh = mixed(s.model, other, 0.5, s.data, statistics="estimate", **more)
    with torch.no_grad():
        z = half[0](s.data.inputs(torch.as_tensor(KEPT)))
    np.testing.assert_allclose(fresh[1].running_mean, z.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fresh[1].running_var, z.var(dim=(0, 2, 3)), rtol=1e-4)
    assert fresh[1].momentum == s.model[1].momentum
    with pytest.raises(InvalidInput, match="two at least"):
        mixed(s.model, other, 0.5, s.data, kept=KEPT[:1], runtime=RUNTIME, statistics="estimate")


def test_models_of_different_forms_have_no_line():
    s = mlp_subject()
    with pytest.raises(InvalidInput, match="different forms"):
        line(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert s.model is not None


def test_the_wrapper_keeps_the_utility_that_its_method_loses():
    s, request = mlp_subject(), deletion(range(60))
    wild = {"stop_loss": 30.0, "epochs": 40}
    lost = unlearn(METHODS["gradient_ascent"](**wild), request)
    held = unlearn(METHODS["controlled"](settings=wild, share=0.9), request)
    with torch.no_grad():
        right = [
            (m(s.data.inputs(torch.arange(N))).argmax(dim=1) == s.data.y[:N]).float() for m in (s.model, lost, held)
        ]
    kept = [float(each[60:].mean()) for each in right]
    gone = [float(each[:60].mean()) for each in right]
    assert kept[1] < 0.9 * kept[0] <= kept[2] + 1e-6
    assert gone[1] < gone[2] < gone[0]


def test_what_the_inner_method_needs_and_refuses_holds_for_the_wrapper():
    threes = np.flatnonzero(mlp_subject().data.y[:N].numpy() == 3)
    with pytest.raises(InvalidInput, match="amun serves"):
        unlearn(METHODS["controlled"](method="amun"), deletion(threes, kind="class"))
    with pytest.raises(MissingNeed, match="training"):
        unlearn(METHODS["controlled"](method="unrolling_sgd"), deletion(range(60)))
    settings = METHODS["controlled"](settings={"lr": 0.1, "epochs": 3}).settings
    assert settings == '{"epochs": 3, "lr": 0.1}'


@pytest.mark.parametrize(("outer", "why"), [("controlled", "there is no line"), ("pruned", "cannot be given masks")])
def test_a_method_with_its_own_way_of_unlearning_cannot_be_the_inner_one(monkeypatch, outer, why):
    monkeypatch.setitem(METHODS, "own", lambda **settings: SimpleNamespace(name="own"))
    with pytest.raises(InvalidInput, match=f"{outer}: 'own' brings its own way .*{why}"):
        METHODS[outer](method="own")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("share", 0.0),
        ("points", 1),
        ("halvings", -1),
        ("statistics", "none"),
        ("method", "controlled"),
        ("method", "pruned"),
        ("settings", '{"speed": 1}'),
        ("settings", "[]"),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(InvalidInput, match=field):
        METHODS["controlled"](**{field: value})
