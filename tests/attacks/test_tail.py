"""The tail measure: a closed form by hand and in an exponential world, its null, its interval, bad input."""

import numpy as np
import pytest

from mnemoscope.attacks import MEASURES
from mnemoscope.attacks.tail import LossTail, tail_share
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.measures import Worlds

RNG = np.random.default_rng(0)


def fleet(loss):
    """Models whose cross-entropy on class 0 of two is the given loss."""
    n = loss.shape[1]
    logits = np.stack([-np.log(np.expm1(loss)), np.zeros_like(loss)], -1)[..., None, :]
    return Reference(np.arange(n), np.zeros(n, np.int64), logits, side=np.zeros(loss.shape, np.int8))


def worlds(rng, m=12, n=600, forgotten_scale=1.0, shared=0.5):
    """Losses are hard_j^shared x exponential; those of forgotten records after deletion times ``forgotten_scale``."""
    column = np.repeat(np.array([Role.KEPT, Role.FORGOTTEN, Role.NEVER], np.int8), m // 3)
    role = rng.permuted(np.tile(column[:, None], (1, n)), axis=0)
    hard = rng.exponential(size=n) ** shared + 1e-3

    def draw(scale):
        loss = hard * rng.exponential(size=(m, n)) + 1e-6
        return fleet(np.where(role == Role.FORGOTTEN, scale * loss, loss))

    return Worlds(draw(forgotten_scale), draw(1.0), draw(1.0), draw(0.2), role)


def test_by_hand():
    member, other = np.arange(1.0, 21.0), np.array([5.0, 19.0, 19.5, 30.0])
    # beta = 0.05 of 20: one member above, so the threshold is 19; a tie counts half.
    share, threshold, null = tail_share(member, other, 0.05)
    assert (share, threshold, null) == (0.625, 19.0, 2 / 21)
    assert tail_share(member, other, 0.01)[1:] == (20.0, 1 / 21)


def test_the_exponential_world_has_a_closed_form():
    """Members' losses Exp(1), others' of mean 3: above the members' 1 - beta quantile lies beta^(1/3) of the others."""
    rng = np.random.default_rng(1)
    m, n = 6, 6000
    role = np.tile(np.where(np.arange(n) % 2, Role.FORGOTTEN, Role.NEVER).astype(np.int8), (m, 1))
    loss = rng.exponential(size=(m, n)) * np.where(role == Role.NEVER, 3.0, 1.0) + 1e-9
    even = fleet(rng.exponential(size=(m, n)) + 1e-9)
    for beta in (0.01, 0.05):
        found = LossTail(beta).measure(Worlds(fleet(loss), even, even, even, role), rng=rng)
        assert found.value.low < beta ** (1 / 3) - beta < found.value.high
        assert found.value.value == pytest.approx(beta ** (1 / 3) - beta, abs=0.02)
        assert found.floor.low < 0 < found.floor.high


@pytest.mark.slow
def test_zero_where_nothing_is_remembered_and_the_interval_covers_it():
    """Eighty worlds, records that differ in difficulty and are the same in all models."""
    values, covered, excess = [], 0, 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        found = LossTail().measure(worlds(rng, n=200), rng=rng)
        values.append(found.value.value)
        covered += found.value.low <= 0 <= found.value.high
        excess += found.excess.low <= 0 <= found.excess.high
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(80)
    assert covered >= 70, covered
    assert excess >= 70, excess


def test_beta_alone_would_not_be_the_null_with_few_records():
    rng = np.random.default_rng(3)
    shares = np.array([tail_share(*rng.exponential(size=(2, 30)), 0.05)[::2] for _ in range(4000)])
    assert shares[:, 0].mean() == pytest.approx(2 / 31, abs=0.003)
    assert (shares[:, 1] == 2 / 31).all()
    assert shares[:, 0].mean() > 0.055  # 0.05 as the null would report a leak


@pytest.mark.parametrize(("scale", "sign"), [(0.3, 1), (2.0, -1)])
def test_a_planted_leak_and_over_forgetting_have_their_sign(scale, sign):
    found = MEASURES["loss_tnr_reading"]().measure(worlds(np.random.default_rng(4), forgotten_scale=scale), rng=RNG)
    assert sign * found.value.value > 0.02
    assert (found.value.low > 0) == (sign > 0)
    assert (found.value.high < 0) == (sign < 0)
    assert found.floor.low < 0 < found.floor.high
    assert found.excess.value == pytest.approx(found.value.value - found.floor.value)
    assert (found.excess.low > 0) == (sign > 0)
    assert found.no_op.low > found.floor.high
    assert "beta 0.05" in found.note
    assert "0.001:" in found.note
    assert "0.01:" in found.note


def test_bad_input_is_refused():
    rng = np.random.default_rng(5)
    good = worlds(rng, n=60)
    with pytest.raises(InvalidInput, match="beta=0.7"):
        LossTail(0.7)
    for lost, match in ((Role.FORGOTTEN, "no forgotten record"), (Role.NEVER, "no never-seen record")):
        role = np.where(good.role == lost, Role.KEPT, good.role)
        bad = Worlds(good.after, good.retrained, good.control, good.before, role)
        with pytest.raises(InvalidInput, match=match):
            LossTail().measure(bad, rng=rng)
    one = Worlds(*(w.select([0]) for w in (good.after, good.retrained, good.control, good.before)), good.role[:1])
    with pytest.raises(InvalidInput, match="at least 2 models"):
        LossTail().measure(one, rng=rng)


def test_ties_show_no_tail_where_nothing_is_remembered():
    """Losses in few steps, or all equal: counting ties half found 0.4 where both sides are alike."""
    for k, levels in ((20, 1), (20, 3), (50, 8)):
        excess, halves = [], []
        for seed in range(400):
            rng = np.random.default_rng([k, levels, seed])
            member, other = rng.integers(0, levels, (2, k)).astype(np.float64)
            share, threshold, null = tail_share(member, other, 0.05)
            excess.append(share - null)
            halves.append((other > threshold).mean() + (other == threshold).mean() / 2 - null)
        error = np.std(excess) / 20
        assert abs(np.mean(excess)) <= 3 * error + 1e-12
        assert np.mean(halves) > (0.02 if levels < 8 else 0.005)
