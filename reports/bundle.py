"""Gather an audit's folder into a bundle that somebody else can verify: result, plan, policy, evidence, views, a list.

An edition holds what its readers may have. Where it holds less than the audit wrote, its ``result.json`` and its page
are those of that edition, and the list names what was left out by digest, so that the chain of digests has no gap.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.verdict.evidence_files import EvidenceFile
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports.archive import blocks, check_path
from mnemoscope.reports.bundle_documents import Machine, environment_document, guide, policy_document
from mnemoscope.reports.bundle_scan import controller_secret, record_keys, refuse_secrets
from mnemoscope.reports.editions import for_edition
from mnemoscope.reports.html import REPORT_NAME, render_html
from mnemoscope.reports.manifest import (
    EDITIONS,
    MANIFEST,
    SUMS,
    Classification,
    Edition,
    Entry,
    Manifest,
    rank,
    sums,
    write_manifest,
)
from mnemoscope.reports.placing import Source, opener, place
from mnemoscope.reports.schema import RESULT_NAME, from_json, result_digest, to_json
from mnemoscope.reports.views import (
    FORM_OF_VIEW,
    VIEW_FOLDERS,
    VIEW_NAMES,
    media_type,
    names_source,
    printed_digests,
    witness,
)

__all__ = ["PLAN_NAME", "Gathered", "bundle_lines", "default_target", "gather", "write_bundle"]

PLAN_NAME = "plan.json"
MOST_DOCUMENT = 2**28
DRAWN = {"pdf", "png", "svg"}
WITHHELD = "withheld"


@dataclass(frozen=True)
class Gathered:
    """A bundle before it is written.

    Attributes:
        manifest: the list.
        result: as this bundle holds it.
        files: path inside of the bundle -> bytes, or the file that holds them.
        notes: what the user should know, a sentence each.
    """

    manifest: Manifest
    result: AuditResult
    files: dict[str, Source]
    notes: tuple[str, ...] = ()


def _digest(source: Source) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    with opener(source)() as file:
        for block in blocks(file):
            found.update(block)
            size += len(block)
    return "sha256:" + found.hexdigest(), size


class _Pile:
    """Files of a bundle as they are gathered, each with its line in the list."""

    def __init__(self, edition: Edition) -> None:
        self.edition = edition
        self.files: dict[str, Source] = {}
        self.entries: list[Entry] = []
        self.withheld: list[Entry] = []

    def add(
        self, path: str, source: Source, role: str, classification: Classification, by: str, kind: str | None = None
    ) -> None:
        """Take a file, or only its digest where its readers are fewer than those of the edition."""
        digest, size = _digest(source)
        known = (check_path(path), digest, size, kind or media_type(path), role, classification, by)
        if rank(classification) > rank(self.edition):
            self.withheld.append(Entry(*known, reason=WITHHELD))
        else:
            self.entries.append(Entry(*known))
            self.files[path] = source

    def withhold(self, entry: Entry) -> None:
        self.withheld.append(entry)


def _source_folder(result: Path | str) -> tuple[Path, bytes]:
    path = Path(result)
    path = path / RESULT_NAME if path.is_dir() else path
    try:
        if path.stat().st_size > MOST_DOCUMENT:
            raise InvalidInput(f"{path}: larger than any result ({MOST_DOCUMENT:,} bytes)")
        return path.parent, path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path}: {error.strerror or error}. Give the folder that an audit wrote, or its result.json"
        ) from error


def _add_plan(pile: _Pile, folder: Path, result: AuditResult, notes: list[str]) -> None:
    path = folder / PLAN_NAME
    if not path.is_file():
        logged = any(file.path.endswith(".jsonl") for file in result.evidence)
        rest = "the log alone says when it was fixed" if logged else "that the plan came first cannot be verified"
        notes.append(f"there is no {PLAN_NAME} beside the result: {rest}")
        return
    try:
        stated = json.loads(path.read_bytes()).get("digest")
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise InvalidInput(f"{path}: cannot be read as JSON ({str(error)[:80]}); run the audit again") from error
    if stated != result.plan.digest:
        raise InvalidInput(
            f"{path}: has the digest {str(stated)[:80]}, but the result names {result.plan.digest}; these are of two "
            "audits. Give the folder as the audit wrote it"
        )
    pile.add(PLAN_NAME, path, "plan", "internal", "audit")


def _add_evidence(pile: _Pile, folder: Path, evidence: tuple[EvidenceFile, ...]) -> None:
    for file in evidence:
        path = folder / check_path(file.path)
        role = "log" if file.path.endswith(".jsonl") else "evidence"
        if rank(file.classification) > rank(pile.edition):
            known = (file.path, file.sha256, file.n_bytes, file.media_type, role, file.classification, "audit")
            pile.withhold(Entry(*known, reason=WITHHELD))
            continue
        if path.is_symlink() or not path.is_file():
            raise InvalidInput(
                f"{path}: the result rests on this file, and it is not there; give the folder as the audit wrote it"
            )
        if _digest(path) != (file.sha256, file.n_bytes):
            raise InvalidInput(f"{path}: differs from the digest in the result: it was altered after the audit")
        pile.add(file.path, path, role, file.classification, "audit", file.media_type)


def _views(folder: Path) -> Iterator[tuple[str, Path]]:
    """Views that other commands wrote beside the result, in the order of their paths."""
    for name in VIEW_NAMES:
        if (folder / name).is_file() and not (folder / name).is_symlink():
            yield name, folder / name
    for name, suffixes in VIEW_FOLDERS.items():
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            for path in sorted((folder / name).iterdir()):
                if path.suffix in suffixes and path.is_file() and not path.is_symlink():
                    yield f"{name}/{path.name}", path


def _role(path: str) -> str:
    return {"figures": "figure", "tables": "table"}.get(path.split("/")[0], "report")


def _page_of(folder: Path, digest: str) -> bool:
    """Tell whether the page beside a result was made from it."""
    page = folder / REPORT_NAME
    if not page.is_file() or page.is_symlink() or page.stat().st_size > MOST_DOCUMENT:
        return False
    return names_source(page.read_bytes()) == digest


def _add_views(pile: _Pile, folder: Path, result: AuditResult, digest: str, notes: list[str]) -> None:
    """Take the views that were made from this very result."""
    if _page_of(folder, digest):
        pile.add(REPORT_NAME, folder / REPORT_NAME, "report", result.edition, "report")
    else:
        pile.add(REPORT_NAME, render_html(result).encode("utf-8"), "report", result.edition, "bundle")
    there = dict(_views(folder))
    for path, file in there.items():
        says = there.get(witness(path))
        if says is not None and digest in printed_digests(says):
            pile.add(path, file, _role(path), result.edition, "report")
        else:
            notes.append(f"{path} does not say that it was made from this result, and is left out; write it again")


def _make_views(pile: _Pile, folder: Path, result: AuditResult, notes: list[str]) -> None:
    """Make the forms that lie beside the audit's own result again, from the result that this edition shows."""
    from mnemoscope.reports.formats import FORMATS

    there = dict(_views(folder))
    wanted = {form for form, name in FORM_OF_VIEW.items() if any(path.startswith(name) for path in there)}
    for form in ("html", *(form for form in FORMATS if form in wanted)):
        try:
            made = FORMATS[form](result)
        except MissingNeed as error:
            notes.append(f"the form {form} is left out: {error}")
            continue
        for path, data in made.items():
            pile.add(path, data, _role(path), result.edition, "bundle")
    forms = sorted({path.rpartition(".")[2] for path in there if path.startswith("figures/")} & DRAWN)
    if forms:
        for path, data in _draw(result, forms).items():
            pile.add(path, data, "figure", result.edition, "bundle")


