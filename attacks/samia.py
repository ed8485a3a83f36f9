"""SAMIA, the transformer attacker (Yuan and Zhang 2022, arXiv 2202.03335), learned on shadow models.

The network is the published one, dimension by dimension (``samia_network``). Two deviations are measured in
``benchmarks/results/samia_acceptance.json``: it enters the sensitivity as log(1e-8 + s), and it trains for 2 epochs
with AdamW and a cosine schedule, where the release takes 100 epochs of SGD; in as many steps as ours, SGD stays below
thresholds by class. ``PUBLISHED`` holds the settings of the release, e.g. ``Samia(**PUBLISHED)``.

In any setting the differences of posteriors are taken in float64 from log-softmax: where a model is so sure that its
float32 softmax saturates, noise of 1e-3 moves the posterior by less than its last digit, and the feature is zero (in
the two worlds measured no model was, and both ways agree). Both sides weigh the same in the loss, which the release
gets from equal numbers. The statistics of the batch normalisation are those of all training rows, not a running
average that few steps leave half way.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mnemoscope.attacks.samia_network import SamiaNetwork, Sensitivity, samia_features
from mnemoscope.audit.answers.views import Answers, Need, Reference, Side, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.architectures import seeded

__all__ = ["PUBLISHED", "Samia", "SamiaScorer"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Optimizer = Literal["sgd", "adamw"]

PUBLISHED: dict[str, Any] = {
    "sensitivity": "plain",
    "optimizer": "sgd",
    "lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "epochs": 100,
    "batch_size": 128,
}
"""Settings of the release: SGD, its rate divided by ten at half and at three quarters of the epochs."""

MANY_CLASSES, TOP = 100, 20
"""Above this many classes, the true one and the likeliest others are the tokens."""

FEATURE_ROWS, SCORE_ROWS = 4096, 512
"""Rows at a time: they bound the memory; batches in the order of the ids make scores the same in any order."""


@dataclass(frozen=True)
class Samia:
    """Transformer over classes: posterior, its sensitivity to noise, and label (SAMIA), learned on shadow models.

    The score is the network's log odds of membership. Where nobody named the queries there is no noise to read: the
    sensitivity is then zero for every record, and posterior and label are all that it learns from.

    Attributes:
        scale: standard deviation of the input noise, in normalised inputs.
        draws: noisy queries a record.
        sensitivity: "log" enters log(1e-8 + s), "plain" (published) enters s.
        top: likeliest classes that are tokens beside the true one; None means all up to 100 classes, else 20.
        optimizer: "adamw" with a cosine schedule after a tenth of warm-up, or "sgd" (published) in three steps.
        lr: peak learning rate.
        momentum: of SGD.
        weight_decay: of either optimiser.
        epochs: passes over the training rows.
        batch_size: rows a step.
        max_rows: most training rows (a record's answer by one shadow model); more are drawn from at random.
    """

    scale: float = 1e-3
    draws: int = 10
    sensitivity: Sensitivity = "log"
    top: int | None = None
    optimizer: Optimizer = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    epochs: int = 2
    batch_size: int = 128
    max_rows: int = 100_000
    name = "samia"
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        for field, allowed in (("sensitivity", Sensitivity), ("optimizer", Optimizer)):
            if getattr(self, field) not in get_args(allowed):
                given = f"{field}={getattr(self, field)!r}"
                raise InvalidInput(f"{given} is unknown; allowed: {', '.join(get_args(allowed))}")
        for field in ("scale", "lr"):
            if not getattr(self, field) > 0:
                raise InvalidInput(f"{field}={getattr(self, field)!r} must be positive")
        for field, least in (("draws", 1), ("epochs", 1), ("batch_size", 2), ("max_rows", 2)):
            if getattr(self, field) < least:
                raise InvalidInput(f"{field}={getattr(self, field)!r} must be {least} or more")
        if self.top is not None and self.top < 1:
            raise InvalidInput(f"top={self.top!r} must be 1 or more, or None")

    @property
    def queries(self) -> tuple[str, ...]:
        """The record as it is, then the draws of noise."""
        return ("identity", *(f"noise:{self.scale:g}:{draw}" for draw in range(self.draws)))

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "SamiaScorer":
        """Train on every answer of a shadow model to a record that it trained on or did not.

        Raises:
            InvalidInput: no record is IN, or none is OUT.
            MissingNeed: queries are named and the noisy ones are not among them, or the models answer with labels only.
        """
        if reference.labels_only:
            raise MissingNeed("samia learns from scores, and the shadow models answer with labels only")
        at = self._asked(reference)
        model, record = np.nonzero(reference.side != Side.LEAVE_OUT)
        member = (reference.side[model, record] == Side.IN).astype(np.int64)
        if np.unique(member).size < 2:
            side = "no record at all" if member.size == 0 else "only IN records" if member[0] else "only OUT records"
            raise InvalidInput(f"samia learns to tell IN from OUT, and the shadow models have {side}")
        # Rows in an order of their own, so that neither models nor records can be reordered into another fit.
        plain = reference.logits[model, record, at[0]]
        order = np.lexsort((*plain.T[::-1], member, reference.ids[record]))
        seed = int(rng.integers(2**62))
        if order.size > self.max_rows:
            order = order[self._drawn(member[order], rng)]
        features = torch.cat(
            [
                self._features(reference.logits[model[p][:, None], record[p][:, None], at], reference.labels[record[p]])
                for p in np.array_split(order, -(-order.size // FEATURE_ROWS))
            ]
        )
        with seeded(seed):
            network = self._train(features, torch.from_numpy(member[order]))
        return SamiaScorer(self, network, reads_noise=len(at) > 1)

    def _drawn(self, member: Ints, rng: np.random.Generator) -> Ints:
        """Return ``max_rows`` positions, at least one on each side."""
        kept = rng.permutation(member.size)[: self.max_rows]
        for side in (0, 1):
            if not (member[kept] == side).any():
                kept[0] = rng.choice(np.flatnonzero(member == side))
        return np.sort(kept)

    def _asked(self, answers: Answers) -> Ints:
        """Return where the queries lie; the first one alone where nobody named them."""
        return np.asarray(answers.query_positions(self.queries if answers.queries else ("identity",)), np.int64)

    def _features(self, logits: NDArray[np.float32], labels: Ints) -> Tensor:
        """Turn (b, q, c) answers into (b, 3 t) float32 features, computed in float64."""
        z = torch.from_numpy(logits.astype(np.float64))
        noisy = z[:, 1:].movedim(1, 0) if z.shape[1] > 1 else None
        top = self.top if self.top is not None or z.shape[-1] <= MANY_CLASSES else TOP
        options: dict[str, Any] = {"scale": self.scale, "sensitivity": self.sensitivity, "top": top}
        return samia_features(z[:, 0], noisy, torch.tensor(labels), **options).float()

    def _train(self, features: Tensor, member: Tensor) -> SamiaNetwork:
        """Train a fresh network from torch's global generator."""
        network = SamiaNetwork(features.shape[1] // 3).train()
        weight = member.numel() / (2.0 * torch.bincount(member, minlength=2))
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(network.parameters(), momentum=self.momentum, **options)
        else:
            optimizer = torch.optim.AdamW(network.parameters(), fused=True, **options)
        batches = [part for _ in range(self.epochs) for part in self._epoch(member.numel())]
        for step, part in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self._pace(step, len(batches))
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(features[part]), member[part], weight=weight)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return settled(network, features)

    def _epoch(self, rows: int) -> list[Tensor]:
        parts = list(torch.split(torch.randperm(rows), self.batch_size))
        if len(parts) > 1 and parts[-1].numel() == 1:  # one row alone has no variance to normalise by
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def _pace(self, step: int, steps: int) -> float:
        """Return the share of the peak learning rate."""
        if self.optimizer == "sgd":
            return float(0.1 ** sum(step >= round(part * steps) for part in (0.5, 0.75)))
        rising = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
        return float(rising * 0.5 * (1.0 + np.cos(np.pi * step / steps)))


def settled(network: SamiaNetwork, features: Tensor) -> SamiaNetwork:
    """Give the batch normalisation the statistics of all training rows, and turn to evaluation."""
    statistics = network.normalise
    if statistics.running_mean is not None and statistics.running_var is not None:
        statistics.running_mean.copy_(features.double().mean(dim=0))
        statistics.running_var.copy_(features.double().var(dim=0))
    return network.eval()


@dataclass(frozen=True, eq=False)
class SamiaScorer:
    """A trained network; ``threshold`` is even odds.

    Attributes:
        attack: the settings.
        network: in evaluation mode.
        reads_noise: whether it was trained on sensitivities.
        threshold: decide "in" from this score on.
    """

    attack: Samia
    network: SamiaNetwork
    reads_noise: bool
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64 log odds.

        Raises:
            MissingNeed: it was trained on noisy answers, and the target gave none.
        """
        at = view.query_positions(self.attack.queries if self.reads_noise else ("identity",))
        scores = np.empty(view.n_records)
        order = np.argsort(view.ids, kind="stable")
        with torch.inference_mode():
            for part in np.array_split(order, max(1, -(-order.size // SCORE_ROWS))):
                features = self.attack._features(view.logits[part][:, at], view.labels[part])
                answer = self.network(features).double()
                scores[part] = (answer[:, 1] - answer[:, 0]).numpy()
        return scores
