"""The command line: every command calls one function of ``mnemoscope.api`` and shows what it returned."""

import os
import sys
import traceback
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mnemoscope import api
from mnemoscope.audit.errors import AuditError
from mnemoscope.cli_evidence import register
from mnemoscope.guard import LARGEST_SEED
from mnemoscope.progress import Progress, progress_for

if TYPE_CHECKING:
    from mnemoscope.audit.verdict.result import AuditResult

__all__ = ["app", "main"]

FAULT, USER, INTERRUPTED = 1, 2, 130


class Commands(TyperGroup):
    """Turns what a user can act on into one message and an exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see the module's exit codes."""
        try:
            return super().invoke(ctx)
        except AuditError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(USER) from error
        except KeyboardInterrupt as error:
            typer.echo("\ninterrupted: run the same command again to go on; what was finished is kept", err=True)
            raise typer.Exit(INTERRUPTED) from error


class Listed(StrEnum):
    """What ``list`` can list."""

    attacks = "attacks"
    measures = "measures"
    reconstructions = "reconstructions"
    defences = "defences"
    methods = "methods"
    datasets = "datasets"
    models = "models"


EPILOG = (
    "Exit codes: 0 the audit completed, whatever the verdict (with --exit-code: 0 within, 3 outside, "
    "4 inconclusive, 5 not assessed); 1 a fault of the program; 2 the input; 130 interrupted."
)
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="What does this model still remember about these records?",
)
plan_app = typer.Typer(no_args_is_help=True, help="Write a plan, or check one before any work.")
store_app = typer.Typer(no_args_is_help=True, help="Look after the store of finished work.")
app.add_typer(plan_app, name="plan", rich_help_panel="Inspect")
app.add_typer(store_app, name="store", rich_help_panel="Inspect")

Out = Annotated[Path, typer.Option("--out", help="Folder that receives result.json and the report.")]
Store = Annotated[
    str, typer.Option("--store", envvar="MNEMOSCOPE_STORE", help="Where finished work is kept.", show_default=True)
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Root of every random draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print result.json, and nothing else, to standard output.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit 0, 3, 4 or 5 by the word of the worst subject.")]
Policy = Annotated[Path | None, typer.Option("--policy", help="Bounds and levels, a TOML file.")]
Alpha = Annotated[float | None, typer.Option("--alpha", help="False positive rate of the endpoints, e.g. 0.01.")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN.toml", help="A plan, as `mnemoscope plan new` writes it.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder of torchvision's data sets.")]
Declarations = Annotated[
    Path | None, typer.Option("--declarations", help="Dates, people, scope: a file of `mnemoscope declare new`.")
]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        envvar="MNEMOSCOPE_KEY_FILE",
        help="The controller's key file for pseudonyms and commitments; OUT/commitment.key is made without it.",
    ),
]
Restricted = Annotated[
    bool, typer.Option("--restricted", help="Write the restricted edition: single records, under keyed pseudonyms.")
]
DEFAULT_STORE = ".mnemoscope"


class Edition(StrEnum):
    """How much a report shows."""

    public = "public"
    internal = "internal"
    restricted = "restricted"


def _audit(work: Callable[[Progress], "AuditResult"], out: Path | None, *, as_json: bool, exit_code: bool) -> None:
    """Do the work under progress bars, show what it found, and leave with the exit code asked for."""
    with progress_for() as progress:
        result = work(progress)
    if as_json:
        sys.stdout.write(api.to_json(result))
    else:
        api.show(result, out)
    if exit_code:
        raise typer.Exit(api.exit_code(result))


