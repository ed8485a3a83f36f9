"""Defences at the exit of a model: what it publishes instead of its probabilities, as wrappers around its answers.

Chen et al. 2021 (arXiv 2005.02205) try label only, top-k and temperature against an attacker who holds two versions;
rounding and mixing are what prediction services do anyway. All of them are deterministic: noise would have to be drawn
once for each record and query, or whoever asks twice averages it away. The predicted class is published by every one.

Temperature and mixing can be undone by an adversary who knows the setting: they change what fixed thresholds see, not
what is known. Reference models are defended like the target, as an adversary would do it.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.signals import _log_softmax as log_softmax
from mnemoscope.audit.answers.views import Answers, Known, Reference, View
from mnemoscope.audit.answers.wrapped import WrappedOracle
from mnemoscope.audit.errors import InvalidInput, MissingNeed

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "DEFENCES",
    "Chain",
    "DefendedOracle",
    "Defence",
    "LabelOnly",
    "Round",
    "Smooth",
    "Temperature",
    "TopK",
    "defend",
    "parse_defence",
]

Floats = NDArray[np.float64]
Some = TypeVar("Some", bound=Answers)

LABEL_ONLY_FLOOR = -87.0
"""Logit of the classes that are not predicted where only the label is published: about the smallest float32."""

BLOCK_VALUES = 2_000_000
"""Logit values defended at a time: bounds the extra memory, whatever the size of the fleet."""


class Defence(Protocol):
    """A frozen dataclass of settings that maps a model's logits to the logits of what it publishes."""

    @property
    def name(self) -> str:
        """How a plan writes it, e.g. "top:1"."""
        ...

    @property
    def labels_only(self) -> bool:
        """Whether nothing but the predicted class is left."""
        ...

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (log probabilities) of the published answer.

        Args:
            logits: (..., c) float32 with c >= 2 classes.

        Returns:
            (..., c) float32, finite, with the same arg-max in every row.

        Raises:
            InvalidInput: a setting that does not fit the number of classes.
        """
        ...


def _published(logits: NDArray[np.float32], change: Callable[[Floats], Floats]) -> NDArray[np.float32]:
    """Apply a change of log probabilities (r, c) block by block and keep the predicted class."""
    flat = logits.reshape(-1, logits.shape[-1])
    out = np.empty(flat.shape, np.float32)
    step = max(1, BLOCK_VALUES // flat.shape[-1])
    for start in range(0, flat.shape[0], step):
        raw = flat[start : start + step]
        out[start : start + step] = _with_label(change(log_softmax(raw.astype(np.float64))), raw.argmax(axis=-1))
    return out.reshape(logits.shape)


def _with_label(log_p: Floats, label: NDArray[np.int64]) -> NDArray[np.float32]:
    """Round to float32; where that ties or moves the top, lift the predicted class one step above the others."""
    low = np.float64(np.finfo(np.float32).min)
    out: NDArray[np.float32] = np.maximum(log_p, low).astype(np.float32)
    rows = np.flatnonzero(out.argmax(axis=-1) != label)
    out[rows, label[rows]] = np.nextafter(out[rows].max(axis=-1), np.float32(np.inf))
    return out


@dataclass(frozen=True)
class LabelOnly:
    """Publish the predicted class and nothing else: logit 0 for it, -87 for every other class."""

    labels_only: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``label-only``."""
        return "label-only"

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a one-hot answer, see ``Defence.apply``."""
        out = np.full(logits.shape, LABEL_ONLY_FLOOR, np.float32)
        np.put_along_axis(out, logits.argmax(axis=-1)[..., None], np.float32(0), axis=-1)
        return out


@dataclass(frozen=True)
class TopK:
    """Publish the k largest probabilities with their classes; the missing mass is spread evenly over the others.

    Of equal probabilities at the edge the classes with the lower numbers are published.

    Attributes:
        k: 1 to c - 1; with k = c - 1 everything is still known.
    """

    k: int = 1
    labels_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidInput(f"defence: top:{self.k} publishes nothing; give k >= 1, or use 'label-only'")

    @property
    def name(self) -> str:
        """``top:K``."""
        return f"top:{self.k}"

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return k log probabilities as they are, the others all equal, see ``Defence.apply``."""
        c = logits.shape[-1]
        if self.k >= c:
            raise InvalidInput(f"defence: top:{self.k} of {c} classes hides nothing; give k from 1 to {c - 1}")

        def hide(log_p: Floats) -> Floats:
            others = np.argsort(-log_p, axis=-1, kind="stable")[:, self.k :]
            hidden = np.take_along_axis(log_p, others, axis=-1)
            np.put_along_axis(log_p, others, _log_sum_exp(hidden)[:, None] - math.log(c - self.k), axis=-1)
            return log_p

        return _published(logits, hide)