def _draw(result: AuditResult, forms: Sequence[str]) -> dict[str, bytes]:
    """Draw every figure of a result in the given forms."""
    from mnemoscope.reports.figures_out import FIGURES, write_figures

    with TemporaryDirectory(prefix="mnemoscope-") as name:
        return {
            f"{FIGURES}/{path.name}": path.read_bytes() for path in write_figures(result, Path(name), formats=forms)
        }


def gather(result: Path | str, *, edition: Edition = "internal", machine: Machine) -> Gathered:
    """Gather what an edition of a bundle holds; nothing is written.

    Args:
        result: an audit's folder, or the ``result.json`` in it.
        edition: who the bundle is for. It never holds more than the result and its evidence do.
        machine: where the bundle is made.

    Raises:
        InvalidInput: no result, evidence that is missing or was altered, a plan of another audit, or a file that this
            edition may not hold.
    """
    if edition not in EDITIONS:
        raise InvalidInput(f"edition={edition!r}: allowed are {', '.join(EDITIONS)}")
    folder, data = _source_folder(result)
    source = from_json(data)
    origin = result_digest(data)
    shown, shown_data = source, data
    if rank(source.edition) > rank(edition):
        shown_data = to_json(for_edition(source, edition))
        shown = from_json(shown_data)
    elif not _page_of(folder, origin):
        shown_data = to_json(source)  # pages name the result as this release writes it; an older one wrote fewer fields
    digest, tool = result_digest(shown_data), f"mnemoscope {machine.environment.mnemoscope}"
    pile, notes = _Pile(edition), list[str]()
    pile.add(RESULT_NAME, shown_data, "result", shown.edition, "audit" if digest == origin else "bundle")
    _add_plan(pile, folder, source, notes)
    pile.add("policy.json", policy_document(shown_data), "policy", shown.edition, "bundle")
    pile.add("environment.json", environment_document(shown, machine), "environment", "internal", "bundle")
    _add_evidence(pile, folder, source.evidence)
    if shown.edition == source.edition and digest != origin:
        notes.append(f"the result of schema {source.schema_version} is written in the form of this release")
    if digest == origin:
        _add_views(pile, folder, shown, digest, notes)
    else:
        _make_views(pile, folder, shown, notes)
    pile.add("VERIFY.md", guide(shown, edition, tool, len(pile.withheld)), "guide", "public", "bundle")
    refuse_secrets(pile.files, edition, record_keys(source), controller_secret(folder))
    manifest = Manifest(
        edition=edition,
        tool=tool,
        result=digest,
        result_edition=shown.edition,
        derived_from=origin,
        entries=tuple(sorted(pile.entries)),
        withheld=tuple(sorted(pile.withheld)),
    )
    if len({entry.path.lower() for entry in (*pile.entries, *pile.withheld)}) != len(pile.entries) + len(pile.withheld):
        raise InvalidInput("the evidence of this result names a file twice, or under a name of the bundle's own")
    raw = write_manifest(manifest)
    return Gathered(manifest, shown, {**pile.files, MANIFEST: raw, SUMS: sums(pile.entries, raw)}, tuple(notes))


