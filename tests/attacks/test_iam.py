import time

import numpy as np
import pytest

from mnemoscope.attacks.iam import IAM, fitness
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Reference, Side, View
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.testing_worlds import toy_worlds

RNG = np.random.default_rng(0)


def logits_of(p: np.ndarray) -> np.ndarray:
    return np.stack([np.log(p), np.log1p(-p)], axis=-1)[..., None, :].astype(np.float32)


def reference_of(p: np.ndarray, side: np.ndarray, before: np.ndarray | None = None) -> Reference:
    n = p.shape[1]
    ids, labels = np.arange(n) + 3, np.zeros(n, np.int64)
    earlier = None if before is None else Reference(ids, labels, logits_of(before), side=side)
    return Reference(ids, labels, logits_of(p), side=side, before=earlier)


def auc(inside: np.ndarray, outside: np.ndarray) -> float:
    below = np.searchsorted(np.sort(outside), inside, "left") + np.searchsorted(np.sort(outside), inside, "right")
    return float(below.mean() / (2 * outside.size))


def naive(p: float, shadows: list[float], far: list[float], cells: np.ndarray, far_cells: np.ndarray, e1=0.01) -> float:
    """One record the slow way; ``cells`` and ``far_cells`` are the ends of all paths, whose spread is pooled."""

    def r(v):
        raw, low, high = (-np.log(e1 - np.log(1e-5 + u)) for u in (v, 0.0, 1.0))
        return (raw - low) / (high - low)

    alpha, total = np.linspace(0, 1, 100), 0.0
    for i in range(99):
        path = [(1 - alpha[i]) * r(s) + alpha[i] * r(f) for s, f in zip(shadows, far, strict=True)]
        spread = np.std([(1 - alpha[i]) * r(s) + alpha[i] * r(f) for s, f in zip(cells, far_cells, strict=True)])
        b = spread * np.sqrt(6) / np.pi
        total += alpha[i + 1] * np.exp(-np.exp(-(r(p) - (np.mean(path) - np.euler_gamma * b)) / b))
    return float(total / alpha[1:].sum())


@pytest.mark.slow
@pytest.mark.parametrize("fitted", ["before", "perfect"])
def test_naive_twin_with_the_target_left_out(fitted):
    rng = np.random.default_rng(1)
    m, n = 5, 6
    side = rng.permuted(np.tile(np.array([0, 0, 0, 1, -1], np.int8)[:, None], (1, n)), axis=0)
    p, q = rng.uniform(0.05, 0.99, (2, m, n))
    found = score_fleet(IAM(fitted=fitted), reference_of(p, side, q), rng=RNG)
    shadows = q if fitted == "before" else p
    for k in range(m):
        out = (side == Side.OUT) & (np.arange(m) != k)[:, None]
        model, record = np.nonzero(out)
        far = (q[k] if fitted == "before" else np.ones(n))[record]
        for j in range(n):
            own = shadows[out[:, j], j].tolist()
            end = [q[k, j] if fitted == "before" else 1.0] * len(own)
            slow = naive(p[k, j], own, end, shadows[model, record], far)
            assert found[k, j] == pytest.approx(slow, abs=2e-6)  # logits are float32


def test_signal_ends_and_keeps_its_digits():
    z = np.array([[[-80.0, 0.0]], [[0.0, 0.0]], [[30.0, 0.0]], [[31.0, 0.0]]], np.float32)
    s = fitness(View(np.arange(4), np.zeros(4, np.int64), z))[:, 0]
    assert s[0] == pytest.approx(0.0, abs=1e-9)
    assert 0 < s[1] < s[2] < s[3] <= 1
    half = (-np.log(0.01 - np.log(0.50001)) + np.log(0.01 - np.log(1e-5))) / (
        -np.log(0.01 - np.log(1.00001)) + np.log(0.01 - np.log(1e-5))
    )
    assert s[1] == pytest.approx(half)


