"""The contract of attacks, for third parties too: hand it a registry of your own (methods: ``testing_methods``).

Each check is a plain function that raises ``ContractViolation``; ``attack_contract`` lists them as (name, callable)
pairs, ready for ``pytest.mark.parametrize``. The core names no plug-in: the registry is the argument. Attacks on
recorded answers meet a drawn fleet (``testing_fleets``), attacks that ask models live meet real ones
(``testing_oracles``).

    CASES = attack_contract(MY_ATTACKS)

    @pytest.mark.parametrize("check", [c for _, c in CASES], ids=[i for i, _ in CASES])
    def test_contract(check):
        check()
"""

import dataclasses
import json
import random
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import (
    Attack,
    FleetAttack,
    Scorer,
    decision_threshold,
    queries_of,
    score_fleet,
    score_target,
)
from mnemoscope.audit.answers.views import Answers, Need, Reference, Side
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing_fleets import LIVE, answering_fleet, apart, quiet_fleets, reordered, stripped, toy_fleet
from mnemoscope.audit.testing_oracles import trained_fleet

__all__ = [
    "ATTACK_CHECKS",
    "LEAST_AUC",
    "ContractViolation",
    "attack_contract",
    "check_attack",
    "planted_auc",
    "silent_auc",
    "silent_band",
    "toy_fleet",
    "trained_fleet",
]

Floats = NDArray[np.float64]
Check = Callable[[], None]

LEAST_AUC = 0.6
"""What every attack must exceed on models that plainly remember."""


class ContractViolation(AssertionError):  # noqa: N818 - it is what an assertion of a contract raises
    """A plug-in broke a rule that the audit relies on."""


def require(ok: bool, name: str, rule: str, seen: object = "") -> None:
    """Raise ``ContractViolation`` that names the plug-in, the rule and what was seen."""
    if not ok:
        raise ContractViolation(f"{name}: {rule}" + (f"; seen: {seen}" if seen != "" else ""))


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _pooled_auc(scores: Floats, side: NDArray[np.int8]) -> float:
    inside, outside = scores[side == Side.IN], np.sort(scores[side == Side.OUT])
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / (2 * outside.size))


def planted_auc(attack: Attack) -> float:
    """Return the pooled AUC on the contract's leaky fleet: the true class gains 4 logits, or labels known by heart."""
    fleet = answering_fleet(attack, 4.0)
    return _pooled_auc(score_fleet(attack, fleet, rng=_rng()), fleet.side)


def silent_auc(attack: Attack) -> float:
    """Return the pooled AUC on the contract's fleets that remember nothing, their mean."""
    fleets = quiet_fleets(attack)
    return float(np.mean([_pooled_auc(score_fleet(attack, f, rng=_rng()), f.side) for f in fleets]))


def silent_band(attack: Attack) -> tuple[float, float]:
    """Return within what ``silent_auc`` must lie.

    Gaussians scored on the models they were fitted to reach 0.57 there; leaving one of 16 models out costs published
    variants up to 0.01 below one half.
    """
    wide = 0.035 if attack.needs & LIVE else 0.025
    return 0.5 - wide, 0.5 + wide


def attack_describes_itself(attack: Attack) -> None:
    """Settings are a frozen dataclass that hashes, compares and turns to JSON; name and needs are declared."""
    name = attack.name
    require(bool(name) and isinstance(name, str), repr(attack), "has a non-empty name", name)
    require(isinstance(attack.needs, Need), name, "declares its needs as Need flags", attack.needs)
    require(dataclasses.is_dataclass(attack) and not isinstance(attack, type), name, "is a dataclass")
    settings = dataclasses.asdict(cast(Any, attack))
    twin = cast(Any, type(attack))(**settings)
    require(twin == attack and hash(twin) == hash(attack), name, "equals and hashes as its own settings")
    require(json.loads(json.dumps(settings)) == settings, name, "has settings that survive JSON", settings)
    field = next(iter(settings), "name")
    try:
        setattr(attack, field, "other")
    except (AttributeError, TypeError):
        return
    raise ContractViolation(f"{name}: is frozen; setting {field} succeeded")


def attack_answers_in_shape(attack: Attack) -> None:
    """One finite float64 per record of a target, and per model and record of a fleet, also with several queries."""
    for queries in (1, 3) if queries_of(attack) is None else (1,):
        fleet = answering_fleet(attack, 2.0, n_queries=queries)
        score_target(attack, apart(fleet, 0), fleet.target(0), rng=_rng())
        score_fleet(attack, fleet, rng=_rng())