def default_target(result: Path | str, edition: Edition) -> Path:
    """Where a bundle goes when nobody says: a zip beside the audit's folder."""
    path = Path(result)
    folder = (path if path.is_dir() else path.parent).resolve()
    return folder.parent / f"{folder.name or 'audit'}-{edition}.zip"


def write_bundle(gathered: Gathered, target: Path | str, *, force: bool = False) -> Path:
    """Write a gathered bundle as a folder, or as a zip where the name ends in ``.zip``; whole or not at all.

    The restricted edition, which speaks of single records, can be read by its owner alone.

    Args:
        gathered: what :func:`gather` returned.
        target: its place.
        force: replace a bundle that is there.

    Returns:
        The place.

    Raises:
        InvalidInput: the place is taken or cannot be written.
    """
    return place(Path(target), gathered.files, force=force, private=gathered.manifest.edition == "restricted")


def bundle_lines(gathered: Gathered, place: Path) -> list[str]:
    """What was written, for the first screen."""
    manifest = gathered.manifest
    size = sum(entry.bytes for entry in manifest.entries)
    lines = [
        f"wrote {place}: {manifest.edition} edition, {len(manifest.entries)} files, {size:,} bytes",
        f"result {manifest.result}",
    ]
    if manifest.derived_from != manifest.result:
        lines.append(f"taken from the audit's own result, {manifest.derived_from}")
    lines += [f"withheld: {entry.path} ({entry.classification})" for entry in manifest.withheld]
    lines += [f"note: {note}" for note in gathered.notes]
    return [*lines, f"next: `mnemoscope sign {place} --key KEY.pem`, then `mnemoscope verify {place}`"]
