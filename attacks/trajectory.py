"""Loss trajectory attack (Liu, Zhao, Backes and Zhang 2022, arXiv 2208.14933).

A record's membership shows in how its loss falls during training. The adversary has the last model alone, so it distils
it on population records and writes down the record's loss after each epoch of the student. These losses and the
model's own are what an attack model, fitted on shadow models that were distilled alike, tells members by.

Deviations: signals are losses of logits in float64 (the release softmaxes twice); nothing is chosen on the target
(the release reports the attack model's best epoch on the records it is evaluated on); the attack model is the
classifier named by a setting, standardised and fitted on rows in canonical order, instead of a network of 512, 128
and 32 units trained by SGD; losses enter by their logarithm, because their sizes span many powers of ten; all students
start from the same weights, so that the trajectories of two models differ by the models alone; every shadow model of
the audit serves, instead of one.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.attacks.classifiers import ClassifierKind, FittedClassifier, check_classifier, fit_classifier
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.answers.views import Answers, Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.distillation import Distillation, distil, student_logits
from mnemoscope.audit.rng import child_seed

__all__ = ["LossTrajectory", "TrajectoryScorer"]

Floats = NDArray[np.float64]

LEAST_LOSS = 1e-12
"""Losses enter by their logarithm; below this they are one."""


@dataclass(frozen=True)
class LossTrajectory:
    """How a record's loss falls while a copy of the model is learned anew from population records (distillation).

    Attributes:
        epochs: epochs of distillation, each one loss of a record's trajectory.
        lr: learning rate of the students, see ``Distillation`` for these and for what else is fixed.
        batch_size: of the students.
        classifier: a ``ClassifierKind``.
        rows: training rows of the classifier at most, half of them members; 0 for no bound.
        seed: of the students' first weights and of their batches; a setting, not drawn in the audit, so that each model
            is distilled once, whatever fold and game asks.
    """

    epochs: int = 100
    lr: float = 0.1
    batch_size: int = 128
    classifier: ClassifierKind = "mlp"
    rows: int = 20_000
    seed: int = 0
    name = "loss_trajectory"
    needs = Need.SCORES | Need.ORACLE | Need.POPULATION | Need.SHADOW_IN | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        check_classifier(self.classifier)
        if self.rows == 1 or self.rows < 0 or self.seed < 0:
            raise InvalidInput(f"rows={self.rows!r}, seed={self.seed!r}: rows is 0 or from 2 on, seed 0 or more")
        self.distillation()

    def distillation(self) -> Distillation:
        """Return how students are trained."""
        return Distillation(epochs=self.epochs, lr=self.lr, batch_size=self.batch_size)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "TrajectoryScorer":
        """Distil the shadow models and fit the classifier on their trajectories."""
        bare = TrajectoryScorer(self, np.sort(reference.ids), None)
        rows = shadow_rows(reference, bare.features, cap=self.rows or None, rng=rng)
        fitted = fit_classifier(self.classifier, rows.features, rows.member, rng=rng)
        return TrajectoryScorer(self, bare.ids, fitted)


@dataclass(frozen=True, eq=False)
class TrajectoryScorer:
    """The fitted attack.

    Attributes:
        attack: its settings.
        ids: (n,) int64 ascending, records whose trajectories are taken together.
        classifier: None before it is fitted.
        threshold: even odds.
    """

    attack: LossTrajectory
    ids: NDArray[np.int64]
    classifier: FittedClassifier | None
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64, log odds."""
        assert self.classifier is not None
        return self.classifier.log_odds(self.features(view))

    def features(self, view: View) -> Floats:
        """Return (n, epochs + 1) float64: logarithms of the losses along the distillation, and of the model's own."""
        own = -view.signal("negative_loss").mean(axis=-1)
        losses = np.column_stack([self.trajectory(view), own])
        logarithms: Floats = np.log(np.maximum(losses, LEAST_LOSS))
        return logarithms

    def trajectory(self, view: View) -> Floats:
        """Return (n, epochs) float64, each record's loss after each epoch; a model is distilled once for its ids."""
        oracle = view.oracle
        if oracle is None:
            raise MissingNeed("loss_trajectory needs live access to the model")
        if view.population is None:
            raise MissingNeed("loss_trajectory needs population records that no model was trained on")
        view.require_disjoint(view.population, "population")
        # Parts of the audited records, as folds ask for them, share the trajectories of all.
        ids = self.ids if np.isin(view.ids, self.ids).all() else np.sort(view.ids)
        settings = asdict(self.attack.distillation()) | {"seed": self.attack.seed}
        about = hashlib.sha256(ids.tobytes() + b"|" + taught(view.population)).hexdigest()
        key = f"loss_trajectory {json.dumps(settings, sort_keys=True)} {about}"
        population = view.population
        found = oracle.recall(key, lambda: self._distil(oracle, population, ids))
        return found[np.searchsorted(ids, view.ids)]

    def _distil(self, oracle: Oracle, population: Answers, ids: NDArray[np.int64]) -> Floats:
        inputs, answers = teacher(oracle, population)
        records, labels = oracle.inputs(ids), oracle.labels(ids).cpu().numpy()
        student = oracle.fresh_module(child_seed(self.attack.seed, "student"))
        seen: list[Tensor] = []

        def watch(learner: nn.Module) -> None:
            seen.append(student_logits(learner, records))

        distil(student, inputs, answers, self.attack.distillation(), seed=self.attack.seed, on_epoch=watch)
        logits = torch.stack(seen).cpu().numpy()
        return -compute_signal("negative_loss", logits[:, :, None], labels)[:, :, 0].T


def taught(population: Answers) -> bytes:
    """Return a digest of what a student is taught, whatever the order of the records: their ids and the answers."""
    order = np.argsort(population.ids, kind="stable")
    whole = hashlib.sha256(population.ids[order].tobytes())
    whole.update(np.ascontiguousarray(population.logits[order]).data)
    return whole.digest()


def teacher(oracle: Oracle, population: Answers) -> tuple[Tensor, Tensor]:
    """Return population inputs and the model's recorded answers on them, (z, c) float64, in the order of the ids."""
    order = np.argsort(population.ids, kind="stable")
    # Several queries of a record are several views of one answer: their mean probabilities are what is taught.
    logits = torch.from_numpy(population.logits[order].astype(np.float64))
    soft = torch.logsumexp(torch.log_softmax(logits, dim=2), dim=1)
    return oracle.inputs(population.ids[order]), soft.to(oracle.device)
