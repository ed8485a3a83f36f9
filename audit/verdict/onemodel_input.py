"""What a one-model audit is given: recorded answers by record group, and how an attack is run on them.

Two symmetries keep the audit honest. Holdout records pass through the same scorer as forget records. And when a
retrained model is scored, it is no reference for itself: for each retrained model j one scorer is fitted on all others,
and it scores both the audited model and model j, so that both have the same references.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import Attack, Scorer, flags_of, score_target
from mnemoscope.audit.answers.views import Answers, Need, Reference, Side, View
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.onemodel_rates import Group

__all__ = [
    "OneModelInput",
    "Scores",
    "needs_reference_models",
    "reads_any_records",
    "runnable",
    "score_models",
    "leave_out_uncovered",
]

Floats = NDArray[np.float64]
Logits = NDArray[np.float32]
Models = Literal["all", "shadow", "none"]


@dataclass(frozen=True, eq=False)
class OneModelInput:
    """Answers of the audited model and of its companions on the same n records; q queries, c classes.

    Attributes:
        ids: (n,) int64, unique.
        labels: (n,) int64.
        group: (n,) int8 of ``Group``; forget and holdout are required.
        after: (n, q, c) float32 logits of the audited model.
        before: the same of the model before deletion.
        retrained: (r, n, q, c) of models retrained without the forget, holdout, calibration and population records;
            with the retain records.
        shadow: (m, n, q, c) of the attacker's other models.
        shadow_side: (m, n) int8 of ``Side``, required with ``shadow``.
        known: answers of another model with known members, on records of its own: class-dependent thresholds.
        classes: names of the classes, by label; () where they have none.
        keys: the user's names of the n records; () where they have none but their ids.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    group: NDArray[np.int8]
    after: Logits
    before: Logits | None = None
    retrained: Logits | None = None
    shadow: Logits | None = None
    shadow_side: NDArray[np.int8] | None = None
    known: Reference | None = None
    classes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    # Not arguments: dataclasses.replace would hand them on, and the copy would answer for the model it was copied from.
    _references: dict[tuple[tuple[Group, ...], Models], Reference] = field(default_factory=dict, repr=False, init=False)
    _views: dict[tuple[str | int, tuple[Group, ...]], View] = field(default_factory=dict, repr=False, init=False)

    def __post_init__(self) -> None:
        n = self.ids.size
        if self.after.ndim != 3 or self.after.shape[0] != n:
            raise InvalidInput(f"after: shape {self.after.shape}, must be (n, q, c) with n = {n} records")
        shape = self.after.shape
        for name, values in (("labels", self.labels), ("group", self.group)):
            if values.shape != (n,):
                raise InvalidInput(f"{name}: shape {values.shape}, must be ({n},), one for each record")
        if self.before is not None and self.before.shape != shape:
            raise InvalidInput(f"before: shape {self.before.shape}, must be {shape} like the audited model's answers")
        for name, stack in (("retrained", self.retrained), ("shadow", self.shadow)):
            if stack is not None and stack.shape[1:] != shape:
                raise InvalidInput(f"{name}: shape {stack.shape}, must be (models, {', '.join(map(str, shape))})")
        if self.shadow is not None and (self.shadow_side is None or self.shadow_side.shape != self.shadow.shape[:2]):
            raise InvalidInput(
                f"shadow_side: must be {self.shadow.shape[:2]}: which records each shadow model was trained on"
            )
        if self.keys and len(self.keys) != n:
            raise InvalidInput(f"keys: {len(self.keys)} given for {n} records; give one for each, or none")
        if np.unique(self.ids).size != n:
            raise InvalidInput(
                f"ids: {n - np.unique(self.ids).size} ids stand more than once; each record needs its own"
            )
        for group in (Group.FORGET, Group.HOLDOUT):
            if self.count(group) < 2:
                raise InvalidInput(
                    f"{group.name.lower()}: {self.count(group)} records; a one-model audit needs at least 2 of them, "
                    "and hundreds for a verdict"
                )

    def keys_of(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The names of some records, by position."""
        if self.keys:
            return tuple(self.keys[j] for j in rows.tolist())
        return tuple(str(i) for i in self.ids[rows].tolist())

    def count(self, group: Group) -> int:
        """Number of records in a group."""
        return int((self.group == group).sum())

    @property
    def n_retrained(self) -> int:
        """Number of retrained models."""
        return 0 if self.retrained is None else int(self.retrained.shape[0])

    def rows(self, *groups: Group) -> NDArray[np.int64]:
        """Positions of the records of some groups, ascending."""
        return np.flatnonzero(np.isin(self.group, groups))

    def offered(self, groups: Sequence[Group]) -> Need:
        """What the attacks can have on the records of these groups, every record counted."""
        offered = Need.SCORES
        side = self.side(self.rows(*groups))
        if side.shape[0] and (side == Side.OUT).any(axis=0).all():
            offered |= Need.SHADOW_OUT
        if side.shape[0] and (side == Side.IN).any(axis=0).all():
            offered |= Need.SHADOW_IN
        if self.count(Group.POPULATION):
            offered |= Need.POPULATION
        if self.before is not None:
            offered |= Need.BEFORE
        return offered

    def side(self, rows: NDArray[np.int64], *, shadow_only: bool = False) -> NDArray[np.int8]:
        """(r + m, k) int8 of ``Side`` on some records: retrained models first, then shadow models."""
        parts = []
        if self.retrained is not None and not shadow_only:
            inside = np.where(self.group[rows] == Group.RETAIN, Side.IN, Side.OUT).astype(np.int8)
            parts.append(np.broadcast_to(inside, (self.n_retrained, rows.size)))
        if self.shadow_side is not None:
            parts.append(self.shadow_side[:, rows])
        return np.concatenate(parts) if parts else np.empty((0, rows.size), np.int8)

    def reference(self, groups: Sequence[Group], models: Models = "all") -> Reference:
        """The attacker's models on the records of some groups; built once for each choice, signals included."""
        key = (tuple(groups), models)
        if key not in self._references:
            rows, pool = self.rows(*groups), self.rows(Group.POPULATION)
            only = models == "shadow"
            if models == "none":
                side = np.empty((0, rows.size), np.int8)
                logits = np.empty((0, rows.size, *self.after.shape[1:]), np.float32)
                self._references[key] = Reference(self.ids[rows], self.labels[rows], logits, side=side)
            else:
                population = None
                if pool.size:
                    population = Answers(self.ids[pool], self.labels[pool], self._stack(pool, only))
                side = self.side(rows, shadow_only=only)
                self._references[key] = Reference(
                    self.ids[rows], self.labels[rows], self._stack(rows, only), side=side, population=population
                )
        return self._references[key]

    def _stack(self, rows: NDArray[np.int64], shadow_only: bool) -> Logits:
        everything = rows.size == self.ids.size
        parts: list[Logits] = []
        if self.retrained is not None and not shadow_only:
            parts += [model if everything else model[rows] for model in self.retrained]
        if self.shadow is not None:
            if everything and not parts:
                return self.shadow
            parts += [model if everything else model[rows] for model in self.shadow]
        return np.stack(parts) if parts else np.empty((0, rows.size, *self.after.shape[1:]), np.float32)

    def view(self, model: "Literal['after', 'before'] | int", groups: Sequence[Group]) -> View:
        """Answers of the audited model, the model before, or retrained model number ``model``, as a target's."""
        key = (model, tuple(groups))
        if key not in self._views:
            logits = {"after": self.after, "before": self.before}[model] if isinstance(model, str) else None
            if isinstance(model, int):
                assert self.retrained is not None
                logits = self.retrained[model]
            assert logits is not None
            rows, pool = self.rows(*groups), self.rows(Group.POPULATION)
            self._views[key] = View(
                self.ids[rows],
                self.labels[rows],
                logits if rows.size == self.ids.size else logits[rows],
                before=self.view("before", groups) if model == "after" and self.before is not None else None,
                population=Answers(self.ids[pool], self.labels[pool], logits[pool]) if pool.size else None,
            )
        return self._views[key]


def reads_any_records(attack: Attack) -> bool:
    """Whether an attack learns from labelled answers on any records (class thresholds), not on the audited ones.

    Such an attack says so by ``any_records = True``, or by having class thresholds to set (``by_class``).
    """
    return bool(getattr(attack, "any_records", hasattr(attack, "by_class")))


def needs_reference_models(attack: Attack) -> bool:
    """Whether an attack compares with other models' answers on the very records it scores."""
    return bool(attack.needs & (Need.SHADOW_IN | Need.SHADOW_OUT)) and not reads_any_records(attack)


def _labelled(inputs: OneModelInput, groups: Sequence[Group]) -> Reference | None:
    """Labelled answers for attacks that learn from any records: another model's, else the shadow models'."""
    if inputs.known is not None:
        return inputs.known
    if inputs.shadow is not None:
        side = inputs.side(inputs.rows(*groups), shadow_only=True)
        if (side == Side.IN).any() and (side == Side.OUT).any():
            return inputs.reference(groups, "shadow")
    return None


def runnable(
    inputs: OneModelInput, attacks: Sequence[Attack], groups: Sequence[Group]
) -> tuple[list[Attack], list[tuple[Attack, Need]]]:
    """Split attacks into those the input can feed on these groups, and the others with what they lack."""
    offered = inputs.offered(groups)
    models = Need.SHADOW_IN | Need.SHADOW_OUT
    able, unable = [], []
    for attack in attacks:
        has = offered
        if reads_any_records(attack):
            has = has | models if _labelled(inputs, groups) is not None else has & ~models
        missing = attack.needs & ~has
        if missing:
            unable.append((attack, missing))
        else:
            able.append(attack)
    return able, unable


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one attack on some records, (n_rows,) float64 each.

    Attributes:
        rows: positions of the records.
        after: of the audited model, all reference models used.
        before: of the model before deletion, the same scorer; None without one.
        pairs: for each retrained model j (audited model, model j), both by the scorer fitted without j; None where the
            attack cannot be fitted without it (a single reference).
        threshold: the scorer's own decision threshold, where it has one.
        flags: where the fit is not what the attack's settings ask for.
    """

    rows: NDArray[np.int64]
    after: Floats
    before: Floats | None
    pairs: tuple[tuple[Floats, Floats], ...]
    threshold: float | None
    flags: tuple[str, ...] = ()


FEW = 0.1
"""Records without a model on one side are left out up to this share; beyond it the models do not fit the records."""


def leave_out_uncovered(inputs: OneModelInput) -> tuple[OneModelInput, str]:
    """Leave out the records that no reference model, or no model that held them, covers, where they are few.

    Args:
        inputs: of an audit with reference or shadow models.

    Returns:
        The inputs without these records, and a sentence with their number and ids ("" where there are none). Where
        more than a tenth lack a side nothing is left out: attacks that need that side are then refused with reasons.
    """
    tested = inputs.rows(Group.FORGET, Group.HOLDOUT, Group.RETAIN)
    side = inputs.side(tested)
    if not side.shape[0]:
        return inputs, ""
    said = []
    keep = np.ones(inputs.ids.size, np.bool_)
    for wanted, words in ((Side.OUT, "that did not hold them"), (Side.IN, "that held them")):
        lacks = tested[~(side == wanted).any(axis=0)]
        if 0 < lacks.size <= FEW * tested.size:
            keep[lacks] = False
            shown = ", ".join(str(int(i)) for i in inputs.ids[lacks][:10]) + (", ..." if lacks.size > 10 else "")
            said.append(f"{lacks.size} of {tested.size} records have no model {words}: ids {shown}")
    if not said:
        return inputs, ""

    def part(models: Logits | None) -> Logits | None:
        return None if models is None else models[:, keep]

    left = replace(
        inputs,
        ids=inputs.ids[keep],
        labels=inputs.labels[keep],
        group=inputs.group[keep],
        after=inputs.after[keep],
        before=None if inputs.before is None else inputs.before[keep],
        retrained=part(inputs.retrained),
        shadow=part(inputs.shadow),
        shadow_side=None if inputs.shadow_side is None else inputs.shadow_side[:, keep],
        keys=inputs.keys and inputs.keys_of(np.flatnonzero(keep)),
    )
    return left, "; ".join(said) + ". They are left out of every attack"


@dataclass(frozen=True)
class _Fitted:
    """A fitted scorer in the shape of an attack: one fit for several targets, each call still checked."""

    name: str
    needs: Need
    scorer: Scorer
    any_records: bool

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> Scorer:
        return self.scorer


def score_models(inputs: OneModelInput, attack: Attack, groups: Sequence[Group], rng: np.random.Generator) -> Scores:
    """Run one attack on the audited model, the model before, and each retrained model with its twin."""
    compares = needs_reference_models(attack)
    learned = _labelled(inputs, groups) if reads_any_records(attack) else None
    reference = learned if learned is not None else inputs.reference(groups, "all" if compares else "none")
    scorer = attack.fit(reference, rng=rng)
    fitted = _Fitted(attack.name, attack.needs, scorer, reads_any_records(attack))

    def scored(model: "Literal['after', 'before'] | int", which: _Fitted, known: Reference) -> Floats:
        view = inputs.view(model, groups)
        if Need.BEFORE in attack.needs and model != "after":
            view = replace(view, before=inputs.view("before", groups))
        return score_target(which, known, view, rng=rng)

    after = scored("after", fitted, reference)
    before = None if inputs.before is None else scored("before", fitted, reference)
    pairs: list[tuple[Floats, Floats]] = []
    for j in range(inputs.n_retrained):
        twin, known, ours = fitted, reference, after
        if compares:
            known = reference.without([j])
            if any(
                need in attack.needs and not (known.side == side).any(axis=0).all()
                for need, side in ((Need.SHADOW_OUT, Side.OUT), (Need.SHADOW_IN, Side.IN))
            ):
                pairs = []
                break
            twin = _Fitted(attack.name, attack.needs, attack.fit(known, rng=rng), fitted.any_records)
            ours = scored("after", twin, known)
        pairs.append((ours, scored(j, twin, known)))
    threshold = getattr(scorer, "threshold", None)
    own = None if threshold is None else float(threshold)
    return Scores(inputs.rows(*groups), after, before, tuple(pairs), own, flags_of(attack, reference))
