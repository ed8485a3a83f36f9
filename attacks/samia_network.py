"""The transformer attacker's features and network (SAMIA; Yuan and Zhang 2022, arXiv 2202.03335).

Each class is a token of three values: its posterior, how far the posterior moves under small noise on the input, and
whether it is the true class. Self-attention runs over the classes. Both parts are differentiable in the model's
outputs, so that a method that unlearns can train against the attacker.

Deviations, each a choice: posteriors and their differences come from log-softmax, so that in float64 they keep their
digits where a float32 softmax saturates and the difference is rounding alone; the sensitivity may enter as
log(1e-8 + s), which spreads the ten powers of ten that it spans; above a number of classes only the likeliest are
tokens.
"""

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemoscope.audit.errors import InvalidInput

__all__ = ["SENSITIVITY_FLOOR", "SamiaNetwork", "Sensitivity", "n_tokens", "samia_features"]

Sensitivity = Literal["plain", "log"]

SENSITIVITY_FLOOR = 1e-8
"""Added before the logarithm of a sensitivity."""

WIDTH, HEADS, LAYERS, FEED_FORWARD, DROPOUT = 64, 4, 3, 128, 0.2
"""The published dimensions."""


def n_tokens(n_classes: int, top: int | None = None) -> int:
    """Return how many tokens describe a record: all classes, or the true one and ``top`` others where they are fewer.

    >>> n_tokens(10), n_tokens(1000, 20), n_tokens(10, 20)
    (10, 21, 10)
    """
    return n_classes if top is None else min(n_classes, top + 1)


def samia_features(
    logits: Tensor,
    noisy: Tensor | None,
    labels: Tensor,
    *,
    scale: float = 1e-3,
    sensitivity: Sensitivity = "plain",
    top: int | None = None,
) -> Tensor:
    """Describe records by posterior, sensitivity of the posterior, and label; differentiable in both logits.

    With p = softmax(logits): s_k = mean over draws j of |softmax(noisy_j)_k - p_k| / scale.

    Args:
        logits: (b, c) float, answers to the records as they are; float64 for differences of small noise.
        noisy: (m, b, c) float, answers to the records with m draws of noise; None where none was asked, then s = 0.
        labels: (b,) int64 true classes.
        scale: standard deviation of the noise, in normalised inputs.
        sensitivity: "plain" (published), or "log" for log(1e-8 + s).
        top: keep the true class (first) and this many likeliest others (in descending order), where there are more
            classes: attention costs the square of the tokens. A token's place is then a rank, no class.

    Returns:
        (b, 3 t) of the dtype of ``logits``: t posteriors, t sensitivities, t label marks; see ``n_tokens``.

    Raises:
        InvalidInput: shapes that do not belong together, or an unknown choice.
    """
    if sensitivity not in get_args(Sensitivity):
        raise InvalidInput(f"sensitivity={sensitivity!r} is unknown; allowed: {', '.join(get_args(Sensitivity))}")
    if noisy is not None and (noisy.ndim != 3 or noisy.shape[1:] != logits.shape):
        raise InvalidInput(f"noisy {tuple(noisy.shape)} must be (m, b, c) for logits {tuple(logits.shape)}")
    log_p = functional.log_softmax(logits, dim=-1)
    p = log_p.exp()
    if noisy is None:
        s = torch.zeros_like(p)
    else:
        s = _moved(log_p, functional.log_softmax(noisy, dim=-1)).abs().mean(dim=0) / scale
        if sensitivity == "log":
            s = torch.log(s + SENSITIVITY_FLOOR)
    label = functional.one_hot(labels, logits.shape[-1]).to(p.dtype)
    if top is not None and top + 1 < logits.shape[-1]:
        others = p.detach().masked_fill(label.bool(), -1.0)
        # A stable sort: equal posteriors keep the order of their classes on every device.
        ranked = torch.sort(others, dim=-1, descending=True, stable=True).indices[:, :top]
        kept = torch.cat([labels[:, None], ranked], dim=1)
        p, s, label = (part.gather(1, kept) for part in (p, s, label))
    return torch.cat([p, s, label], dim=1)


def _moved(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return q - p without losing the digits of small differences: p expm1(log q - log p) where that is small."""
    p, gap = log_p.exp(), log_q - log_p
    small = gap.abs() < 1
    return torch.where(small, p * torch.expm1(torch.where(small, gap, 0.0)), log_q.exp() - p)


class SamiaNetwork(nn.Module):
    """The published network: batch normalisation, tokens of three, a post-norm transformer without positions, a head.

    BatchNorm1d(3 t); tokens (p_k, s_k, e_k); Linear 3 -> 64 and GELU; three encoder layers of width 64 with 4 heads,
    feed-forward 128, dropout 0.2 and GELU, normalised after each residual; the tokens, flattened, Linear 64 t -> 64,
    ReLU, Linear 64 -> 2. Every linear layer starts Xavier-normal with zero bias; the packed projections of the
    attention are no linear layers and keep PyTorch's start, the same in all three layers.

    Without ``nn.Dropout``'s training mode and with running statistics (``eval``) a record's answer depends on no other.
    """

    def __init__(self, n_classes: int) -> None:
        """Build it; weights are drawn from torch's global generator.

        Args:
            n_classes: number of tokens t: classes, or ``n_tokens(n_classes, top)``.
        """
        super().__init__()
        if n_classes < 2:
            raise InvalidInput(f"n_classes={n_classes}: a classifier has at least 2 classes")
        self.n_tokens = n_classes
        self.normalise = nn.BatchNorm1d(3 * n_classes)
        self.embed = nn.Linear(3, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, FEED_FORWARD, DROPOUT, activation="gelu", batch_first=True, norm_first=False
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.hidden = nn.Linear(WIDTH * n_classes, WIDTH)
        self.head = nn.Linear(WIDTH, 2)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (b, 3 t) features to (b, 2) logits of (not a member, member)."""
        tokens = self.normalise(features).unflatten(1, (3, self.n_tokens)).transpose(1, 2)
        tokens = self.encoder(functional.gelu(self.embed(tokens)))
        return cast(Tensor, self.head(functional.relu(self.hidden(tokens.flatten(1)))))
