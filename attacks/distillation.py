"""Attack-D: the record's loss under the target against its loss under students of the target (Ye et al. 2022).

Source: arXiv 2111.09679. The threshold is to depend on the model and on the record. Students learn the model from
population records that it labelled itself: they stand for the model's behaviour on a record that was not trained on.
A record whose loss under the target lies far below its losses under the students was a member.

Deviations: the paper's threshold, a quantile of the students' losses, needs many students for a low false positive
rate; here the logit of the true class's probability takes the place of the loss, as in LiRA, and its distance from the
students' mean is measured in standard deviations of all records' students together. Soft labels by default; where the
paper is read as relabelling with the predicted class, ``labels="hard"`` does so. Each student learns from its own
random share of the population.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from mnemoscope.attacks.trajectory import taught, teacher
from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.answers.views import Answers, Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.distillation import Distillation, distil, student_logits
from mnemoscope.audit.rng import child_seed

__all__ = ["AttackD", "Labels"]

Floats = NDArray[np.float64]
Labels = Literal["soft", "hard"]

SURE = 50.0
"""A logit that stands for certainty, for hard labels."""

LEAST_SPREAD = 1e-6
"""In squared logits: students that agree to a thousandth of a logit do not differ."""


@dataclass(frozen=True)
class AttackD:
    """The record's margin against that of students who learned the model from population records (Attack-D).

    Attributes:
        students: models distilled from each target, at least 2.
        epochs: of distillation.
        lr: learning rate of the students, see ``Distillation`` for what else is fixed.
        batch_size: of the students.
        share: of the population that each student learns from, in (0, 1].
        labels: "soft" answers of the model, or the "hard" predicted class.
        seed: of the students; a setting, not drawn in the audit, so that each model is distilled once.
    """

    students: int = 4
    epochs: int = 30
    lr: float = 0.1
    batch_size: int = 128
    share: float = 0.8
    labels: Labels = "soft"
    seed: int = 0
    name = "attack_d"
    needs = Need.SCORES | Need.ORACLE | Need.POPULATION

    def __post_init__(self) -> None:
        if self.labels not in get_args(Labels):
            raise InvalidInput(f"labels={self.labels!r} is unknown; allowed: {', '.join(get_args(Labels))}")
        if self.students < 2 or not 0 < self.share <= 1 or self.seed < 0:
            raise InvalidInput(
                f"students={self.students!r}, share={self.share!r}, seed={self.seed!r}: "
                "students must be 2 or more, share in (0, 1], seed 0 or more"
            )
        self.distillation()

    def distillation(self) -> Distillation:
        """Return how students are trained."""
        return Distillation(epochs=self.epochs, lr=self.lr, batch_size=self.batch_size)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "AttackDScorer":
        """Nothing to learn before a target is there; nothing is drawn from ``rng``."""
        return AttackDScorer(self)


@dataclass(frozen=True)
class AttackDScorer:
    """The students of any target; they are trained once for a model, its population and the audited ids."""

    attack: AttackD

    def score(self, view: View) -> Floats:
        """Return (n,) float64: standard deviations by which the target's margin exceeds its students' mean."""
        margins = self.margins(view)
        own = view.signal("margin").mean(axis=-1)
        spread = np.maximum(margins.var(axis=1, ddof=1).mean(), LEAST_SPREAD)
        gap: Floats = own - margins.mean(axis=1)
        return np.asarray(gap / np.sqrt(spread * (1.0 + 1.0 / margins.shape[1])), np.float64)

    def margins(self, view: View) -> Floats:
        """Return (n, students) float64, each student's logit of the true class's probability."""
        oracle, population = view.oracle, view.population
        if oracle is None:
            raise MissingNeed("attack_d needs live access to the model")
        if population is None:
            raise MissingNeed("attack_d needs population records that no model was trained on")
        view.require_disjoint(population, "population")
        ids = np.sort(view.ids)  # rounding depends on who shares a batch: one order for all
        about = hashlib.sha256(ids.tobytes() + b"|" + taught(population)).hexdigest()
        key = f"attack_d {json.dumps(asdict(self.attack), sort_keys=True)} {about}"
        return oracle.recall(key, lambda: self._teach(oracle, population, ids))[np.searchsorted(ids, view.ids)]

    def _teach(self, oracle: Oracle, population: Answers, ids: NDArray[np.int64]) -> Floats:
        inputs, answers = teacher(oracle, population)
        if self.attack.labels == "hard":
            classes = answers.argmax(dim=1)
            answers = SURE * torch.nn.functional.one_hot(classes, answers.shape[1]).to(answers.dtype)
        records, labels = oracle.inputs(ids), oracle.labels(ids).cpu().numpy()
        size = max(1, round(self.attack.share * inputs.shape[0]))
        margins = []
        for number in range(self.attack.students):
            seed = child_seed(self.attack.seed, "student", number)
            draw = torch.Generator().manual_seed(child_seed(seed, "share"))
            part = torch.randperm(inputs.shape[0], generator=draw)[:size].to(inputs.device)
            student = oracle.fresh_module(seed)
            distil(student, inputs[part], answers[part], self.attack.distillation(), seed=seed)
            logits = student_logits(student, records).cpu().numpy()
            margins.append(compute_signal("margin", logits[:, None], labels)[:, 0])
        return np.stack(margins, axis=1)
