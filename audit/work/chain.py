"""A deletion that follows others on the same model: what they left behind, and which records this one names."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

if TYPE_CHECKING:
    from mnemoscope.audit.work.workspace import ModelRef

__all__ = ["NextRequest"]


@dataclass(frozen=True, eq=False)
class NextRequest:
    """One request of several, in every model of a fleet.

    Attributes:
        number: of the request, from 1 on.
        models: what is deleted from, one for each model of the design: the fleet "before" for the first request, else
            what the request before left behind.
        forget: ids that this request names, one array for each model.
    """

    number: int
    models: "tuple[ModelRef, ...]"
    forget: tuple[NDArray[np.int64], ...]

    def __post_init__(self) -> None:
        if self.number < 1 or len(self.models) != len(self.forget):
            raise InvalidInput(
                f"NextRequest: number={self.number} must be at least 1, and {len(self.models)} models need a forget "
                f"set each; given {len(self.forget)}"
            )
