"""One function for each thing a user can ask; each is thin, and imports what it needs when it is called.

Functions that audit return an ``AuditResult`` and leave ``result.json`` and the report in ``out``.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mnemoscope.api_evidence import (
    bundle,
    declare_new,
    diff,
    figures,
    gate,
    index,
    keygen,
    policy_check,
    policy_new,
    rerun,
    sign,
    verify,
)
from mnemoscope.progress import Progress, Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnemoscope.audit.verdict.declared import Declared
    from mnemoscope.audit.verdict.league import LeagueTable
    from mnemoscope.audit.verdict.policy import Policy
    from mnemoscope.audit.verdict.result import AuditResult
    from mnemoscope.audit.verdict.tuned import Tuned

__all__ = [
    "adopt",
    "compare",
    "declare_new",
    "demo",
    "diff",
    "exit_code",
    "export",
    "figures",
    "gate",
    "index",
    "init",
    "league",
    "list_plugins",
    "plan_check",
    "plan_new",
    "policy_check",
    "policy_new",
    "report",
    "report_files",
    "rerun",
    "run",
    "schema",
    "scores",
    "show",
    "store_gc",
    "store_ls",
    "store_verify",
    "tune",
    "to_json",
    "bundle",
    "keygen",
    "sign",
    "verify",
]

STORE = ".mnemoscope"


def demo(
    *,
    out: str | Path = "runs/demo",
    store: str | Path = STORE,
    seed: int = 0,
    device: str = "auto",
    declarations: "Declared | Path | str | None" = None,
    restricted: bool = False,
    progress: Progress | None = None,
) -> "AuditResult":
    """Audit several ways of deleting records from a small model of real digits.

    Args:
        out: folder that receives ``result.json`` and the report.
        store: folder of finished work; a second call reuses it.
        seed: root of every random draw.
        device: "auto", "cpu", "cuda", ...
        declarations: what somebody states beside the numbers, a TOML file.
        restricted: write the restricted edition, with single records under keyed pseudonyms.
        progress: told of steps; None tells nobody.
    """
    from mnemoscope.audit.verdict.declared_file import load_declared
    from mnemoscope.guard import check_out, check_seed
    from mnemoscope.pipeline import demo_plan, run_plan

    check_seed(seed)
    check_out(out)
    declared = load_declared(declarations)
    plan = demo_plan(seed=seed, device=device)
    told = progress or Quiet()
    return run_plan(plan, store=str(store), out=Path(out), progress=told, declared=declared, restricted=restricted)


def run(
    plan: str | Path,
    *,
    out: str | Path = "runs/audit",
    store: str | Path = STORE,
    declarations: "Declared | Path | str | None" = None,
    key: str | Path | None = None,
    keep_answers: bool = False,
    restricted: bool = False,
    progress: Progress | None = None,
) -> "AuditResult":
    """Carry out a plan; what a former call finished is taken from the store.

    Args:
        plan: a TOML file.
        out: folder that receives ``result.json``, the report and the evidence.
        store: folder of finished work.
        declarations: what somebody states beside the numbers, a TOML file.
        key: the controller's key file for pseudonyms and commitments; None makes one in ``out``.
        keep_answers: also keep the recorded answers, which are large: ``rerun`` can then run the attacks again.
        restricted: write the restricted edition, with single records under keyed pseudonyms.
        progress: told of steps; None tells nobody.

    Raises:
        InvalidInput: the plan or the declarations cannot be read or an entry is not allowed; nothing was computed.
    """
    from mnemoscope.audit.verdict.declared_file import load_declared
    from mnemoscope.audit.work.plan import load_plan
    from mnemoscope.guard import check_out
    from mnemoscope.pipeline import run_plan

    check_out(out)
    declared = load_declared(declarations)
    made = load_plan(Path(plan))
    return run_plan(
        made,
        store=str(store),
        out=Path(out),
        progress=progress or Quiet(),
        declared=declared,
        key=None if key is None else Path(key),
        keep_answers=keep_answers,
        restricted=restricted,
    )


def compare(
    before: str | Path,
    after: str | Path,
    model: str | Path,
    data: str | Path,
    forget: str,
    holdout: str,
    *,
    out: str | Path | None = "runs/compare",
    declarations: "Declared | Path | str | None" = None,
    key: str | Path | None = None,
    restricted: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> "AuditResult":
    """Audit two checkpoints of the user's own model, before and after a deletion.

    Args:
        before: checkpoint before deletion (safetensors or a state_dict file).
        after: checkpoint after deletion.
        model: ``subject.py`` with ``model() -> nn.Module``.
        data: image folder, ``.npz`` with x and y, CSV table, or a data set's name.
        forget: records asked to be forgotten: keys, ids, a folder, ``class:3``, ``random:600``, a CSV file.
        holdout: records that neither model ever saw, in the same forms.
        out: folder that receives ``result.json`` and the report; None writes nothing.
        declarations: what somebody states beside the numbers, a TOML file.
        key: the controller's key file for pseudonyms and commitments; None makes one in ``out``.
        restricted: write the restricted edition, with single records under keyed pseudonyms.
        progress: told of steps; None tells nobody.
        options: further fields of ``mnemoscope.comparison.Comparison``, e.g. ``references=5``.
    """
    from mnemoscope.audit.verdict.declared_file import load_declared
    from mnemoscope.comparison import Comparison, run_compare
    from mnemoscope.guard import check_out
    from mnemoscope.reports.html import write_report

    check_out(out)
    declared = load_declared(declarations)
    question = Comparison(Path(before), Path(after), Path(model), str(data), forget, holdout, **options)
    place, own = None if out is None else Path(out), None if key is None else Path(key)
    found = run_compare(question, out=place, key=own, progress=progress or Quiet())
    result = replace(found, declared=declared, edition="restricted" if restricted else found.edition)
    if place is not None:
        write_report(result, place)
    return result


def scores(
    file: str | Path,
    *,
    out: str | Path | None = "runs/scores",
    policy: "Policy | Path | str | None" = None,
    alpha: float | None = None,
    seed: int = 0,
    declarations: "Declared | Path | str | None" = None,
    key: str | Path | None = None,
    restricted: bool = False,
    progress: Progress | None = None,
) -> "AuditResult":
    """Audit recorded predictions alone, from one ``.npz`` file; torch is not needed.

    Args:
        file: plain arrays, see docs/cli.md.
        out: folder that receives ``result.json``, the report and the evidence; None writes nothing.
        policy: bounds and levels, or a TOML file with them.
        alpha: false positive rate of the endpoints; None = chosen from counts.
        seed: root of every random draw.
        declarations: what somebody states beside the numbers, a TOML file.
        key: the controller's key file for pseudonyms and commitments; None makes one in ``out``.
        restricted: write the restricted edition, with single records under keyed pseudonyms.
        progress: not used, there are no steps worth telling.

    Raises:
        InvalidInput: an array is missing, has a wrong shape or values, or the file would have to be unpickled.
    """
    from mnemoscope.audit.verdict.declared_file import load_declared
    from mnemoscope.guard import check_out, check_seed
    from mnemoscope.predictions import run_scores
    from mnemoscope.reports.html import write_report

    del progress  # seconds of work without steps worth telling
    check_seed(seed)
    check_out(out)
    declared = load_declared(declarations)
    place, own = None if out is None else Path(out), None if key is None else Path(key)
    made = run_scores(Path(file), out=place, policy=policy, alpha=alpha, seed=seed, key=own)
    result = replace(made, declared=declared, edition="restricted" if restricted else made.edition)
    if place is not None:
        write_report(result, place)
    return result


def init(folder: str | Path = ".") -> Path:
    """Write a commented ``subject.py`` into ``folder``, for the user's own model.

    Returns:
        The file written.

    Raises:
        InvalidInput: there is one already; it is left as it is.
    """
    from mnemoscope.audit.models.subject import subject_template

    return _write_new(Path(folder) / "subject.py", subject_template())


def plan_new(path: str | Path = "plan.toml") -> Path:
    """Write a commented plan to start from; a file that exists is left as it is and refused."""
    from mnemoscope.audit.work.plan import plan_template

    return _write_new(Path(path), plan_template())


def _write_new(path: Path, text: str) -> Path:
    from mnemoscope.audit.errors import InvalidInput

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InvalidInput(f"{path} exists: move it away, or give another place") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error.strerror}): give another place") from error
    return path


def plan_check(plan: str | Path, *, store: str | Path = STORE, progress: Progress | None = None) -> str:
    """Say before any work what will be trained, how long it takes, what is missing, and the power.

    Raises:
        InvalidInput: the plan cannot be read or an entry is not allowed.
        MissingNeed: attacks lack something, all of it listed.
    """
    from mnemoscope.audit.work.plan import load_plan
    from mnemoscope.planning import check_plan

    return check_plan(load_plan(Path(plan)), store=store, progress=progress)


def export(plan: str | Path, folder: str | Path, *, store: str | Path = STORE, progress: Progress | None = None) -> str:
    """Write one work order per model of a plan; returns a sentence that says how many, and what to do next."""
    from mnemoscope.audit.work.plan import load_plan
    from mnemoscope.planning import export_orders

    made = export_orders(load_plan(Path(plan)), Path(folder), store=store, progress=progress or Quiet())
    return (
        f"{len(made.orders)} work orders in {made.folder}; {made.present} models were in the store already. "
        f"Put what is made beside each order, under its name, then `mnemoscope adopt {made.folder}`"
    )


def adopt(folder: str | Path, *, store: str | Path = STORE) -> str:
    """Take back checkpoints or logits made elsewhere; returns a sentence that says what was taken.

    Raises:
        InvalidInput: anything in the folder that does not fit its order; nothing was taken then.
    """
    from mnemoscope.audit.work.exchange import adopt as take
    from mnemoscope.audit.work.store import Store

    took = take(Path(folder), Store(store))
    said = f"took weights of {len(took.weights)} models and answers of {len(took.answers)}"
    return "\n".join([f"{said}; {len(took.present)} were there already, {len(took.waiting)} are missing", *took.notes])


def list_plugins(kind: str) -> list[tuple[str, str]]:
    """List what can be named in a plan: (name, first line of its description).

    Args:
        kind: "attacks", "methods", "datasets" or "models".
    """
    from mnemoscope.listing import LISTINGS

    return LISTINGS[kind]()


def league(
    plan: str | Path,
    *,
    out: str | Path = "runs/league",
    store: str | Path = STORE,
    progress: Progress | None = None,
) -> "LeagueTable":
    """Audit the plan's ways of deleting on every forget set and seed of its ``[league]`` table, and rank them.

    Args:
        plan: a TOML file.
        out: folder that receives ``league.json``, ``league.html``, and a folder for each audit.
        store: folder of finished work.
        progress: told of steps.
    """
    from mnemoscope.audit.work.plan import load_plan
    from mnemoscope.league import run_league

    return run_league(load_plan(Path(plan)), store=store, out=Path(out), progress=progress)


def tune(
    plan: str | Path,
    *,
    budget: int = 12,
    subjects: "Sequence[str]" = (),
    out: str | Path = "runs/tune",
    store: str | Path = STORE,
    progress: Progress | None = None,
) -> "dict[str, Tuned]":
    """Choose the settings of the plan's subjects, on models that no audit uses.

    Args:
        plan: a TOML file.
        budget: settings tried for each subject at most.
        subjects: names; all by default.
        out: folder that receives ``tuned.json``; name it in the plan as ``subjects.tuned``.
        store: folder of finished work.
        progress: told of steps.
    """
    from mnemoscope.audit.work.plan import load_plan
    from mnemoscope.tuning import run_tune

    made = load_plan(Path(plan))
    return run_tune(made, budget=budget, only=subjects, store=store, out=Path(out), progress=progress)


def report(result: str | Path, **options: Any) -> Path:
    """Write a report of a ``result.json`` (or of the folder that holds it); returns its main document.

    Args:
        result: the file or its folder.
        options: as ``report_files`` takes them, e.g. ``out="runs/report"`` or ``edition="public"``.
    """
    return report_files(result, **options)[0]


def report_files(
    result: str | Path,
    *,
    out: str | Path = "runs/report",
    league: bool = False,
    edition: 'Literal["public", "internal", "restricted"] | None' = None,
    min_group: int = 10,
    declarations: "Declared | Path | str | None" = None,
    format: str = "html",
    force: bool = False,
) -> list[Path]:
    """Write a ``result.json`` (or the one in a folder) in the forms asked for, beside the result that it was made from.

    Args:
        result: the file or its folder.
        out: folder that receives the report and the ``result.json`` of its edition.
        league: it is a ``league.json``.
        edition: how much is shown; None = the result's own edition.
        min_group: smallest group of records of which the public edition shows a number.
        declarations: what somebody states beside the numbers, a TOML file; in place of what the result holds.
        format: forms by their names in ``reports.formats.FORMATS``, separated by commas, e.g. "html,csv".
        force: replace files that hold something else.

    Returns:
        The files written, the main document of the first form first.

    Raises:
        InvalidInput: a file is no result of this version or no declarations, the edition shows more than the result, or
            a file of the name is there already and holds something else.
    """
    if league:
        from mnemoscope.reports.league import read_league, write_league

        return [write_league(read_league(result), Path(out)).html]
    from mnemoscope.audit.verdict.declared_file import load_declared
    from mnemoscope.reports.editions import for_edition
    from mnemoscope.reports.formats import parse_formats, write_formats
    from mnemoscope.reports.schema import read_result

    forms = parse_formats(format)
    found, declared = read_result(result), load_declared(declarations)
    shown = for_edition(found if declared is None else replace(found, declared=declared), edition, min_group=min_group)
    return write_formats(shown, forms, Path(out), force=force)


def schema() -> str:
    """Return the JSON Schema of ``result.json`` as text, generated from the classes."""
    import json

    from mnemoscope.reports.schema import json_schema

    return json.dumps(json_schema(), indent=1)


def store_ls(store: str | Path = STORE) -> list[str]:
    """Describe finished work, one line an entry, oldest first."""
    from mnemoscope.audit.work.store import Store

    return [
        f"{entry.key[:12]}  {entry.size:>12,} bytes  {' '.join(sorted(entry.files))}  {entry.inputs}"
        for entry in Store(store).ls()
    ]


def store_verify(store: str | Path = STORE) -> str:
    """Read every file of the store back and compare it with its digest.

    Raises:
        StaleArtifact: something is damaged, named.
    """
    from mnemoscope.audit.errors import StaleArtifact
    from mnemoscope.audit.work.store import Store

    found = Store(store).verify()
    if not found.ok:
        bad = [*found.damaged, *found.missing, *found.unreadable]
        raise StaleArtifact(
            f"{len(bad)} damaged or missing: {', '.join(bad)}. Run the same audit again: it recomputes them"
        )
    return f"{found.n_keys} entries, {found.n_blobs} files, {found.n_bytes:,} bytes: all as their digests say"


def store_gc(store: str | Path = STORE, *, older_than: float | None = None, dry_run: bool = False) -> str:
    """Remove what no entry refers to.

    Args:
        store: the store to clear.
        older_than: also remove finished work committed more than this many days ago; it is computed again when needed.
        dry_run: only say what would be removed.
    """
    from mnemoscope.audit.work.store import Store

    seconds = None if older_than is None else older_than * 86400.0
    gone = Store(store).gc(older_than=seconds, dry_run=dry_run)
    would = "would remove" if dry_run else "removed"
    return f"{would} {len(gone.keys)} entries and {gone.blobs} files, {gone.n_bytes:,} bytes"


def to_json(result: "AuditResult") -> str:
    """Return the result document as JSON text, byte for byte as ``result.json`` holds it."""
    from mnemoscope.reports.schema import to_json as encode

    return encode(result).decode("utf-8")


def show(result: "AuditResult", out: str | Path | None = None) -> None:
    """Print the first screen: subject, records, sanity, verdict with the counts behind it, next step, report path.

    Args:
        result: what an audit found.
        out: the folder the report was written to; None says that none was.
    """
    from rich.console import Console

    from mnemoscope.reports.console import render_first_screen

    render_first_screen(result, console=Console(), report_path=None if out is None else Path(out) / "report.html")


def exit_code(result: "AuditResult") -> int:
    """Return the exit code of the worst subject: 3 outside, 5 not assessed, 4 inconclusive, 0 within.

    A signal found is worse than an audit that could not speak, and that is worse than one that could not decide.
    A result without a deletion verdict (one model and a list of members) counts as not assessed.
    """
    from mnemoscope.audit.verdict.rules import exit_code as code

    found = {code(subject.verdict.word) for subject in result.subjects}
    return next((c for c in (3, 5, 4, 0) if c in found), 5)
