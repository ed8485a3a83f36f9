"""Answers of one model, or of a fleet, before and after deletion, matched by record id."""

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed

__all__ = ["logits_before", "signal_before"]


def _checked(answers: View | Reference) -> View | Reference:
    before = answers.before
    if before is None:
        raise MissingNeed(
            "this attack needs the answers of the model before deletion. Provide them or leave the attack out"
        )
    after, earlier = answers.logits.shape, before.logits.shape
    if (*after[:-3], *after[-2:]) != (*earlier[:-3], *earlier[-2:]):
        raise InvalidInput(
            f"before and after deletion do not match: logits {earlier} and {after}; the same models must answer the "
            "same queries with the same classes (an unlearned model that lost a class answers with fewer)"
        )
    return before


def logits_before(answers: View | Reference) -> NDArray[np.float32]:
    """Return the logits before deletion, shaped and ordered like ``answers.logits``.

    Raises:
        MissingNeed: there are none, or that model answers with labels only.
        InvalidInput: other models, queries or classes than after deletion, or a record without an answer.
    """
    before = _checked(answers)
    if before.labels_only:
        raise MissingNeed("the model before deletion answers with labels only: this attack needs its scores")
    logits: NDArray[np.float32] = before.logits[..., before.positions(answers.ids), :, :]
    return logits


def signal_before(answers: View | Reference, name: str) -> NDArray[np.float64]:
    """Return a signal before deletion, shaped and ordered like ``answers.signal(name)``; errors as above."""
    before = _checked(answers)
    signal: NDArray[np.float64] = before.signal(name)[..., before.positions(answers.ids), :]
    return signal
