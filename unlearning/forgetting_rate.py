"""Forgetting rate and memory-retention rate: two ratios of accuracies, as we define them.

The names are those of Zuo et al. 2024 (arXiv 2401.04385), whose formulas we know from the abstract alone; these are
labelled substitutes and not theirs. Other papers call other things a forgetting rate (the share of forget records that
an attack calls non-members, for one): no number from here compares with those.
"""

import math

from mnemoscope.audit.errors import InvalidInput

__all__ = ["forgetting_rate", "memory_retention_rate"]


def forgetting_rate(before: float, after: float, retrained: float) -> float | None:
    """Return FR' = (Acc_before(D_f) - Acc_after(D_f)) / (Acc_before(D_f) - Acc_retrained(D_f)).

    How much of the way from the original model's accuracy on the forget records to a retrained model's was gone: 0
    where nothing changed, 1 at the retrained model's, above 1 where more is forgotten than retraining forgets, below 0
    where the records are known better than before. Not clipped.

    Args:
        before: accuracy of the original model on the forget records, in [0, 1].
        after: of the unlearned model.
        retrained: of a model retrained without them (the mean of several).

    Returns:
        None where the retrained model knows the forget records as well as the original: there is no way to go.

    >>> forgetting_rate(1.0, 0.85, 0.7)
    0.5
    """
    _check(before=before, after=after, retrained=retrained)
    way = before - retrained
    return None if abs(way) < 1e-12 else round((before - after) / way, 12)


def memory_retention_rate(before: float, after: float) -> float | None:
    """Return MRR' = Acc_after(D_r) / Acc_before(D_r); to be given for the test records too.

    Args:
        before: accuracy of the original model on the retained (or test) records, in [0, 1].
        after: of the unlearned model.

    Returns:
        1 where all is retained; above 1 where the model got better; None where the original was never right.

    >>> memory_retention_rate(0.8, 0.6)
    0.75
    """
    _check(before=before, after=after)
    return None if before == 0 else round(after / before, 12)


def _check(**accuracies: float) -> None:
    for name, value in accuracies.items():
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise InvalidInput(f"{name}={value!r} must be an accuracy in [0, 1], as a share and not in per cent")