def test_confidence_goes_from_generalised_to_fitted():
    rng = np.random.default_rng(2)
    n = 300
    shadows = rng.uniform(0.3, 0.7, (3, n))
    side = np.zeros((3, n), np.int8)
    before = np.full(n, 0.999)
    scores = []
    for p in (0.2, 0.5, 0.9, 0.999):
        reference = reference_of(shadows, side, shadows)
        target = reference_of(np.full((1, n), p), side[:1], before[None]).target(0)
        scores.append(score_target(IAM(), reference, target, rng=RNG).mean())
    assert np.all(np.diff(scores) > 0)
    assert scores[0] < 0.02
    assert scores[-1] > 0.9


def test_one_reference_model_is_enough_and_records_are_matched_by_id():
    rng = np.random.default_rng(3)
    p = rng.uniform(0.2, 0.9, (2, 20))
    fleet = reference_of(p, np.zeros((2, 20), np.int8), p)
    scorer = IAM().fit(fleet.select([0]), rng=rng)
    whole = fleet.target(1)
    at = np.array([7, 2, 11])
    part = View(whole.ids[at], whole.labels[at], whole.logits[at], before=whole.before)
    assert np.isfinite(scorer.score(whole)).all()
    np.testing.assert_allclose(scorer.score(part), naive_part(fleet, at), atol=1e-9)


def naive_part(fleet: Reference, at: np.ndarray) -> np.ndarray:
    """Scores of a fit on those records alone: the spread is pooled over the records that are asked about."""

    def cut(part: Reference) -> Reference:
        return Reference(part.ids[at], part.labels[at], part.logits[:, at], side=part.side[:, at])

    small = Reference(
        fleet.ids[at], fleet.labels[at], fleet.logits[:, at], side=fleet.side[:, at], before=cut(fleet.before)
    )
    return IAM().fit(small.select([0]), rng=RNG).score(small.target(1))


def test_planted_leak_among_records_that_the_first_model_held():
    """IAM's own question: of records that all were in, which still are? Kept against forgotten, and no-op."""
    worlds = toy_worlds(0.0, n_records=120)
    score = score_fleet(IAM(), worlds.after, rng=RNG)
    kept, forgotten = score[worlds.role == Role.KEPT], score[worlds.role == Role.FORGOTTEN]
    assert auc(kept, forgotten) > 0.9
    no_op = score_fleet(IAM(), toy_worlds(4.0, n_records=120).after, rng=RNG)
    assert auc(no_op[worlds.role == Role.KEPT], no_op[worlds.role == Role.FORGOTTEN]) == pytest.approx(0.5, abs=0.04)


def test_online_reads_the_first_model_so_exact_retraining_is_not_its_null_among_never_seen_records():
    online, offline = [], []
    for seed in range(3):
        worlds = toy_worlds(0.0, n_records=120, seed=seed)
        for attack, found in ((IAM(), online), (IAM(fitted="perfect"), offline)):
            score = score_fleet(attack, worlds.after, rng=RNG)
            found.append(auc(score[worlds.role == Role.FORGOTTEN], score[worlds.role == Role.NEVER]))
    assert np.mean(online) < 0.3
    assert np.mean(offline) == pytest.approx(0.5, abs=0.02)


def test_offline_finds_a_planted_leak_also_with_members_as_the_far_end():
    worlds = toy_worlds(2.0, n_records=120)
    for fitted in ("perfect", "members"):
        score = score_fleet(IAM(fitted=fitted), worlds.after, rng=RNG)
        assert auc(score[worlds.role == Role.FORGOTTEN], score[worlds.role == Role.NEVER]) > 0.75


@pytest.mark.slow
def test_work_grows_with_cells_not_with_their_square():
    def took(n):
        rng = np.random.default_rng(4)
        side = rng.permuted(np.tile(np.array([0, 1] * 8, np.int8)[:, None], (1, n)), axis=0)
        fleet = reference_of(rng.uniform(0.1, 0.9, (16, n)), side)
        start = time.perf_counter()
        score_fleet(IAM(fitted="perfect"), fleet, rng=RNG)
        return time.perf_counter() - start

    took(100)
    assert took(8000) < 40 * took(1000)


@pytest.mark.parametrize("settings", [{"fitted": "after"}, {"offset": 0.0}, {"offset": 2.0}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match="allowed|must lie"):
        IAM(**settings)
