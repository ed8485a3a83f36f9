"""Peer-defects row 32: a figure that compares models is read beside the same figure of two retrained fleets."""

import numpy as np
import pytest

from mnemoscope.attacks.lira import LiRA
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.verdict.indistinguishability import tell_apart

M, N = 48, 24
LEVEL = 0.95


def competition_epsilon(unlearned: np.ndarray, retrained: np.ndarray, delta: float = 1e-5) -> np.ndarray:
    """The starting kit's figure: for each record the largest epsilon over all one- and two-sided thresholds."""
    found = np.zeros(unlearned.shape[1])
    for j in range(found.size):
        sides = unlearned[:, j], retrained[:, j]
        high, low = sorted(sides, key=np.median, reverse=True)
        narrow, wide = sorted(sides, key=np.ptp)
        grid = np.arange(min(low.min(), high.min()), max(low.max(), high.max()), 0.04)
        rates = [((low[:, None] >= grid).mean(0), (high[:, None] < grid).mean(0))]
        for right in np.arange(narrow.max() - 2, narrow.max() + 2, 0.04):
            left = right - np.ptp(narrow) + np.arange(-2, 2, 0.04)
            inside = [((x[:, None] >= left) & (x[:, None] <= right)).mean(0) for x in (wide, narrow)]
            rates.append((inside[0], 1 - inside[1]))
        fpr, fnr = (np.concatenate(parts) for parts in zip(*rates, strict=True))
        kept = (fpr > 0) & (fnr > 0) & (fpr < 1) & (fnr < 1)
        fpr, fnr = fpr[kept], fnr[kept]
        epsilon = np.maximum(np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr))
        found[j] = np.clip(epsilon.max(), 0, 50)
    return found


def fleet(rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    return 3 + shift + rng.normal(size=(M, N))


def answers(phi: np.ndarray) -> Reference:
    logits = np.stack([phi, np.zeros_like(phi)], axis=-1)[:, :, None, :].astype(np.float32)
    return Reference(np.arange(N), np.zeros(N, np.int64), logits, side=np.zeros(phi.shape, np.int8))


def ours(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    mask = np.random.default_rng(7).permuted(np.tile(np.arange(M)[:, None] < M // 2, (1, N)), axis=0)
    auc = tell_apart(LiRA(), answers(a), answers(b), mask, LEVEL, rng=np.random.default_rng(0))
    assert auc.low is not None
    assert auc.high is not None
    return auc.low - 0.5, auc.high - 0.5


def alone(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The faulty use: the figure by itself, two standard errors over records, read against zero."""
    epsilon = competition_epsilon(a, b)
    error = 2 * epsilon.std(ddof=1) / np.sqrt(N)
    return epsilon.mean() - error, epsilon.mean() + error


def beside(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The same figure less that of two retrained fleets."""
    rng = np.random.default_rng(11)
    difference = competition_epsilon(a, b) - competition_epsilon(fleet(rng), b)
    error = 2.5 * difference.std(ddof=1) / np.sqrt(N)
    return difference.mean() - error, difference.mean() + error


def check(figure, seed):
    """Two fleets retrained alike are not told apart; a plain difference is."""
    rng = np.random.default_rng(seed)
    a, b = fleet(rng), fleet(rng)
    low, high = figure(a, b)
    assert low <= 0 <= high
    low, _ = figure(a + 1.5, b)
    assert low > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_row_32_two_retrained_fleets_are_not_told_apart(seed):
    check(ours, seed)
    with pytest.raises(AssertionError):
        check(alone, seed)


@pytest.mark.slow
def test_row_32_the_figure_alone_reads_above_one_and_only_a_retrained_row_shows_that_it_is_nothing():
    rng = np.random.default_rng(5)
    assert competition_epsilon(fleet(rng), fleet(rng)).mean() > 1
    check(beside, 5)
