"""The share of the pool in training: right where it can be computed by hand, and told to who asks for it."""

from dataclasses import replace

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.lira_corrected import LiRAFinitePopulation, pool_factor
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.inclusion import inclusion_of, told_inclusion
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.records.design import Role

KEPT, FORGOTTEN, NEVER, ALWAYS = Role.KEPT, Role.FORGOTTEN, Role.NEVER, Role.BACKGROUND


def thirds(models, audited, background, rng):
    column = np.repeat(np.array([KEPT, FORGOTTEN, NEVER], np.int8), models // 3)
    role = rng.permuted(np.tile(column[:, None], (1, audited)), axis=0)
    return np.concatenate([role, np.full((models, background), ALWAYS, np.int8)], axis=1)


@pytest.mark.parametrize("background", [0, 100, 300])
@pytest.mark.parametrize("game", ["forgetting", "membership"])
def test_models_that_release_their_mean_vary_by_one_minus_the_share(game, background):
    """<mean of the training set, x> has the variance |x|^2 / n over fresh training sets of n normal records."""
    rng = np.random.default_rng(background)
    role = thirds(1200, 300, background, rng)
    x = rng.normal(size=(role.shape[1], 60))
    trained = np.isin(role, [ALWAYS, KEPT, FORGOTTEN] if game == "membership" else [ALWAYS, KEPT])
    n = trained.sum(axis=1, keepdims=True)
    released = (trained / n) @ x @ rng.normal(size=(60, 400))
    fresh = (np.linalg.norm(rng.normal(size=(60, 400)), axis=0) ** 2).mean() / n.mean()
    share = inclusion_of(GAMES[game], role)
    assert released.var(axis=0, ddof=1).mean() / fresh == pytest.approx(1 - share, rel=0.12)
    in_training = {"membership": 200, "forgetting": 100}[game] / 300
    assert share == pytest.approx(in_training) if background == 0 else share > in_training


def test_the_share_is_told_to_who_asks_and_to_nobody_else():
    role = thirds(12, 60, 20, np.random.default_rng(0))
    asks, knows, other = ATTACKS["lira_finite_population"](), LiRAFinitePopulation(inclusion=0.25), ATTACKS["lira"]()
    for game in ("forgetting", "membership"):
        told = told_inclusion([asks, knows, other], GAMES[game], role)
        assert told == [replace(asks, inclusion=inclusion_of(GAMES[game], role)), knows, other]
    alike = np.tile(np.array([[KEPT, FORGOTTEN, NEVER]], np.int8), (6, 1))
    assert told_inclusion([asks], GAMES["forgetting"], alike) == [asks]  # no training set varies


def test_a_share_that_the_sides_do_not_show_is_flagged():
    rng = np.random.default_rng(1)
    role = thirds(24, 40, 0, rng)
    logits = rng.normal(size=(24, 40, 1, 2)).astype(np.float32)
    sides = {game: GAMES[game].side(role) for game in ("forgetting", "membership")}
    ids, labels = np.arange(40), np.zeros(40, np.int64)
    third, whole = (Reference(ids, labels, logits, side=side) for side in sides.values())
    attack = LiRAFinitePopulation()
    (said,) = attack.flags(third)
    assert "read off the sides, 33% of which are left out; set inclusion" in said
    assert attack.flags(whole) == ()
    assert replace(attack, inclusion=1 / 3).flags(third) == ()
    # Left out, the sides claim one half; the models after deletion hold a third of the records.
    assert float(attack._factor(third.side)) == pool_factor(0.5)
    assert inclusion_of(GAMES["forgetting"], role) == pytest.approx(1 / 3)
