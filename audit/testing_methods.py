"""The contract of unlearning methods, for third parties too: hand it a registry and a subject of your own.

Each check is a plain function of a method and a ``MethodSubject``; ``method_contract`` lists them as (name, callable)
pairs, ready for ``pytest.mark.parametrize``. The core names no method: the registry is the argument.
"""

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.testing import ContractViolation, global_states, require, seed_globals

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.protocol import UnlearningMethod
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.records.request import Request

__all__ = ["METHOD_CHECKS", "ContractViolation", "MethodSubject", "check_method", "method_contract"]

State = dict[str, bytes]


@dataclass(frozen=True, eq=False)
class MethodSubject:
    """A small trained model with what a method may ask for.

    Attributes:
        model: trained alone with ``recipe`` and ``seed`` on the forget and retain records of all requests.
        request: what to delete, of kind "records", with validation records.
        other_request: the same model's records divided differently.
        recipe: the model's own training.
        data: its records.
        runtime: threads, device.
        seed: of the model's training.
        others: for other kinds of request, a pair like ``request`` and ``other_request``.
    """

    model: "nn.Module"
    request: "Request"
    other_request: "Request"
    recipe: "Recipe"
    data: "DeviceData"
    runtime: "Runtime"
    seed: int = 0
    others: "Mapping[str, tuple[Request, Request]]" = field(default_factory=dict)

    def requests(self, method: "UnlearningMethod") -> "tuple[Request, Request]":
        """Return the two requests of the first kind that the method serves."""
        for kind in kinds_of(method):
            if kind == "records":
                return self.request, self.other_request
            if kind in self.others:
                return self.others[kind]
        raise ContractViolation(f"{method.name}: the subject has no request of kind {' or '.join(kinds_of(method))}")


def kinds_of(method: "UnlearningMethod") -> tuple[str, ...]:
    """Return the kinds of request that a method serves: records and classes unless it says otherwise."""
    return tuple(getattr(method, "kinds", ("records", "class")))


def _unlearn(
    method: "UnlearningMethod",
    subject: MethodSubject,
    *,
    model: "nn.Module | None" = None,
    request: "Request | None" = None,
    data: "DeviceData | None" = None,
    seed: int = 0,
) -> "nn.Module":
    more: dict[str, Any] = {}
    request = subject.requests(method)[0] if request is None else request
    if Need.HISTORY in method.needs:
        from mnemoscope.audit.models.history import History

        more["history"] = History(np.union1d(request.forget, request.retain), subject.seed)
    return method.unlearn(
        subject.model if model is None else model,
        request,
        recipe=subject.recipe,
        data=subject.data if data is None else data,
        runtime=subject.runtime,
        rng=np.random.default_rng(seed),
        **more,
    )


def _state(model: "nn.Module") -> State:
    return {name: value.detach().cpu().numpy().tobytes() for name, value in model.state_dict().items()}


def _surroundings(model: "nn.Module") -> tuple[object, ...]:
    """Everything of a module that is not a value: modes, flags, gradients."""
    return (
        [part.training for part in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad is None for p in model.parameters()],
    )


