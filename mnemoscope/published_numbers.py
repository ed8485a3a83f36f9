"""Two numbers that tables of the unlearning literature print, beside what retrained models reach: description alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from mnemoscope.audit.answers.views import Answers, Known
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.means import mean_estimate
from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.result import Measured

__all__ = ["published_numbers"]

Logits = NDArray[np.float32]
Number = Callable[[Logits, str], Estimate]

EFFICACY_NOTE = (
    "an SVM learns on the model's own confidence for retained and never-seen records and says which forget records are "
    "not members; a high value is no success in itself, the retrained models' value is the aim. A weak attack, printed "
    "to compare with published tables"
)
PRIVACY_NOTE = "balanced accuracy of the same SVM on retained and never-seen records that it did not learn from"


def published_numbers(inputs: OneModelInput, *, level: float, seed: int) -> tuple[Measured, ...]:
    """Return "MIA-efficacy" and "training privacy" (SVM on confidence, arXiv 2304.04934) of one model.

    Args:
        inputs: recorded answers; without retained records there are no known members and nothing is returned.
        level: confidence of intervals.
        seed: root seed; every model gets the same draw of records.

    Returns:
        Each with the retrained models in the place of the audited one as its floor, and their spread in the interval
        of the excess: it says whether the audited model lies where another retrained one could.
    """
    from mnemoscope.attacks.svm import mia_efficacy, training_privacy

    members, never, forget = (inputs.rows(g) for g in (Group.RETAIN, Group.HOLDOUT, Group.FORGET))
    if min(members.size, never.size) < 2:
        return ()

    def answers(logits: Logits, rows: NDArray[np.int64]) -> Answers:
        return Answers(inputs.ids[rows], inputs.labels[rows], logits[rows])

    def known(logits: Logits) -> Known:
        return Known(answers(logits, members), answers(logits, never))

    def efficacy(logits: Logits, name: str) -> Estimate:
        return mia_efficacy(known(logits), answers(logits, forget), level=level, rng=generator(seed, name))

    def privacy(logits: Logits, name: str) -> Estimate:
        return training_privacy(known(logits), level=level, rng=generator(seed, name))

    numbers: tuple[tuple[str, Number, str, str, int], ...] = (
        ("mia_efficacy", efficacy, "share of forget records that an SVM calls non-members", EFFICACY_NOTE, forget.size),
        ("training_privacy", privacy, "balanced accuracy", PRIVACY_NOTE, members.size + never.size),
    )  # fmt: skip
    return tuple(_row(inputs, *number, level=level) for number in numbers)


def _row(
    inputs: OneModelInput, name: str, number: Number, unit: str, note: str, n_records: int, *, level: float
) -> Measured:
    try:
        value = number(inputs.after, name)
        before = None if inputs.before is None else number(inputs.before, name)
        reached = [] if inputs.retrained is None else [number(model, name) for model in inputs.retrained]
    except InvalidInput as error:  # description must not cost the verdict
        none = Estimate(None, reason=str(error))
        return Measured(name, unit, "", none, none, 1, n_records, note)
    floor, excess = _beside(value, reached, level)
    return Measured(
        name, unit, "read it against the retrained models", value, floor, 1, n_records, note, excess, before
    )


def _beside(value: Estimate, reached: list[Estimate], level: float) -> tuple[Estimate, Estimate | None]:
    """The retrained models' mean, and the audited model's distance from it with the spread of one more such model."""
    if not reached:
        return Estimate(None, reason="no retrained models"), None
    if len(reached) == 1:
        return reached[0], None
    values = np.array([estimate.value for estimate in reached], np.float64)
    assert value.value is not None
    off, r = value.value - float(values.mean()), values.size
    width = float(t.ppf((1 + level) / 2, r - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / r))
    ci = Interval(off - width, off + width, level, "two", "t, one more retrained model")
    return mean_estimate(values, of="retrained models", level=level, low=0.0, high=1.0), Estimate(off, ci, n=r)
