"""The Barlow Twins regulariser between two batches of features (Zbontar et al. 2021, arXiv 2103.03230).

Discriminative adversarial unlearning (arXiv 2402.06864) puts it between the features of forget and of validation
records: what the last linear layer is given. With z mean-centred over the batch,

    C_ij = sum_b z^f_bi z^v_bj / (|z^f_.i| |z^v_.j|)
    L = sum_i (1 - C_ii)^2 + off_diagonal sum_{i != j} C_ij^2

Barlow Twins pairs two views of one record; forget and validation records have no such pairs, and row b of one batch
meets whichever record is row b of the other. Both batches are of one size, or the sum over b would not exist.
"""

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput

__all__ = ["OFF_DIAGONAL", "Projector", "barlow_twins", "cross_correlation"]

OFF_DIAGONAL = 5e-3
"""Weight of the terms off the diagonal in Barlow Twins."""

DEAD = 1e-16
"""Sum of squares of a centred feature below which it is constant in the batch: it correlates with nothing."""


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return C (d, d) float64 of two batches of features (b, d).

    A feature that is constant in its batch has a row (or column) of zeros, and no gradient.

    Raises:
        InvalidInput: batches of different shapes, or of one record, which has no spread.

    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 3.0], [0.0, 0.0]])
    >>> cross_correlation(z, -z).diagonal().round(decimals=9).tolist()
    [-1.0, -1.0]
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] < 2:
        raise InvalidInput(
            f"features {tuple(first.shape)} and {tuple(second.shape)} must be (b, d) of one shape, with b at least 2"
        )
    return _standard(first).T @ _standard(second)


def barlow_twins(first: Tensor, second: Tensor, *, off_diagonal: float = OFF_DIAGONAL) -> Tensor:
    """Return L, a float64 scalar, differentiable in both batches (b, d); see the module."""
    correlation = cross_correlation(first, second)
    own = correlation.diagonal()
    return (1 - own).square().sum() + off_diagonal * (correlation.square().sum() - own.square().sum())


def _standard(features: Tensor) -> Tensor:
    z = features.double()
    z = z - z.mean(dim=0)
    squares = z.square().sum(dim=0)
    alive = squares > DEAD
    return torch.where(alive, z / torch.where(alive, squares, 1.0).sqrt(), 0.0)


class Projector(nn.Module):
    """Two linear layers with batch normalisation and ReLU between them: the head of Barlow Twins with one layer less.

    It is trained with the model and thrown away afterwards, so that the regulariser may ask for something that the
    features themselves need not be.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (b, features) to (b, width)."""
        projected: Tensor = self.layers(features)
        return projected