def method_describes_itself(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Settings are a frozen dataclass that hashes, compares and turns to JSON; name, needs, exactness are declared."""
    require(bool(method.name) and isinstance(method.name, str), repr(method), "has a non-empty name", method.name)
    require(isinstance(method.needs, Need), method.name, "declares its needs as Need flags", method.needs)
    require(isinstance(method.exact, bool), method.name, "says whether it is exact", method.exact)
    require(dataclasses.is_dataclass(method), method.name, "is a dataclass")
    settings = dataclasses.asdict(cast(Any, method))
    twin = cast(Any, type(method))(**settings)
    require(twin == method and hash(twin) == hash(method), method.name, "equals and hashes as its own settings")
    require(json.loads(json.dumps(settings)) == settings, method.name, "has settings that survive JSON", settings)
    try:
        setattr(method, next(iter(settings), "name"), "other")
    except (AttributeError, TypeError):
        return
    raise ContractViolation(f"{method.name}: is frozen; a field could be set")


def method_leaves_the_original(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """The given model is bit-identical afterwards, and the returned one is new and shares no memory with it."""
    before, around = _state(subject.model), _surroundings(subject.model)
    result = _unlearn(method, subject)
    require(_state(subject.model) == before, method.name, "leaves the given model's weights and buffers alone")
    require(
        _surroundings(subject.model) == around, method.name, "leaves the given model's modes, flags, gradients alone"
    )
    require(result is not subject.model, method.name, "returns a new module")
    given = {value.data_ptr() for value in subject.model.state_dict().values()}
    shared = [name for name, value in result.state_dict().items() if value.data_ptr() in given]
    require(not shared, method.name, "shares no memory with the given model", shared)


def method_repeats_itself(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """The same seed gives the same bits, whatever the global random states, which stay where they were."""
    seed_globals(1)
    states = global_states()
    first = _state(_unlearn(method, subject))
    require(states == global_states(), method.name, "leaves global random states alone")
    seed_globals(2)
    require(first == _state(_unlearn(method, subject)), method.name, "gives the same bits for the same seed")


def method_without_steps_changes_nothing(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """With ``epochs=0``, where it has that setting, the model comes back as it was."""
    if "epochs" in {field.name for field in dataclasses.fields(cast(Any, method))}:
        still = cast(Any, dataclasses.replace)(method, epochs=0)
        require(_state(_unlearn(still, subject)) == _state(subject.model), method.name, "changes nothing in 0 epochs")


def method_works(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """The weights change, and stay finite."""
    result = _unlearn(method, subject)
    require(_state(result) != _state(subject.model), method.name, "changes the model")
    finite = all(bool(value.isfinite().all()) for value in result.state_dict().values())
    require(finite, method.name, "gives finite weights")


def method_reads_the_request(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Another request gives another model."""
    first, second = subject.requests(method)
    one, other = _unlearn(method, subject, request=first), _unlearn(method, subject, request=second)
    require(_state(one) != _state(other), method.name, "gives another model for another forget set")


def method_reads_what_it_declares(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Records of sets that it does not declare, and of no set at all, change nothing, whatever they hold."""
    request = subject.requests(method)[0]
    reads = method.needs | getattr(method, "optional", Need.NOTHING)
    given = np.concatenate([request.forget, request.retain, request.validation])
    hidden = [np.setdiff1d(subject.data.ids, given)]
    for need, ids in (
        (Need.FORGET_DATA, request.forget),
        (Need.RETAIN_DATA, request.retain),
        (Need.VALIDATION_DATA, request.validation),
    ):
        trained = need != Need.VALIDATION_DATA and Need.HISTORY in method.needs  # part of what happened in training
        if need not in reads and not request.corrects and not trained:
            hidden.append(ids)
    ids = np.concatenate(hidden)
    if not ids.size:
        return
    spoilt, rows = copy.copy(subject.data), subject.data.positions(ids)
    spoilt.x, spoilt.y = subject.data.x.clone(), subject.data.y.clone()
    spoilt.x[rows] = spoilt.x[rows].flip(-1)
    if request.kind == "records":  # whether a class is whole is told by the labels
        spoilt.y[rows] = (spoilt.y[rows] + 1) % subject.data.n_classes
    same = _state(_unlearn(method, subject, data=spoilt)) == _state(_unlearn(method, subject))
    require(same, method.name, "reads no records that it does not declare", str(reads))


def method_keeps_form(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Mode, ``requires_grad`` and the names, shapes and types of weights and buffers are as in the given model."""
    for training in (True, False):
        model = copy.deepcopy(subject.model).train(training)
        if Need.HISTORY not in method.needs:  # what a history arrives at has no frozen layers
            list(model.parameters())[-1].requires_grad_(False)
        result = _unlearn(method, subject, model=model)
        require(_surroundings(result) == _surroundings(model), method.name, "keeps modes and flags, drops gradients")
        forms = [{k: (v.shape, v.dtype) for k, v in m.state_dict().items()} for m in (model, result)]
        require(forms[0] == forms[1], method.name, "keeps names, shapes and types of weights and buffers")


def method_leaves_frozen_layers(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Weights that may not change do not change, unless the model is trained anew."""
    if method.exact or Need.HISTORY in method.needs:
        return
    model = copy.deepcopy(subject.model)
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    result = next(iter(_unlearn(method, subject, model=model).parameters()))
    require(bool((result == first).all()), method.name, "leaves frozen layers as they are")


def method_keeps_what_is_retained(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Retained records are still known: at least four fifths of the accuracy on them is left."""
    request = subject.requests(method)[0]
    before, after = (_accuracy(model, subject, request) for model in (subject.model, _unlearn(method, subject)))
    require(after >= 0.8 * before, method.name, "keeps retained records", f"accuracy {before:.3f} before, {after:.3f}")


def _accuracy(model: "nn.Module", subject: MethodSubject, request: "Request") -> float:
    from mnemoscope.audit.models.inference import infer_logits

    answers = infer_logits(model, subject.data, request.retain, runtime=subject.runtime)[:, 0].argmax(axis=1)
    return float((answers == subject.data.y[subject.data.positions(request.retain)].cpu().numpy()).mean())


def method_refuses_what_it_cannot_do(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """No retained or validation records where it needs them, a foreign kind of request, half precision: refused."""
    request, nothing = subject.requests(method)[0], np.empty(0, np.int64)
    for need, lacking, error in (
        (Need.RETAIN_DATA, {"retain": nothing}, MissingNeed),
        (Need.VALIDATION_DATA, {"validation": nothing}, MissingNeed),
    ):
        if need in method.needs:
            _refused(method, subject, error, request=cast(Any, dataclasses.replace)(request, **lacking))
    known = {"records": subject.request, **{kind: pair[0] for kind, pair in subject.others.items()}}
    for kind, foreign in known.items():
        if kind not in kinds_of(method):
            _refused(method, subject, InvalidInput, request=foreign)
    if method.needs:
        _refused(method, subject, UnsupportedModel, model=copy.deepcopy(subject.model).half())


def _refused(method: "UnlearningMethod", subject: MethodSubject, error: type[Exception], **given: Any) -> None:
    try:
        _unlearn(method, subject, **given)
    except error:
        return
    except Exception as other:
        raise ContractViolation(f"{method.name}: refuses {sorted(given)} by {error.__name__}, not {other!r}") from other
    raise ContractViolation(f"{method.name}: refuses {sorted(given)} that it cannot serve")


METHOD_CHECKS: tuple[Callable[["UnlearningMethod", MethodSubject], None], ...] = (
    method_describes_itself,
    method_leaves_the_original,
    method_repeats_itself,
    method_without_steps_changes_nothing,
    method_works,
    method_reads_the_request,
    method_reads_what_it_declares,
    method_keeps_form,
    method_leaves_frozen_layers,
    method_keeps_what_is_retained,
    method_refuses_what_it_cannot_do,
)
"""Every rule for methods, each a function of a method and a subject."""


def check_method(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Run every check on one method; raise ``ContractViolation`` at the first rule broken."""
    for check in METHOD_CHECKS:
        check(method, subject)


def method_contract(
    registry: "Mapping[str, Callable[[], UnlearningMethod]]",
    subject: Callable[[], MethodSubject],
    *,
    exempt: Mapping[str, frozenset[str]] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[tuple[str, Callable[[], None]]]:
    """List every (method, check) pair of a registry.

    Args:
        registry: name -> factory, as ``METHODS``.
        subject: makes the subject; called in every check, so cache it.
        exempt: name -> checks that do not apply, by function name; say why where you list them.
        settings: name -> settings that suit the subject, where the defaults are made for larger models.

    Returns:
        Pairs of an id and a callable without arguments that raises ``ContractViolation``.
    """

    def run(check: Callable[["UnlearningMethod", MethodSubject], None], name: str) -> None:
        method = registry[name]()
        require(method.name == name, name, "has the name it is registered under", method.name)
        marked = bool(getattr(method, "reading", False))
        require(marked == name.endswith("_reading"), name, "has the suffix _reading exactly where it is one")
        check(dataclasses.replace(cast(Any, method), **(settings or {}).get(name, {})), subject())

    return [
        (f"{name}-{check.__name__.removeprefix('method_')}", partial(run, check, name))
        for name in registry
        for check in METHOD_CHECKS
        if check.__name__ not in (exempt or {}).get(name, frozenset())
    ]
