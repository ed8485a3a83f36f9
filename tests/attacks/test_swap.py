import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks.swap import Swap, _advantage, certified_bound, implied_epsilon, pair_advantage
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.testing_worlds import toy_worlds

RNG = np.random.default_rng(0)
FAST = "lira loss modified_entropy"


def test_bound_of_certified_removal():
    assert [certified_bound(e) for e in (0.0, 0.1, 0.5, 1.0)] == pytest.approx(
        [0.0, 0.0999, 0.489837, 0.924234], abs=1e-4
    )
    assert certified_bound(1.2) > 1  # vacuous from about 1.1
    for epsilon, delta in ((0.3, 0.0), (0.8, 1e-3)):
        assert implied_epsilon(certified_bound(epsilon, delta), delta) == pytest.approx(epsilon)
    assert implied_epsilon(-0.2) == implied_epsilon(0.0) == 0.0
    with pytest.raises(InvalidInput, match="epsilon=-1"):
        certified_bound(-1.0)


def test_pairs_cancel_the_bias_of_a_look_up_attack_and_keep_their_sign():
    """An attack that knows the records by name is right about one split and wrong about its partner."""
    rng = np.random.default_rng(1)
    forget = np.arange(40) < 20
    names = np.tile(forget, (6, 1))
    assert pair_advantage(names, names, forget).value == 0.0
    assert (names[:, forget].mean() - names[:, ~forget].mean()) == 1.0  # without the partner
    assert pair_advantage(names, ~names, forget).value == 1.0
    assert pair_advantage(~names, names, forget).value == -1.0
    noise = rng.random((2, 50, 40)) < 0.5
    found = pair_advantage(noise[0], noise[1], forget)
    assert found.low < 0 < found.high
    assert found.ci.method == "t over pairs of runs"


def test_a_pair_by_hand_and_a_single_one():
    a, b = np.array([[1, 1, 0, 1]]), np.array([[1, 0, 1, 1]])
    forget = np.array([True, True, False, False])
    found = pair_advantage(a, b, forget)
    assert found.value == ((1.0 + 1.0) - (0.5 + 0.5)) / 2  # (a_F + b_T) - (a_T + b_F)
    assert "one pair" in found.reason
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * (0.25 + 0.25) / 2), rel=1e-3) or (
        found.high == 1.0
    )
    with pytest.raises(InvalidInput, match="half of the records"):
        pair_advantage(a, b, np.array([True, False, False, False]))
    with pytest.raises(InvalidInput, match="must both be"):
        pair_advantage(a, b[:, :2], forget)


def test_a_fleet_that_happens_to_hold_pairs_scores_what_the_pairs_score():
    """With every model's partner in it, the fleet's estimator is the published one."""
    rng = np.random.default_rng(4)
    forget = rng.permuted(np.tile(np.arange(30) < 15, (8, 1)), axis=1)
    answers, swapped = rng.random((2, 8, 30)) < 0.3 + 0.4 * np.stack([forget, ~forget])
    fleet = np.concatenate([answers, swapped]).astype(np.float64)
    roles = np.concatenate([forget, ~forget])
    found = _advantage(fleet, roles, ~roles)
    assert found.value == pytest.approx(pair_advantage(answers, swapped, forget).value)
    assert found.low > 0.2


@pytest.mark.slow
def test_exact_retraining_is_zero_by_exchangeability_and_its_interval_holds():
    """Over many designs the mean is zero, sign kept, and the interval covers it as often as it says."""
    found = [Swap(FAST).measure(toy_worlds(0.0, seed=seed, n_models=18), rng=RNG) for seed in range(30)]
    values = np.array([f.value.value for f in found])
    assert abs(values.mean()) < 3 * values.std() / 30**0.5
    assert (values < 0).any()
    assert np.mean([f.value.low <= 0 <= f.value.high for f in found]) >= 0.86
    assert np.mean([f.excess.low <= 0 <= f.excess.high for f in found]) >= 0.86


@pytest.mark.slow
def test_an_attack_chosen_on_the_same_models_finds_what_is_not_there():
    """The naive twin takes the largest of all attacks and thresholds on the very models that it reports."""
    from mnemoscope.attacks import ATTACKS
    from mnemoscope.attacks.threshold import best_threshold

    naive, ours = [], []
    for seed in range(8):
        worlds = toy_worlds(0.0, seed=seed, n_models=18)
        forgotten, never = worlds.role == Role.FORGOTTEN, worlds.role == Role.NEVER
        best = -1.0
        for name in FAST.split()[1:]:
            score = ATTACKS[name]().fit(worlds.after, rng=RNG).score
            scores = np.stack([score(worlds.after.target(k)) for k in range(18)])
            threshold = best_threshold(scores[forgotten], scores[never])
            best = max(best, (scores[forgotten] >= threshold).mean() - (scores[never] >= threshold).mean())
        naive.append(best)
        ours.append(Swap(FAST).measure(worlds, rng=RNG).value.value)
    assert min(naive) > 0
    assert np.mean(naive) > 0.02 > np.mean(ours) - 2 * np.std(ours) / 8**0.5
    assert np.mean(naive) > 3 * np.std(naive) / 8**0.5


def test_a_leak_is_seen_with_its_epsilon():
    found = Swap(FAST).measure(toy_worlds(2.0), rng=RNG)
    assert found.excess.low > 0.3
    assert found.no_op.value > 0.8
    assert f"eps = {implied_epsilon(found.value.low):.3g}" in found.note
    assert found.per_record.mean() == pytest.approx(found.value.value, abs=0.02)


def test_unequal_roles_leave_the_bound_out():
    worlds = toy_worlds(0.0)
    role = worlds.role.copy()
    for j in range(0, role.shape[1], 2):
        role[np.flatnonzero(role[:, j] == Role.FORGOTTEN)[:4], j] = Role.KEPT
    found = Swap(FAST).measure(dataclasses.replace(worlds, role=role), rng=RNG)
    assert "no bound on epsilon" in found.note
    role[0][role[0] == Role.NEVER] = Role.KEPT
    with pytest.raises(InvalidInput, match="every model needs"):
        Swap(FAST).measure(dataclasses.replace(worlds, role=role), rng=RNG)


def test_what_cannot_run_is_said():
    worlds = toy_worlds(0.0)
    with pytest.raises(InvalidInput, match="known attacks"):
        Swap("lira nonsense")
    bare = dataclasses.replace(worlds, after=dataclasses.replace(worlds.after, population=None))
    with pytest.raises(MissingNeed, match="name attacks that can"):
        Swap("rmia").measure(bare, rng=RNG)
    one = dataclasses.replace(worlds, after=dataclasses.replace(worlds.after, fold=None))
    with pytest.raises(InvalidInput, match="at least 2"):
        Swap(FAST).measure(one, rng=RNG)