def _version(wanted: bool) -> None:
    if wanted:
        from mnemoscope import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What does this model still remember about these records?"""


@app.command(rich_help_panel="Audit")
def demo(
    out: Out = Path("runs/demo"),
    store: Store = DEFAULT_STORE,
    seed: Seed = 0,
    device: Device = "auto",
    declarations: Declarations = None,
    restricted: Restricted = False,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
) -> None:
    """Audit several ways of deleting records from a small model of real digits, in about three minutes."""
    options = {"seed": seed, "device": device, "declarations": declarations, "restricted": restricted}
    _audit(
        lambda progress: api.demo(out=out, store=store, progress=progress, **options),  # type: ignore[arg-type]
        out,
        as_json=as_json,
        exit_code=exit_code,
    )


@app.command(rich_help_panel="Audit")
def init(folder: Annotated[Path, typer.Argument(help="Where subject.py is written.")] = Path(".")) -> None:
    """Write a commented subject.py: the one file that describes your own model."""
    typer.echo(f"wrote {api.init(folder)}: fill in model(), then see `mnemoscope compare --help`")


@app.command(rich_help_panel="Audit")
def run(
    plan: PlanFile,
    out: Out = Path("runs/audit"),
    store: Store = DEFAULT_STORE,
    declarations: Declarations = None,
    key: Key = None,
    keep_answers: Annotated[
        bool, typer.Option("--keep-answers", help="Keep recorded answers in OUT/evidence, for `rerun --from answers`.")
    ] = False,
    restricted: Restricted = False,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
) -> None:
    """Carry out a plan: train, delete, attack, decide. The same command again goes on where it stopped."""
    options = {"declarations": declarations, "key": key, "keep_answers": keep_answers, "restricted": restricted}
    _audit(
        lambda progress: api.run(plan, out=out, store=store, progress=progress, **options),  # type: ignore[arg-type]
        out,
        as_json=as_json,
        exit_code=exit_code,
    )


@app.command(rich_help_panel="Audit")
def league(plan: PlanFile, out: Out = Path("runs/league"), store: Store = DEFAULT_STORE) -> None:
    """Rank ways of deleting by what the strongest attack still finds, on the forget sets of the plan's league table."""
    from mnemoscope.reports.league import league_lines

    with progress_for() as progress:
        table = api.league(plan, out=out, store=store, progress=progress)
    for line in league_lines(table):
        typer.echo(line)
    typer.echo(f"wrote {out / 'league.html'}")


@app.command(rich_help_panel="Audit")
def tune(
    plan: PlanFile,
    budget: Annotated[int, typer.Option("--budget", min=2, help="Settings tried for each subject, at most.")] = 12,
    subject: Annotated[list[str] | None, typer.Option("--subject", help="Tune this one; may be repeated.")] = None,
    out: Out = Path("runs/tune"),
    store: Store = DEFAULT_STORE,
) -> None:
    """Choose settings of ways of deleting, on models that no audit uses."""
    with progress_for() as progress:
        found = api.tune(plan, budget=budget, subjects=subject or (), out=out, store=store, progress=progress)
    for name, tuned in found.items():
        typer.echo(f"{name}: {tuned.chosen or 'the defaults'}, of {len(tuned.trials)} tried")
    typer.echo(f"wrote {out / 'tuned.json'}: name it as `tuned` in the plan's [[subjects]]")


@app.command(rich_help_panel="Audit")
def compare(
    before: Annotated[Path, typer.Option("--before", help="Checkpoint before deletion.")],
    after: Annotated[Path, typer.Option("--after", help="Checkpoint after deletion.")],
    model: Annotated[Path, typer.Option("--model", help="subject.py, see `mnemoscope init`.")],
    data: Annotated[str, typer.Option("--data", help="Image folder, .npz with x and y, CSV file, or a name.")],
    forget: Annotated[str, typer.Option("--forget", help="Keys, ids, folder, class:3, random:600, or a CSV.")],
    holdout: Annotated[str, typer.Option("--holdout", help="Records that neither model ever saw; as --forget.")],
    retain: Annotated[str | None, typer.Option("--retain", help="Records that stayed; as --forget.")] = None,
    retrained_models: Annotated[
        Path | None, typer.Option("--retrained-models", help="Folder of models retrained without the records.")
    ] = None,
    references: Annotated[int, typer.Option("--references", min=0, help="Train this many of them here.")] = 0,
    recipe: Annotated[str | None, typer.Option("--recipe", help="How --references trains: a name or file.")] = None,
    shadow_models: Annotated[
        str | None, typer.Option("--shadow-models", help="Shadow models: how many, or their folder.")
    ] = None,
    population: Annotated[
        str | None, typer.Option("--population", help="More records that no model ever saw, for RMIA and Attack-P.")
    ] = None,
    served_digest: Annotated[
        str | None, typer.Option("--served-digest", help="sha256 of the checkpoint that is in service.")
    ] = None,
    label_column: Annotated[str | None, typer.Option("--label-column", help="Label column of a CSV.")] = None,
    data_root: DataRoot = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let torchvision fetch a named data set that is missing.")
    ] = False,
    out: Out = Path("runs/compare"),
    policy: Policy = None,
    alpha: Alpha = None,
    device: Device = "auto",
    seed: Seed = 0,
    store: Store = DEFAULT_STORE,
    declarations: Declarations = None,
    key: Key = None,
    restricted: Restricted = False,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
) -> None:
    """Audit two checkpoints of your own model, before and after a deletion."""
    options = {name: value for name, value in locals().items() if name not in {"as_json", "exit_code"}}
    _audit(lambda progress: api.compare(**options, progress=progress), out, as_json=as_json, exit_code=exit_code)