@dataclass(frozen=True)
class Temperature:
    """Publish the softmax of the logits divided by T; undone by whoever knows T.

    Attributes:
        value: T > 0; above 1 the probabilities are flatter.
    """

    value: float = 5.0
    labels_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.value > 0 and math.isfinite(self.value)):
            raise InvalidInput(f"defence: temperature:{self.value!r} must be positive and finite")

    @property
    def name(self) -> str:
        """``temperature:T``."""
        return f"temperature:{_number(self.value)}"

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log softmax(logits / T), see ``Defence.apply``."""
        return _published(logits, lambda log_p: log_softmax(log_p / self.value))


@dataclass(frozen=True)
class Round:
    """Publish the probabilities rounded to a number of decimals, and the predicted class.

    Entries that round to zero are unknown: they share the mass that is missing to one, each at most half a unit and
    all together at least half a unit, so that "1.00" stays above "0.99".

    Attributes:
        decimals: 0 to 7 (float32 has no more).
    """

    decimals: int = 2
    labels_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 7:
            raise InvalidInput(f"defence: round:{self.decimals} must be 0 to 7 decimals")

    @property
    def name(self) -> str:
        """``round:DECIMALS``."""
        return f"round:{self.decimals}"

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logarithms of the rounded probabilities, see ``Defence.apply``."""
        half = 0.5 * 10.0**-self.decimals

        def rounded(log_p: Floats) -> Floats:
            units = np.round(np.exp(log_p) * 10.0**self.decimals)  # whole numbers: no traces of the value remain
            empty = units == 0
            count = np.maximum(empty.sum(axis=-1, keepdims=True), 1)
            missing = 1.0 - units.sum(axis=-1, keepdims=True) * 10.0**-self.decimals
            share = np.clip(missing / count, half / count, half)
            log: Floats = np.log(np.where(empty, share, units * 10.0**-self.decimals))
            return log

        return _published(logits, rounded)


@dataclass(frozen=True)
class Smooth:
    """Publish (1 - w) p + w / c, the probabilities mixed with the uniform; undone by whoever knows w.

    Attributes:
        weight: w in (0, 1).
    """

    weight: float = 0.1
    labels_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise InvalidInput(f"defence: smooth:{self.weight!r} must lie in (0, 1); at 1 no prediction is left")

    @property
    def name(self) -> str:
        """``smooth:W``."""
        return f"smooth:{_number(self.weight)}"

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log of the mixture, see ``Defence.apply``."""
        uniform = math.log(self.weight / logits.shape[-1])
        return _published(logits, lambda log_p: np.logaddexp(log_p + math.log1p(-self.weight), uniform))


@dataclass(frozen=True)
class Chain:
    """Several defences, one after the other, e.g. "temperature:5+round:2".

    Attributes:
        parts: applied from left to right.
    """

    parts: tuple[Defence, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InvalidInput("defence: a chain needs at least one part")

    @property
    def name(self) -> str:
        """The parts joined by ``+``."""
        return "+".join(part.name for part in self.parts)

    @property
    def labels_only(self) -> bool:
        """Whether a part leaves the label alone."""
        return any(part.labels_only for part in self.parts)

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply all parts, see ``Defence.apply``."""
        for part in self.parts:
            logits = part.apply(logits)
        return LabelOnly().apply(logits) if self.labels_only else logits


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _log_sum_exp(z: Floats) -> Floats:
    top = z.max(axis=-1)
    total: Floats = np.log(np.exp(z - top[..., None]).sum(axis=-1)) + top
    return total


DEFENCES: dict[str, Callable[[str], Defence]] = {
    "label-only": lambda _: LabelOnly(),
    "top": lambda text: TopK(int(text)),
    "temperature": lambda text: Temperature(float(text)),
    "round": lambda text: Round(int(text)),
    "smooth": lambda text: Smooth(float(text)),
}
"""Defences by the name in a plan; the function reads what stands behind the colon."""


