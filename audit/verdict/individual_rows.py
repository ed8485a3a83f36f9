"""One audited record by itself, for the restricted edition alone: to read it loads no SciPy."""

from dataclasses import dataclass

__all__ = ["LISTED_AT_MOST", "Individual"]

LISTED_AT_MOST = 2_000
"""The clearest are listed; scores of all records lie in the arrays beside a result, never in the document."""


@dataclass(frozen=True)
class Individual:
    """What the primary attack makes of one record.

    Attributes:
        pseudonym: keyed name (``named.with_pseudonyms``); "" in memory until a key is given.
        key: the user's key of the record; it is never written to a document.
        label: its class.
        before: mean place among never-seen scores before deletion, in [0, 1]; 0.5 is the middle. None without models
            before deletion.
        after: the same after deletion, over the models that forgot the record.
        retrained: of retrained models; None where there are none.
        p_value: two-sided, of "its answers are those of models that never saw it"; None where too few of these exist.
    """

    pseudonym: str
    key: str
    label: str
    before: float | None
    after: float
    retrained: float | None
    p_value: float | None
