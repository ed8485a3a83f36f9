"""The parts of a plan: frozen dataclasses, strict about types, that say which keys its tables may hold."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from mnemoscope.audit.work.keys import Json, plain_json
from mnemoscope.audit.work.plugins import is_plugin

__all__ = [
    "STRICT",
    "AttackSpec",
    "AttacksPlan",
    "DataPlan",
    "DefencesPlan",
    "DesignPlan",
    "LeaguePlan",
    "RecipePlan",
    "RuntimePlan",
    "SubjectPlan",
    "Text",
    "as_json",
    "nearest",
    "short_name",
]

STRICT = ConfigDict(extra="forbid", strict=True)
Settings = dict[str, Any]
"""Settings of a plug-in: JSON values by name; the plug-in itself checks them."""

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class DataPlan:
    """Which records there are.

    Attributes:
        name: a data set's name, or the path of an ``.npz``, an image folder or a table (from the plan's folder).
        root: where named data sets are kept.
        label_column: the column with the classes, for tables.
        download: whether a named data set may be fetched.
        canary_noise: standard deviation, in units of the models' inputs, of Gaussian noise that is added to every
            audited record before training, for ``gaussian_poisoning`` to look for; 0 audits records as they are.
    """

    name: Text = "digits"
    root: str | None = None
    label_column: str | None = None
    download: bool = False
    canary_noise: Share = 0.0

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DesignPlan:
    """Which record plays which role in which model: counts of models and records.

    Attributes:
        mode: "random-roles", the only one a plan can draw.
        models: number of models.
        audited: records that are kept, forgotten or never seen, by model.
        records: which records those are (keys, ids, a CSV file, as ``mnemoscope compare --forget`` takes them), as
            many as ``audited`` says; None draws them.
        background: records that every model is trained on, never scored.
        population: the attacker's own non-members.
        calibration: records for thresholds.
        test: records for accuracy.
        validation: records that methods of deletion may train on, for those that need some; never scored.
        folds: folds of models, for attacks that learn.
        counts: kept, forgotten, never for each audited record: shares that add to 1, or numbers of models.
        requests: deletion requests that come one after another, each audited: the records that a model has to forget
            are dealt to them. Each request has its share of the models in which a record is forgotten, so that early
            requests rest on few; give ``counts`` more of those.
    """

    mode: Literal["random-roles"] = "random-roles"
    models: Annotated[int, Field(ge=2)] = 72
    audited: Positive = 600
    background: Count = 400
    population: Count = 300
    calibration: Count = 200
    test: Count = 297
    validation: Count = 0
    records: str | None = None
    folds: Positive = 2
    counts: tuple[Share, Share, Share] = (1 / 3, 1 / 3, 1 / 3)
    requests: Positive = 1

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RecipePlan:
    """How models are trained.

    Attributes:
        name: a recipe's name.
        subject: path of the user's own ``subject.py`` with its ``model()``; replaces the recipe's architecture.
        overrides: fields of the recipe that differ.
    """

    name: Text = "digits-mlp"
    subject: str | None = None
    overrides: Settings = field(default_factory=dict)

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SubjectPlan:
    """One way of deleting that is audited.

    Attributes:
        method: a method's name, or "path/to/file.py:Name".
        name: how it is called in the report; the method's by default.
        settings: of the method.
        tuned: a ``tuned.json`` that `mnemoscope tune` wrote; what it chose for this subject are settings too, unless
            ``settings`` says otherwise, and what it tried is shown in the report.
    """

    method: Text
    name: str = ""
    settings: Settings = field(default_factory=dict)
    tuned: str | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", short_name(self.method))


@dataclass(frozen=True)
class AttackSpec:
    """One attack of a plan: its name or "path/to/file.py:Name", its settings, and the folder paths start from."""

    name: str
    settings: dict[str, Json]
    folder: Path


@dataclass(frozen=True)
class AttacksPlan:
    """Which attacks are run.

    Attributes:
        primary: the one that decides WITHIN; None leaves it to the policy's order.
        run: names, or "path/to/file.py:Name"; empty means those that the front door runs by default.
        settings: of single attacks, by the name in ``run``.
        queries: fixed variations of each record that every model is asked; attacks that name queries of their own are
            given those.
        measures: measures of forgetting to print beside the attacks; None means the front door's defaults.
        reconstructions: attacks that recover data from the models of one version pair.
    """

    primary: str | None = None
    run: tuple[Text, ...] = ()
    settings: dict[str, Settings] = field(default_factory=dict)
    queries: Annotated[tuple[Text, ...], Field(min_length=1)] = ("identity",)
    measures: tuple[Text, ...] | None = None
    reconstructions: tuple[Text, ...] = ()

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DefencesPlan:
    """What the audit tries that could help.

    Attributes:
        answers: wrappers around the models' answers, e.g. "label-only", "top:1", "temperature:5", "round:2"; None
            means the front door's defaults.
        dp_noise: noise multipliers of DP-SGD; each trains a fleet of its own.
        dp_clip: norm to which DP-SGD clips the gradient of a record.
    """

    answers: tuple[Text, ...] | None = None
    dp_noise: tuple[Annotated[float, Field(gt=0)], ...] = ()
    dp_clip: Annotated[float, Field(gt=0)] = 1.0

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class LeaguePlan:
    """What ``mnemoscope league`` compares the plan's subjects on.

    Attributes:
        forget: kinds of forget sets. In mode "procedure": "random" and, by what a pilot shows, "high-memorisation",
            "low-memorisation" and "entangled". In mode "one-model": as ``--forget`` takes them, e.g. "random:200" or
            "class:3".
        seeds: roots of randomness; each is an audit of its own.
        mode: "procedure" audits each method over the plan's fleet; "one-model" deletes from one model a seed, which is
            what large models and whole classes allow, and withholds per-record attacks.
        references: "one-model": models retrained without the forgotten records, a seed.
        share: "procedure": which share of the plan's audited records a set by difficulty takes.
        verdicts: False leaves the verdict words out of the table and its page: few models bear none worth quoting.
    """

    forget: Annotated[tuple[Text, ...], Field(min_length=1)] = ("random",)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, le=2**53 - 1)], ...], Field(min_length=1)] = (0,)
    mode: Literal["procedure", "one-model"] = "procedure"
    references: Annotated[int, Field(ge=2)] = 3
    share: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    verdicts: bool = True

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RuntimePlan:
    """Where and how fast; changes no estimand and is no part of the plan's digest.

    Attributes:
        device: "auto", "cpu", "cuda", ...
        threads: CPU threads a task.
        inference_batch: records a forward pass.
        stack: models trained together; None measures it once.
        engine: "serial" computes in this process, "process" in ``workers`` spawned ones.
        workers: number of processes.
    """

    device: str = "auto"
    threads: Positive | None = None
    inference_batch: Positive = 1024
    stack: Positive | None = None
    engine: Literal["serial", "process"] = "serial"
    workers: Positive = 2

    __pydantic_config__ = STRICT


def as_json(value: object) -> Any:
    """Return a value of a plan as JSON values, dataclasses as objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    elif isinstance(value, tuple | list):
        value = [as_json(item) for item in value]
    return plain_json(value)


def short_name(spec: str) -> str:
    """Return what a method or an attack is called: of "path/to/file.py:Name" the last part."""
    return spec.rpartition(":")[2] if is_plugin(spec) else spec


def nearest(name: str, allowed: "Mapping[str, object] | set[str] | tuple[str, ...]") -> str:
    """Return ``": did you mean 'x'?"`` with the nearest allowed name, or "" where none is near.

    >>> nearest("modles", {"models", "audited"})
    ": did you mean 'models'?"
    """
    found = difflib.get_close_matches(name, sorted(allowed), n=1, cutoff=0.5)
    return f": did you mean {found[0]!r}?" if found else ""