def parse_defence(spec: str) -> Defence:
    """Read a defence as plans write it.

    Args:
        spec: "label-only", "top:K", "temperature:T", "round:DECIMALS", "smooth:W", or several joined by "+".

    Raises:
        InvalidInput: an unknown name (the nearest is suggested), or a setting that is missing, unreadable or out of
            range.

    >>> parse_defence("temperature:5+round:2").name
    'temperature:5+round:2'
    """
    parts = [_parse_one(part.strip()) for part in spec.split("+")]
    return parts[0] if len(parts) == 1 else Chain(tuple(parts))


def _parse_one(spec: str) -> Defence:
    name, colon, text = spec.partition(":")
    if name not in DEFENCES:
        nearest = difflib.get_close_matches(name, DEFENCES, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise InvalidInput(
            f"defence={spec!r} is unknown{hint} Known: 'label-only', 'top:K', 'temperature:T', 'round:DECIMALS', "
            "'smooth:W', or several joined by '+'"
        )
    takes = name != "label-only"
    if takes != bool(colon):
        raise InvalidInput(
            f"defence={spec!r}: write {name + ':NUMBER' if takes else name!r}, e.g. 'top:1', 'round:2', 'label-only'"
        )
    try:
        return DEFENCES[name](text)
    except InvalidInput:
        raise
    except ValueError as error:
        raise InvalidInput(f"defence={spec!r}: {text!r} is no number that {name!r} takes, e.g. 'top:1'") from error


def defend(answers: Some, defence: Defence) -> Some:
    """Return the same answers as the defended model gives them: population, known records and earlier version too.

    Args:
        answers: ``Answers``, ``View`` or ``Reference``; left as they are. Queries are defended one by one.
        defence: what is published instead.

    Returns:
        An object of the same type. Its oracles answer with the defence and refuse white-box access.
    """
    changes: dict[str, object] = {
        "logits": defence.apply(answers.logits),
        "labels_only": answers.labels_only or defence.labels_only,
        "_signals": {},
    }
    if isinstance(answers, View | Reference):
        for name in ("before", "population"):
            part: Answers | None = getattr(answers, name)
            changes[name] = None if part is None else defend(part, defence)
    if isinstance(answers, View):
        known, oracle = answers.known, answers.oracle
        changes["known"] = (
            None if known is None else Known(*(defend(p, defence) for p in (known.members, known.nonmembers)))
        )
        changes["oracle"] = None if oracle is None else DefendedOracle(oracle, defence)
    if isinstance(answers, Reference) and answers.oracles is not None:
        changes["oracles"] = tuple(DefendedOracle(oracle, defence) for oracle in answers.oracles)
    return replace(answers, **changes)  # type: ignore[arg-type]


class DefendedOracle(WrappedOracle):
    """Live access to a defended model: queries are counted by the oracle inside, parameters are out of reach."""

    def __init__(self, oracle: Oracle, defence: Defence) -> None:
        super().__init__(oracle)
        self._defence = defence

    @property
    def white_box(self) -> bool:
        """Never."""
        return False

    @property
    def labels_only(self) -> bool:
        """Whether nothing but the predicted class is left."""
        return self._defence.labels_only or super().labels_only

    def logits(self, inputs: "Tensor") -> "Tensor":
        """Return the published log probabilities, (k, c) float32; counted.

        Raises:
            MissingNeed: only labels are published.
        """
        import torch

        if self._defence.labels_only:
            raise MissingNeed(
                f"the defence {self._defence.name!r} publishes labels only: ask predict(inputs), "
                "or use attacks that read scores on the model without it"
            )
        answer = super().logits(inputs)
        return torch.from_numpy(self._defence.apply(answer.cpu().numpy())).to(answer.device)

    def module(self) -> "nn.Module":
        """Refuse: a defence at the exit means that the parameters stay inside.

        Raises:
            MissingNeed: always.
        """
        raise MissingNeed(
            f"the defence {self._defence.name!r} stands between adversary and model: white-box attacks need the model "
            "without it"
        )

    def count_gradients(self, number: int) -> None:
        """Refuse, as ``module`` does."""
        self.module()

    def recall(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return what was computed under ``key`` for this model behind this defence."""
        return super().recall(f"{self._defence.name}|{key}", compute)
