"""Unlearning inversion: features from the change of parameters, labels from the change of answers (Hu et al. 2024).

Source: arXiv 2404.03233. The change of the parameters estimates the deleted record's gradient; an input is searched
whose gradient points the same way (cosine distance plus total variation, signed gradients into AdamW, the rate halved
three times, restarts, clamped to the range of public inputs). Where both versions were trained from one public model,
-(n d_before - (n - k) d_after), with d the change from that model, cancels what the kept records contributed.

Deviations: 300 steps and 2 restarts instead of 10,000 and 5 by default, for CPUs; labels are told, as in the paper;
deletions are searched together only up to a few records. The label attack compares log odds instead of confidences,
which tie where the softmax saturates, and starts its probing inputs from public records instead of noise.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.func import functional_call

from mnemoscope.audit.answers.reconstruction import Case, Judged, Secret, VersionPair, centred_cosine
from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput

if TYPE_CHECKING:
    from mnemoscope.audit.answers.oracle import Oracle

__all__ = ["LabelInversion", "UnlearningInversion", "gradient_estimate", "total_variation"]

Floats = NDArray[np.float64]


def gradient_estimate(pair: VersionPair) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the module at which the deleted gradient is taken and the estimate by parameter name, up to scale.

    With a public base: -(n d_before - (n - k) d_after) at the base. Without: theta_after - theta_before at the earlier
    version, the step of gradient ascent (or Newton's) that takes the records out.
    """
    before, after = (dict(o.module().named_parameters()) for o in (pair.before, pair.after))
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        raise InvalidInput("the two models differ in their parameters' names or shapes: no versions of one model")
    with torch.no_grad():
        if pair.base is None:
            return pair.before.module(), {name: after[name] - before[name] for name in before}
        start = dict(pair.base.module().named_parameters())
        n, kept = pair.n_before, pair.n_before - pair.n_deleted
        estimate = {k: kept * (after[k] - start[k]) - n * (before[k] - start[k]) for k in before}
        return pair.base.module(), estimate


def total_variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of (k, c, h, w) images, (); 0 for anything else."""
    if x.ndim != 4:
        return x.new_zeros(())
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean() + (x[..., 1:] - x[..., :-1]).abs().mean()


@dataclass(frozen=True)
class UnlearningInversion:
    """Recover the inputs of a few deleted records from the change of the parameters.

    Attributes:
        steps: of the search, for each start.
        restarts: starts; the best match of gradients is kept.
        lr: peak rate of AdamW on signed gradients, in units of the public inputs' standard deviation.
        tv: weight of the total variation (images).
        most: more deleted records than this are refused: their gradients add up and cannot be told apart.
    """

    steps: int = 300
    restarts: int = 2
    lr: float = 0.04
    tv: float = 0.01
    most: int = 4

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.most) < 1 or not self.lr > 0 or not self.tv >= 0:
            raise InvalidInput("unlearning_inversion: steps, restarts and most must be 1 or more, lr > 0, tv >= 0")

    @property
    def name(self) -> str:
        """``unlearning_inversion``."""
        return "unlearning_inversion"

    @property
    def needs(self) -> Need:
        """The parameters of both versions."""
        return Need.ORACLE | Need.GRADIENT

    @property
    def unit(self) -> str:
        """Cosine, public mean taken off."""
        return "cosine to the deleted record"

    @property
    def note(self) -> str:
        """What is tried."""
        return (
            f"an input whose gradient matches the change of the parameters, labels told, {self.restarts} starts of "
            f"{self.steps} steps; chance: the best of {self.restarts} random public records of the label"
        )

    def cannot(self, n_deleted: int, shape: tuple[int, ...]) -> str:
        """Say why pairs that lack so many records cannot be attacked; "" where they can."""
        if n_deleted <= self.most:
            return ""
        return (
            f"unlearning inversion tells apart at most {self.most} deleted records, this pair lacks {n_deleted}. "
            "Delete fewer, or raise `most` and expect mixtures"
        )

    def told(self, secret: Secret, pair: VersionPair) -> NDArray[np.int64]:
        """The labels, in ascending order."""
        return np.sort(secret.labels)

    def recover(self, pair: VersionPair, told: NDArray[np.int64], *, rng: np.random.Generator) -> Floats:
        """Return (k, ...) inputs in the order of the labels told."""
        if reason := self.cannot(int(told.size), tuple(pair.before.inputs(pair.public[:1]).shape[1:])):
            raise InvalidInput(reason)
        module, estimate = gradient_estimate(pair)
        public = pair.before.inputs(pair.public)
        labels = torch.from_numpy(told).to(public.device)
        best, found = np.inf, np.zeros((told.size, *public.shape[1:]))
        for _ in range(self.restarts):
            start = torch.from_numpy(rng.normal(size=(told.size, *public.shape[1:])).astype(np.float32))
            distance, x = self._search(module, estimate, public, labels, start.to(public.device))
            pair.before.count_gradients(self.steps * told.size)
            if distance < best:
                best, found = distance, x.double().cpu().numpy()
        return found

    def _search(
        self, module: nn.Module, estimate: dict[str, Tensor], public: Tensor, labels: Tensor, noise: Tensor
    ) -> tuple[float, Tensor]:
        weights = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
        target = torch.cat([estimate[name].detach().flatten() for name in weights])
        low, high, spread = public.min(), public.max(), float(public.std())
        x = (public.mean(dim=0) + spread * noise).clamp(low, high).detach().requires_grad_()
        rate = self.lr * spread
        optimizer = torch.optim.AdamW([x], lr=rate, weight_decay=0.0)

        def distance() -> Tensor:
            loss = nn.functional.cross_entropy(functional_call(module, weights, (x,)), labels, reduction="sum")
            gradient = torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, list(weights.values()), create_graph=True)]
            )
            return 1 - nn.functional.cosine_similarity(gradient, target, dim=0, eps=1e-20)

        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 ** sum(step >= share * self.steps for share in (3 / 8, 5 / 8, 7 / 8))
            objective = distance() + self.tv * total_variation(x) / spread
            x.grad = torch.autograd.grad(objective, x)[0].sign()
            optimizer.step()
            with torch.no_grad():
                x.clamp_(low, high)
        return float(distance().detach()), x.detach()

    def judge(self, recovered: Floats, case: Case, *, rng: np.random.Generator) -> Judged:
        """Match recovered inputs to deleted ones of the label; random public records of the label are matched alike."""
        secret = case.secret
        order = np.argsort(secret.labels, kind="stable")
        truth, labels = secret.inputs[order].reshape(order.size, -1).astype(np.float64), secret.labels[order]
        public = case.pair.before.inputs(case.pair.public).flatten(1).cpu().numpy().astype(np.float64)
        of = case.pair.before.labels(case.pair.public).cpu().numpy()
        centre, span = public.mean(axis=0), float(public.max() - public.min())
        mine = recovered.reshape(order.size, -1)
        value, matched = _matched(centred_cosine(mine, truth, centre), labels)
        chance = np.full(order.size, -1.0)
        for _ in range(self.restarts):
            drawn = [rng.choice(np.flatnonzero(of == y) if (of == y).any() else of.size) for y in labels]
            chance = np.maximum(chance, _matched(centred_cosine(public[drawn], truth, centre), labels)[0])
        mse = float(((mine - truth[matched]) ** 2).mean())
        return Judged(value, chance, {"MSE": mse, "PSNR in dB": 10 * np.log10(span**2 / max(mse, 1e-12 * span**2))})


def _matched(cosine: Floats, labels: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Best assignment of rows to columns of the same label: its cosines and the columns."""
    rows, columns = linear_sum_assignment(np.where(labels[:, None] == labels, -cosine, 10.0))
    return cosine[rows, columns], columns


