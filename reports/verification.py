"""Check a bundle: what holds, what does not, and what could not be looked at; nothing in it is trusted or executed.

Checks run from the container inwards, and the first that fails decides the exit code. One that depends on what failed
is not run, and says so.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports import attested, bundle_checks
from mnemoscope.reports.archive import ContainerError
from mnemoscope.reports.contents import Contents, as_folder, open_contents
from mnemoscope.reports.manifest import MANIFEST, Edition, Manifest, read_manifest
from mnemoscope.reports.phrases import plain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["CODES", "Finding", "Recomputed", "Status", "Verification", "lines", "verify"]

Status = Literal["holds", "does not hold", "not checked"]

CODES = {
    "container": 10,
    "manifest": 11,
    "files": 12,
    "digests": 13,
    "schema": 14,
    "words": 15,
    "plan and policy": 16,
    "log": 17,
    "order": 18,
    "pages": 19,
    "signature": 20,
    "signer": 21,
    "recomputed": 22,
}
"""Exit codes by check; 2 is input that cannot be used at all, and 3 to 5 are verdict words in other commands."""


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: its name, a key of ``CODES``.
        status: what came out.
        said: one or more lines that say what was seen, and name what is wrong.
    """

    check: str
    status: Status
    said: tuple[str, ...]


@dataclass(frozen=True)
class Recomputed:
    """What follows from the stored scores, as the front door hands it over.

    Attributes:
        agrees: whether everything that was compared does.
        compared: how many things were.
        differences: what differs, a line each.
        taken_over: what counts as the result has it, with reasons.
    """

    agrees: bool
    compared: int
    differences: tuple[str, ...]
    taken_over: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """Everything that was seen.

    Attributes:
        findings: in the order of the checks.
        edition: of the bundle; None where its list could not be read.
        result: its digest; None likewise.
        level: "T0" or "T1" where everything holds; None where something does not.
        opinions: signed opinions in the bundle, a line each.
    """

    findings: tuple[Finding, ...]
    edition: Edition | None
    result: str | None
    level: str | None
    opinions: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no check failed."""
        return all(finding.status != "does not hold" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0, or the code of the first check that failed."""
        return next((CODES[f.check] for f in self.findings if f.status == "does not hold"), 0)


_OF_THE_RESULT = {
    "words": bundle_checks.words,
    "plan and policy": bundle_checks.plan_and_policy,
    "log": bundle_checks.log,
    "order": bundle_checks.order,
    "pages": bundle_checks.pages,
}


_UNUSABLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
"""What documents of a form that nobody foresaw can lead to: a fault of the document, never a traceback."""


class _Stop(Exception):
    """Nothing further can be looked at."""


class _Findings:
    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, check: str, status: Status, *said: str) -> None:
        self.all.append(Finding(check, status, said))

    def judge(self, check: str, wrong: list[str], fine: str) -> bool:
        """Add a check that holds when nothing is wrong."""
        if wrong:
            self.add(check, "does not hold", *wrong)
        else:
            self.add(check, "holds", fine)
        return not wrong


def _opened(bundle: Path | str, findings: _Findings) -> Contents:
    try:
        contents = open_contents(bundle)
    except ContainerError as error:
        findings.add("container", "does not hold", str(error))
        raise _Stop from error
    kind = "folder" if Path(bundle).is_dir() else "zip"
    findings.add(
        "container", "holds", f"a {kind} of {len(contents.sizes)} files, {sum(contents.sizes.values()):,} bytes"
    )
    return contents


def _listed(contents: Contents, findings: _Findings) -> tuple[Manifest, bytes]:
    if MANIFEST not in contents.sizes:
        findings.add("manifest", "does not hold", f"{MANIFEST} is missing: this is no bundle, or it was taken out")
        raise _Stop
    try:
        raw = contents.read(MANIFEST)
        manifest = read_manifest(raw)
    except InvalidInput as error:
        text = str(error)
        findings.add("manifest", "does not hold", text if MANIFEST in text else f"{MANIFEST}: {text}")
        raise _Stop from error
    said = f"{manifest.edition} edition, {len(manifest.entries)} files listed, {len(manifest.withheld)} withheld"
    findings.add("manifest", "holds", said)
    return manifest, raw


def _result(contents: Contents, manifest: Manifest, findings: _Findings) -> AuditResult | None:
    try:
        result = bundle_checks.read_bundled_result(contents, manifest)
    except InvalidInput as error:
        text = str(error)
        findings.add("schema", "does not hold", text if text.startswith("result.json") else f"result.json: {text}")
        return None
    words = ", ".join(f"{plain(s.name, 40)} {s.verdict.word}" for s in result.subjects[:4])
    more = f" and {len(result.subjects) - 4} more" if len(result.subjects) > 4 else ""
    findings.add("schema", "holds", f"result.json fits schema {result.schema_version}: {words}{more}")
    return result


def _recompute(
    bundle: Path | str,
    contents: Contents,
    manifest: Manifest,
    result: AuditResult,
    recompute: Callable[[Path], Recomputed] | None,
    findings: _Findings,
) -> None:
    gone = [entry.path for entry in manifest.withheld if entry.role == "evidence"]
    if recompute is None:
        findings.add("recomputed", "not checked", "left out as asked (--no-from-scores)")
    elif gone:
        said = f"this edition withholds {', '.join(gone)}; who holds the restricted edition can recompute"
        findings.add("recomputed", "not checked", said)
    elif not any(file.path.endswith(".npz") for file in result.evidence):
        findings.add("recomputed", "not checked", "this audit stored no scores, so nothing can be recomputed from them")
    else:
        try:
            with as_folder(bundle, contents) as folder:
                found = recompute(folder)
        except (InvalidInput, OSError) as error:
            findings.add("recomputed", "does not hold", plain(error, 600))
            return
        fine = f"{found.compared} intervals, gates and words follow from the scores"
        if found.taken_over:
            fine += f"; {len(found.taken_over)} things are taken from the result as they are"
        wrong = [plain(line, 300) for line in found.differences] or ["what was recomputed differs from the result"]
        findings.judge("recomputed", [] if found.agrees else wrong, fine)


