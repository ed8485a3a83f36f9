"""What an unlearning method is."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.training import Trained

if TYPE_CHECKING:
    from mnemoscope.audit.records.request import Request

__all__ = ["TrainsItself", "UnlearningMethod", "trainer_of"]


@runtime_checkable
class UnlearningMethod(Protocol):
    """A way of deleting: a frozen dataclass whose fields are its settings (JSON values).

    Attributes:
        name: as in a plan.
        needs: what it reads of the request, e.g. ``Need.FORGET_DATA | Need.RETAIN_DATA``; checked before any work.
        exact: whether it promises the distribution of retraining.

    Three more are read where a method has them: ``kinds``, the requests it serves (records and classes otherwise);
    ``optional``, what it reads where it is given; ``reading``, whether it is known from an abstract alone, so that no
    table ranks it. A method with ``Need.HISTORY`` takes one more argument, ``history: History``.
    """

    @property
    def name(self) -> str:
        """Name as in a plan."""
        ...

    @property
    def needs(self) -> Need:
        """What it reads of the request."""
        ...

    @property
    def exact(self) -> bool:
        """Whether it promises the distribution of retraining."""
        ...

    def unlearn(
        self,
        model: nn.Module,
        request: "Request",
        *,
        recipe: Recipe,
        data: DeviceData,
        runtime: Runtime,
        rng: np.random.Generator,
    ) -> nn.Module:
        """Return a new module that has forgotten; the given one stays bit-identical.

        Args:
            model: the trained model.
            request: ids to forget, to retain, to validate on; records of any other id must not be touched.
            recipe: the model's own training.
            data: records on the device.
            runtime: threads, device.
            rng: the only source of randomness.
        """
        ...


@runtime_checkable
class TrainsItself(UnlearningMethod, Protocol):
    """A method that must have made the model it deletes from, because deletion was planned for in training (SISA)."""

    def train(
        self,
        recipe: Recipe,
        data: DeviceData,
        ids: NDArray[np.int64],
        *,
        seed: int,
        runtime: Runtime,
    ) -> Trained:
        """Train a model that this method can delete from; the state of the module holds all that deletion needs."""
        ...

    def fresh(self, recipe: Recipe, data: DeviceData) -> nn.Module:
        """Return an untrained module of the same form, into which stored weights are loaded."""
        ...


def trainer_of(method: UnlearningMethod) -> TrainsItself | None:
    """Return the method where it trains its models itself, None where it takes any model."""
    return method if isinstance(method, TrainsItself) else None