@dataclass(frozen=True)
class LabelInversion:
    """Recover the label of what was deleted from the answers of both versions to probing inputs, one for each class.

    Attributes:
        steps: of the zeroth-order search for each probing input.
        tries: perturbed inputs asked in each step.
        step: size of a perturbation, in units of the public inputs' standard deviation.
    """

    steps: int = 20
    tries: int = 20
    step: float = 0.3

    def __post_init__(self) -> None:
        if min(self.steps, self.tries) < 1 or not self.step > 0:
            raise InvalidInput("label_inversion: steps and tries must be 1 or more, step > 0")

    @property
    def name(self) -> str:
        """``label_inversion``."""
        return "label_inversion"

    @property
    def needs(self) -> Need:
        """Live answers with scores of both versions."""
        return Need.ORACLE | Need.SCORES

    @property
    def unit(self) -> str:
        """Share of right guesses."""
        return "share of pairs whose most deleted class was named"

    @property
    def note(self) -> str:
        """What is tried."""
        return (
            "the class whose confidence falls most at inputs that both versions are sure of; chance: a label drawn "
            "from the public records"
        )

    def told(self, secret: Secret, pair: VersionPair) -> None:
        """Nothing."""
        return

    def recover(self, pair: VersionPair, told: None, *, rng: np.random.Generator) -> int:
        """Return the class guessed."""
        public = pair.before.inputs(pair.public)
        versions = (pair.before, pair.after)
        drops = np.empty(pair.before.n_classes)
        for label in range(drops.size):
            surest = np.minimum(*(_log_odds(oracle, public, label) for oracle in versions)).argmax()
            probe = self._probe(pair, public, public[int(surest)], label, rng)
            before, after = (_log_odds(oracle, probe, label)[0] for oracle in versions)
            drops[label] = before - after
        return int(drops.argmax())

    def _probe(self, pair: VersionPair, public: Tensor, start: Tensor, label: int, rng: np.random.Generator) -> Tensor:
        """Climb the smaller of both versions' log odds of the class, by random steps that are kept when they help."""
        versions = (pair.before, pair.after)
        spread, low, high = float(public.std()), public.min(), public.max()
        x = start[None]
        height = min(_log_odds(oracle, x, label)[0] for oracle in versions)
        for _ in range(self.steps):
            noise = torch.from_numpy(rng.normal(size=(self.tries, *x.shape[1:])).astype(np.float32)).to(x.device)
            tried = (x + self.step * spread * noise).clamp(low, high)
            heights = np.minimum(*(_log_odds(oracle, tried, label) for oracle in versions))
            best = int(heights.argmax())
            if heights[best] > height:
                x, height = tried[best][None], heights[best]
        return x

    def judge(self, recovered: int, case: Case, *, rng: np.random.Generator) -> Judged:
        """1 where the guess is the most frequent label of the deleted records (or one of several such)."""
        labels, counts = np.unique(case.secret.labels, return_counts=True)
        right = labels[counts == counts.max()]
        public = case.pair.before.labels(case.pair.public).cpu().numpy()
        value, chance = float(recovered in right), float(np.isin(public, right).mean())
        return Judged(np.array([value]), np.array([chance]))


def _log_odds(oracle: "Oracle", inputs: Tensor, label: int) -> Floats:
    """Logit of one class's probability, (k,) float64."""
    logits = oracle.logits(inputs).cpu().numpy()[:, None]
    return compute_signal("margin", logits, np.full(len(logits), label))[:, 0]
