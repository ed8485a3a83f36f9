import numpy as np
import pytest

from mnemoscope.audit.verdict.record_map import BINS, LEAST_CELL, pooled_map, record_map, record_places


def test_places_equal_a_loop_and_average_to_the_auc():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 6, (12, 9)).astype(float)  # many ties
    side = rng.integers(-1, 2, score.shape).astype(np.int8)
    side[:, 0] = -1  # a record that no model forgot
    found = record_places(score, side)
    out = score[side == 0]
    assert np.isnan(found[0])
    for j in range(1, 9):
        own = [float(((out < s) + 0.5 * (out == s)).mean()) for s in score[:, j][side[:, j] == 1]]
        assert found[j] == pytest.approx(np.mean(own)) if own else np.isnan(found[j])
    weight = (side == 1).sum(axis=0)
    area = np.nansum(found * weight) / weight.sum()
    pairs = [(a > b) + 0.5 * (a == b) for a in score[side == 1] for b in out]
    assert area == pytest.approx(np.mean(pairs))


def test_counts_are_those_of_the_records():
    before, after = np.array([0.0, 0.51, 1.0, np.nan, 0.3]), np.array([0.02, 0.5, 1.0, 0.4, np.nan])
    table = record_map("lira", before, after, np.array([0.5, 0.5, 0.5, 0.5, 0.5]))
    assert table.n_records == 3  # a record without both places is nowhere
    assert (table.counts[0][0], table.counts[BINS // 2][BINS // 2], table.counts[-1][-1]) == (1, 1, 1)
    assert sum(map(sum, table.counts)) == 3
    assert sum(table.retrained) == 5
    assert record_map("lira", before * np.nan, after) is None


def cloud(n, seed=0):
    rng = np.random.default_rng(seed)
    return record_map("lira", rng.beta(5, 2, n), rng.beta(3, 3, n), rng.beta(5, 5, n))


@pytest.mark.parametrize("n", [1, 4, 37, 600, 20_000])
def test_a_pooled_map_shows_no_small_cell_and_hides_nobody_without_a_word(n):
    table = cloud(n)
    public = pooled_map(table)
    cells = np.array(public.counts)
    assert ((cells == 0) | (cells >= LEAST_CELL)).all()
    assert all(k == 0 or k >= LEAST_CELL for k in public.retrained)
    assert int(cells.sum()) + public.hidden == public.n_records == n
    assert len(public.edges) == cells.shape[0] + 1 == cells.shape[1] + 1
    assert (public.edges[0], public.edges[-1]) == (0.0, 1.0)
    assert pooled_map(public) == public  # a second pass changes nothing


def test_pooling_joins_neighbours_and_no_more_than_needed():
    few, many = pooled_map(cloud(600)), pooled_map(cloud(120_000))
    assert len(few.edges) - 1 < BINS
    assert len(many.edges) - 1 == BINS
    assert few.hidden <= 0.1 * 600
    shown = np.array(few.counts)
    joined = BINS // shown.shape[0]
    assert joined in (2, 4, 8)
    table = np.array(cloud(600).counts).reshape(shown.shape[0], joined, shown.shape[0], joined).sum(axis=(1, 3))
    assert (shown[shown > 0] == table[shown > 0]).all()
    assert (table[shown == 0] < LEAST_CELL).all()


def test_a_single_record_cannot_be_read_off_the_public_map():
    """Two audits that differ in one record alone: the cell it stood in may not tell which of the two it was."""
    rng = np.random.default_rng(3)
    before, after = rng.beta(5, 2, 600), rng.beta(3, 3, 600)
    lone = np.r_[before, 0.01], np.r_[after, 0.99]  # far from all others
    with_it = pooled_map(record_map("lira", *lone))
    assert with_it.counts[0][-1] == 0
    assert with_it.hidden >= 1
