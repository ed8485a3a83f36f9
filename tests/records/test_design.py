"""Roles are exact per record and fold, equal per model, and do not betray a role by what is left out."""

import dataclasses
import time

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput, StaleArtifact
from mnemoscope.audit.records.design import Design, Role, fixed_request_design, random_design

SCORED = (Role.KEPT, Role.FORGOTTEN, Role.NEVER)
LABELS = np.random.default_rng(0).integers(0, 10, 1797)
DEMO = {"audited": 600, "background": 400, "population": 300, "calibration": 200, "test": 297}


def role_counts(design, role, axis, fold=None):
    roles = design.roles_of(design.audited)
    if fold is not None:
        roles = roles[design.fold == fold]
    return np.unique((roles == role).sum(axis=axis)).tolist()


@pytest.mark.parametrize("folds", [1, 2, 3, 4])
def test_counts_are_exact_per_record_fold_and_model(folds):
    design = random_design(LABELS, **DEMO, folds=folds, seed=3)
    assert design.role.shape == (72, 1797)
    for role in SCORED:
        assert role_counts(design, role, axis=0) == [24]
        assert role_counts(design, role, axis=1) == [200]
        for fold in range(folds):
            assert role_counts(design, role, axis=0, fold=fold) == [24 // folds]


@pytest.mark.parametrize(
    ("n_models", "audited", "counts", "folds"),
    [
        (7, 5, (2, 2, 3), 3),
        (9, 31, (3, 5, 1), 2),
        (10, 101, (3, 3, 4), 3),
        (64, 601, (16, 16, 32), 5),
        (3, 1, (1, 1, 1), 3),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_what_does_not_divide_differs_by_one(n_models, audited, counts, folds, seed):
    design = random_design(LABELS, n_models=n_models, audited=audited, counts=counts, folds=folds, seed=seed)
    for role, count in zip(SCORED, counts, strict=True):
        assert role_counts(design, role, axis=0) == [count]
        for fold in range(folds):
            # floor and ceiling of the even share: models of a fold, and so shares, may differ by one
            per_record = role_counts(design, role, axis=0, fold=fold)
            assert per_record[-1] - per_record[0] <= 1
            if role != Role.NEVER:
                per_model = role_counts(design, role, axis=1, fold=fold)
                assert per_model[-1] - per_model[0] <= 1


@pytest.mark.slow
def test_balance_survives_pairs_of_models_without_a_direct_swap():
    # Few records and many models leave no column that can be swapped directly; the swap goes through KEPT.
    for seed in range(300):
        design = random_design(LABELS, n_models=12, audited=6, counts=(6, 4, 2), folds=1, seed=seed)
        assert role_counts(design, Role.KEPT, axis=1) == [3]
        assert role_counts(design, Role.FORGOTTEN, axis=1) == [2]


def test_pools_are_disjoint_sized_and_stratified():
    design = random_design(LABELS, **DEMO, seed=5)
    sizes = {role: design.records(0, role).size for role in Role}
    assert sizes[Role.BACKGROUND] == 400
    assert sizes[Role.POPULATION] == 300
    assert sizes[Role.CALIBRATION] == 200
    assert sizes[Role.TEST] == 297
    assert sizes[Role.UNUSED] == 0
    assert design.audited.size == 600
    assert (np.diff(design.audited) > 0).all()
    share = np.bincount(LABELS) / LABELS.size
    for ids in (design.audited, design.records(0, Role.BACKGROUND), design.records(0, Role.TEST)):
        assert np.abs(np.bincount(LABELS[ids], minlength=10) - share * ids.size).max() <= 2
    for role in (Role.BACKGROUND, Role.POPULATION, Role.CALIBRATION, Role.TEST):
        assert all(np.array_equal(design.records(0, role), design.records(k, role)) for k in (1, 40, 71))


def test_left_over_records_are_unused_and_text_labels_work():
    design = random_design(np.array(["a", "b"] * 50), n_models=6, audited=30, background=20, test=10, seed=0)
    assert design.records(3, Role.UNUSED).size == 40
    assert np.bincount(design.audited % 2).tolist() == [15, 15]


def test_same_seed_same_design_and_global_state_is_not_used():
    np.random.seed(0)  # noqa: NPY002 - the point is that the global generator plays no part
    first = random_design(LABELS, **DEMO, seed=7)
    np.random.seed(1)  # noqa: NPY002
    again = random_design(LABELS, **DEMO, seed=7)
    other = random_design(LABELS, **DEMO, seed=8)
    assert first.digest == again.digest != other.digest
    assert not np.array_equal(first.audited, other.audited)


def test_exchanging_forgotten_and_never_leaves_the_retrained_twin():
    design = random_design(LABELS, **DEMO, seed=11)
    swap = np.arange(8, dtype=np.int8)
    swap[[Role.FORGOTTEN, Role.NEVER]] = [Role.NEVER, Role.FORGOTTEN]
    exchanged = dataclasses.replace(design, role=swap[design.role])
    twin = (Role.BACKGROUND, Role.KEPT)
    for model in range(design.n_models):
        assert np.array_equal(design.records(model, *twin), exchanged.records(model, *twin))
        assert not np.array_equal(
            design.records(model, *twin, Role.FORGOTTEN), exchanged.records(model, *twin, Role.FORGOTTEN)
        )
        assert design.records(model, *twin).size == 600


def naive_lira(phi, is_in, is_out, model, record):
    """Per-record Gaussian log ratio with the scored model left out, written as slowly as it reads."""

    def side(mask):
        values = np.delete(phi[:, record], model)[np.delete(mask[:, record], model)]
        return values.mean(), np.sqrt(values.var() + 1e-6)

    (mu_in, sd_in), (mu_out, sd_out) = side(is_in), side(is_out)
    x = phi[model, record]
    return np.log(sd_out / sd_in) - (x - mu_in) ** 2 / (2 * sd_in**2) + (x - mu_out) ** 2 / (2 * sd_out**2)


def pooled(role, seed):
    """Pooled AUC and both tails' TPR at 1 % FPR of a world in which exact retraining leaves no trace."""
    phi = np.random.default_rng(seed).normal(size=role.shape)
    is_in, is_out = role == Role.FORGOTTEN, role == Role.NEVER
    usable = (is_in.sum(0) >= 2) & (is_out.sum(0) >= 2)
    scores = {True: [], False: []}
    for model, record in zip(*np.nonzero((is_in | is_out) & usable), strict=True):
        scores[bool(is_in[model, record])].append(naive_lira(phi, is_in, is_out, model, record))
    ins, outs = np.array(scores[True]), np.sort(scores[False])
    below = np.searchsorted(outs, ins, "left") + np.searchsorted(outs, ins, "right")
    high, low = np.quantile(outs, [0.99, 0.01])
    return below.mean() / (2 * outs.size), (ins > high).mean(), (ins < low).mean()


@pytest.mark.slow
def test_leave_one_out_null_world_is_null_here_and_not_with_a_random_forget_set():
    design = random_design(LABELS, audited=300, n_models=72, seed=2)
    area, high, low = pooled(design.roles_of(design.audited), seed=0)
    # 7,200 pairs a side; over seeds the standard deviations are 0.006 (AUC) and 0.0017 (tails).
    assert area == pytest.approx(0.5, abs=0.018)
    assert high == pytest.approx(0.01, abs=0.005)
    assert low == pytest.approx(0.01, abs=0.005)

    # The design we refuse: half the records in each model, of which a random tenth is forgotten.
    rng = np.random.default_rng(1)
    faulty = np.full((64, 300), Role.KEPT, np.int8)
    for model in range(64):
        order = rng.permutation(300)
        faulty[model, order[:150]] = Role.NEVER
        faulty[model, order[150:165]] = Role.FORGOTTEN
    area, _, low = pooled(faulty, seed=0)
    assert area < 0.46
    assert low > 0.05


def test_one_model_holdout_goes_through_the_same_design_as_forget():
    """The number of IN and OUT references of a record must not tell forget records from holdout records."""
    forget, holdout = np.arange(0, 80), np.arange(900, 980)
    audited = np.concatenate([forget, holdout])
    design = random_design(LABELS, audited=audited, background=np.arange(200, 700), n_models=12, seed=4)
    assert np.array_equal(design.audited, audited)
    assert np.array_equal(design.records(0, Role.BACKGROUND), np.arange(200, 700))
    for role in SCORED:
        available = [set((design.roles_of(ids) == role).sum(axis=0).tolist()) for ids in (forget, holdout)]
        assert available == [{4}, {4}]


def test_peer_defect_row_3_requests_are_obeyed_or_refused():
    """Row 3: a requested fraction silently ignored, odd sizes that raise."""
    odd = random_design(LABELS, n_models=9, audited=333, background=101, population=77, calibration=55, test=1, seed=0)
    assert [odd.audited.size] + [
        odd.records(0, r).size for r in (Role.BACKGROUND, Role.POPULATION, Role.CALIBRATION, Role.TEST)
    ] == [333, 101, 77, 55, 1]

    quarters = random_design(LABELS, n_models=64, audited=99, counts=(0.25, 0.25, 0.5), seed=0)
    obeyed = [(quarters.roles_of(quarters.audited) == r).sum(axis=0) for r in SCORED]
    assert [set(o.tolist()) for o in obeyed] == [{16}, {16}, {32}]

    def faulty(n_models, counts):  # the peer's way: rounded, whatever was asked
        return [round(n_models * c) for c in counts]

    assert sum(faulty(64, (1 / 3, 1 / 3, 1 / 3))) != 64
    with pytest.raises(InvalidInput, match=r"21\.33, 21\.33, 21\.33.*counts=\(21, 21, 22\)"):
        random_design(LABELS, n_models=64, audited=100, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audited": 0.3}, "audited=0.3 must be a whole number"),
        ({"audited": True}, "audited=True must be a whole number"),
        ({"audited": 0}, "at least one record"),
        ({"audited": 1700, "background": 400}, "= 2100 records, but only 1797 are free"),
        ({"background": -1}, "background=-1 must not be negative"),
        ({"n_models": 1}, "at least 2 models"),
        ({"folds": 9}, "folds=9"),
        ({"seed": -1}, "seed=-1"),
        ({"counts": (1, 1, 1)}, "add up to 3"),
        ({"counts": (3, 3, 0)}, "in and out"),
        ({"counts": (1, 5)}, "three numbers"),
        ({"counts": (float("nan"), 0.5, 0.5)}, "three numbers"),
        ({"audited": np.array([1, 1])}, "named twice"),
        ({"audited": np.array([1, 1797])}, r"not in the data set, the first \[1797\]"),
        (
            {"audited": np.arange(9), "background": np.arange(8, 12)},
            r"audited and background share 1 ids, the first \[8\]",
        ),
    ],
)
def test_refusals_name_the_value(change, message):
    arguments = {"n_models": 6, "audited": 30, "seed": 0} | change
    with pytest.raises(InvalidInput, match=message):
        random_design(LABELS, **arguments)


def test_fixed_request_repeats_the_same_roles():
    ids = np.arange(50)
    design = fixed_request_design(
        ids,
        forget=np.array([7, 3]),
        retain=np.arange(10, 30),
        holdout=np.array([40, 41]),
        test=np.array([49]),
        n_models=5,
        seed=1,
    )
    assert (design.role == design.role[0]).all()
    assert design.records(4, Role.FORGOTTEN).tolist() == [3, 7]
    assert design.records(2, Role.NEVER).tolist() == [40, 41]
    assert design.records(2, Role.KEPT).tolist() == list(range(10, 30))
    assert design.records(0, Role.UNUSED).size == 25
    assert design.models_with(7, Role.FORGOTTEN).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"holdout": np.array([3])}, r"forget and holdout share 1 ids, the first \[3\]"),
        ({"forget": np.array([99])}, "not in the data set"),
        ({"forget": np.array([], np.int64)}, "forget is empty"),
        ({"n_models": 0}, "n_models=0"),
        ({"forget": np.array([0.5])}, "whole numbers"),
    ],
)
def test_fixed_request_refusals(change, message):
    arguments = {"forget": np.array([3]), "retain": np.array([5]), "holdout": np.array([6]), "n_models": 2, "seed": 0}
    with pytest.raises(InvalidInput, match=message):
        fixed_request_design(np.arange(50), **(arguments | change))


