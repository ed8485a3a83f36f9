"""The commands that make an audit into evidence for others: every one calls one function of ``mnemoscope.api``."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope import api

__all__ = ["register"]

declare_app = typer.Typer(no_args_is_help=True, help="State what only a human can: dates, people, scope of erasure.")


@declare_app.command("new")
def declare_new(path: Annotated[Path, typer.Argument(metavar="FILE.toml")] = Path("declarations.toml")) -> None:
    """Write a commented file of declarations to start from."""
    typer.echo(f"wrote {api.declare_new(path)}: edit it, then `mnemoscope report RESULT --declarations {path}`")


def index(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder under which the audits lie, e.g. runs.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page; DIR/index.html if left out.")] = None,
    today: Annotated[
        str | None, typer.Option("--today", help="Day against which due dates are held, e.g. 2026-11-21; today in UTC.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no page of this command.")] = False,
) -> None:
    """Write one page over many audits: a row each, what is overdue, leakage over time."""
    for line in api.index(folder, out=out, today=today, force=force):
        typer.echo(line)


class Editions(StrEnum):
    """Who a bundle is for."""

    public = "public"
    internal = "internal"
    restricted = "restricted"


BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder or zip of `mnemoscope bundle`.")]

VERIFY_EPILOG = (
    "Exit codes: 0 everything that was checked holds; 2 no bundle there, or an unusable key; else the first check that "
    "fails: 10 container, 11 manifest, 12 files missing or added, 13 digests, 14 schema, 15 words, 16 plan and policy, "
    "17 log, 18 order of times, 19 pages, 20 signature, 21 signer, 22 recomputed."
)


def bundle(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="An audit's folder, or its result.json.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder, or a name that ends in .zip.")] = None,
    edition: Annotated[Editions, typer.Option("--edition", help="Who it is for.")] = Editions.internal,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Gather an audit into a bundle that somebody else can verify."""
    for line in api.bundle(result, out=out, edition=edition.value, force=force):
        typer.echo(line)


def keygen(
    out: Annotated[Path, typer.Option("--out", help="The private key's file.")] = Path("mnemoscope-key.pem"),
) -> None:
    """Make a key pair for signing bundles; MNEMOSCOPE_KEY_PASSPHRASE in the environment locks it."""
    for line in api.keygen(out):
        typer.echo(line)


def sign(
    bundle: BundlePath,
    key: Annotated[Path, typer.Option("--key", help="Private key file of `mnemoscope keygen`.")],
    opinion: Annotated[Path | None, typer.Option("--opinion", help="Sign this opinion (TOML) instead.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Sign again what this key has signed.")] = False,
) -> None:
    """Sign a bundle, or add a signed opinion to it; nothing in it changes."""
    for line in api.sign(bundle, key, opinion=opinion, force=force):
        typer.echo(line)


def verify(
    bundle: BundlePath,
    public_key: Annotated[
        list[Path] | None, typer.Option("--public-key", help="Key of who must have signed; may be repeated.")
    ] = None,
    from_scores: Annotated[bool, typer.Option(help="Compute intervals and words again from the scores.")] = True,
) -> None:
    """Check a bundle and say on one screen what holds and what does not."""
    from mnemoscope.reports.verification import lines

    found = api.verify(bundle, public_key=public_key or (), from_scores=from_scores)
    for line in lines(found, bundle):
        typer.echo(line)
    raise typer.Exit(found.exit_code)


policy_app = typer.Typer(no_args_is_help=True, help="Write a policy (bounds, and who answers for them) or check one.")


@policy_app.command("new")
def policy_new(path: Annotated[Path, typer.Argument(metavar="FILE.toml")] = Path("policy.toml")) -> None:
    """Write a commented policy: every bound with its default, its meaning and why."""
    typer.echo(f"wrote {api.policy_new(path)}: edit it, then `mnemoscope policy check {path}`")


@policy_app.command("check")
def policy_check(path: Annotated[Path, typer.Argument(metavar="FILE.toml")]) -> None:
    """Say what a policy changes, for which reason, and what its gate asks for."""
    for line in api.policy_check(path):
        typer.echo(line)


