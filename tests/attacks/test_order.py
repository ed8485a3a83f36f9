"""Peer-defects row 18: order is hidden by a permutation that does something, and the contract would notice."""

from dataclasses import dataclass

import numpy as np
import pytest

from mnemoscope.audit import testing
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.testing_fleets import reordered

N = 400


@dataclass(frozen=True)
class ByPosition:
    """An attack that has learned nothing but where a record stands."""

    name: str = "by-position"
    needs: Need = Need.NOTHING

    def fit(self, reference, *, rng):
        return self

    def score(self, view):
        return -np.arange(view.n_records, dtype=np.float64)


class NoOp(np.random.Generator):
    """The peer's shuffle: rows are permuted, and the rows that were not permuted are used."""

    def permutation(self, x, axis=0):
        super().permutation(x, axis)
        return np.arange(x)


def test_row_18_the_contract_rejects_an_attack_that_reads_the_order(monkeypatch):
    with pytest.raises(testing.ContractViolation, match="any order of records and models"):
        testing.attack_ignores_order(ByPosition())
    # With the no-op in its place the check is blind: this is what makes the permutation worth a test of its own.
    monkeypatch.setattr(testing, "_rng", lambda seed=0: NoOp(np.random.PCG64(seed)))
    testing.attack_ignores_order(ByPosition())


def test_row_18_the_permutation_of_the_contract_moves_records_and_models():
    fleet = testing.toy_fleet(2.0)

    def check(records, models):
        moved = reordered(fleet, records, models)
        assert (moved.ids != fleet.ids).mean() > 0.9
        assert sorted(moved.ids) == sorted(fleet.ids)
        assert not np.array_equal(moved.side, fleet.side)
        np.testing.assert_array_equal(moved.logits, fleet.logits[np.ix_(models, records)])

    def orders(rng):
        return rng.permutation(fleet.n_records), rng.permutation(fleet.n_models)

    check(*orders(np.random.default_rng(0)))
    with pytest.raises(AssertionError):
        check(*orders(NoOp(np.random.PCG64(0))))


def test_row_18_members_that_come_first_in_a_file_are_not_found_by_their_place():
    """Members before non-members: a score by place has AUC 1 unless rows are matched by id after a real shuffle."""
    member = np.arange(N) < N // 2

    def auc_by_place(rng):
        order = rng.permutation(N)
        score = ByPosition().score(type("Rows", (), {"n_records": N}))
        inside, outside = score[member[order]], score[~member[order]]
        return (inside[:, None] > outside).mean()

    assert abs(auc_by_place(np.random.default_rng(1)) - 0.5) < 0.1
    assert auc_by_place(NoOp(np.random.PCG64(1))) == 1.0