def _inside(
    bundle: Path | str,
    contents: Contents,
    manifest: Manifest,
    raw: bytes,
    keys: dict[str, "Ed25519PublicKey"],
    recompute: Callable[[Path], Recomputed] | None,
    findings: _Findings,
) -> tuple[attested.Attested, bool]:
    """All checks behind the list; returns the signatures, and whether the files can be relied on."""
    findings.judge("files", bundle_checks.present(contents, manifest), "every listed file is there, and no other")
    wrong = bundle_checks.digests(contents, manifest, raw)
    sound = findings.judge("digests", wrong, f"{len(manifest.entries)} files have the digests that are listed")
    result = _result(contents, manifest, findings)
    signatures = attested.read_attested(contents, manifest, raw, result, keys)
    if result is not None:
        for name, check in _OF_THE_RESULT.items():
            try:
                seen = check(contents, manifest, result)
                findings.add(name, seen.status, *seen.said)
            except _UNUSABLE as error:
                findings.add(name, "does not hold", f"what it rests on cannot be used: {type(error).__name__}: {error}")
    else:
        for name in _OF_THE_RESULT:
            findings.add(name, "not checked", "what it would rest on, the result, cannot be read")
    findings.all += [Finding(*row) for row in attested.judge(signatures, tuple(keys))]
    if result is not None and sound:
        _recompute(bundle, contents, manifest, result, recompute, findings)
    else:
        findings.add("recomputed", "not checked", "what it would rest on was altered")
    return signatures, sound


def verify(
    bundle: Path | str,
    *,
    public_keys: Iterable[Path | str] = (),
    recompute: Callable[[Path], Recomputed] | None = None,
) -> Verification:
    """Verify a bundle.

    Args:
        bundle: a folder or a zip that ``mnemoscope bundle`` wrote.
        public_keys: keys of signers, got by another way than the bundle, each of which must have signed; without them
            signatures are looked at without knowing whose they are.
        recompute: computes intervals and words from the stored scores of a bundle's folder; None leaves that out.

    Returns:
        What holds and what does not; nothing that a bundle contains raises.

    Raises:
        InvalidInput: there is no bundle at this place, or a key cannot be read.
    """
    from mnemoscope.reports.signing import key_id, load_public_key

    keys = {key_id(key): key for key in map(load_public_key, public_keys)}
    findings = _Findings()
    manifest: Manifest | None = None
    signatures = attested.Attested()
    try:
        contents = _opened(bundle, findings)
        manifest, raw = _listed(contents, findings)
        signatures, _ = _inside(bundle, contents, manifest, raw, keys, recompute, findings)
    except _Stop:
        done = {finding.check for finding in findings.all}
        for name in CODES:
            if name not in done:
                findings.add(name, "not checked", "what it would rest on cannot be read")
    except ContainerError as error:  # a file that vanished or changed its kind while it was read
        findings.add("files", "does not hold", str(error))
    return Verification(
        findings=tuple(findings.all),
        edition=manifest.edition if manifest else None,
        result=manifest.result if manifest else None,
        level=_level(findings.all, signatures, set(keys)),
        opinions=signatures.opinions,
    )


def _level(findings: list[Finding], signatures: "attested.Attested", known: set[str]) -> str | None:
    if any(finding.status == "does not hold" for finding in findings):
        return None
    return "T1" if known.intersection(signatures.signers) else "T0"


def lines(verification: Verification, bundle: Path | str) -> Iterator[str]:
    """One screen: a line for each check, and what that amounts to."""
    yield f"bundle   {plain(bundle, 200)}" + (f", {verification.edition} edition" if verification.edition else "")
    if verification.result:
        yield f"result   {verification.result}"
    marks = {"holds": "holds", "does not hold": "FAILS", "not checked": "-"}
    for finding in verification.findings:
        first, *rest = finding.said
        yield f"  {marks[finding.status]:<6} {finding.check:<16} {plain(first, 400)}"
        shown = rest[:12]
        for line in shown:
            yield f"  {'':<6} {'':<16} {plain(line, 400)}"
        if len(rest) > len(shown):
            yield f"  {'':<6} {'':<16} and {len(rest) - len(shown)} more"
    for opinion in verification.opinions:
        yield f"  opinion {opinion}"
    yield from _conclusion(verification)


def _conclusion(verification: Verification) -> Iterator[str]:
    if not verification.holds:
        yield f"This bundle does not hold (exit code {verification.exit_code})."
    elif verification.level == "T1":
        yield "Everything that was checked holds. Level T1: the holder of the key vouches for exactly these bytes; when"
        yield "they were made, and whether this was the only run, a signature does not show."
    else:
        signed = any(f.check == "signature" and f.status == "holds" for f in verification.findings)
        yield "Everything that was checked holds. Level T0: the files belong together; who made them, and that nobody"
        yield "made all of them again, does not follow. " + (
            "Give --public-key with the signer's key for more." if signed else "It is not signed (`mnemoscope sign`)."
        )
