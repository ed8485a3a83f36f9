"""The verdict is a function of recorded scores: the same ones give the same endpoints, others give another word."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.onemodel import audit_one_model
from mnemoscope.audit.verdict.onemodel_decision import OneModelScores, decide_model
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure_decision import (
    SharedScores,
    SubjectScores,
    decide_endpoints,
    positive_control,
    precision,
)
from mnemoscope.audit.work.side_arrays import ArrayWriter
from mnemoscope.stored_scores import ScoreWriter, StoredScores
from tests.verdict.test_onemodel import world

POLICY = Policy(alpha=0.1)
NO_NAMES = np.zeros(0, "U1")


def stored(path: Path, *, model: OneModelScores | None = None, subject: SubjectScores | None = None) -> StoredScores:
    """Write scores to a file, and read them back."""
    with ArrayWriter(path) as file:
        writer = ScoreWriter(file, NO_NAMES)
        if model is not None:
            writer.model("m", model, Basis("one-model", alpha=0.1))
        if subject is not None:
            writer.subject("s", subject, Basis("procedure", alpha=0.1, flags=("exploratory",)))
        writer.close("one-model", plan="sha256:0", policy=POLICY, primary="a", alpha=0.1)
    return StoredScores(path)


def test_one_model_decides_the_same_from_a_file(tmp_path: Path) -> None:
    attacks = [ATTACKS["lira_offline"](), ATTACKS["loss"]()]
    found = audit_one_model(world(1, 100, retain=40, leak=1.0), attacks, policy=POLICY)
    again = stored(tmp_path / "scores.npz", model=found.scores)
    decided = decide_model(again.model(again.index.models[0]), again.policy)
    assert again.policy == POLICY
    assert decided.endpoints == found.subject.endpoints
    gates = {gate.id: gate for gate in found.subject.gates}
    assert [gates[gate.id] for gate in decided.gates] == list(decided.gates)
    assert {gate.id for gate in decided.gates} == {"G1", "G2", "G3", "G6"}
    verdict = found.basis.decide(decided.endpoints, found.subject.gates, again.policy)
    assert verdict == found.subject.verdict


def test_other_scores_give_another_word() -> None:
    found = audit_one_model(world(1, 200, leak=3.0, r=0), [ATTACKS["loss"]()], policy=POLICY)
    assert found.subject.verdict.word == "OUTSIDE BOUND"
    own = found.scores.attacks["loss"]
    forget = found.scores.board.group == Group.FORGET
    never = np.flatnonzero(~forget)
    quiet = own.after.copy()
    quiet[forget] = quiet[never[: forget.sum()]]
    scores = replace(found.scores, attacks={"loss": replace(own, after=quiet)})
    decided = decide_model(scores, POLICY)
    assert found.basis.decide(decided.endpoints, decided.gates, POLICY).word != "OUTSIDE BOUND"


def fleet(leak: float, seed: int = 0, m: int = 24, n: int = 60) -> SubjectScores:
    """Scores of a fleet whose forgotten cells lie higher by ``leak``."""
    rng = np.random.default_rng(seed)
    role = np.stack([rng.permutation(np.repeat([1, 2, 3], n // 3)) for _ in range(m)]).astype(np.int8)
    fold = np.repeat([0, 1], m // 2).astype(np.int8)

    def scores(lift: float, positive: int = 2, negative: int = 3) -> FleetScores:
        side = np.where(role == positive, 1, np.where(role == negative, 0, -1)).astype(np.int8)
        return FleetScores(rng.normal(size=role.shape) + lift * (side == 1), side, fold)

    both = np.where(role == 3, 0, 1).astype(np.int8)
    member = FleetScores(rng.normal(size=role.shape) + 2 * (both == 1), both, fold)
    shared = SharedScores(
        role, fold, "a", 0.1, {"a": scores(0.0), "b": scores(0.0)}, scores(2.0),
        member, scores(1.0, 1), rng.random((m, 40)) < 0.9,
    )  # fmt: skip
    after = {"a": scores(leak), "b": scores(leak)}
    margin = rng.normal(size=role.shape) + leak * (role == 2)
    return SubjectScores(shared, after, margin, scores(1.0, 1), rng.random((m, 40)) < 0.9, ("b",))


@pytest.mark.parametrize("leak", [0.0, 2.0])
def test_a_procedure_decides_the_same_from_a_file(tmp_path: Path, leak: float) -> None:
    scores = fleet(leak)
    again = stored(tmp_path / "scores.npz", subject=scores)
    read = again.subject(again.index.subjects[0])
    endpoints = decide_endpoints(scores, POLICY)
    assert decide_endpoints(read, POLICY) == endpoints
    assert {e.id for e in endpoints} == {"P1", "P2", "P3", "P4", "P5"}
    assert {e.attack for e in endpoints if e.id == "P1"} == {"a"}, "what the method trained against is no evidence"
    assert positive_control(read.shared, POLICY) == positive_control(scores.shared, POLICY)
    assert precision(read, POLICY) == precision(scores, POLICY)
    assert again.index.subjects[0].basis == Basis("procedure", alpha=0.1, flags=("exploratory",))
    word = Basis("procedure", alpha=0.1).decide(endpoints, [positive_control(read.shared, POLICY)], POLICY).word
    assert (word == "OUTSIDE BOUND") == (leak > 0)


def test_what_takes_no_part_in_a_game_is_not_stored(tmp_path: Path) -> None:
    scores = fleet(0.0)
    again = stored(tmp_path / "scores.npz", subject=scores)
    read = again.subject(again.index.subjects[0]).after["a"]
    assert (read.score[read.side < 0] == 0).all()
    assert (read.score[read.side >= 0] == scores.after["a"].score[read.side >= 0]).all()


def test_subjects_of_one_fleet_share_its_arrays(tmp_path: Path) -> None:
    first = fleet(0.0)
    second = replace(first, after={"a": first.after["b"], "b": first.after["a"]})
    with ArrayWriter(tmp_path / "scores.npz") as file:
        writer = ScoreWriter(file, NO_NAMES)
        for name, one in (("first", first), ("second", second), ("other", fleet(0.0, seed=1))):
            writer.subject(name, one, Basis("procedure", alpha=0.1))
        writer.close("procedure", plan="sha256:0", policy=POLICY, primary="a", alpha=0.1)
    again = StoredScores(tmp_path / "scores.npz")
    assert [entry.fleet for entry in again.index.subjects] == [0, 0, 1]
    assert len(again.index.fleets) == 2
    one, two, _ = (again.subject(entry) for entry in again.index.subjects)
    assert one.shared is two.shared
