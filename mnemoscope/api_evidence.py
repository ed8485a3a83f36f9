"""What makes an audit into evidence for others; ``mnemoscope.api`` has these functions under the same names."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mnemoscope.audit_difference import AuditDifference
    from mnemoscope.gate import GateOutcome
    from mnemoscope.progress import Progress
    from mnemoscope.recomputation import Recomputation
    from mnemoscope.reports.verification import Verification

__all__ = [
    "bundle",
    "declare_new",
    "diff",
    "figures",
    "gate",
    "index",
    "keygen",
    "policy_check",
    "policy_new",
    "rerun",
    "sign",
    "verify",
]


def declare_new(path: str | Path = "declarations.toml") -> Path:
    """Write a commented file of declarations to start from; a file that exists is left as it is and refused."""
    from mnemoscope.api import _write_new
    from mnemoscope.audit.verdict.declared_file import declarations_template

    return _write_new(Path(path), declarations_template())


def index(
    folder: str | Path, *, out: str | Path | None = None, today: str | None = None, force: bool = False
) -> list[str]:
    """Write one page over all audits under a folder, with their leakage over time and what is overdue.

    Args:
        folder: searched for ``result.json``; what cannot be read is listed on the page.
        out: the file; None is ``index.html`` in the folder.
        today: the day against which due dates are held, e.g. "2026-11-21"; None is today in UTC.
        force: replace a file that is no page of this function.

    Returns:
        What was written and found, line by line.

    Raises:
        InvalidInput: no such folder, no such day, or a file that must not be replaced or cannot be written.
    """
    from mnemoscope.reports.history import day_of, history_lines, write_history

    file, found = write_history(folder, out=out, today=day_of(today), force=force)
    return history_lines(file, found)


def bundle(
    result: str | Path,
    *,
    out: str | Path | None = None,
    edition: Literal["public", "internal", "restricted"] = "internal",
    force: bool = False,
) -> list[str]:
    """Gather an audit's folder into a bundle that somebody else can verify.

    Args:
        result: the folder that an audit wrote, or the ``result.json`` in it.
        out: a folder, or a zip where the name ends in ``.zip``; None is a zip beside the audit's folder.
        edition: who the bundle is for.
        force: replace a bundle that is there.

    Returns:
        What was written, line by line.

    Raises:
        InvalidInput: no result, evidence that is missing or was altered, something that this edition may not hold, or a
            place that is taken or cannot be written; nothing was written then.
    """
    from mnemoscope.bundling import machine
    from mnemoscope.reports.bundle import bundle_lines, default_target, gather, write_bundle

    gathered = gather(result, edition=edition, machine=machine())
    return bundle_lines(gathered, write_bundle(gathered, out or default_target(result, edition), force=force))


def keygen(out: str | Path = "mnemoscope-key.pem") -> list[str]:
    """Make an Ed25519 key pair for signing bundles; a passphrase comes from ``MNEMOSCOPE_KEY_PASSPHRASE``.

    Args:
        out: the private key's file; the public key goes beside it.

    Returns:
        What was written, line by line.

    Raises:
        InvalidInput: one of the files exists or cannot be written.
    """
    from mnemoscope.reports.signing import key_lines, new_key_files

    return key_lines(new_key_files(out))


def sign(bundle: str | Path, key: str | Path, *, opinion: str | Path | None = None, force: bool = False) -> list[str]:
    """Sign a bundle, or add somebody's signed opinion to it; nothing in the bundle changes.

    Args:
        bundle: what :func:`bundle` wrote.
        key: private key file of :func:`keygen`.
        opinion: a TOML file with by, role, date and text: this is signed in place of the audit's statement.
        force: sign again what this key has signed already.

    Returns:
        What was added, line by line.

    Raises:
        InvalidInput: no bundle, one that does not hold, no key, or one that has signed it already.
    """
    from mnemoscope.reports.attesting import sign_bundle, signed_lines
    from mnemoscope.reports.statements import read_opinion

    said = None if opinion is None else read_opinion(opinion)
    return signed_lines(sign_bundle(bundle, key, opinion=said, force=force))


def verify(
    bundle: str | Path, *, public_key: str | Path | Sequence[str | Path] = (), from_scores: bool = True
) -> "Verification":
    """Check a bundle: its files, digests, schema, log, pages, signatures, and what follows from its scores.

    Args:
        bundle: what :func:`bundle` wrote, a folder or a zip.
        public_key: key files of those who must have signed, got by another way than the bundle.
        from_scores: compute intervals and words again from the stored scores.

    Returns:
        What holds and what does not, with the exit code of the command.

    Raises:
        InvalidInput: there is no bundle, or a key cannot be read.
    """
    from mnemoscope.bundling import recomputed
    from mnemoscope.reports.verification import verify as check

    keys = (public_key,) if isinstance(public_key, str | Path) else tuple(public_key)
    return check(bundle, public_keys=keys, recompute=recomputed if from_scores else None)


def gate(
    result: str | Path,
    policy: str | Path,
    *,
    junit: str | Path | None = None,
    summary: str | Path | None = None,
    force: bool = False,
) -> "GateOutcome":
    """Hold a result against a policy, as a step of a pipeline; nothing is decided anew.

    Args:
        result: a ``result.json``, or the folder that holds it.
        policy: the policy file that the audit was planned with; its ``[gate]`` table says what is asked for.
        junit: file that receives JUnit XML.
        summary: file that receives the job summary in Markdown; appended to where it exists, as pipelines expect.
        force: replace a JUnit file that holds something else.

    Returns:
        The outcome; ``outcome.code`` is 0, 3, 4 or 5.

    Raises:
        InvalidInput: a file cannot be used, or the result contradicts itself.
    """
    from mnemoscope.audit.verdict.gate_rules import counted_subjects
    from mnemoscope.audit.verdict.policy_file import read_policy
    from mnemoscope.gate import decide_gate, junit_cases
    from mnemoscope.reports.documents import read_document
    from mnemoscope.reports.formats import append_whole, write_kept
    from mnemoscope.reports.junit import junit_xml
    from mnemoscope.reports.markdown import markdown_summary

    asked = read_policy(Path(policy))
    found, digest = read_document(result)
    outcome = decide_gate(found, asked, digest=digest)
    if junit is not None:
        data = junit_xml(found, rules=asked.gate, conditions=junit_cases(outcome), digest=digest)
        write_kept({Path(junit): data}, force=force)
    if summary is not None:
        counted = {subject.name for subject in counted_subjects(found, asked.gate)}
        text = markdown_summary(found, gate=outcome.lines(), counted=counted, digest=digest)
        append_whole(Path(summary), text.encode("utf-8"))
    return outcome


def policy_new(path: str | Path = "policy.toml") -> Path:
    """Write a commented policy to start from; a file that exists is left as it is and refused."""
    from mnemoscope.api import _write_new
    from mnemoscope.audit.verdict.policy_template import policy_template

    return _write_new(Path(path), policy_template(Path(path).name))


def policy_check(path: str | Path) -> list[str]:
    """Say what a policy file decides, what it changes without a reason, and what its gate asks for.

    Raises:
        InvalidInput: the file cannot be read, or a key or value is not allowed.
    """
    from mnemoscope.audit.verdict.policy_file import policy_lines, read_policy

    return policy_lines(read_policy(Path(path)))


def diff(
    a: str | Path,
    b: str | Path,
    *,
    subjects: Sequence[str] = (),
    out: str | Path | None = None,
    force: bool = False,
) -> "AuditDifference":
    """Compare two audits: the same subject at two times, or two ways of deleting.

    Args:
        a: the first ``result.json``, or its folder.
        b: the second; may be the same, with two subjects of it.
        subjects: one name for both, or two, the first's and the second's; none compares what both have.
        out: folder that receives ``difference.md`` and ``difference.json``.
        force: replace files that hold something else.

    Returns:
        The comparison.

    Raises:
        InvalidInput: a file cannot be used, a result contradicts itself, or a subject is not there.
    """
    from mnemoscope.audit_difference import audit_difference
    from mnemoscope.reports.documents import read_document
    from mnemoscope.reports.formats import write_kept

    (one, first), (two, second) = read_document(a), read_document(b)
    found = audit_difference(one, two, digests=(first, second), subjects=subjects)
    if out is not None:
        texts = {"difference.md": found.markdown(), "difference.json": found.json()}
        write_kept({Path(out) / name: text.encode("utf-8") for name, text in texts.items()}, force=force)
    return found


def figures(
    result: str | Path,
    *,
    out: str | Path | None = None,
    formats: str = "svg",
    dpi: int = 300,
    edition: Literal["public", "internal", "restricted"] | None = None,
    force: bool = False,
) -> tuple[Path, ...]:
    """Write every figure of a result as files: the drawing, the numbers behind it, and words in its place.

    Args:
        result: the folder that an audit wrote, or the ``result.json`` in it.
        out: a folder; None is ``figures`` beside the result.
        formats: of the drawings: svg, png, pdf, several with commas between.
        dpi: dots an inch, for png.
        edition: who the figures are for; None = the result's own.
        force: replace files that are there with other content.

    Returns:
        The files, figure by figure.

    Raises:
        InvalidInput: no such result, nothing to draw, an option that is not allowed, or a file that cannot be written.
    """
    from mnemoscope.reports.editions import for_edition
    from mnemoscope.reports.figures_out import FIGURES, parse_formats, write_figures
    from mnemoscope.reports.schema import read_result

    source, wanted = Path(result), parse_formats(formats)
    beside = source if source.is_dir() else source.parent
    folder = beside / FIGURES if out is None else Path(out)
    return write_figures(for_edition(read_result(source), edition), folder, formats=wanted, dpi=dpi, force=force)


def rerun(
    result: str | Path,
    *,
    level: Literal["scores", "answers", "data"] = "scores",
    store: str | Path | None = None,
    plan: str | Path | None = None,
    device: str = "auto",
    progress: "Progress | None" = None,
) -> "Recomputation":
    """Compute a result again from what its audit stored, and compare.

    Args:
        result: the folder of an audit, its ``result.json``, or a bundle.
        level: "scores" decides again, in seconds; "answers" runs the attacks again on recorded answers, in minutes;
            "data" carries the plan out again.
        store: for "data": an empty folder for the work; None keeps nothing.
        plan: for "data": the plan's own TOML file, where it names files of the user's own.
        device: for "data": where to compute.
        progress: told of steps; None tells nobody.

    Returns:
        What agrees, what does not, and what was taken over.

    Raises:
        InvalidInput: there is no result, or nothing was stored at this level.
    """
    from mnemoscope.rerun import rerun as again

    own = None if plan is None else Path(plan)
    return again(result, level=level, store=store, plan=own, device=device, progress=progress)