def _say(text: str) -> None:
    """Print text whose signs and names a terminal may not be able to show; what it cannot is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)


def gate(
    result: Annotated[Path, typer.Argument(metavar="RESULT.json", help="A result, or the folder that holds it.")],
    policy: Annotated[Path, typer.Option("--policy", help="The policy that the audit was planned with.")],
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option("--summary", help="Append the job summary (Markdown) here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a JUnit file that holds something else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON, and nothing else.")] = False,
) -> None:
    """Hold a result against a policy. Exit code: 0 passed, 3 outside, 4 inconclusive, 5 not assessed."""
    outcome = api.gate(result, policy, junit=junit, summary=summary, force=force)
    _say(outcome.json() if as_json else outcome.text())
    raise typer.Exit(outcome.code)


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="The first result.json, or its folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The second; may be the same file.")],
    subject: Annotated[
        list[str] | None, typer.Option("--subject", help="Once: in both. Twice: of the first, of the second.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for difference.md and difference.json.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, and nothing else.")] = False,
) -> None:
    """Compare two audits, with intervals on differences; what makes them incomparable is said first."""
    found = api.diff(a, b, subjects=subject or (), out=out, force=force)
    _say(found.json() if as_json else found.text())


def figures(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="An audit's folder, or its result.json.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder; figures beside the result if left out.")] = None,
    formats: Annotated[str, typer.Option("--format", help="svg, png, pdf; several with commas between.")] = "svg",
    dpi: Annotated[int, typer.Option("--dpi", help="Dots an inch, for png.")] = 300,
    edition: Annotated[Editions | None, typer.Option("--edition", help="Who they are for; the result's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there with other content.")] = False,
) -> None:
    """Write each figure of a result with its numbers (.csv) and its words (.alt.txt)."""
    written = api.figures(
        result, out=out, formats=formats, dpi=dpi, edition=None if edition is None else edition.value, force=force
    )
    typer.echo(f"wrote {len(written)} files to {written[0].parent}")


class Levels(StrEnum):
    """What a result is computed again from."""

    scores = "scores"
    answers = "answers"
    data = "data"


RERUN_EPILOG = (
    "Exit codes: 0 everything that was compared agrees; 22 something does not, each named; 2 the input, also where "
    "nothing was stored to compute from; 1 a fault of the program. From scores numbers must be equal up to their last "
    "digits; from answers and data words must be equal, an AUC within 0.005, other numbers inside their interval."
)


def rerun(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="An audit's folder, its result.json, or a bundle.")],
    level: Annotated[
        Levels, typer.Option("--from", help="Stored scores (seconds), recorded answers (minutes), or data (all of it).")
    ] = Levels.scores,
    store: Annotated[
        Path | None, typer.Option("--store", help="With data: an empty folder for the work; else nothing is kept.")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="With data: the plan's file, if it names others.")] = None,
    device: Annotated[str, typer.Option("--device", help="With data: auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print every row as JSON, and nothing else.")] = False,
) -> None:
    """Compute a result again from what its audit stored, and say what agrees and what does not."""
    from mnemoscope.progress import progress_for
    from mnemoscope.rerun_text import DISAGREES, rerun_json, rerun_lines

    with progress_for() as told:
        found = api.rerun(result, level=level.value, store=store, plan=plan, device=device, progress=told)
    typer.echo(rerun_json(found) if as_json else "\n".join(rerun_lines(found)))
    raise typer.Exit(0 if found.agrees else DISAGREES)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel="Report")(bundle)
    app.command(rich_help_panel="Report")(keygen)
    app.command(rich_help_panel="Report")(sign)
    app.command(rich_help_panel="Report", epilog=VERIFY_EPILOG)(verify)
    app.command(rich_help_panel="Report")(index)
    app.add_typer(declare_app, name="declare", rich_help_panel="Report")
    app.command(rich_help_panel="Report")(gate)
    app.add_typer(policy_app, name="policy", rich_help_panel="Inspect")
    app.command(rich_help_panel="Report")(diff)
    app.command(rich_help_panel="Report")(figures)
    app.command(rich_help_panel="Report", epilog=RERUN_EPILOG)(rerun)
