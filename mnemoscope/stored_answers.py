"""``evidence/answers.npz``: recorded answers, so that attacks can run again without the models.

As in ``scores.npz`` a text array named ``index`` holds JSON that says which array is what; rows are positions.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Design
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.audit.verdict.procedure_input import FleetAnswers, ProcedureInput
from mnemoscope.audit.work.keys import canonical_json
from mnemoscope.audit.work.side_arrays import ArrayWriter, SideArrays

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["NO_NAMES", "AnswerWriter", "StoredAnswers"]

VERSION = 1
MOST_LOGITS = 8 << 30
NO_NAMES: NDArray[np.str_] = np.zeros(0, "U1")
"""Rows that have no pseudonyms of their own: fleets' answers are those of the records that ``scores.npz`` names."""


@dataclass(frozen=True)
class KnownIndex:
    """Names of the arrays of labelled answers of another model."""

    labels: str
    logits: str
    side: str


@dataclass(frozen=True)
class ModelAnswersIndex:
    """Names of the arrays of one ``OneModelInput``."""

    name: str
    labels: str
    group: str
    after: str
    before: str | None
    retrained: str | None
    shadow: str | None
    shadow_side: str | None
    known: KnownIndex | None


@dataclass(frozen=True)
class FleetAnswersIndex:
    """Names of the arrays of one ``FleetAnswers``, and the questions asked."""

    audited: str
    population: str | None
    test: str | None
    queries: tuple[str, ...]


@dataclass(frozen=True)
class SchemeIndex:
    """Names of the arrays of one ``ProcedureInput``; record ids are positions in the design."""

    role: str
    fold: str
    labels: str
    population: str
    population_labels: str
    test_labels: str
    before: FleetAnswersIndex
    retrained: FleetAnswersIndex
    control: FleetAnswersIndex
    queries: tuple[str, ...]


@dataclass(frozen=True)
class AfterIndex:
    """The fleet of one subject, and the scheme it belongs to."""

    name: str
    scheme: int
    answers: FleetAnswersIndex
    trained_against: tuple[str, ...]


@dataclass(frozen=True)
class AnswersIndex:
    """Which array is what."""

    version: int
    models: tuple[ModelAnswersIndex, ...] = ()
    schemes: tuple[SchemeIndex, ...] = ()
    subjects: tuple[AfterIndex, ...] = ()


class AnswerWriter:
    """Writes answers as they are made; equal arrays are stored once.

    Args:
        file: the open ``answers.npz``; None writes nothing.
        pseudonyms: (n,) keyed names of the rows.
    """

    def __init__(self, file: ArrayWriter | None, pseudonyms: NDArray[np.str_]) -> None:
        self._file = file
        self._names: dict[str, str] = {}
        self._models: list[ModelAnswersIndex] = []
        self._schemes: list[SchemeIndex] = []
        self._subjects: list[AfterIndex] = []
        self._known: WeakKeyDictionary[ProcedureInput, int] = WeakKeyDictionary()
        self._now = 0
        if file is not None and pseudonyms.size:
            file.add("pseudonyms", pseudonyms)

    def _put(self, what: str, array: NDArray[Any]) -> str:
        assert self._file is not None
        values = np.ascontiguousarray(array)
        state = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
        state.update(values.data)
        digest = state.hexdigest()
        if digest not in self._names:
            self._names[digest] = self._file.add(f"{len(self._names)}-{what}", values)
        return self._names[digest]

    def _maybe(self, what: str, array: NDArray[Any] | None) -> str | None:
        return None if array is None else self._put(what, array)

    def model(self, name: str, inputs: OneModelInput) -> None:
        """Store what one model is audited from."""
        if self._file is None:
            return
        known = None
        if (k := inputs.known) is not None:
            known = KnownIndex(
                self._put("known-labels", k.labels), self._put("known", k.logits), self._put("known-side", k.side)
            )
        self._models.append(
            ModelAnswersIndex(
                name=name,
                labels=self._put("labels", inputs.labels),
                group=self._put("group", inputs.group),
                after=self._put("after", inputs.after),
                before=self._maybe("before", inputs.before),
                retrained=self._maybe("retrained", inputs.retrained),
                shadow=self._maybe("shadow", inputs.shadow),
                shadow_side=self._maybe("shadow-side", inputs.shadow_side),
                known=known,
            )
        )

    def scheme(self, inputs: ProcedureInput) -> None:
        """Store the fleets that the following subjects share, unless they are stored already."""
        if self._file is None:
            return
        if inputs in self._known:
            self._now = self._known[inputs]
            return
        design = inputs.design
        self._now = self._known[inputs] = len(self._schemes)
        self._schemes.append(
            SchemeIndex(
                role=self._put("role", design.role),
                fold=self._put("fold", design.fold),
                labels=self._put("labels", inputs.labels),
                population=self._put("population", np.searchsorted(design.ids, inputs.population_ids)),
                population_labels=self._put("population-labels", inputs.population_labels),
                test_labels=self._put("test-labels", inputs.test_labels),
                before=self._fleet("before", inputs.before),
                retrained=self._fleet("retrained", inputs.retrained),
                control=self._fleet("control", inputs.control),
                queries=inputs.queries,
            )
        )

    def subject(self, name: str, after: FleetAnswers, trained_against: tuple[str, ...]) -> None:
        """Store the fleet of one subject of the scheme named last."""
        if self._file is not None:
            fleet = self._fleet("after", after)
            self._subjects.append(AfterIndex(name, self._now, fleet, trained_against))

    def _fleet(self, what: str, answers: FleetAnswers) -> FleetAnswersIndex:
        return FleetAnswersIndex(
            self._put(what, answers.audited),
            self._maybe(f"{what}-population", answers.population),
            self._maybe(f"{what}-test", answers.test),
            answers.queries,
        )

    def close(self) -> None:
        """Write the index."""
        if self._file is None:
            return
        index = AnswersIndex(VERSION, tuple(self._models), tuple(self._schemes), tuple(self._subjects))
        self._file.add("index", np.array(canonical_json(asdict(index)).decode("utf-8")))


