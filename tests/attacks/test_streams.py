"""Large fleets are scored block of records after block of records: the answers are those of the whole at once."""

from dataclasses import replace

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS, moments
from mnemoscope.attacks.lira import lira_scores
from mnemoscope.audit.answers import blocks
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.statistics.places import places

IN_BLOCKS = (
    "lira", "lira_shared", "lira_per_record", "lira_offline", "lira_offline_shared", "lira_offline_per_record",
    "lira_finite_population", "lira_calibrated", "u_lira", "difference_margin",
    "bavaria_n", "bavaria_t", "bavaria_n_offline", "bavaria_t_offline",
    "base", "base_offline", "base_offline_tuned", "base2", "base3",
    "rmia", "rmia_offline", "rmia_offline_tuned", "difficulty", "sablayrolles",
)  # fmt: skip


def fleet(members, models, *, left_out=0.0, seed=0):
    rng = np.random.default_rng(seed)
    n, z = 150, 40
    column = np.repeat(np.array([1, 0], np.int8), [members, models - members])[:, None]
    side = rng.permuted(np.tile(column, (1, n)), axis=0)
    side[rng.random(side.shape) < left_out] = -1
    enough = ((side == 1).sum(axis=0) >= 2) & ((side == 0).sum(axis=0) >= 2)
    side = np.ascontiguousarray(side[:, enough])
    n = side.shape[1]
    # Records of very different spread, so that a variance of one block is not that of all.
    spread = np.exp(rng.normal(0, 1, n))[:, None, None]
    logits = (rng.normal(0, 1, (models, n, 2, 3)) * spread).astype(np.float32)
    logits[..., 0] += side[..., None] == 1
    labels, ids = np.zeros(n, np.int64), np.arange(n)
    population = Answers(
        np.arange(z) + n, np.zeros(z, np.int64), rng.normal(0, 1, (models, z, 2, 3)).astype(np.float32)
    )
    before = Reference(ids, labels, rng.normal(0, 1, logits.shape).astype(np.float32), side=side)
    return Reference(ids, labels, logits, side=side, population=population, before=before)


@pytest.mark.slow
@pytest.mark.parametrize("design", [(8, 16, 0.0), (9, 20, 0.2), (2, 6, 0.0)], ids=["balanced", "ragged", "few"])
@pytest.mark.parametrize("name", IN_BLOCKS)
def test_blocks_change_nothing(monkeypatch, name, design):
    members, models, left_out = design
    reference = fleet(members, models, left_out=left_out)
    whole = score_fleet(ATTACKS[name](), reference, rng=np.random.default_rng(0))
    monkeypatch.setattr(moments, "BLOCK_CELLS", 17 * models)
    calls = []
    plain = moments.record_blocks
    for module in ("lira", "lira_corrected", "bavaria", "base", "rmia", "difficulty", "sablayrolles"):
        counted = lambda m, n: calls.append(len(list(plain(m, n)))) or plain(m, n)  # noqa: E731
        monkeypatch.setattr(f"mnemoscope.attacks.{module}.record_blocks", counted)
    blocks = score_fleet(ATTACKS[name](), reference, rng=np.random.default_rng(0))
    np.testing.assert_allclose(blocks, whole, rtol=1e-12, atol=1e-12)
    few_for_one_level = name == "lira_calibrated" and members == 2 and models == 6
    assert max(calls, default=0) >= 5 or few_for_one_level


def test_a_variance_of_a_block_alone_would_be_another():
    reference = fleet(8, 16)
    phi, side = reference.signal("margin"), reference.side
    whole = lira_scores(phi, side, variance="shared")
    apart = np.concatenate(
        [lira_scores(phi[:, part], side[:, part], variance="shared") for part in moments.record_blocks(8000, 150)], 1
    )
    assert np.abs(whole - apart).max() > 0.1


def test_sums_of_squares_keep_their_digits_where_one_model_makes_them_all():
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(5, 12))
    phi[0] += 1e6
    mask = np.ones(phi.shape, np.bool_)
    _, sums = moments.left_out_squares(phi, mask)
    for k in range(5):
        others = np.delete(phi, k, axis=0)
        assert sums[k] == pytest.approx(((others - others.mean(axis=0)) ** 2).sum(), rel=1e-9)
    deviation = phi - phi.mean(axis=0)
    total = (deviation**2).sum()
    downdated = total - ((deviation[0] ** 2) * 5 / 4).sum()
    assert downdated != pytest.approx(sums[0], rel=1e-6)  # a difference of two numbers of 1e13


@pytest.mark.parametrize("n", [0, 1, 50_001])
def test_places_are_those_of_a_binary_search(n):
    rng = np.random.default_rng(1)
    known, values = np.sort(rng.integers(0, 30, 200) / 10.0), rng.integers(-3, 33, n) / 10.0
    np.testing.assert_array_equal(places(known, values), np.searchsorted(known, values))


@pytest.mark.slow
@pytest.mark.parametrize("design", [(8, 16, 0.0), (9, 20, 0.2)], ids=["balanced", "ragged"])
@pytest.mark.parametrize("name", [*IN_BLOCKS, "attack_r", "attack_s", "population", "modified_entropy_by_class"])
def test_threads_change_no_bit(monkeypatch, name, design):
    members, models, left_out = design
    monkeypatch.setattr(moments, "BLOCK_CELLS", 17 * models)
    monkeypatch.setattr("mnemoscope.audit.statistics.places.PLACED", 30)
    monkeypatch.setattr(blocks, "LEAST_VALUES", 1)
    monkeypatch.setattr(blocks, "_processors", lambda: 3)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        reference = fleet(members, models, left_out=left_out)
        folded = replace(reference, fold=(np.arange(models) % 2).astype(np.int8))
        found.append(score_fleet(ATTACKS[name](), folded, rng=np.random.default_rng(0)))
    assert found[0].tobytes() == found[1].tobytes()
