"""What is fixed before any model is trained: data, roles, attacks, power, the plan's digest."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.checks import check_resolution
from mnemoscope.audit.answers.defences import parse_defence
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.inclusion import told_inclusion
from mnemoscope.audit.answers.model_counts import check_model_counts
from mnemoscope.audit.answers.protocols import Attack, check_needs, queries_of
from mnemoscope.audit.answers.reconstruction import Reconstruction
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.canaries import in_place_of_sources, plant_canaries
from mnemoscope.audit.records.design import Design, Role, random_design
from mnemoscope.audit.records.request import select_records, selection_beside
from mnemoscope.audit.records.requests import deal_requests
from mnemoscope.audit.rng import child_seed
from mnemoscope.audit.statistics.measures import Canaries, Measure
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.policy import Policy, load_policy
from mnemoscope.audit.verdict.policy_file import policy_record
from mnemoscope.audit.verdict.power import Power, choose_alpha, least_power
from mnemoscope.audit.verdict.procedure_scores import reads_both
from mnemoscope.audit.verdict.result import Cost, PlanSummary
from mnemoscope.audit.work.keys import content_key
from mnemoscope.audit.work.plan import Plan, SubjectPlan, nearest
from mnemoscope.commitment import Commitment
from mnemoscope.progress import Progress, Quiet
from mnemoscope.unlearning import DEFAULT_METHODS

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.protocol import UnlearningMethod
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.audit.work.store import Store

__all__ = ["DEFAULT_SUBJECTS", "DP_DELTA", "PreparedAudit", "Stopwatch"]

REQUESTS = {"records": "single records", "class": "a class"}
"""Kinds of requests that a plan can make, in words."""

DEFAULT_SUBJECTS = tuple(SubjectPlan(name) for name in DEFAULT_METHODS)
"""What a plan without subjects compares."""

POWER_VERSION = 3
"""Raised by hand when the simulation changes, so that no older number is served."""

LIVE = Need.ORACLE | Need.GRADIENT
OFFERED = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT | Need.POPULATION | Need.BEFORE | LIVE
"""What a fleet with roles provides to an attack."""

DEFAULT_DEFENCES = ("label-only", "top:1", "temperature:5", "round:2")
"""What an audit tries, unless told otherwise, to say what would help."""

DP_DELTA = 1e-5
"""At which the epsilon of a fleet trained with DP-SGD is stated."""

LEAST_A_MODEL = 10
"""Forgotten and never-seen records of one model, which the blind baseline compares by cross-validation."""


def _is_binary(values: NDArray[np.generic]) -> bool:
    return bool(((values == 0) | (values == 1)).all())


class Stopwatch:
    """Seconds by step, in the order in which steps were first entered."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to the step."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def costs(self) -> tuple[Cost, ...]:
        """The steps as costs."""
        return tuple(Cost(name, round(seconds, 3)) for name, seconds in self.seconds.items())


