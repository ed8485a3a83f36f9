"""The metrics of the unlearning literature for models at hand: their answers on three sets, and the weak SVM attack."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Answers, Known
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.statistics.unlearning import Compared, ModelAnswers, UnlearningMetrics
from mnemoscope.audit.verdict.result import Measured

__all__ = ["LiteratureSets", "literature_rows", "model_answers"]

Ids = NDArray[np.int64]
Ask = Callable[[Ids], NDArray[np.float32]]
"""From ids (n,) to logits (n, 1, c)."""


@dataclass(frozen=True, eq=False)
class LiteratureSets:
    """Records on which unlearning papers compare models.

    Attributes:
        forget: ids to be forgotten.
        retain: ids that stay.
        test: ids that no model saw.
        labels: label of any id.
        forgotten_class: where a class was forgotten: its label.
    """

    forget: Ids
    retain: Ids
    test: Ids
    labels: Callable[[Ids], Ids]
    forgotten_class: int | None = None


def model_answers(ask: Ask, sets: LiteratureSets, *, rng: np.random.Generator) -> ModelAnswers:
    """Ask one model, and let the SVM attack of that literature say how many forget records look unseen.

    Args:
        ask: the model.
        sets: the records.
        rng: draws what the SVM learns on.
    """
    from mnemoscope.attacks.svm import mia_efficacy

    parts = [Answers(ids, sets.labels(ids), ask(ids)) for ids in (sets.forget, sets.retain, sets.test)]
    forget, retain, test = parts
    unseen = test
    if sets.forgotten_class is not None:
        keep = np.flatnonzero(test.labels != sets.forgotten_class)
        unseen = Answers(test.ids[keep], test.labels[keep], test.logits[keep])
    mia = mia_efficacy(Known(retain, unseen), forget, rng=rng)
    return ModelAnswers(forget, retain, test, mia)


def literature_rows(metrics: UnlearningMetrics, n_records: int) -> tuple[Measured, ...]:
    """Return the metrics as measures, each with what retrained models score beside it.

    Args:
        metrics: of one way of deleting.
        n_records: forgotten records.
    """
    near = "to be near that of retrained models"

    def row(name: str, unit: str, direction: str, both: Compared, note: str = "") -> Measured:
        n = metrics.unlearned_models
        return Measured(name, unit, direction, both.after, both.retrained, n, n_records, note)

    gap = Compared(metrics.gap.value, metrics.gap.floor)
    ratio = Compared(metrics.forgetting_rate, Estimate(1.0, reason="by definition"))
    return (
        row("UA", "share", near, metrics.ua, "share of forget records answered wrongly"),
        row("RA", "share", near, metrics.ra, "accuracy on retained records"),
        row("TA", "share", near, metrics.ta, "accuracy on test records, without a class that was forgotten"),
        row("MIA-efficacy", "share", near, metrics.mia, "forget records that an SVM on the confidence calls unseen"),
        row("average gap", "points", "smaller is nearer", gap, f"mean of |{', '.join(metrics.gap_of)}| differences"),
        row("tug-of-war", "score", "1 is retraining", metrics.tow),
        row("JS divergence", "nats", "smaller is nearer", metrics.js, "from retrained models, on forget records"),
        row("activation distance", "L2", "smaller is nearer", metrics.activation_distance),
        row("forgetting rate", "ratio", "1 is retraining", ratio, "our substitute: accuracy lost over that which "
            "retraining loses"),
        row("ZRF", "score", near, metrics.zrf, "true Jensen-Shannon, against untrained models"),
    )  # fmt: skip
