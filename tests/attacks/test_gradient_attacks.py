"""White-box attacks on the toy fleet of real models, where what each must find is known."""

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.attacks.gradient_alignment import GradientAlignment
from mnemoscope.attacks.gradient_norm import GradientNorm
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import trained_fleet

RNG = np.random.default_rng(0)


def gradients(oracle, ids):
    module, rows = oracle.module(), []
    for record, label in zip(oracle.inputs(ids), oracle.labels(ids), strict=True):
        loss = nn.functional.cross_entropy(module(record[None]), label[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]).double())
    return torch.stack(rows).numpy()


def test_scores_are_minus_the_log_norm_of_each_records_gradient():
    fleet = trained_fleet(True)
    scores = score_fleet(GradientNorm(), fleet, rng=RNG)
    last = score_fleet(GradientNorm("last"), fleet, rng=RNG)
    for k in (0, 7):
        each = gradients(fleet.oracles[k], fleet.ids)
        assert np.allclose(scores[k], -np.log(np.linalg.norm(each, axis=1)), rtol=0, atol=2e-4)
        tail = sum(p.numel() for p in fleet.oracles[k].module()[3].parameters())
        assert np.allclose(last[k], -np.log(np.linalg.norm(each[:, -tail:], axis=1)), rtol=0, atol=2e-4)
    assert (last >= scores - 1e-9).all()  # a part of a gradient is no longer than the whole
    assert all(oracle.gradients == 2 * fleet.n_records for oracle in fleet.oracles)


def test_calibration_is_the_difference_to_the_mean_of_the_other_out_models():
    fleet = trained_fleet(True)
    plain, calibrated = (score_fleet(GradientNorm("all", flag), fleet, rng=RNG) for flag in (False, True))
    for k, j in [(0, 0), (3, 5), (11, 20)]:
        others = [m for m in range(fleet.n_models) if m != k and fleet.side[m, j] == Side.OUT]
        assert calibrated[k, j] == pytest.approx(plain[k, j] - plain[others, j].mean(), abs=1e-10)


def test_alignment_is_minus_the_cosine_with_the_population_and_with_the_deletion():
    fleet = trained_fleet(True)
    view = fleet.target(2)
    each = gradients(view.oracle, view.ids)
    mean = gradients(view.oracle, view.population.ids).mean(axis=0)
    change = [
        torch.cat([p.detach().flatten() for p in part.oracle.module().parameters()]).double().numpy()
        for part in (view.before, view)
    ]
    directions = {"population": mean, "deletion": change[0] - change[1]}
    for name, way in directions.items():
        scores = score_target(GradientAlignment(name), fleet.without([2]), view, rng=RNG)
        expected = -(each @ way) / np.linalg.norm(each, axis=1) / np.linalg.norm(way)
        assert np.allclose(scores, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_members_gradients_sum_to_nothing_and_those_of_others_follow_the_population():
    """The reason that the attack names, in the world it is tried on."""
    fleet = trained_fleet(True, n_records=120, n_population=120)
    inside, outside = [], []
    for oracle, side in zip(fleet.oracles, fleet.side, strict=True):
        each, mean = gradients(oracle, fleet.ids), gradients(oracle, fleet.population.ids).mean(axis=0)
        inner = each @ mean / (mean @ mean)
        inside.append(inner[side == Side.IN].mean())
        outside.append(inner[side == Side.OUT].mean())
    assert abs(np.mean(inside)) < 0.1
    assert 0.5 < np.mean(outside) < 1.0  # |mean|^2 of 120 noisy gradients is above that of their expectation


def test_what_is_missing_is_named():
    fleet = trained_fleet(True)
    view = fleet.target(0)
    black = trained_fleet(True, white_box=False)
    with pytest.raises(MissingNeed, match="parameters and gradients"):
        score_target(GradientNorm(), black.without([0]), black.target(0), rng=RNG)
    halved = black.before.target(0)
    import dataclasses

    view = dataclasses.replace(view, before=halved)
    with pytest.raises(MissingNeed, match="before deletion, with its parameters"):
        score_target(GradientAlignment("deletion"), fleet.without([0]), view, rng=RNG)
    with pytest.raises(InvalidInput, match="layers='first'"):
        GradientNorm("first")
    with pytest.raises(InvalidInput, match="direction='up'"):
        GradientAlignment("up")