def attack_sees_a_leak(attack: Attack) -> None:
    """On models that plainly remember, AUC > 0.6 in the fleet and over single targets: higher means "in"."""
    fleet = answering_fleet(attack, 4.0)
    auc = _pooled_auc(score_fleet(attack, fleet, rng=_rng()), fleet.side)
    require(auc > LEAST_AUC, attack.name, "has AUC > 0.6 on a leaky fleet, higher scores meaning in", round(auc, 4))
    targets = [0, fleet.n_models // 2, fleet.n_models - 1]
    scores = [score_target(attack, apart(fleet, k), fleet.target(k), rng=_rng()) for k in targets]
    auc = float(np.mean([_pooled_auc(s[None], fleet.side[[k]]) for s, k in zip(scores, targets, strict=True)]))
    require(auc > LEAST_AUC, attack.name, "has AUC > 0.6 on leaky single targets", round(auc, 4))


def attack_is_silent_without_leak(attack: Attack) -> None:
    """On models that remember nothing, the fleet's pooled AUC is one half: never scored on what it was fitted on."""
    auc, (low, high) = silent_auc(attack), silent_band(attack)
    require(low < auc < high, attack.name, "has AUC 0.5 on a fleet that remembers nothing", round(auc, 4))


def attack_invents_no_leak_with_few_models(attack: Attack) -> None:
    """In closed form with two models a side, one of them perhaps the target: refused, or pooled AUC not above one half.

    Below one half is the known price of leaving the target out. Above it, what is left on the target's side, one model
    or two, has told which side that is: a leak where there is none.
    """
    if not isinstance(attack, FleetAttack) or attack.needs & LIVE:
        return
    named = queries_of(attack) or ()
    fleets = [toy_fleet(0.0, n_models=6, n_records=1500, queries=named, seed=seed) for seed in range(3)]
    try:
        aucs = [_pooled_auc(score_fleet(attack, fleet, rng=_rng()), fleet.side) for fleet in fleets]
    except InvalidInput:
        return
    # Standard error 0.004. A width taken from one model on one side and from two on the other reaches 0.55.
    auc = float(np.mean(aucs))
    require(auc < 0.52, attack.name, "has no AUC above 0.5 with two models a side that remember nothing", round(auc, 4))


def attack_keeps_both_tails(attack: Attack) -> None:
    """In closed form on models that remember nothing: no more of one side than of the other in the outermost 1 %.

    An AUC of one half hides a tail: shares of 15 and of 16 reference models put 6 % of one side below the lowest 1 % of
    the other.
    """
    if not isinstance(attack, FleetAttack) or attack.needs & LIVE:
        return
    fleet = toy_fleet(0.0, n_models=48, n_records=1200, queries=queries_of(attack) or (), seed=1)
    scores = score_fleet(attack, fleet, rng=_rng())
    inside, outside = scores[fleet.side == Side.IN], scores[fleet.side == Side.OUT]
    for tail, sign in (("upper", 1.0), ("lower", -1.0)):
        level = np.sort(-sign * outside)[outside.size // 100]
        beyond = float((-sign * inside < level).mean())
        # 19,200 trials a side, clustered: standard error near 0.001.
        require(
            beyond < 0.02, attack.name, f"has no excess in the {tail} tail of a fleet that remembers nothing", beyond
        )


def attack_leaves_ties_tied(attack: Attack) -> None:
    """Where all models answer most records alike, as behind rounded answers, the pooled AUC is not above one half.

    The mean of equal numbers with one left out differs from them by rounding errors, and on which side they fall tells
    whose was left out: likelihood ratios of 1e-31 ranked by their sign reached 0.76 here.
    """
    if attack.needs & LIVE:
        return
    fleet = toy_fleet(0.0, n_models=48, n_records=200, queries=queries_of(attack) or ())
    alike = _rng(4).random(fleet.n_records) < 0.8

    def agreed(answers: Reference) -> NDArray[np.float32]:
        logits = answers.logits.copy()
        logits[:, alike] = logits[0, alike]
        return logits

    before = cast(Reference, fleet.before)
    earlier = dataclasses.replace(before, logits=agreed(before), _signals={})
    fleet = dataclasses.replace(fleet, logits=agreed(fleet), before=earlier, _signals={})
    auc = _pooled_auc(score_fleet(attack, fleet, rng=_rng()), fleet.side)
    require(auc < 0.53, attack.name, "ties records that all models answer alike", round(auc, 4))


def attack_ignores_order(attack: Attack) -> None:
    """Records in another order get the same scores; so do models in another order."""
    fleet, twin = answering_fleet(attack, 2.0), answering_fleet(attack, 2.0)
    records = _rng(1).permutation(fleet.n_records)
    # Folds are kept whole: a learned attack may depend on which models share a fold, not on their order.
    models = _rng(2).permutation(fleet.n_models)
    plain = score_fleet(attack, fleet, rng=_rng())
    moved = score_fleet(attack, reordered(twin, records, models), rng=_rng())
    gap = float(np.abs(moved - plain[np.ix_(models, records)]).max())
    require(gap <= 1e-9, attack.name, "gives the same fleet scores in any order of records and models", gap)
    others = np.arange(1, fleet.n_models)
    target = score_target(attack, fleet.select(others), fleet.target(0), rng=_rng())
    shuffled = reordered(twin, records, np.arange(fleet.n_models))
    again = score_target(attack, twin.select(others[::-1]), shuffled.target(0), rng=_rng())
    gap = float(np.abs(again - target[records]).max())
    require(gap <= 1e-9, attack.name, "matches a target's records to its reference by id, not by position", gap)


def attack_repeats_itself(attack: Attack) -> None:
    """The same seed gives the same bits; global random states are neither read nor moved."""
    fleets = iter([answering_fleet(attack, 2.0), answering_fleet(attack, 2.0)])

    def run() -> tuple[bytes, bytes]:
        fleet = next(fleets)  # what one run's oracles recall is not at hand in the other
        single = score_target(attack, apart(fleet, 0), fleet.target(0), rng=_rng(3))
        return single.tobytes(), score_fleet(attack, fleet, rng=_rng(3)).tobytes()

    seed_globals(1)
    before = global_states()
    first = run()
    require(before == global_states(), attack.name, "leaves global random states alone")
    seed_globals(2)
    require(first == run(), attack.name, "gives the same answer for the same seed, whatever the global state")


def attack_leaves_inputs_alone(attack: Attack) -> None:
    """Read-only arrays are enough, and no bit of them changes; nor does a model."""
    fleet = answering_fleet(attack, 2.0)
    parts = [fleet, cast(Answers, fleet.population), cast(Answers, fleet.before)]
    before = [(p.ids.tobytes(), p.labels.tobytes(), p.logits.tobytes()) for p in parts]
    models = _states(fleet)
    side = fleet.side.tobytes()
    score_target(attack, apart(fleet, 0), fleet.target(0), rng=_rng())
    score_fleet(attack, fleet, rng=_rng())
    after = [(p.ids.tobytes(), p.labels.tobytes(), p.logits.tobytes()) for p in parts]
    require(before == after and side == fleet.side.tobytes(), attack.name, "leaves its inputs as they were")
    require(models == _states(fleet), attack.name, "leaves the models as they were: weights, gradients, modes")


def _states(fleet: Reference) -> list[object]:
    """Return weights, gradients and modes of the models that are handed out, comparable."""
    before = fleet.before
    oracles = (*(fleet.oracles or ()), *(() if before is None else before.oracles or ()))
    modules = [oracle.module() for oracle in oracles if oracle.white_box]
    return [
        (
            [(name, value.detach().cpu().numpy().tobytes()) for name, value in module.state_dict().items()],
            [(p.grad is None, p.requires_grad) for p in module.parameters()],
            [part.training for part in module.modules()],
        )
        for module in modules
    ]


class _Watched:
    """An attack that notes whether work began."""

    def __init__(self, attack: Attack) -> None:
        self.name, self.needs, self._attack, self.began = attack.name, attack.needs, attack, False

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> Scorer:
        self.began = True
        return self._attack.fit(reference, rng=rng)


def attack_names_missing_needs(attack: Attack) -> None:
    """Without something it declared, nothing runs; with no more than it declared, it works."""
    needs = [Need.SHADOW_IN, Need.SHADOW_OUT, Need.POPULATION, Need.BEFORE, Need.SCORES]
    if attack.needs & LIVE:
        needs += [Need.ORACLE, Need.GRADIENT]
    for need in needs:
        fleet = answering_fleet(attack, 2.0, labels_only=need is Need.SCORES)
        if need not in attack.needs:
            score_target(attack, *stripped(fleet, need), rng=_rng())
            continue
        watched = _Watched(attack)
        try:
            score_target(watched, *stripped(fleet, need), rng=_rng())
        except MissingNeed:
            require(not watched.began, attack.name, f"is refused before any work without {need}")
            continue
        raise ContractViolation(f"{attack.name}: declares {need} and ran without it")


def attack_never_sees_the_truth(attack: Attack) -> None:
    """A model's scores are the same whatever sides are written down for it: its truth cannot reach them."""
    plain = score_fleet(attack, answering_fleet(attack, 2.0), rng=_rng())
    for model in (0, plain.shape[0] - 1):
        fleet = answering_fleet(attack, 2.0)
        side = fleet.side.copy()
        side[model] = np.array([Side.LEAVE_OUT, Side.OUT, Side.IN], np.int8)[(side[model] + 2) % 3]
        before = None if fleet.before is None else fleet.before.with_side(side)
        lied_to = score_fleet(attack, dataclasses.replace(fleet, side=side, before=before), rng=_rng())
        gap = float(np.abs(lied_to[model] - plain[model]).max())
        require(gap <= 1e-9, attack.name, "scores a model without knowing its own sides", gap)


def attack_leaves_one_out_exactly(attack: Attack) -> None:
    """``score_fleet`` in closed form equals a fit without the model, to 1e-9, also with unequal counts."""
    if not isinstance(attack, FleetAttack):
        return
    fleet = answering_fleet(attack, 2.0, n_queries=2)
    ragged = fleet.side.copy()
    ragged[:2, ::3] = Side.LEAVE_OUT
    fleet = dataclasses.replace(fleet, side=ragged)
    closed = score_fleet(attack, fleet, rng=_rng())
    for model in range(fleet.n_models):
        fitted = attack.fit(apart(fleet, model), rng=_rng()).score(fleet.target(model))
        gap = float((np.abs(closed[model] - fitted) / np.maximum(1.0, np.abs(fitted))).max())
        require(gap <= 1e-9, attack.name, "has fleet scores equal to a fit with the model left out", gap)


def attack_fits_once_for_many(attack: Attack) -> None:
    """One fit serves many targets: scoring one changes nothing for the next, and a threshold is finite."""
    fleet = answering_fleet(attack, 4.0)
    scorer = attack.fit(fleet.select(np.arange(2, fleet.n_models)), rng=_rng())
    first = scorer.score(fleet.target(0)).tobytes()
    scorer.score(fleet.target(1))
    require(first == scorer.score(fleet.target(0)).tobytes(), attack.name, "keeps no state between targets")
    threshold = decision_threshold(scorer)
    require(threshold is None or bool(np.isfinite(threshold)), attack.name, "has a finite threshold", threshold)


ATTACK_CHECKS: tuple[Callable[[Attack], None], ...] = (
    attack_describes_itself,
    attack_answers_in_shape,
    attack_sees_a_leak,
    attack_is_silent_without_leak,
    attack_invents_no_leak_with_few_models,
    attack_leaves_ties_tied,
    attack_keeps_both_tails,
    attack_ignores_order,
    attack_repeats_itself,
    attack_leaves_inputs_alone,
    attack_names_missing_needs,
    attack_never_sees_the_truth,
    attack_leaves_one_out_exactly,
    attack_fits_once_for_many,
)
"""Every rule for attacks, each a function of one attack."""


def check_attack(attack: Attack) -> None:
    """Run every check on one attack; raise ``ContractViolation`` at the first rule broken."""
    for check in ATTACK_CHECKS:
        check(attack)


def attack_contract(
    registry: Mapping[str, Callable[[], Attack]], *, exempt: Mapping[str, frozenset[str]] | None = None
) -> list[tuple[str, Check]]:
    """List every (attack, check) pair of a registry.

    Args:
        registry: name -> factory, as ``ATTACKS``.
        exempt: name -> checks that do not apply, by function name; say why where you list them.

    Returns:
        Pairs of an id and a callable without arguments that raises ``ContractViolation``.
    """

    def named(name: str, factory: Callable[[], Attack]) -> None:
        require(factory().name == name, name, "has the name it is registered under", factory().name)

    cases: list[tuple[str, Check]] = []
    for name, factory in registry.items():
        cases.append((f"{name}-is_registered_under_its_name", partial(named, name, factory)))
        for check in ATTACK_CHECKS:
            if check.__name__ not in (exempt or {}).get(name, frozenset()):
                run = partial(_run_attack_check, check, factory)
                cases.append((f"{name}-{check.__name__.removeprefix('attack_')}", run))
    return cases


def _run_attack_check(check: Callable[[Attack], None], factory: Callable[[], Attack]) -> None:
    check(factory())


def seed_globals(seed: int) -> None:
    """Set every global random state there is, torch's too where it is loaded."""
    np.random.seed(seed)  # noqa: NPY002 - the global state is what is being tested
    random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def global_states() -> tuple[object, ...]:
    """Return every global random state, comparable."""
    legacy = cast(tuple[Any, ...], np.random.get_state())  # noqa: NPY002
    torch = sys.modules.get("torch")
    return (
        legacy[1].tobytes(),
        legacy[2],
        random.getstate(),
        None if torch is None else torch.get_rng_state().numpy().tobytes(),
    )
