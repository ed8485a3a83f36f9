"""Model inversion: what a class looks like, climbed out of the model's confidence (Fredrikson et al. 2015).

Source: Fredrikson, Jha and Ristenpart, CCS 2015, section 5 (gradient descent on 1 - confidence from a blank input).
Deviations: Adam on -log confidence, whose gradient does not vanish where the softmax saturates, with a pull to the
public mean and total variation on images in the place of the paper's denoising; the start is the public mean.

A class that any of its records shows is no secret of one record: compare with the control, a model that never saw the
deleted records. Where a whole class was deleted, the control has nothing of it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mnemoscope.attacks.unlearning_inversion import total_variation
from mnemoscope.audit.answers.reconstruction import Case, Judged, Secret, VersionPair, centred_cosine
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput

__all__ = ["ModelInversion"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ModelInversion:
    """Climb the confidence of each deleted class in the later version; judged by nearest public class mean.

    Attributes:
        steps: of Adam.
        lr: its rate, in units of the public inputs' standard deviation.
        pull: weight of the mean squared distance to the public mean, in those units.
        tv: weight of the total variation (images).
    """

    steps: int = 200
    lr: float = 0.05
    pull: float = 0.1
    tv: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0 or not min(self.pull, self.tv) >= 0:
            raise InvalidInput("model_inversion: steps must be 1 or more, lr > 0, pull and tv 0 or more")

    @property
    def name(self) -> str:
        """``model_inversion``."""
        return "model_inversion"

    @property
    def needs(self) -> Need:
        """Gradients with respect to the input."""
        return Need.ORACLE | Need.GRADIENT

    @property
    def unit(self) -> str:
        """Share of classes."""
        return "share of classes whose inverted input lies nearest to that class's own mean"

    @property
    def note(self) -> str:
        """What is tried."""
        return (
            f"gradient ascent on the later version's confidence, {self.steps} steps a class; judged by the means of "
            "public records, which the attack does not see by class; chance: one over the number of classes"
        )

    def told(self, secret: Secret, pair: VersionPair) -> NDArray[np.int64]:
        """Which classes the deleted records have."""
        return np.unique(secret.labels)

    def recover(self, pair: VersionPair, told: NDArray[np.int64], *, rng: np.random.Generator) -> Floats:
        """Return one input a class, (classes told, ...); ``rng`` is not used."""
        module, public = pair.after.module(), pair.after.inputs(pair.public)
        labels = torch.from_numpy(told).to(public.device)
        low, high, spread, mean = public.min(), public.max(), float(public.std()), public.mean(dim=0)
        x = mean.expand(told.size, *mean.shape).clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=self.lr * spread)
        for _ in range(self.steps):
            loss = nn.functional.cross_entropy(module(x), labels, reduction="sum")
            near = ((x - mean) / spread).square().flatten(1).mean(dim=1).sum()
            whole = loss + self.pull * near + self.tv * told.size * total_variation(x) / spread
            x.grad = torch.autograd.grad(whole, x)[0]
            optimizer.step()
            with torch.no_grad():
                x.clamp_(low, high)
        pair.after.count_gradients(self.steps * told.size)
        return np.asarray(x.detach().double().cpu().numpy(), np.float64)

    def judge(self, recovered: Floats, case: Case, *, rng: np.random.Generator) -> Judged:
        """1 where the class's own mean is the nearest of all class means, by centred cosine."""
        pair, classes = case.pair, self.told(case.secret, case.pair)
        public = pair.after.inputs(pair.public).flatten(1).cpu().numpy().astype(np.float64)
        of = pair.after.labels(pair.public).cpu().numpy()
        known = np.unique(of)
        lost = np.setdiff1d(classes, known)
        if lost.size:
            raise InvalidInput(f"no public record has label {lost[0]}: its inversion cannot be judged; add some")
        means = np.stack([public[of == k].mean(axis=0) for k in known])
        cosine = centred_cosine(recovered.reshape(classes.size, -1), means, means.mean(axis=0))
        value = (known[cosine.argmax(axis=1)] == classes).astype(np.float64)
        own = cosine[np.arange(classes.size), np.searchsorted(known, classes)]
        return Judged(value, np.full(value.size, 1.0 / known.size), {"cosine to the class mean": float(own.mean())})
