"""Deletion requests that come one after another: which forgotten record belongs to which request, in every model.

The design after request r differs from the whole one in this alone: records of later requests still stand in training,
so they are KEPT until their own request comes.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.balance import deal_cells
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.rng import generator

__all__ = ["Requests", "deal_requests"]


@dataclass(frozen=True, eq=False)
class Requests:
    """A design whose forgotten records are named by several requests, one after another.

    Attributes:
        design: roles when all requests were made.
        number: (m, n) int16 over ``design.ids``: request that names the record, from 1 on; 0 where it is not forgotten.
        total: how many requests.
    """

    design: Design
    number: NDArray[np.int16]
    total: int

    def __post_init__(self) -> None:
        if self.number.shape != self.design.role.shape:
            raise InvalidInput(
                f"Requests: number {self.number.shape} must have the design's shape {self.design.role.shape}"
            )
        if ((self.number > 0) != (self.design.role == Role.FORGOTTEN)).any() or self.number.max() > self.total:
            raise InvalidInput(
                f"Requests: every forgotten record, and no other, belongs to a request from 1 to {self.total}"
            )

    def step(self, request: int) -> Design:
        """Return the design when the first ``request`` requests were made: later ones' records are KEPT.

        That of the last request is the whole design; its digest is the same.
        """
        self._check(request)
        role = np.where(self.number > request, np.int8(Role.KEPT), self.design.role)
        return replace(self.design, role=role)

    def named(self, model: int, request: int) -> NDArray[np.int64]:
        """Ids that one request names in a model, ascending."""
        self._check(request)
        ids: NDArray[np.int64] = self.design.ids[self.number[model] == request]
        return ids

    def numbers_of(self, ids: NDArray[np.int64]) -> NDArray[np.int16]:
        """Requests of the given ids, (m, len(ids)), in the order given; unknown ids raise ``InvalidInput``."""
        self.design.roles_of(ids)  # refuses what the design does not know
        numbers: NDArray[np.int16] = self.number[:, np.searchsorted(self.design.ids, ids)]
        return numbers

    def _check(self, request: int) -> None:
        if not 1 <= request <= self.total:
            raise InvalidInput(f"request={request} must lie in 1..{self.total}")


def deal_requests(design: Design, total: int) -> Requests:
    """Deal the forgotten records of every model to requests, as evenly as they divide.

    Records that are forgotten in the same number of models belong to each request in the same number of models, so
    after every request each record is KEPT, FORGOTTEN and NEVER equally often, and what is left when one model is left
    out betrays no role. In each fold a record's share is even to within one, and so is every model's; only where every
    request takes a whole number of models of each fold do counts of the other fold betray none either, to an attack
    that learns from them: give numbers of forgotten models that requests times folds divides.

    Args:
        design: the roles when all requests were made.
        total: how many requests, at least 1.

    Raises:
        InvalidInput: a record that is forgotten in fewer models than there are requests.

    >>> from mnemoscope.audit.records.design import random_design
    >>> requests = deal_requests(random_design([0, 1] * 50, n_models=12, audited=30, seed=0), 2)
    >>> [int((requests.number == r).sum()) for r in (1, 2)]
    [60, 60]
    """
    forgotten = design.role == Role.FORGOTTEN
    each = forgotten.sum(axis=0)
    fewest = int(each[each > 0].min(initial=design.n_models)) if each.any() else 0
    if not 1 <= total <= max(1, fewest):
        raise InvalidInput(
            f"requests={total}: an audited record is forgotten in {fewest} of {design.n_models} models, and each "
            f"request needs one of them at least; allowed: 1..{max(1, fewest)}, or more models"
        )
    if total == 1:
        return Requests(design, forgotten.astype(np.int16), 1)
    part = deal_cells(forgotten, total, design.fold, generator(design.seed, "design", "requests", total))
    return Requests(design, (part + 1).astype(np.int16), total)
