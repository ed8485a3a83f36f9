"""What a procedure audit reads: recorded answers of fleets that share one design of roles."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Design
from mnemoscope.audit.statistics.measures import Canaries

__all__ = ["Alternative", "FleetAnswers", "ProcedureInput"]


@dataclass(frozen=True, eq=False)
class FleetAnswers:
    """Recorded logits of one fleet.

    Attributes:
        audited: (m, n, q, c) float32 on the audited records.
        population: (m, z, q, c) float32 on the population records, or None.
        test: (m, t, 1, c) float32 on the test records, or None.
        queries: names of the q queries of ``audited`` and ``population``; () for "identity" alone.
        oracles: live access to each model, for attacks that need it.
    """

    audited: NDArray[np.float32]
    population: NDArray[np.float32] | None = None
    test: NDArray[np.float32] | None = None
    queries: tuple[str, ...] = ()
    oracles: tuple[Oracle, ...] | None = None


@dataclass(frozen=True, eq=False)
class Alternative:
    """A fleet trained like the one before deletion, but under a defence of the training.

    Attributes:
        name: what was done, for tables.
        answers: its recorded logits.
        claimed: epsilon that an accountant states for this training, adding or removing one record; None for no claim.
        delta: of that claim.
    """

    name: str
    answers: FleetAnswers
    claimed: float | None = None
    delta: float = 1e-5

    @property
    def title(self) -> str:
        """The name with what is claimed."""
        return self.name if self.claimed is None else f"{self.name}: epsilon {self.claimed:.1f} at delta {self.delta:g}"


@dataclass(frozen=True, eq=False)
class ProcedureInput:
    """Everything a procedure audit reads; the truth is in the design and meets scores only here.

    Attributes:
        design: roles of all records in all models.
        keys: user keys of the audited records, in the order of ``design.audited``.
        labels: (n,) int64 of the audited records.
        population_ids, population_labels: of the population records; empty arrays for none.
        test_labels: (t,) int64.
        before: the fleet before deletion; with unchanged weights it is also the no-op control.
        retrained: fleet A, the reference of equivalence.
        control: fleet B, the negative control.
        reseeded: models trained like ``before`` with other seeds: the difference games' control where nothing was
            deleted; None leaves it out.
        queries: what attacks that name no queries of their own are given the answers to.
        canaries: the audited records are these, with noise that was planted; None where they are as they were.
        classes: names of the classes, by label; () where they have none.
    """

    design: Design
    keys: Sequence[str]
    labels: NDArray[np.int64]
    population_ids: NDArray[np.int64]
    population_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    before: FleetAnswers
    retrained: FleetAnswers
    control: FleetAnswers
    reseeded: FleetAnswers | None = None
    queries: tuple[str, ...] = ()
    canaries: Canaries | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        m, n = self.design.n_models, self.design.audited.size
        for name in ("before", "retrained", "control", "reseeded"):
            answers: FleetAnswers | None = getattr(self, name)
            shape = (m, n) if answers is None else answers.audited.shape
            if shape[:2] != (m, n):
                raise InvalidInput(f"{name}: answers of shape {shape} given for {m} models and {n} audited records")

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Audited record ids."""
        return self.design.audited

    @cached_property
    def role(self) -> NDArray[np.int8]:
        """(m, n) roles of the audited records."""
        return self.design.roles_of(self.ids)

    def reference(self, answers: FleetAnswers, before: Reference | None = None) -> Reference:
        """A fleet's answers as a reference, with those of the earlier version where given; the game fills the sides."""
        population = None
        if answers.population is not None and self.population_ids.size:
            named = answers.queries
            population = Answers(self.population_ids, self.population_labels, answers.population, queries=named)
        return Reference(
            self.ids,
            self.labels,
            answers.audited,
            side=np.full(self.role.shape, -1, np.int8),
            population=population,
            before=before,
            fold=self.design.fold,
            oracles=answers.oracles,
            queries=answers.queries,
        )