class PreparedAudit:
    """A plan with its data, design, attacks and power: everything that is fixed before any model is trained.

    Args:
        plan: what was asked.
        store: where a power that was simulated for the same counts is looked up and kept; None simulates anew.
        progress: told of steps.
    """

    def __init__(self, plan: Plan, *, store: "Store | None" = None, progress: Progress | None = None) -> None:
        from mnemoscope.attacks import (
            ATTACKS,
            DEFAULT_ATTACKS,
            DEFAULT_MEASURES,
            DEFAULT_VERSION_ATTACKS,
            MEASURES,
            RECONSTRUCTIONS,
        )
        from mnemoscope.audit.work.plan import check_names, load_attack, load_method
        from mnemoscope.unlearning import METHODS

        check_names(plan, methods=METHODS, attacks=ATTACKS)
        self.plan, self.store = plan, store
        self.progress = progress or Quiet()
        self.watch = Stopwatch()
        self.subjects = plan.subjects or DEFAULT_SUBJECTS
        self.methods: list[UnlearningMethod] = [load_method(s, METHODS, folder=plan.folder) for s in self.subjects]
        self._check_methods()
        self.canary_note = ""
        with self.watch.step("read the data"):
            self.dataset: Dataset = plan.load_dataset()
            self.design = plan_design(plan, self.dataset)
            self.canaries = self._plant_canaries()
            self.requests = deal_requests(self.design, plan.design.requests)
            # Where requests come one after another, the first leaves the fewest forgotten records to count.
            self.design = self.requests.step(1)
        self.policy: Policy = load_policy(plan.policy)
        self._check_counts()
        online = tuple(name for name in DEFAULT_ATTACKS if not name.endswith("_offline"))
        specs = plan.attack_specs((*online, *DEFAULT_VERSION_ATTACKS))
        self.specs = specs
        self.attacks: list[Attack] = [load_attack(spec, ATTACKS) for spec in specs]
        check_needs([(attack.name, attack.needs) for attack in self.attacks], OFFERED)
        names = [attack.name for attack in self.attacks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidInput(
                f"attacks.run: several attacks go by the name {', '.join(map(repr, twice))}, and results are kept by "
                "name; list each once, or give one in a file of yours another name"
            )
        if plan.attacks.primary is not None and plan.attacks.primary not in names:
            raise InvalidInput(f"attacks.primary={plan.attacks.primary!r} is not run; attacks run: {', '.join(names)}")
        single = [attack.name for attack in self.attacks if not reads_both(attack)]
        if plan.attacks.primary in names and plan.attacks.primary not in single:
            raise InvalidInput(
                f"attacks.primary={plan.attacks.primary!r} reads both versions and decides nothing about deletion: "
                f"exact retraining leaks to it. Choose one of {', '.join(single)}"
            )
        if not single:
            raise InvalidInput(
                f"attacks.run: {', '.join(names)} read both versions and decide nothing about deletion; "
                "add an attack that reads one version, e.g. 'lira'"
            )
        self.primary = plan.attacks.primary or self.policy.choose_primary(single)
        asked = plan.attacks.measures
        wanted_measures = DEFAULT_MEASURES if asked is None else asked
        self.measures: list[Measure] = self._named("attacks.measures", wanted_measures, MEASURES)
        self.reconstructions: list[Reconstruction] = self._named(
            "attacks.reconstructions", plan.attacks.reconstructions, RECONSTRUCTIONS
        )
        wanted = DEFAULT_DEFENCES if plan.defences.answers is None else plan.defences.answers
        self.defences = tuple(parse_defence(text) for text in wanted)
        self._check_queries()
        self._check_models()
        self._check_reconstructions()
        self._check_private()

    def _check_methods(self) -> None:
        """Refuse methods that cannot work in this plan, all at once, before any model is trained."""
        offered = Need.FORGET_DATA | Need.RETAIN_DATA | Need.HISTORY
        if self.plan.design.validation:
            offered |= Need.VALIDATION_DATA
        check_needs([(method.name, method.needs) for method in self.methods], offered)
        league = self.plan.league
        asked = {"records"}
        if league is not None and league.mode == "one-model":
            asked = {"class" if forget.startswith("class:") else "records" for forget in league.forget}
        for subject, method in zip(self.subjects, self.methods, strict=True):
            kinds = getattr(method, "kinds", ("records", "class"))
            if asked.isdisjoint(kinds):
                raise InvalidInput(
                    f"subjects.{subject.name}: {method.name} serves requests of kind {', '.join(kinds)} alone, and the "
                    f"models of this plan are asked to forget {' or '.join(REQUESTS[kind] for kind in sorted(asked))}; "
                    "leave it out, or give `mnemoscope league` a forget set of its kind in mode 'one-model'"
                )
        stack = self.plan.runtime.stack
        if stack not in (None, 1) and (undoing := [m.name for m in self.methods if Need.HISTORY in m.needs]):
            raise InvalidInput(
                f"runtime.stack={stack}: {', '.join(undoing)} undo steps of training, which only models trained one by "
                "one can repeat; set it to 1 or leave it out"
            )

    def runtime(self) -> "Runtime":
        """The plan's runtime; models are trained one by one where a method undoes steps of their training."""
        runtime = self.plan.build_runtime()
        return replace(runtime, stack=1) if any(Need.HISTORY in m.needs for m in self.methods) else runtime

    def _check_queries(self) -> None:
        """Refuse questions that this kind of data cannot be asked, before any model is trained."""
        from mnemoscope.audit.models.queries import check_queries

        asked: list[tuple[str, tuple[str, ...]]] = [("attacks.queries", self.plan.attacks.queries)]
        asked += [(f"attack {attack.name!r}", queries) for attack in self.attacks if (queries := queries_of(attack))]
        faults = []
        for who, queries in asked:
            try:
                check_queries(queries, is_image=self.dataset.kind == "image")
                if any(query.startswith("flips:") for query in queries) and not _is_binary(self.dataset.values):
                    faults.append(f"{who}: 'flips' turns over zeros and ones; this table holds other values")
            except InvalidInput as error:
                faults.append(f"{who}: {error}")
        if faults:
            raise InvalidInput("; ".join(faults) + ". Leave these out, or ask what this data can be asked")

    def _check_models(self) -> None:
        """Refuse attacks for which this design has too few models, before any is trained."""
        for both, games in ((False, ("forgetting",)), (True, ("difference-never", "difference-kept"))):
            playing = [attack for attack in self.attacks if reads_both(attack) is both]
            for game in games:
                for role in self._roles:
                    check_model_counts(playing, GAMES[game].side(role), self.design.fold)

    @cached_property
    def _roles(self) -> list[NDArray[np.int8]]:
        """Roles of the audited records, (m, n), after each request."""
        steps = [self.requests.step(number) for number in range(1, self.requests.total + 1)]
        return [step.roles_of(step.audited) for step in steps]

    def _plant_canaries(self) -> Canaries | None:
        """Put noisy copies in the place of the audited records, where the plan asks for it."""
        noise = self.plan.data.canary_noise
        if noise == 0:
            if "gaussian_poisoning" in (self.plan.attacks.measures or ()):
                raise InvalidInput(
                    "attacks.measures: gaussian_poisoning looks for noise that was planted before training; "
                    "set data.canary_noise, e.g. 0.5, or leave the measure out"
                )
            return None
        from mnemoscope.audit.models.data import DeviceData

        sources = self.design.audited
        constants = DeviceData(self.dataset, ids=sources[:1], subject=self.plan.load_subject()).constants
        scale = noise if constants is None else (noise * np.asarray(constants[1])).tolist()
        planted = plant_canaries(self.dataset, sources, scale=scale, seed=child_seed(self.plan.seed, "canaries"))
        self.dataset, self.design = planted.dataset, in_place_of_sources(self.design, planted)
        self.canary_note = planted.note
        return Canaries(planted.ids, planted.sources)

    def _named(self, key: str, names: Sequence[str], registry: Mapping[str, Callable[..., Any]]) -> list[Any]:
        unknown = [f"{key}: {name!r} is unknown{nearest(name, registry)}" for name in names if name not in registry]
        if unknown:
            raise InvalidInput("; ".join(unknown) + f"; allowed: {', '.join(sorted(registry))}")
        return [registry[name]() for name in names]

    @property
    def live(self) -> bool:
        """Whether anything that was asked for needs the models themselves beside their recorded answers."""
        return any(needs & LIVE for needs in [a.needs for a in self.attacks] + [m.needs for m in self.measures])

    @cached_property
    def query_groups(self) -> tuple[tuple[str, ...], ...]:
        """The plan's queries, then what each attack reads beyond them: an attack added later asks only its own."""
        groups = [self.plan.attacks.queries]
        known = set(groups[0])
        for attack in self.attacks:
            more = tuple(query for query in queries_of(attack) or () if query not in known)
            if more:
                groups.append(more)
                known |= set(more)
        return tuple(groups)

    def _check_reconstructions(self) -> None:
        """Refuse attacks that recover data and can work on no pair of this plan, all at once."""
        deleted = int((self.design.roles_of(self.design.audited) == Role.FORGOTTEN).sum(axis=1).min())
        shape = tuple(int(side) for side in self.dataset.values.shape[1:])
        if self.plan.recipe.subject is not None:  # its transform() may give inputs of another shape
            shape = (1,)
        cannot = [(a.name, getattr(a, "cannot", lambda *_: "")(deleted, shape)) for a in self.reconstructions]
        if faults := [f"{name}: {reason}" for name, reason in cannot if reason]:
            raise InvalidInput("attacks.reconstructions: " + "; ".join(faults) + ". Leave out what cannot work here")

    def _check_private(self) -> None:
        """Refuse DP-SGD that cannot be had before the other fleets are trained."""
        if self.plan.defences.dp_noise:
            from mnemoscope.audit.models.private import dp_epsilon

            dp_epsilon(self.private_recipe(self.plan.defences.dp_noise[0]), 1, DP_DELTA)

    def check_private_layers(self, module: "nn.Module") -> None:
        """Refuse a model that DP-SGD cannot train, where the plan asks for it."""
        if self.plan.defences.dp_noise:
            from mnemoscope.audit.models.private import check_private_layers

            check_private_layers(module)

    def private_recipe(self, noise: float) -> "Recipe":
        """The plan's recipe with DP-SGD of one noise multiplier."""
        return replace(self.plan.build_recipe(), dp_noise=noise, dp_clip=self.plan.defences.dp_clip)

    def _check_counts(self) -> None:
        """Refuse counts that bear no rate, and a recipe that sees no record, before anything is computed."""
        role = self.design.roles_of(self.design.audited)
        forgotten, never = (int((role == r).sum()) for r in (Role.FORGOTTEN, Role.NEVER))
        check_resolution(forgotten, never, max(self.policy.candidates()))
        each = min(int((row == r).sum()) for row in role for r in (Role.FORGOTTEN, Role.NEVER))
        if each < LEAST_A_MODEL:
            raise InvalidInput(
                f"design.audited={self.design.audited.size}: leaves {each} forgotten or never-seen records a model; "
                f"allowed: at least {LEAST_A_MODEL} of each. Audit more records, or change design.counts"
                + (f", or ask for fewer than design.requests={total}" if (total := self.requests.total) > 1 else "")
            )
        if (epochs := self.plan.build_recipe().epochs) < 1:
            raise InvalidInput(f"recipe.overrides.epochs={epochs}: must be at least 1, or no record is ever seen")

    @cached_property
    def powers(self) -> list[Power]:
        """Whole-rule power of every candidate alpha, from counts alone; equal counts share one simulation.

        Where requests come one after another it is the least over the audits after each of them.
        """
        chosen = [a for a in self.attacks if a.name == self.primary]
        audits: list[tuple[Attack, NDArray[np.int8]]] = []
        for number, role in enumerate(self._roles, 1):
            whole = self.requests.step(number).role
            audits.append((told_inclusion(chosen, GAMES["forgetting"], whole)[0], role))
        alphas = self.policy.candidates()
        n_population = self._count(Role.POPULATION) if Need.POPULATION in chosen[0].needs else 0
        each = [self._power_parts(attack, role, alphas, n_population) for attack, role in audits]
        parts = each[0] if len(each) == 1 else {"requests": each}
        key = content_key("power", POWER_VERSION, parts)
        entry = None if self.store is None else self.store.get(key)
        if entry is not None:
            return [Power(float(a), int(k), int(n), float(c)) for a, k, n, c in json.loads(str(entry.meta["powers"]))]
        with self.watch.step("simulate the power"):
            powers = least_power(
                audits,
                self.design.fold,
                self.policy,
                alphas=alphas,
                n_population=n_population,
                on_run=lambda done, total: self.progress.step("simulate the power", done, total),
            )
        if self.store is not None:
            rows = [[p.alpha, p.passed, p.runs, p.control_level] for p in powers]
            self.store.put(key, {}, inputs=parts, meta={"kind": "power", "powers": json.dumps(rows)})
        return powers

    def _power_parts(
        self, attack: Attack, role: NDArray[np.int8], alphas: tuple[float, ...], n_population: int
    ) -> dict[str, Any]:
        """What a simulated power depends on: counts, the primary attack with its settings, and the policy."""
        _, folds = np.unique(self.design.fold, return_counts=True)
        return {
            "models": int(role.shape[0]),
            "records": int(role.shape[1]),
            "per_record": [int((role[:, 0] == r).sum()) for r in (Role.KEPT, Role.FORGOTTEN, Role.NEVER)],
            "folds": [int(k) for k in folds],
            "population": n_population,
            "attack": [attack.name, repr(attack)],
            "policy": self.policy.digest,
            "alphas": list(alphas),
        }

    @cached_property
    def alpha(self) -> float | None:
        """The endpoints' FPR: the policy's, or the smallest that the counts bear."""
        return self.policy.alpha if self.policy.alpha is not None else choose_alpha(self.powers, self.policy)

    def _count(self, role: Role) -> int:
        return int((self.design.role[0] == role).sum())

    def plan_summary(self, commitment: Commitment) -> PlanSummary:
        """What was fixed before the first score."""
        chosen = next((p for p in self.powers if p.alpha == self.alpha), None)
        none = Estimate(None, reason=f"no candidate alpha has a power of {self.policy.min_power:.0%} with these counts")
        return PlanSummary(
            digest=self.plan.digest,
            policy=self.policy.as_dict(),
            primary_attack=self.primary,
            attacks=tuple(attack.name for attack in self.attacks),
            alpha=self.alpha,
            alpha_source="given" if self.policy.alpha is not None else "chosen from counts",
            power=none if chosen is None else chosen.estimate(),
            power_by_alpha={f"{p.alpha:g}": p.value for p in self.powers},
            committed_before_scores=commitment.before_scores,
            seed=self.plan.seed,
            decided=policy_record(self.plan.policy),
            deviations=commitment.deviations,
        )


def plan_design(plan: Plan, dataset: "Dataset") -> Design:
    """Draw the roles a plan asks for."""
    d = plan.design
    audited: int | NDArray[np.int64] = d.audited
    if d.records is not None:
        audited = select_records(dataset, selection_beside(plan.folder, d.records), seed=plan.seed)
        if audited.size != d.audited:
            raise InvalidInput(
                f"design.records names {audited.size} records and design.audited says {d.audited}; let them agree"
            )
    return random_design(
        dataset.labels,
        n_models=d.models,
        audited=audited,
        background=d.background,
        population=d.population,
        calibration=d.calibration,
        test=d.test,
        validation=d.validation,
        counts=d.counts,
        folds=d.folds,
        seed=child_seed(plan.seed, "design"),
    )