@app.command(rich_help_panel="Audit")
def scores(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="logits or probs, labels, member or role, ...")],
    out: Out = Path("runs/scores"),
    policy: Policy = None,
    alpha: Alpha = None,
    seed: Seed = 0,
    declarations: Declarations = None,
    key: Key = None,
    restricted: Restricted = False,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
) -> None:
    """Audit predictions alone: no model, no training, no torch."""
    options = {"policy": policy, "alpha": alpha, "seed": seed, "declarations": declarations, "key": key}
    options["restricted"] = restricted
    _audit(
        lambda progress: api.scores(file, out=out, progress=progress, **options),  # type: ignore[arg-type]
        out,
        as_json=as_json,
        exit_code=exit_code,
    )


@app.command(rich_help_panel="Audit")
def export(
    plan: PlanFile,
    folder: Annotated[Path, typer.Argument(help="Folder that receives one work order per model.")],
    store: Store = DEFAULT_STORE,
) -> None:
    """Write one work order per model, for training elsewhere."""
    with progress_for() as progress:
        typer.echo(api.export(plan, folder, store=store, progress=progress))


@app.command(rich_help_panel="Audit")
def adopt(
    folder: Annotated[Path, typer.Argument(help="Folder of work orders with what was made for them.")],
    store: Store = DEFAULT_STORE,
) -> None:
    """Take back checkpoints or logits made elsewhere, checked by digest and shape."""
    typer.echo(api.adopt(folder, store=store))


@plan_app.command("new")
def plan_new(path: Annotated[Path, typer.Argument(metavar="PLAN.toml")] = Path("plan.toml")) -> None:
    """Write a commented plan to start from."""
    typer.echo(f"wrote {api.plan_new(path)}: edit it, then `mnemoscope plan check {path}`")


@plan_app.command("check")
def plan_check(plan: PlanFile, store: Store = DEFAULT_STORE) -> None:
    """Say before any work what will be trained, how long it takes, what is missing, and the power."""
    with progress_for() as progress:
        said = api.plan_check(plan, store=store, progress=progress)
    typer.echo(said)


@app.command("list", rich_help_panel="Inspect")
def list_(what: Annotated[Listed, typer.Argument(help="What to list.")]) -> None:
    """List what can be named in a plan."""
    for name, about in api.list_plugins(what.value):
        typer.echo(f"{name:26} {about}")


@store_app.command("ls")
def store_ls(store: Store = DEFAULT_STORE) -> None:
    """List finished work."""
    for line in api.store_ls(store):
        typer.echo(line)


@store_app.command("verify")
def store_verify(store: Store = DEFAULT_STORE) -> None:
    """Read everything again and compare it with its digests."""
    typer.echo(api.store_verify(store))


@store_app.command("gc")
def store_gc(
    older_than: Annotated[
        float | None, typer.Option("--older-than", min=0, help="Days: finished work older than this goes too.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """Remove files that no finished work refers to."""
    typer.echo(api.store_gc(store, older_than=older_than, dry_run=dry_run))


@app.command(rich_help_panel="Report")
def report(
    result: Annotated[Path, typer.Argument(metavar="RESULT.json", help="A result, or the folder that holds it.")],
    out: Out = Path("runs/report"),
    league: Annotated[bool, typer.Option("--league", help="It is a league table.")] = False,
    edition: Annotated[Edition | None, typer.Option("--edition", help="How much it shows; default: as it is.")] = None,
    min_group: Annotated[int, typer.Option("--min-group", min=2, help="Least records of a public number.")] = 10,
    declarations: Declarations = None,
    format: Annotated[
        str, typer.Option("--format", help="Forms, by commas: html, pdf, markdown, junit, csv, json, dpia.")
    ] = "html",
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
) -> None:
    """Write a report of a result, in the edition and the forms that its reader may have."""
    shown = None if edition is None else edition.value
    options = {"edition": shown, "min_group": min_group, "declarations": declarations, "format": format, "force": force}
    for path in api.report_files(result, out=out, league=league, **options):  # type: ignore[arg-type]
        typer.echo(f"wrote {path}")


@app.command(rich_help_panel="Report")
def schema() -> None:
    """Print the JSON Schema of result.json."""
    typer.echo(api.schema())


register(app)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        app(prog_name="mnemoscope")
    except BrokenPipeError:
        # The reader of our output went away (`| head`); a second complaint at shutdown would be noise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAULT)
    except Exception:
        traceback.print_exc()
        typer.echo("this is a fault of mnemoscope, not of your input: please report it with the lines above", err=True)
        sys.exit(FAULT)
