"""The contract of unlearning methods, for third parties too: hand it a registry and a subject of your own.

Each check is a plain function of a method and a ``MethodSubject``; ``method_contract`` lists them as (name, callable)
pairs, ready for ``pytest.mark.parametrize``. The core names no method: the registry is the argument.
"""

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mnemoscope.audit.answers.views import Need
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
        model: trained with ``recipe`` on the forget and retain records of both requests.
        request: what to delete.
        other_request: the same model's records divided differently.
        recipe: the model's own training.
        data: its records.
        runtime: threads, device.
    """

    model: "nn.Module"
    request: "Request"
    other_request: "Request"
    recipe: "Recipe"
    data: "DeviceData"
    runtime: "Runtime"


def _unlearn(
    method: "UnlearningMethod",
    subject: MethodSubject,
    *,
    model: "nn.Module | None" = None,
    request: "Request | None" = None,
    seed: int = 0,
) -> "nn.Module":
    return method.unlearn(
        subject.model if model is None else model,
        subject.request if request is None else request,
        recipe=subject.recipe,
        data=subject.data,
        runtime=subject.runtime,
        rng=np.random.default_rng(seed),
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
    one, other = _unlearn(method, subject), _unlearn(method, subject, request=subject.other_request)
    require(_state(one) != _state(other), method.name, "gives another model for another forget set")


def method_keeps_form(method: "UnlearningMethod", subject: MethodSubject) -> None:
    """Mode, ``requires_grad`` and the names, shapes and types of weights and buffers are as in the given model."""
    for training in (True, False):
        model = copy.deepcopy(subject.model).train(training)
        last = list(model.parameters())[-1]
        last.requires_grad_(False)
        result = _unlearn(method, subject, model=model)
        require(_surroundings(result) == _surroundings(model), method.name, "keeps modes and flags, drops gradients")
        forms = [{k: (v.shape, v.dtype) for k, v in m.state_dict().items()} for m in (model, result)]
        require(forms[0] == forms[1], method.name, "keeps names, shapes and types of weights and buffers")


METHOD_CHECKS: tuple[Callable[["UnlearningMethod", MethodSubject], None], ...] = (
    method_describes_itself,
    method_leaves_the_original,
    method_repeats_itself,
    method_without_steps_changes_nothing,
    method_works,
    method_reads_the_request,
    method_keeps_form,
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
) -> list[tuple[str, Callable[[], None]]]:
    """List every (method, check) pair of a registry.

    Args:
        registry: name -> factory, as ``METHODS``.
        subject: makes the subject; called in every check, so cache it.
        exempt: name -> checks that do not apply, by function name; say why where you list them.

    Returns:
        Pairs of an id and a callable without arguments that raises ``ContractViolation``.
    """

    def run(check: Callable[["UnlearningMethod", MethodSubject], None], name: str) -> None:
        method = registry[name]()
        require(method.name == name, name, "has the name it is registered under", method.name)
        check(method, subject())

    return [
        (f"{name}-{check.__name__.removeprefix('method_')}", partial(run, check, name))
        for name in registry
        for check in METHOD_CHECKS
        if check.__name__ not in (exempt or {}).get(name, frozenset())
    ]
