"""The attacker of a game of unlearning: the transformer of SAMIA, learning forget from validation records.

Its input for a record is SAMIA's (Yuan and Zhang 2022, arXiv 2202.03335): posterior, sensitivity of the posterior to
noise, label. All of it is differentiable in the model, so that the model can train against it. Noise is drawn anew
for each step. The model is asked in eval mode and without autocast: what others in the batch are must not show in a
record's answer, and bfloat16 holds no difference quotient of noise of 1e-3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from mnemoscope.attacks.samia_network import SamiaNetwork, Sensitivity, n_tokens, samia_features
from mnemoscope.unlearning.base import Batch, Deletion, evaluating

__all__ = ["Attacker"]

MANY_CLASSES, TOP = 100, 20
"""Above this many classes, the true one and the likeliest others are the tokens, as in the attack."""


@dataclass(frozen=True, eq=False)
class Attacker:
    """A membership attacker that learns along with the model that it attacks.

    Attributes:
        network: maps features to logits of (not a member, member).
        optimizer: of the network.
        noise: draws the noise of the queries, on the CPU.
        scale: standard deviation of the noise, in normalised inputs.
        draws: noisy queries a record.
        sensitivity: "plain" or "log", see ``samia_features``.
        labels: whether it is told the records' labels.
        blur: standard deviation of noise on the features that it learns from, in those of the features in the batch.
        top: likeliest classes beside the true one; None is all.
    """

    network: SamiaNetwork
    optimizer: torch.optim.Optimizer
    noise: torch.Generator
    scale: float
    draws: int
    sensitivity: Sensitivity
    labels: bool
    blur: float
    top: int | None

    @classmethod
    def fresh(
        cls,
        module: nn.Module,
        deletion: Deletion,
        *,
        lr: float,
        scale: float = 1e-3,
        draws: int = 10,
        sensitivity: Sensitivity = "plain",
        labels: bool = True,
        blur: float = 0.0,
    ) -> "Attacker":
        """Return an untrained attacker of a module; initial weights come from torch's global generator."""
        with evaluating(module), torch.no_grad():
            record = next(deletion.in_order(deletion.request.forget[:1]))
            classes = int(module(record.x).shape[1])
        top = None if classes <= MANY_CLASSES else TOP
        network = SamiaNetwork(n_tokens(classes, top)).to(deletion.data.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        return cls(network, optimizer, deletion.generator(), scale, draws, sensitivity, labels, blur, top)

    def features(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return (b, 3 t) float32, differentiable in the module's weights."""
        x = batch.x
        drawn = torch.randn((self.draws, *x.shape), generator=self.noise).to(x)
        queries = torch.cat([x[None], x + self.scale * drawn]) if self.draws else x[None]
        with evaluating(module):
            logits = module(queries.flatten(0, 1)).double().unflatten(0, queries.shape[:2])
        noisy = logits[1:] if self.draws else None
        # A label that is not told is the predicted one where tokens are ranked, and marks no token.
        y = batch.y if self.labels else logits[0].detach().argmax(dim=1)
        found = samia_features(logits[0], noisy, y, scale=self.scale, sensitivity=self.sensitivity, top=self.top)
        if not self.labels:
            told = 2 * self.network.n_tokens
            found = torch.cat([found[:, :told], torch.zeros_like(found[:, told:])], dim=1)
        return found.float()

    def learn(self, module: nn.Module, forget: Batch, other: Batch) -> float:
        """Make one step: forget records are members, others are none; the module is left alone. Return the loss.

        Both batches pass the attacker's normalisation together, which would give away the side of a batch of one side.
        """
        with torch.no_grad():
            features = torch.cat([self.features(module, batch) for batch in (forget, other)])
        if self.blur:
            drawn = torch.randn(features.shape, generator=self.noise).to(features)
            features = features + self.blur * features.std(dim=0) * drawn
        sides = torch.cat([torch.ones_like(forget.y), torch.zeros_like(other.y)])
        self.network.train()
        loss = functional.cross_entropy(self._answer(features), sides)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.network.eval()
        return float(loss.detach())

    def log_odds(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the attacker's log odds (b,) that the records are members, differentiable in the module's weights."""
        self.network.eval()
        answer = self._answer(self.features(module, batch)).double()
        return answer[:, 1] - answer[:, 0]

    def _answer(self, features: Tensor) -> Tensor:
        # The fused kernels of attention add up in an order that is not fixed on CUDA.
        with sdpa_kernel(SDPBackend.MATH):
            answer: Tensor = self.network(features)
        return answer

    @torch.no_grad()
    def scores(self, module: nn.Module, deletion: Deletion, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the log odds (n,) of records, in the ascending order of their ids."""
        parts = [self.log_odds(module, batch) for batch in deletion.in_order(ids, batch_size=256)]
        return np.asarray(torch.cat(parts).cpu().numpy(), np.float64)