@cache
def _adapter() -> "TypeAdapter[AnswersIndex | None]":
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(AnswersIndex | None, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


class StoredAnswers:
    """Read what ``AnswerWriter`` wrote; whoever made the file, it is plain numbers within bounds.

    Args:
        path: the file.

    Raises:
        InvalidInput: no such file, or one of another layout.
    """

    def __init__(self, path: Path) -> None:
        from pydantic import ValidationError

        self._arrays = SideArrays(path, most_array=MOST_LOGITS)
        try:
            index = _adapter().validate_json(str(self._arrays.get("index", kind="U", ndim=0)[()]))
        except (ValidationError, ValueError, RecursionError) as error:
            raise InvalidInput(f"answers.npz: its index is none of this release ({str(error)[:200]})") from error
        if index is None or index.version != VERSION:
            raise InvalidInput("answers.npz: written by another release; run the attacks again with that one")
        self.index = index

    def close(self) -> None:
        """Close the file."""
        self._arrays.close()

    def model(self, at: ModelAnswersIndex) -> OneModelInput:
        """Return what one model was audited from; ids are positions."""
        labels = self._ints(at.labels)
        known = None
        if at.known is not None:
            theirs = self._ints(at.known.labels)
            side = self._arrays.get(at.known.side, kind="i", ndim=2).astype(np.int8)
            known = Reference(np.arange(theirs.size), theirs, self._logits(at.known.logits, 4), side=side)
        side_name = at.shadow_side
        return OneModelInput(
            np.arange(labels.size, dtype=np.int64),
            labels,
            self._arrays.get(at.group, kind="i", ndim=1).astype(np.int8),
            self._logits(at.after, 3),
            before=None if at.before is None else self._logits(at.before, 3),
            retrained=None if at.retrained is None else self._logits(at.retrained, 4),
            shadow=None if at.shadow is None else self._logits(at.shadow, 4),
            shadow_side=None if side_name is None else self._arrays.get(side_name, kind="i", ndim=2).astype(np.int8),
            known=known,
        )

    def scheme(self, number: int) -> ProcedureInput:
        """Return the fleets that subjects share; ids are positions in the design."""
        if not 0 <= number < len(self.index.schemes):
            raise InvalidInput(f"answers.npz: there is no scheme {number}")
        at = self.index.schemes[number]
        role = self._arrays.get(at.role, kind="i", ndim=2).astype(np.int8)
        fold = self._arrays.get(at.fold, kind="iu", ndim=1).astype(np.int8)
        design = Design(np.arange(role.shape[1], dtype=np.int64), role, fold, 0)
        return ProcedureInput(
            design,
            [str(i) for i in design.audited],
            self._ints(at.labels),
            self._ints(at.population),
            self._ints(at.population_labels),
            self._ints(at.test_labels),
            self.fleet(at.before),
            self.fleet(at.retrained),
            self.fleet(at.control),
            queries=at.queries,
        )

    def fleet(self, at: FleetAnswersIndex) -> FleetAnswers:
        """Return the answers of one fleet; nobody can be asked live."""
        return FleetAnswers(
            self._logits(at.audited, 4),
            None if at.population is None else self._logits(at.population, 4),
            None if at.test is None else self._logits(at.test, 4),
            at.queries,
        )

    def _ints(self, name: str) -> NDArray[np.int64]:
        return self._arrays.get(name, kind="iu", ndim=1).astype(np.int64)

    def _logits(self, name: str, ndim: int) -> NDArray[np.float32]:
        values = self._arrays.get(name, kind="f", ndim=ndim)
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise InvalidInput(f"answers.npz: {name}: {values.dtype}; expected finite float32")
        return values