def test_bytes_round_trip_and_damage_is_named():
    design = random_design(LABELS, n_models=6, audited=30, test=5, seed=2**62)
    data = design.to_bytes()
    back = Design.from_bytes(data)
    assert back.digest == design.digest
    assert back.seed == 2**62
    assert back.to_bytes() == data
    for broken in (b"", b"no zip", data[:-40]):
        with pytest.raises(StaleArtifact, match="draw the design again"):
            Design.from_bytes(broken)


def test_digest_sees_every_part():
    design = random_design(LABELS, n_models=6, audited=30, seed=0)
    role = design.role.copy()
    role[0, design.audited[0]] = Role.UNUSED
    changed = [
        dataclasses.replace(design, role=role),
        dataclasses.replace(design, seed=1),
        dataclasses.replace(design, fold=design.fold[::-1].copy()),
        dataclasses.replace(design, ids=design.ids + 1),
    ]
    assert len({design.digest, *(d.digest for d in changed)}) == 5


def test_unknown_ids_are_refused_not_looked_up():
    design = random_design(LABELS, n_models=6, audited=30, seed=0)
    for unknown in (1797, -1):
        with pytest.raises(InvalidInput, match="not in this design"):
            design.roles_of(np.array([0, unknown]))


def test_a_large_fleet_is_drawn_in_seconds():
    labels = np.random.default_rng(0).integers(0, 100, 60_000)
    start = time.perf_counter()
    design = random_design(labels, n_models=64, audited=25_000, background=10_000, counts=(16, 16, 32), seed=0)
    assert time.perf_counter() - start < 5
    assert role_counts(design, Role.FORGOTTEN, axis=1) == [6250]
