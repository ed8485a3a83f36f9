"""How far the answers of one model lie from another's, on the same records: divergence, distance, agreement.

Sources: activation distance and its L1 form, Golatkar et al. 2020 (arXiv 1911.04933); the zero-retrain forgetting
metric ZRF, Chundawat et al. 2022 (arXiv 2205.08096); completeness, the share of equal predictions. Retraining itself
scores neither 0 nor 1 on any of them: read a value beside that of two retrained models.

Everything is computed from logits in float64, so that no logarithm meets a zero.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.checks import check_logits
from mnemoscope.audit.answers.views import Answers
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.means import mean_estimate
from mnemoscope.audit.statistics.proportions import rate
from mnemoscope.audit.statistics.trials import Estimate

__all__ = [
    "activation_distance",
    "between_each_other",
    "completeness",
    "js_divergence",
    "predictions",
    "zrf",
    "zrf_as_published",
]

Floats = NDArray[np.float64]
Norm = Literal["l2", "l1"]


def js_divergence(answers: Answers, others: Sequence[Answers], *, level: float = 0.95) -> Estimate:
    """Return the Jensen-Shannon divergence from other models' softmax, mean over records and models, in nats.

    For a record it is KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2: 0 where both answer alike, at most log 2.

    Args:
        answers: of one model.
        others: of o >= 1 models, usually retrained ones, on the same records in the same order.
        level: of the interval over records, given the models.

    Raises:
        InvalidInput: other records, probabilities instead of logits.
        MissingNeed: labels only.
    """
    own = _log_softmax(answers)
    values = [_js(own, _log_softmax(other)) for other in _same(answers, others)]
    return mean_estimate(np.mean(values, axis=0), of="records", level=level, low=0.0, high=math.log(2))


def activation_distance(
    answers: Answers, others: Sequence[Answers], *, norm: Norm = "l2", level: float = 0.95
) -> Estimate:
    """Return the distance of softmax vectors from other models', mean over records and models.

    Args:
        answers: of one model.
        others: of o >= 1 models on the same records in the same order.
        norm: "l2", at most sqrt(2), or "l1", at most 2.
        level: of the interval over records, given the models.

    Raises:
        InvalidInput: an unknown norm, other records, probabilities instead of logits.
        MissingNeed: labels only.
    """
    if norm not in get_args(Norm):
        raise InvalidInput(f"norm={norm!r} is unknown; allowed: {', '.join(get_args(Norm))}")
    order, most = (2, 2**0.5) if norm == "l2" else (1, 2.0)
    own = np.exp(_log_softmax(answers))
    values = [np.linalg.norm(own - np.exp(_log_softmax(other)), ord=order, axis=1) for other in _same(answers, others)]
    return mean_estimate(np.mean(values, axis=0), of="records", level=level, low=0.0, high=most)


def zrf(answers: Answers, incompetent: Sequence[Answers], *, level: float = 0.95) -> Estimate:
    """Return the zero-retrain forgetting metric on its own scale: 1 - mean Jensen-Shannon divergence in bits.

    1 where the model answers as untrained ones do, 0 where nothing is shared. The value to reach is a retrained
    model's, not 1: a model that generalises answers unlike an untrained one on records that it never saw.

    Args:
        answers: of the model after deletion, on the forget records.
        incompetent: of untrained models of the same architecture, on the same records.
        level: of the interval over records, given the models.

    Raises:
        InvalidInput: other records, probabilities instead of logits.
        MissingNeed: labels only.
    """
    own = _log_softmax(answers)
    values = [1 - _js(own, _log_softmax(other)) / math.log(2) for other in _same(answers, incompetent)]
    return mean_estimate(np.mean(values, axis=0), of="records", level=level, low=0.0, high=1.0)


def zrf_as_published(answers: Answers, incompetent: Sequence[Answers], *, level: float = 0.95) -> Estimate:
    """Return what the release of ZRF computes, for comparison with printed tables alone.

    Two departures from its formula: the divergences run the other way, KL(m || p) and KL(m || q), and the sum over the
    classes is divided by their number. Values therefore crowd near 1, the more the more classes there are. A divergence
    this way round has no upper limit, so the value may also be negative.
    """
    own = _log_softmax(answers)
    values = []
    for other in _same(answers, incompetent):
        theirs = _log_softmax(other)
        m = (np.exp(own) + np.exp(theirs)) / 2
        log_m = np.logaddexp(own, theirs) - math.log(2)
        values.append(1 - (m * (log_m - own) + m * (log_m - theirs)).mean(axis=1) / 2)
    return mean_estimate(np.mean(values, axis=0), of="records", level=level, high=1.0)


def completeness(answers: Answers, others: Sequence[Answers], *, level: float = 0.95) -> Estimate:
    """Return the share of records on which a model predicts what other models predict.

    Against one model it is k of n records with Clopper and Pearson's interval; against several, the mean over records
    of the share of models agreed with. Works with labels only.

    Raises:
        InvalidInput: other records.
    """
    own = predictions(answers)
    agreed = np.array([own == predictions(other) for other in _same(answers, others)])
    if len(agreed) == 1:
        return rate(int(agreed.sum()), agreed.shape[1], level)
    return mean_estimate(agreed.mean(axis=0), of="records", level=level, low=0.0, high=1.0)


def between_each_other(measure: str, models: Sequence[Answers], *, level: float = 0.95) -> Estimate:
    """Return a distance of models from each other: what another model of the same kind scores, the noise floor.

    Args:
        measure: "js_divergence", "activation_distance" or "completeness".
        models: usually retrained with other seeds; each takes the place of the unlearned one against the others.
        level: of the interval over models.

    Returns:
        Mean over models; no value with fewer than two.

    Raises:
        InvalidInput: an unknown measure, other records.
    """
    functions = {"js_divergence": js_divergence, "activation_distance": activation_distance}
    functions["completeness"] = completeness
    if measure not in functions:
        raise InvalidInput(f"measure={measure!r} is unknown; allowed: {', '.join(functions)}")
    if len(models) < 2:
        return Estimate(None, n=len(models), reason="a noise floor needs two retrained models at least")
    values = []
    for place, model in enumerate(models):
        value = functions[measure](model, [other for at, other in enumerate(models) if at != place]).value
        if value is not None:
            values.append(value)
    return mean_estimate(values, of="models", level=level, low=0.0)


def predictions(answers: Answers) -> NDArray[np.int64]:
    """Return the predicted classes (n,) of one model for its first query."""
    if answers.logits.ndim != 3:
        raise InvalidInput(f"answers must be of one model, (n, q, c); given {answers.logits.shape}")
    return np.asarray(answers.logits[:, 0].argmax(axis=-1), np.int64)


def _same(answers: Answers, others: Sequence[Answers]) -> Sequence[Answers]:
    if not others:
        raise InvalidInput("no other model to compare with; give the answers of one at least")
    for other in others:
        if not np.array_equal(other.ids, answers.ids) or other.logits.shape[-1] != answers.logits.shape[-1]:
            raise InvalidInput(
                f"models must answer for the same records in one order and the same classes: {answers.ids.size} and "
                f"{answers.logits.shape[-1]} here, {other.ids.size} and {other.logits.shape[-1]} there"
            )
    return others


def _log_softmax(answers: Answers) -> Floats:
    """Log probabilities (n, c) of one model for its first query."""
    if answers.labels_only:
        raise MissingNeed("these models answer with labels only: distances of probabilities need their scores")
    if answers.logits.ndim != 3:
        raise InvalidInput(f"answers must be of one model, (n, q, c); given {answers.logits.shape}")
    check_logits("answers", answers.logits)
    z = answers.logits[:, 0].astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def _js(log_p: Floats, log_q: Floats) -> Floats:
    """Jensen-Shannon divergence (n,) in nats of rows of log probabilities."""
    log_m = np.logaddexp(log_p, log_q) - math.log(2)
    values: Floats = (np.exp(log_p) * (log_p - log_m) + np.exp(log_q) * (log_q - log_m)).sum(axis=1) / 2
    return np.clip(values, 0.0, math.log(2))
