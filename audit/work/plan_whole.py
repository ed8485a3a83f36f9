"""A whole plan: what its parts must agree on, its digest, and what it builds."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.request import selection_beside
from mnemoscope.audit.work.keys import canonical_json, plain_json
from mnemoscope.audit.work.plan_parts import (
    STRICT,
    AttackSpec,
    AttacksPlan,
    DataPlan,
    DefencesPlan,
    DesignPlan,
    LeaguePlan,
    RecipePlan,
    RuntimePlan,
    SubjectPlan,
    Text,
    as_json,
    nearest,
    short_name,
)
from mnemoscope.audit.work.plugins import is_plugin, source_digest
from mnemoscope.audit.work.tuned import tuned_digest

if TYPE_CHECKING:
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.models.subject import Subject
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.audit.work.engines import Engine

__all__ = ["Plan", "describe_fault"]


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
        league: what ``mnemoscope league`` compares the subjects on; an audit does not read it.
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
    league: LeaguePlan | None = None
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
        faults += [
            f"{key}: {name!r} is listed {listed.count(name)} times; list it once"
            for key, listed in self._lists().items()
            for name in sorted({name for name in listed if listed.count(name) > 1})
        ]
        if self.attacks.run:
            faults += [
                f"attacks.settings.{name}: {name!r} is not in attacks.run{nearest(name, self.attacks.run)}"
                for name in self.attacks.settings
                if name not in self.attacks.run
            ]
            short = [short_name(name) for name in self.attacks.run]
            primary = self.attacks.primary
            if primary is not None and primary not in self.attacks.run and primary not in short:
                faults.append(f"attacks.primary={primary!r} is not in attacks.run{nearest(primary, self.attacks.run)}")
        if self.league is not None and self.league.mode == "one-model" and self.design.requests > 1:
            faults.append(
                f"design.requests={self.design.requests}: several requests are audited over a fleet; "
                "league.mode='one-model' makes one. Set it to 1, or league.mode to 'procedure'"
            )
        if faults:
            raise InvalidInput("; ".join(faults))

    def _lists(self) -> dict[str, tuple[str | float, ...]]:
        """Every list of the plan in which a value counts once."""
        return {
            "attacks.run": self.attacks.run,
            "attacks.queries": self.attacks.queries,
            "attacks.measures": self.attacks.measures or (),
            "attacks.reconstructions": self.attacks.reconstructions,
            "defences.answers": self.defences.answers or (),
            "defences.dp_noise": self.defences.dp_noise,
        }

    @property
    def digest(self) -> str:
        """Digest of the resolved plan ("sha256:..."): defaults filled in, recipe spelled out, plug-ins by source."""
        return "sha256:" + hashlib.sha256(canonical_json(self.as_dict())).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the resolved plan as JSON values, without ``runtime`` and machine paths."""
        parts: dict[str, Any] = {
            f.name: as_json(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name not in {"folder", "runtime", "recipe", "league"}
        }
        # Plans made before there were such keys keep their digest.
        for later in ("validation", "records"):
            if not parts["design"][later]:
                del parts["design"][later]
        if parts["design"]["requests"] == 1:
            del parts["design"]["requests"]
        for subject in parts["subjects"]:
            if subject["tuned"] is None:
                del subject["tuned"]
            else:
                subject["tuned_digest"] = tuned_digest(self.folder, subject["tuned"])
        if self.league is not None:
            parts["league"] = as_json(self.league)
            if self.league.verdicts:
                del parts["league"]["verdicts"]
        if self.design.records is not None:
            path = Path(selection_beside(self.folder, self.design.records))
            if str(path) != self.design.records and path.is_file():
                parts["design"]["records_digest"] = source_digest(path)
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
            parts = [describe_fault(dict(part), "recipe.overrides") for part in error.errors(include_url=False)]
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
            AttackSpec(name, as_json(self.attacks.settings.get(name, {})), Path(self.folder))
            for name in self.attacks.run or default
        )


def describe_fault(
    error: Mapping[str, Any],
    start: str = "",
    allowed_at: Callable[[tuple[int | str, ...]], tuple[str, ...]] | None = None,
) -> str:
    """Say what pydantic found wrong, with its path.

    Args:
        error: one of ``ValidationError.errors()``.
        start: what the path begins with.
        allowed_at: names of the keys that are allowed in the table at a path; None leaves them out.
    """
    path: tuple[int | str, ...] = tuple(error["loc"])
    where = ".".join(str(part) for part in ([start] if start else []) + [*path]) or "plan"
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        allowed = () if allowed_at is None else allowed_at(path[:-1])
        return f"{where}: unknown key{nearest(str(path[-1]), allowed)} (allowed: {', '.join(allowed)})"
    if error["type"] in {"missing", "missing_argument"}:
        return f"{where}: is missing; give it"
    given = error["input"]
    shown = f"={given!r}" if isinstance(given, str | int | float | bool) else ""
    if error["type"] == "value_error":  # our own sentence, which names its paths itself
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{where}{shown}: {error['msg'][0].lower()}{error['msg'][1:]}"
