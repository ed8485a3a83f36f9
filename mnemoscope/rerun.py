"""``mnemoscope rerun``: a result computed again, from its scores, its recorded answers, or its data."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mnemoscope.agreement import WITHIN, Rows
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.evidence import ANSWERS, SCORES
from mnemoscope.evidence_check import check_files, check_plan, folder_of
from mnemoscope.recomputation import NO_EVIDENCE, NUMERIC, Recomputation, compare_fixed, recompute_from_scores
from mnemoscope.recomputed_subjects import Decided, Found, compare_subject, compare_whole, of_model, of_procedure
from mnemoscope.stored_answers import StoredAnswers
from mnemoscope.stored_scores import StoredScores

if TYPE_CHECKING:
    from mnemoscope.audit.answers.protocols import Attack
    from mnemoscope.progress import Progress

__all__ = ["Level", "rerun"]

Level = Literal["scores", "answers", "data"]

LIVE = Need.ORACLE | Need.GRADIENT
NO_ANSWERS = (
    "this result lists no recorded answers, so attacks cannot run again without the models. `mnemoscope run "
    "--keep-answers` keeps them; or compute again --from scores or --from data"
)
OWN_CODE = "an attack from a file of your own, whose code is no part of the evidence"
ASKS_LIVE = "it asks the models themselves, which are no part of the evidence: see --from data"


def rerun(
    path: Path | str,
    *,
    level: Level = "scores",
    store: str | Path | None = None,
    plan: Path | None = None,
    device: str = "auto",
    progress: "Progress | None" = None,
) -> Recomputation:
    """Compute a result again and compare.

    Args:
        path: the folder of a result, its ``result.json``, or a bundle (folder or zip).
        level: "scores" decides again from stored scores, in seconds; "answers" runs the attacks again on recorded
            answers, in minutes; "data" carries the plan out again, all of it.
        store: for "data": an empty folder for the work, which a second call goes on with; None works in a temporary
            one and keeps nothing.
        plan: for "data": the plan's own TOML file, where it names files of the user's own.
        device: for "data": where to compute.
        progress: told of steps.

    Returns:
        What agrees, what does not, and what was taken over.

    Raises:
        InvalidInput: there is no result, or nothing was stored at this level.
    """
    with _as_folder(Path(path)) as place:
        if level == "scores":
            return recompute_from_scores(place)
        if level == "answers":
            return _from_answers(place)
        return _from_data(place, store, plan, device, progress)


@contextmanager
def _as_folder(path: Path) -> Iterator[Path]:
    """A zip as a folder of its own; a folder or a result as it is."""
    if path.is_file() and path.suffix.lower() == ".zip":
        from mnemoscope.reports.contents import as_folder, open_contents

        with as_folder(path, open_contents(path)) as folder:
            yield folder
        return
    yield path


def _from_answers(place: Path) -> Recomputation:
    from mnemoscope.reports.schema import read_result

    base, result = folder_of(place), read_result(place)
    listed = {file.path for file in result.evidence}
    if SCORES not in listed:
        raise InvalidInput(NO_EVIDENCE)
    if ANSWERS not in listed:
        raise InvalidInput(NO_ANSWERS)
    rows = Rows()
    if not check_files(base, result, rows, needed=(SCORES, ANSWERS)):
        rows.take("everything else: a file is not the one that the result names, so nothing was computed from it")
        return _found(rows, "answers")
    check_plan(base, result, rows)
    scores, answers = StoredScores(base / SCORES), StoredAnswers(base / ANSWERS)
    compare_fixed(result, scores, rows)
    attacks, not_again = _attacks(scores)
    if result.plan.primary_attack in not_again:
        raise InvalidInput(
            f"the primary attack {result.plan.primary_attack} cannot run again: {not_again[result.plan.primary_attack]}"
        )
    try:
        if result.mode == "procedure":
            _procedure(result, scores, answers, attacks, not_again, rows)
        else:
            _models(result, scores, answers, attacks, not_again, rows)
    except NUMERIC as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{ANSWERS}: its arrays fit no audit ({type(error).__name__}: {error})") from error
    finally:
        scores.close()
        answers.close()
    rows.take("descriptions beside the verdict: curves, histograms, accuracies, epsilon, measures, defences")
    return _found(rows, "answers")


def _found(rows: Rows, level: Level) -> Recomputation:
    return Recomputation(rows.agrees, tuple(rows.rows), tuple(rows.taken_over), level, WITHIN.name)


def _attacks(scores: StoredScores) -> "tuple[list[Attack], dict[str, str]]":
    """The attacks that can run on recorded answers, and the others with the reason."""
    from mnemoscope.attacks import ATTACKS
    from mnemoscope.audit.verdict.procedure_scores import reads_both
    from mnemoscope.audit.work.plan import AttackSpec, load_attack
    from mnemoscope.audit.work.plugins import is_plugin

    made, not_again = [], {}
    for spec in scores.index.attacks:
        name, settings = spec.get("name"), spec.get("settings")
        if not isinstance(name, str) or not isinstance(settings, dict):
            raise InvalidInput("scores.npz: an attack in its index has no name or no settings")
        if is_plugin(name):
            not_again[name.rpartition(":")[2]] = OWN_CODE  # never load code that a document names
            continue
        attack: Attack = load_attack(AttackSpec(name, settings, Path()), ATTACKS)
        if attack.needs & LIVE:
            not_again[attack.name] = ASKS_LIVE
        elif not reads_both(attack):
            made.append(attack)
    # A plug-in's own name may differ from its class's: what has scores and was not made is one.
    ran = {name for entry in scores.index.subjects for name in entry.after}
    ran |= {name for entry in scores.index.models for name in entry.attacks}
    if OWN_CODE in not_again.values():
        not_again |= {name: OWN_CODE for name in ran - {attack.name for attack in made} - not_again.keys()}
    return [attack for attack in made if attack.name in ran], not_again


def _procedure(
    result: AuditResult,
    scores: StoredScores,
    answers: StoredAnswers,
    attacks: "list[Attack]",
    not_again: dict[str, str],
    rows: Rows,
) -> None:
    from mnemoscope.audit.verdict.procedure import ProcedureAudit

    policy, recorded = scores.policy, {subject.name: subject for subject in result.subjects}
    bases = {entry.name: entry.basis for entry in scores.index.subjects}
    named = sorted(entry.name for entry in answers.index.subjects)
    rows.add("subjects of answers.npz", sorted(recorded), named)
    audit, scheme = None, -1
    for entry in answers.index.subjects:
        if entry.name not in recorded or entry.name not in bases:
            continue
        if audit is None or entry.scheme != scheme:
            scheme = entry.scheme
            audit = ProcedureAudit(
                answers.scheme(scheme), attacks, primary=result.plan.primary_attack, policy=policy,
                alpha=result.plan.alpha, seed=result.plan.seed,
            )  # fmt: skip
        after = answers.fleet(entry.answers)
        made = audit.subject_scores(after, audit.inputs.reference(after), entry.trained_against)
        decided = of_procedure(made, policy, control=audit.negative_control, not_again=not_again)
        compare_subject(recorded[entry.name], decided, bases[entry.name], policy, WITHIN, rows)
        audit.forget_others()


def _models(
    result: AuditResult,
    scores: StoredScores,
    answers: StoredAnswers,
    attacks: "list[Attack]",
    not_again: dict[str, str],
    rows: Rows,
) -> None:
    from dataclasses import replace

    from mnemoscope.audit.verdict.membership import audit_membership
    from mnemoscope.audit.verdict.onemodel import audit_one_model, plan_one_model

    policy, recorded = scores.policy, {subject.name: subject for subject in result.subjects}
    inputs_of = {entry.name: entry for entry in answers.index.models}
    rows.add("subjects of answers.npz", sorted(recorded), sorted(inputs_of))
    for entry in scores.index.models:
        if entry.name not in recorded or entry.name not in inputs_of:
            continue
        inputs = answers.model(inputs_of[entry.name])
        plan = plan_one_model(inputs, attacks, policy=policy, seed=result.plan.seed)
        plan = replace(plan, primary=entry.primary, alpha=entry.basis.alpha)
        membership = result.mode == "membership"
        found = (
            audit_membership(inputs, plan, force=True)
            if membership
            else audit_one_model(inputs, attacks, plan=plan, force=True)
        )
        decided = of_model(found.scores, policy, membership=membership, not_again=not_again)
        compare_subject(recorded[entry.name], decided, entry.basis, policy, WITHIN, rows)


def _from_data(
    place: Path, store: str | Path | None, plan: Path | None, device: str, progress: "Progress | None"
) -> Recomputation:
    from mnemoscope.pipeline import run_plan
    from mnemoscope.planned_again import plan_again
    from mnemoscope.reports.schema import read_result

    base, result = folder_of(place), read_result(place)
    if result.mode != "procedure":
        raise InvalidInput(
            f"mode {result.mode!r}: what this result came from is no part of it (checkpoints, or predictions); "
            "give the same command on them again, or compute --from answers"
        )
    asked = plan_again(base, result.plan.digest, plan=plan, device=device)
    with tempfile.TemporaryDirectory(prefix="mnemoscope-rerun-") as temporary:
        work = Path(temporary) / "store" if store is None else _fresh(Path(store), result.plan.digest)
        made = run_plan(asked, store=work, out=None, progress=progress)
    rows = Rows()
    rows.add("data digest", result.data.digest, made.data.digest)
    rows.add("primary attack", result.plan.primary_attack, made.plan.primary_attack)
    rows.add("alpha", result.plan.alpha, made.plan.alpha)
    rows.add("subjects", sorted(s.name for s in result.subjects), sorted(s.name for s in made.subjects))
    again = {subject.name: subject for subject in made.subjects}
    for subject in result.subjects:
        if subject.name in again:
            one = again[subject.name]
            findings: Found = {(f.attack, f.game, f.models): f for f in one.findings}
            compare_whole(subject, Decided(one.endpoints, one.gates, findings, {}), one.verdict, WITHIN, rows)
    rows.take("descriptions beside the verdict: curves, histograms, accuracies, epsilon, measures, defences")
    return _found(rows, "data")


def _fresh(store: Path, digest: str) -> Path:
    """An empty folder, or one that an earlier rerun of the same plan began: results must not come from elsewhere."""
    mark = store / "rerun-of"
    if store.exists() and (not store.is_dir() or any(store.iterdir())):
        text = mark.read_text(encoding="ascii", errors="replace").strip() if mark.is_file() else ""
        if text != digest:
            raise InvalidInput(f"--store {store}: holds other work; give a new folder")
        return store / "store"
    store.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest + "\n", encoding="ascii")
    return store / "store"
