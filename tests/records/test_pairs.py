"""The pairs design: exact counts, pools that never meet, the same bits for the same seed."""

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.records.pairs import Half, pairs_design

LABELS = np.repeat(np.arange(7), 90)
SETTINGS = {"originals": 3, "versions": 5, "group": 4, "records": 120, "controls": 2, "seed": 11}


def test_counts_are_exact():
    design = pairs_design(LABELS, **SETTINGS)
    assert design.train.shape == (6, 120)
    assert design.n_versions == 6 * 7
    assert design.group == 4
    assert design.named.shape == design.kept.shape == design.never.shape == (42, 4)
    assert np.bincount(design.original).tolist() == [7] * 6
    assert design.half.tolist() == [Half.SHADOW] * 3 + [Half.TARGET] * 3
    for half in Half:
        assert design.versions_of(half).size == 15
        assert design.versions_of(half, removed=False).size == 6
    assert design.asked.shape == (42, 12)
    assert design.roles.tolist() == [Role.FORGOTTEN] * 4 + [Role.KEPT] * 4 + [Role.NEVER] * 4


def test_a_version_is_its_original_without_what_is_removed():
    design = pairs_design(LABELS, **SETTINGS)
    for v in range(design.n_versions):
        whole, ids = design.train[design.original[v]], design.training_ids(v)
        gone = np.setdiff1d(whole, ids)
        assert np.isin(ids, whole).all()
        assert np.array_equal(gone, np.sort(design.named[v]) if design.removed[v] else [])
        assert np.isin(design.kept[v], ids).all()
        assert np.isin(design.named[v], whole).all()


def test_pools_never_meet():
    design = pairs_design(LABELS, **SETTINGS)
    seen = {half: np.unique(design.train[design.half == half]) for half in Half}
    asked = {half: np.unique(design.asked[design.half[design.original] == half]) for half in Half}
    assert not np.intersect1d(seen[Half.SHADOW], seen[Half.TARGET]).size
    assert not np.intersect1d(asked[Half.SHADOW], asked[Half.TARGET]).size
    everything = np.concatenate(list(seen.values()))
    assert not np.intersect1d(design.never, everything).size  # in no training set at all, of neither half
    for o in range(design.n_originals):
        own = design.original == o
        records = np.concatenate([design.asked[own].ravel()])
        assert np.unique(records).size == records.size  # no record of an original counts twice


def test_halves_hold_the_classes_alike():
    design = pairs_design(LABELS, originals=40, versions=1, records=200, seed=0)
    for half in Half:
        counts = np.bincount(LABELS[np.unique(design.train[design.half == half])], minlength=7)
        assert counts.sum() == 252  # four fifths of half of 630
        assert counts.max() <= 45


def test_the_seed_decides():
    design = pairs_design(LABELS, **SETTINGS)
    assert pairs_design(LABELS, **SETTINGS).digest == design.digest
    assert pairs_design(LABELS, **{**SETTINGS, "seed": 12}).digest != design.digest
    assert design.digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": 260}, "shadow half has 252 training records"),
        ({"records": 50}, "need more than 56 training records"),
        ({"group": 8, "records": 200, "controls": 4}, "72 never-seen records are needed"),
        ({"versions": 0}, "versions=0 must be a whole number, at least 1"),
        ({"group": 1.5}, "group=1.5"),
        ({"controls": -1}, "controls=-1"),
        ({"never_share": 1.0}, "never_share=1.0"),
    ],
)
def test_requests_are_obeyed_or_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        pairs_design(LABELS, **{**SETTINGS, **change})
