"""How much a model's inner answers tell of membership: interchangeable estimates that a model can be trained against.

What an estimate reads of a record is h = (activations before the last linear layer, logits, loss), which is more than
an attacker at the outputs has. Three estimates of the leak between forget records and records of the same kind that
were never trained on:

- "network": an attacker M, a small MLP, tells trained from unseen records; the leak is KL(q || M(h)) of the forget
  records, in nats, q being what M says of unseen ones on average: to go on to where M is sure that a record was never
  trained on would single the forget records out anew. M's weights decay strongly: one that knows its few unseen records
  by heart is steep, and the model that is pressed against it loses what it should keep;
- "information": the mutual information between h and the side, coordinate by coordinate, from the entropies of
  Gaussians: sum over coordinates of log(var of both) / 2 - (log(var forget) + log(var other)) / 4, in nats, h being
  read with noise of a tenth of each coordinate's spread: activations that are zero on one side alone have no entropy;
- "kernel": the squared maximum mean discrepancy (Gretton et al. 2012, jmlr.org/papers/v13/gretton12a) with a Gaussian
  kernel whose width is the median distance.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.unlearning.base import evaluating
from mnemoscope.unlearning.network_parts import feature_layer, given_to

__all__ = ["Estimate", "Information", "Kernel", "Leakage", "Network", "inner_answers", "make_leakage"]

Estimate = Literal["network", "information", "kernel"]

NOISE = 1e-2
"""Variance of the noise that inner answers are read with, in units of a coordinate's variance over both sides."""

STILL = 1e-6
"""Range of a coordinate, as a share of its largest size, up to which it is constant: rounding of float32."""


class Leakage(Protocol):
    """An estimate of what inner answers tell of membership."""

    def refit(self, trained: Tensor, unseen: Tensor) -> None:
        """Learn from inner answers (n, d) of records that were trained on and (m, d) that were not, as they are now."""
        ...

    def __call__(self, forget: Tensor, unseen: Tensor) -> Tensor:
        """Return the leak of the forget records, a scalar >= 0, differentiable in both (b, d) and (b', d)."""
        ...


def inner_answers(module: nn.Module, x: Tensor, y: Tensor, layer: nn.Linear | None = None) -> Tensor:
    """Return (b, d) float64: activations before the last linear layer, logits, and loss, in eval mode.

    Args:
        module: its modes are restored.
        x: (b, ...) inputs.
        y: (b,) labels.
        layer: as of ``feature_layer``; None looks for it.
    """
    with evaluating(module):
        layer = feature_layer(module, x[:1]) if layer is None else layer
        with given_to(layer) as seen:
            logits = module(x).double()
    loss = functional.cross_entropy(logits, y, reduction="none")
    return torch.cat([seen[-1].flatten(1).double(), logits, loss[:, None]], dim=1)


