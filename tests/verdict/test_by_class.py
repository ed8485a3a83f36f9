"""Rows by class, in worlds where one class is remembered, all are, or none is."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.verdict.by_class import fleet_classes, model_classes
from mnemoscope.audit.verdict.class_rows import LEAST_RECORDS
from mnemoscope.audit.verdict.onemodel import audit_one_model
from mnemoscope.audit.verdict.onemodel_rates import Group, deal, tail_rate
from mnemoscope.audit.verdict.policy import Policy

M, N, ALPHA, POLICY = 48, 150, 0.05, Policy()
NAMES = ("cat", "dog", "fish", "bird", "rare")


def labels():
    """Four classes alike in size, and one of fewer records than are shown."""
    return np.r_[np.arange(N - LEAST_RECORDS + 1) % 4, np.full(LEAST_RECORDS - 1, 4)].astype(np.int64)


def scores(leak: dict[int, float], seed=0):
    rng = np.random.default_rng(seed)
    side = rng.permuted(np.tile(np.repeat([0, 1, -1], M // 3).astype(np.int8)[:, None], (1, N)), axis=0)
    amount = np.array([leak.get(int(c), 0.0) for c in labels()])
    return FleetScores(rng.normal(size=side.shape) + amount * (side == 1), side, np.repeat([0, 1], M // 2))


def rows(leak, seed=0):
    return {
        row.label: row
        for row in fleet_classes(labels(), scores(leak, seed), scores({}, seed + 100), POLICY, ALPHA, NAMES)
    }


def test_one_remembered_class_stands_out_alone():
    found = rows({1: 2.0})
    assert tuple(found) == NAMES
    assert found["dog"].p_value < 1e-6
    assert found["dog"].after.low > POLICY.tpr_bound(ALPHA)
    assert found["dog"].retrained.high < POLICY.tpr_bound(ALPHA)
    assert all(found[name].p_value > 0.05 for name in ("cat", "fish", "bird"))


def test_a_class_that_was_over_forgotten_stands_out_too():
    found = rows({2: -2.0})
    assert found["fish"].after.value < ALPHA  # the residual tail alone looks better than chance
    assert found["fish"].over_forgotten.value > 0.3
    assert found["fish"].p_value < 1e-6


@pytest.mark.slow
def test_clean_worlds_show_nothing_by_class():
    shown = [min(row.p_value for row in rows({}, seed).values() if row.p_value is not None) for seed in range(40)]
    assert np.mean(np.array(shown) <= 0.05) <= 0.05


def test_a_class_with_too_few_records_is_named_and_has_no_numbers():
    rare = rows({4: 5.0})["rare"]
    assert rare.suppressed
    assert rare.n_records == 0  # how few there are is not said either
    assert rare.p_value is None
    for e in (rare.after, rare.over_forgotten, rare.retrained, rare.realised_fpr):
        assert (e.value, e.k, e.n) == (None, None, None)
        assert f"fewer than {LEAST_RECORDS}" in e.reason


def test_classes_without_names_go_by_their_number():
    found = fleet_classes(labels(), scores({}), scores({}, 1), POLICY, ALPHA)
    assert [row.label for row in found] == ["0", "1", "2", "3", "4"]


def test_hits_and_false_alarms_add_up_to_those_of_all_records():
    labelled = np.arange(N) % 3
    after = scores({0: 1.0})
    found = fleet_classes(labelled, after, scores({}, 1), POLICY, ALPHA)
    whole = after.rates([ALPHA])[0]
    assert sum(row.after.k for row in found) == whole.tp
    assert sum(row.realised_fpr.k for row in found) == whole.fp
    assert sum(row.n_records for row in found) == N


def one_model(leak: dict[int, float], *, n=900, r=5, seed=0):
    rng = np.random.default_rng(seed)
    group = np.repeat([Group.FORGET, Group.HOLDOUT], n).astype(np.int8)
    labels = rng.integers(0, 3, group.size)
    labels[rng.choice(np.flatnonzero(group == Group.FORGET), 5, replace=False)] = 3
    amount = np.array([leak.get(int(c), 0.0) for c in labels])
    after = rng.normal(size=group.size) + amount * (group == Group.FORGET)
    pairs = [(after, rng.normal(size=group.size)) for _ in range(r)]
    return labels, deal(group, labels, rng), after, pairs


def test_one_model_counts_are_those_of_the_endpoint():
    labels, board, after, pairs = one_model({1: 1.5})
    found = model_classes(labels, board, after, pairs, POLICY, ALPHA)
    whole = tail_rate(after, board, ALPHA, "residual")
    shown = {row.label: row for row in found}
    few = int((whole.hit & (labels == 3) & board.rows(Group.FORGET)).sum())
    assert sum(row.after.k for row in found if not row.suppressed) + few == whole.k
    assert shown["1"].p_value < 1e-6
    assert min(shown["0"].p_value, shown["2"].p_value) > 0.05
    assert shown["3"].suppressed
    assert shown["3"].n_records == 0


def test_one_model_without_retrained_models_says_so():
    labels, board, after, _ = one_model({})
    found = model_classes(labels, board, after, [], POLICY, ALPHA)
    assert all(row.retrained.value is None and row.retrained.reason for row in found)


@pytest.mark.slow
def test_one_model_clean_worlds_show_nothing():
    shown = []
    for seed in range(60):
        labels, board, after, pairs = one_model({}, n=300, seed=seed)
        found = model_classes(labels, board, after, pairs, POLICY, ALPHA)
        shown.append(min(row.p_value for row in found if row.p_value is not None))
    assert np.mean(np.array(shown) <= 0.05) <= 0.05


def test_an_audit_carries_names_and_keys(recorded_world):
    audited = audit_one_model(recorded_world, [ATTACKS["loss"]()]).subject
    assert {row.label for row in audited.by_class} == {"cat", "dog"}
    assert {x.label for x in audited.individuals} == {"cat", "dog"}
    forgotten = set(np.flatnonzero(recorded_world.group == Group.FORGET).tolist())
    assert {x.key for x in audited.individuals} == {f"row-{j}" for j in forgotten}
    assert audited.record_map.n_records == len(forgotten)


@pytest.fixture
def recorded_world():
    from mnemoscope.audit.verdict.onemodel_input import OneModelInput

    rng = np.random.default_rng(0)
    group = np.repeat([Group.FORGET, Group.HOLDOUT], 400).astype(np.int8)
    labels = rng.integers(0, 2, group.size)

    def model(lift):
        z = rng.normal(0, 0.3, (group.size, 1, 2)).astype(np.float32)
        raised = 2.0 + rng.normal(size=group.size) + lift * (group == Group.FORGET)
        z[np.arange(group.size), 0, labels] += raised.astype(np.float32)
        return z

    keys = tuple(f"row-{j}" for j in range(group.size))
    made = OneModelInput(np.arange(group.size), labels, group, model(0.0), before=model(2.5), classes=("cat", "dog"))
    return dataclasses.replace(made, keys=keys)
