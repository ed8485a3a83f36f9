"""A plan: everything an audit will do, written down before it begins, as TOML.

Unknown keys are refused with the nearest allowed one, all faults at once, each with its path. Nothing here imports
torch, unless the plan names a model of the user's own.
"""

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.keys import Json, canonical_json, plain_json
from mnemoscope.audit.work.plugins import is_plugin, load_plugin, make_plugin, source_digest

if TYPE_CHECKING:
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.models.subject import Subject
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.audit.work.engines import Engine

__all__ = [
    "AttackSpec",
    "AttacksPlan",
    "DataPlan",
    "DefencesPlan",
    "DesignPlan",
    "Plan",
    "RecipePlan",
    "RuntimePlan",
    "SubjectPlan",
    "check_names",
    "load_attack",
    "load_method",
    "load_plan",
    "nearest",
    "parse_plan",
    "plan_template",
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
    """

    name: Text = "digits"
    root: str | None = None
    label_column: str | None = None
    download: bool = False

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DesignPlan:
    """Which record plays which role in which model: counts of models and records.

    Attributes:
        mode: "random-roles", the only one a plan can draw.
        models: number of models.
        audited: records that are kept, forgotten or never seen, by model.
        background: records that every model is trained on, never scored.
        population: the attacker's own non-members.
        calibration: records for thresholds.
        test: records for accuracy.
        folds: folds of models, for attacks that learn.
        counts: kept, forgotten, never for each audited record: shares that add to 1, or numbers of models.
    """

    mode: Literal["random-roles"] = "random-roles"
    models: Annotated[int, Field(ge=2)] = 72
    audited: Positive = 600
    background: Count = 400
    population: Count = 300
    calibration: Count = 200
    test: Count = 297
    folds: Positive = 2
    counts: tuple[Share, Share, Share] = (1 / 3, 1 / 3, 1 / 3)

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
    """

    method: Text
    name: str = ""
    settings: Settings = field(default_factory=dict)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", _short(self.method))


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


@dataclass(frozen=True)
class Plan:
    """Everything an audit will do.

    Attributes:
        name: title of the report.
        seed: root of all randomness.
        data: the records.
        design: the roles.
        recipe: the training.
        subjects: the ways of deleting; empty means those that the front door compares by default.
        attacks: the attacks.
        defences: what could help.
        policy: the bounds, as a mapping for ``load_policy`` (a file named in the plan is read when the plan is).
        runtime: where and how fast.
        folder: what relative paths start from; set by ``load_plan``, never in the file.
    """

    name: Text = "audit"
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    data: DataPlan = field(default_factory=DataPlan)
    design: DesignPlan = field(default_factory=DesignPlan)
    recipe: RecipePlan = field(default_factory=RecipePlan)
    subjects: tuple[SubjectPlan, ...] = ()
    attacks: AttacksPlan = field(default_factory=AttacksPlan)
    defences: DefencesPlan = field(default_factory=DefencesPlan)
    policy: dict[str, Any] = field(default_factory=dict)
    runtime: RuntimePlan = field(default_factory=RuntimePlan)
    folder: str = field(default=".", compare=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Refuse what single fields cannot show, all faults at once."""
        names = [subject.name for subject in self.subjects]
        faults = [
            f"subjects: the name {name!r} is given {names.count(name)} times; give each subject a name of its own"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        twice = sorted({name for name in self.attacks.run if self.attacks.run.count(name) > 1})
        faults += [f"attacks.run: {name!r} is listed twice" for name in twice]
        if self.attacks.run:
            faults += [
                f"attacks.settings.{name}: {name!r} is not in attacks.run{nearest(name, self.attacks.run)}"
                for name in self.attacks.settings
                if name not in self.attacks.run
            ]
            short = [_short(name) for name in self.attacks.run]
            primary = self.attacks.primary
            if primary is not None and primary not in self.attacks.run and primary not in short:
                faults.append(f"attacks.primary={primary!r} is not in attacks.run{nearest(primary, self.attacks.run)}")
        if faults:
            raise InvalidInput("; ".join(faults))

    @property
    def digest(self) -> str:
        """Digest of the resolved plan ("sha256:..."): defaults filled in, recipe spelled out, plug-ins by source."""
        return "sha256:" + hashlib.sha256(canonical_json(self.as_dict())).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the resolved plan as JSON values, without ``runtime`` and machine paths."""
        parts: dict[str, Any] = {
            f.name: _as_json(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name not in {"folder", "runtime", "recipe"}
        }
        parts["recipe"] = {"name": self.recipe.name, **self._recipe(self._subject_digest()).key_parts()}
        parts["plugins"] = {
            spec: source_digest(Path(self.folder) / spec.rpartition(":")[0])
            for spec in [*(s.method for s in self.subjects), *self.attacks.run]
            if is_plugin(spec)
        }
        return parts

    def _subject_digest(self) -> str | None:
        if self.recipe.subject is None:
            return None
        path = Path(self.folder) / self.recipe.subject
        if not path.is_file():
            raise InvalidInput(f"recipe.subject={self.recipe.subject!r}: there is no file {path}")
        return source_digest(path)

    def _recipe(self, subject_digest: str | None) -> "Recipe":
        from mnemoscope.audit.models.recipes import RECIPES, SUBJECT, Recipe

        if self.recipe.name not in RECIPES:
            raise InvalidInput(
                f"recipe.name={self.recipe.name!r} is unknown{nearest(self.recipe.name, RECIPES)}; "
                f"recipes: {', '.join(sorted(RECIPES))}"
            )
        allowed = {f.name for f in dataclasses.fields(Recipe)} - {"subject"}
        faults = [
            f"recipe.overrides.{key}: unknown key{nearest(key, allowed)}"
            for key in self.recipe.overrides
            if key not in allowed
        ]
        if faults:
            raise InvalidInput("; ".join(faults) + f"; allowed: {', '.join(sorted(allowed))}")
        values = {**RECIPES[self.recipe.name].key_parts(), **self.recipe.overrides}
        if subject_digest is not None:
            values |= {"architecture": SUBJECT, "subject": subject_digest}
        try:
            return TypeAdapter(Recipe).validate_json(json.dumps(plain_json(values, "recipe.overrides")), strict=True)
        except ValidationError as error:
            parts = [_fault(dict(part), "recipe.overrides") for part in error.errors(include_url=False)]
            raise InvalidInput("; ".join(parts)) from error

    def build_recipe(self) -> "Recipe":
        """Return the recipe with its overrides.

        Raises:
            InvalidInput: an unknown recipe or field, or a value that is not allowed.
        """
        subject = self.load_subject()
        return self._recipe(None if subject is None else subject.digest)

    def load_subject(self) -> "Subject | None":
        """Return the user's own model definition, or None where the recipe names an architecture."""
        if self.recipe.subject is None:
            return None
        from mnemoscope.audit.models.subject import load_subject

        return load_subject(Path(self.folder) / self.recipe.subject)

    def build_runtime(self) -> "Runtime":
        """Return device, threads and sizes."""
        from mnemoscope.audit.models.recipes import Runtime

        r = self.runtime
        return Runtime(device=r.device, threads=r.threads, inference_batch=r.inference_batch, stack=r.stack)

    def build_engine(self) -> "Engine":
        """Return who computes."""
        from mnemoscope.audit.work.engines import ProcessEngine, SerialEngine

        return SerialEngine() if self.runtime.engine == "serial" else ProcessEngine(self.runtime.workers)

    def load_dataset(self) -> "Dataset":
        """Read the records; a path starts from the plan's folder."""
        from mnemoscope.audit.records.datasets import load_dataset

        beside = Path(self.folder) / self.data.name
        root = None if self.data.root is None else Path(self.folder) / self.data.root
        return load_dataset(
            str(beside) if beside.exists() else self.data.name,
            data_root=root,
            download=self.data.download,
            label_column=self.data.label_column,
        )

    def attack_specs(self, default: tuple[str, ...] = ()) -> tuple[AttackSpec, ...]:
        """Return the attacks to run with their settings; ``default`` names them where the plan does not."""
        return tuple(
            AttackSpec(name, _as_json(self.attacks.settings.get(name, {})), Path(self.folder))
            for name in self.attacks.run or default
        )


def _as_json(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: _as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    elif isinstance(value, tuple | list):
        value = [_as_json(item) for item in value]
    return plain_json(value)


def _short(spec: str) -> str:
    return spec.rpartition(":")[2] if is_plugin(spec) else spec


def nearest(name: str, allowed: "Mapping[str, object] | set[str] | tuple[str, ...]") -> str:
    """Return ``": did you mean 'x'?"`` with the nearest allowed name, or "" where none is near.

    >>> nearest("modles", {"models", "audited"})
    ": did you mean 'models'?"
    """
    found = difflib.get_close_matches(name, sorted(allowed), n=1, cutoff=0.5)
    return f": did you mean {found[0]!r}?" if found else ""


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


def _allowed_at(path: tuple[int | str, ...]) -> tuple[str, ...]:
    """Names of the keys that are allowed in the table at a path of the plan."""
    kind: Any = Plan
    for part in path:
        if isinstance(part, int):
            continue
        found = {f.name: f.type for f in dataclasses.fields(kind)}[part]
        kind = SubjectPlan if part == "subjects" else found
    return tuple(f.name for f in dataclasses.fields(kind) if f.name != "folder")


def _fault(error: Mapping[str, Any], start: str = "") -> str:
    path: tuple[int | str, ...] = tuple(error["loc"])
    where = ".".join(str(part) for part in ([start] if start else []) + [*path]) or "plan"
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        allowed = _allowed_at(path[:-1])
        return f"{where}: unknown key{nearest(str(path[-1]), allowed)} (allowed: {', '.join(allowed)})"
    if error["type"] in {"missing", "missing_argument"}:
        return f"{where}: is missing; give it"
    given = error["input"]
    shown = f"={given!r}" if isinstance(given, str | int | float | bool) else ""
    if error["type"] == "value_error":  # our own sentence, which names its paths itself
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{where}{shown}: {error['msg'][0].lower()}{error['msg'][1:]}"


def parse_plan(text: str, *, folder: Path | None = None, source: str = "plan") -> Plan:
    r"""Read a plan from TOML text.

    Args:
        text: the TOML.
        folder: what relative paths start from.
        source: its name in messages.

    Raises:
        InvalidInput: not TOML, unknown keys (with the nearest allowed one), values of a wrong kind: all at once.

    >>> parse_plan("[design]\nmodels = 12").design.models
    12
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source} is not valid TOML: {error}") from error
    values = plain_json(raw, source)
    if not isinstance(values, dict):
        raise InvalidInput(f"{source} holds no tables")
    start = folder or Path()
    faults = []
    if "folder" in values:
        faults.append(f"folder: unknown key (allowed: {', '.join(_allowed_at(()))})")
        del values["folder"]
    if isinstance(values.get("policy"), str):
        values["policy"] = _policy_file(start / str(values["policy"]))
    try:
        plan = _adapter().validate_json(json.dumps(values))
    except ValidationError as error:
        faults += [_fault(dict(part)) for part in error.errors(include_url=False)]
    except InvalidInput as error:
        faults.append(str(error))
    if faults:
        raise InvalidInput(f"{source}: " + "; ".join(faults))
    return dataclasses.replace(plan, folder=str(start))


def load_plan(path: Path) -> Plan:
    """Read a plan from a TOML file; relative paths in it start from its folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text; a plan is a TOML file") from error
    except OSError as error:
        raise InvalidInput(
            f"cannot read the plan {path}: {error.strerror}; `mnemoscope plan new` writes one"
        ) from error
    return parse_plan(text, folder=path.parent, source=str(path))


def _policy_file(path: Path) -> Json:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"policy={path.name!r} cannot be read as TOML: {error}") from error
    return plain_json(raw.get("policy", raw), "policy")


T = TypeVar("T")


def load_attack(spec: AttackSpec, registry: Mapping[str, Callable[..., T]]) -> T:
    """Make one attack of a plan: from the registry, or from the user's own file.

    Raises:
        InvalidInput: an unknown name (the nearest is suggested) or settings that do not fit.
    """
    return _make("attacks.run", spec.name, spec.settings, spec.folder, registry)


def load_method(subject: SubjectPlan, registry: Mapping[str, Callable[..., T]], *, folder: str | Path = ".") -> T:
    """Make the method of one subject: from the registry, or from the user's own file.

    Args:
        subject: of the plan.
        registry: name -> what makes a method from its settings.
        folder: ``plan.folder``.

    Raises:
        InvalidInput: an unknown name (the nearest is suggested) or settings that do not fit.
    """
    settings = _as_json(subject.settings)
    return _make(f"subjects.{subject.name}.method", subject.method, settings, Path(folder), registry)


def _make(
    where: str, name: str, settings: Mapping[str, Json], folder: Path, registry: Mapping[str, Callable[..., T]]
) -> T:
    if is_plugin(name):
        made: Any = make_plugin(name, settings, folder)
        return made  # type: ignore[no-any-return]
    if name not in registry:
        raise InvalidInput(_unknown(where, name, registry))
    try:
        return registry[name](**settings)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: {name!r} does not take settings {dict(settings)}: {error}") from error


def _unknown(where: str, name: str, registry: Mapping[str, object]) -> str:
    return (
        f"{where}={name!r} is unknown{nearest(name, registry)} "
        f"(allowed: {', '.join(sorted(registry))}, or 'path/to/file.py:Name')"
    )


def check_names(plan: Plan, *, methods: Mapping[str, object], attacks: Mapping[str, object]) -> None:
    """Refuse unknown methods and attacks, and plug-ins that cannot be loaded, all at once, before any work."""
    faults = []
    named = [(f"subjects.{s.name}.method", s.method, methods) for s in plan.subjects]
    named += [("attacks.run", name, attacks) for name in plan.attacks.run]
    for where, name, registry in named:
        if is_plugin(name):
            try:
                load_plugin(name, Path(plan.folder))
            except InvalidInput as error:
                faults.append(f"{where}: {error}")
        elif name not in registry:
            faults.append(_unknown(where, name, registry))
    if faults:
        raise InvalidInput("; ".join(faults))


def plan_template() -> str:
    """Return a commented plan to start from; read back, it is the default plan."""
    return TEMPLATE


TEMPLATE = """\
# A plan for mnemoscope. Check it before any work:  mnemoscope plan check PLAN.toml
# What is commented out shows the default or an example. Unknown keys are refused.

name = "audit"            # title of the report
seed = 0                  # root of all randomness

[data]
name = "digits"           # a data set's name, or the path of an .npz, an image folder or a CSV table
# root = "data"           # where named data sets are kept
# label_column = "label"  # for tables
# download = false        # whether a named data set may be fetched

[design]                  # which record plays which role in which model
mode = "random-roles"
models = 72
audited = 600             # kept, forgotten or never seen, by model
background = 400          # every model is trained on these; never scored
population = 300          # the attacker's own non-members
calibration = 200
test = 297                # for accuracy
folds = 2
# counts = [24, 24, 24]   # models in which each audited record is kept, forgotten, never seen; thirds by default

[recipe]                  # how models are trained
name = "digits-mlp"
# subject = "subject.py"  # your own model instead of the recipe's architecture: `mnemoscope init` writes one
# [recipe.overrides]
# epochs = 30
# lr = 0.2

# The ways of deleting to audit; without any, the controls and baselines are compared.
# [[subjects]]
# method = "finetune"
# settings = { epochs = 5 }
# [[subjects]]
# name = "mine"
# method = "path/to/file.py:Name"

[attacks]
# primary = "lira"        # decides WITHIN BOUND; by default the strongest that the input allows
# run = ["lira", "rmia", "path/to/file.py:Name"]
queries = ["identity"]    # images also: "flip", "shift:2,0", ...
# measures = ["klom"]      # printed beside the attacks, each with its floor; [] for none
# reconstructions = ["linear_reconstruction"]
# [attacks.settings.rmia]
# gamma = 1.0

[defences]                # what could help, tried in the same audit
# answers = ["label-only", "top:1", "temperature:5", "round:2"]
# dp_noise = [1.0]        # DP-SGD: each noise multiplier trains a fleet of its own (extra "dp")
# dp_clip = 1.0

[policy]                  # the bounds; or, above the first table, policy = "policy.toml"
# alpha = 0.01            # by default the smallest that the counts can bear

[runtime]                 # where and how fast; changes no estimand
device = "auto"
# threads = 1
# stack = 8               # models trained together; measured once by default
# engine = "process"      # compute in several processes
# workers = 2
"""