@dataclass(eq=False)
class Network:
    """The attacker M: standardised inner answers, two hidden layers, log odds of having been trained on.

    Attributes:
        seed: of its initial weights and the order of its batches.
        steps: of Adam at each refit.
        lr: of Adam.
        decay: of its weights, times ``lr`` a step (decoupled).
        width: of the hidden layers.
        batch_size: rows of each side a step.
    """

    seed: int
    steps: int = 100
    lr: float = 1e-3
    decay: float = 10.0
    width: int = 64
    batch_size: int = 64
    body: nn.Module | None = None
    centre: Tensor | None = None
    spread: Tensor | None = None

    def refit(self, trained: Tensor, unseen: Tensor) -> None:
        """Train on; the first time from fresh weights. Both sides count alike; constant coordinates count nothing."""
        both = torch.cat([trained, unseen]).detach()
        moves = both.amax(dim=0) - both.amin(dim=0) > STILL * both.abs().amax(dim=0)
        self.centre = both.mean(dim=0)
        self.spread = torch.where(moves, both.std(dim=0, unbiased=False), torch.inf)
        with seeded(self.seed):
            if self.body is None:
                d, w = both.shape[1], self.width
                layers = (nn.Linear(d, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 1))
                self.body = nn.Sequential(*layers).to(both.device)
            body = self.body.requires_grad_(True)
            optimizer = torch.optim.AdamW(body.parameters(), lr=self.lr, weight_decay=self.decay)
            order = torch.Generator().manual_seed(self.seed)
            for _ in range(self.steps):
                rows = torch.cat([_some(side.detach(), self.batch_size, order) for side in (trained, unseen)])
                odds = self.log_odds(rows)
                sides = (torch.arange(len(odds), device=odds.device) < self.batch_size).to(odds)
                loss = functional.binary_cross_entropy_with_logits(odds, sides)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            body.requires_grad_(False)

    def log_odds(self, answers: Tensor) -> Tensor:
        """Return log odds (b,) float32 of having been trained on."""
        if self.body is None or self.centre is None or self.spread is None:
            raise InvalidInput("the network of the leak has not been fitted: call refit first")
        odds: Tensor = self.body(((answers - self.centre) / self.spread).float())
        return odds[:, 0]

    def __call__(self, forget: Tensor, unseen: Tensor) -> Tensor:
        """Return the mean of KL(q || M(h)) over the forget records, in nats; q is M's mean answer to unseen ones."""
        odds, q = self.log_odds(forget).double(), torch.sigmoid(self.log_odds(unseen).double()).mean().detach()
        entropy = -torch.xlogy(q, q) - torch.xlogy(1 - q, 1 - q)
        return (-q * functional.logsigmoid(odds) - (1 - q) * functional.logsigmoid(-odds)).mean() - entropy


def _some(rows: Tensor, size: int, order: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (size,), generator=order).to(rows.device)]


@dataclass(frozen=True)
class Information:
    """Gaussian estimate of the mutual information between inner answers and side, summed over coordinates.

    Of both sides together it takes the entropy of the Gaussian with their variance, the largest that there is. It
    overlooks what coordinates tell only jointly, and counts what several tell alike several times. Both sides must
    have two records or more, and count alike: coordinates that are constant in both tell nothing.
    """

    def refit(self, trained: Tensor, unseen: Tensor) -> None:
        """Do nothing: there is nothing to learn."""

    def __call__(self, forget: Tensor, unseen: Tensor) -> Tensor:
        """Return the estimate in nats."""
        if min(len(forget), len(unseen)) < 2:
            raise InvalidInput(f"variances of {len(forget)} and {len(unseen)} records; give two or more on each side")
        (m1, v1), (m2, v2) = ((side.mean(dim=0), side.var(dim=0, unbiased=False)) for side in (forget, unseen))
        both = (v1 + v2) / 2 + ((m1 - m2) / 2).square()
        still = STILL * torch.cat([forget, unseen]).detach().abs().amax(dim=0)
        floor = NOISE * both.detach() + still.square() + 1e-300
        logs = [torch.log(v + floor) for v in (both, v1, v2)]
        return (logs[0] / 2 - (logs[1] + logs[2]) / 4).sum().clamp_min(0.0)


@dataclass(frozen=True)
class Kernel:
    """Squared maximum mean discrepancy between the sides, the biased estimate, which is never negative."""

    def refit(self, trained: Tensor, unseen: Tensor) -> None:
        """Do nothing: there is nothing to learn."""

    def __call__(self, forget: Tensor, unseen: Tensor) -> Tensor:
        """Return the discrepancy of coordinates scaled to their spread over both sides; 0 to 2."""
        both = torch.cat([forget, unseen])
        scaled = both / both.detach().std(dim=0, unbiased=False).clamp_min(1e-6)
        squares = (scaled[:, None] - scaled[None]).square().sum(dim=2)
        n = len(forget)
        width = squares.detach()[~torch.eye(len(both), dtype=torch.bool, device=both.device)].median().clamp_min(1e-12)
        k = torch.exp(-squares / width)
        return (k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()).clamp_min(0.0)


def make_leakage(estimate: Estimate, *, seed: int, steps: int = 100) -> Leakage:
    """Return an estimate by name.

    Args:
        estimate: "network", "information" or "kernel".
        seed: of the network.
        steps: of the network's training at each refit.
    """
    if estimate == "network":
        return Network(seed, steps)
    return Information() if estimate == "information" else Kernel()
