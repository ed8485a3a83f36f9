"""What an audit leaves beside its result, so that others can recompute it: scores, commitments, a log."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.records.commitments import RecordCommitment, commit_records
from mnemoscope.audit.records.pseudonyms import pseudonym
from mnemoscope.audit.verdict.evidence_files import Classification, EvidenceFile
from mnemoscope.audit.verdict.named import with_pseudonyms
from mnemoscope.audit.verdict.result import AuditResult, RecordSet
from mnemoscope.audit.work.keys import canonical_json
from mnemoscope.audit.work.run_log import RESULT, RunLog
from mnemoscope.audit.work.side_arrays import ArrayWriter
from mnemoscope.controller_key import controller_key, existing_key

__all__ = ["ANSWERS", "COMMITMENTS", "EVIDENCE", "LOG", "SCORES", "EvidenceFolder"]

Ids = NDArray[np.int64]

EVIDENCE = "evidence"
SCORES, ANSWERS, COMMITMENTS, LOG = (
    f"{EVIDENCE}/{name}" for name in ("scores.npz", "answers.npz", "commitments.json", "run.jsonl")
)
PSEUDONYM_DIGITS = 16

ABOUT: dict[str, tuple[str, Classification, str]] = {
    SCORES: (
        "application/x-npz",
        "restricted",
        "scores, margins, correctness, roles and folds that the endpoints rest on; records under keyed pseudonyms",
    ),
    ANSWERS: ("application/x-npz", "restricted", "recorded answers of the models, labels and roles, by position"),
    COMMITMENTS: ("application/json", "internal", "keyed commitments to the record sets: leaves, root, count"),
    LOG: ("application/jsonl", "internal", "hash-chained log: plan committed, models ready, first score, result"),
}
RECORD = "the digest of its bytes and label"
WHAT = "HMAC-SHA256 under the controller's key of the record id (8 bytes) and {content}; leaves sorted; RFC 6962 tree"


class EvidenceFolder:
    """Collects evidence while an audit works; nothing is written and nothing keyed without an output folder.

    Args:
        out: folder of the result, or None.
        key: the controller's key file; None makes or reuses the one in the folder.
    """

    def __init__(self, out: Path | None, key: Path | None = None) -> None:
        self.out = out
        self.log = RunLog()
        self._key_file = key
        self._reached: set[str] = set()
        if out is not None:
            existing_key(out, key)  # a key that cannot be read is found before any work
        self._writers: dict[str, ArrayWriter] = {}
        self._sets: dict[str, tuple[RecordCommitment, str]] = {}

    def once(self, step: str, about: str = "") -> None:
        """Write a line of the log, unless the step was reached before."""
        if step not in self._reached:
            self._reached.add(step)
            self.log.add(step, about)

    @cached_property
    def _key(self) -> bytes | None:
        """The controller's key, made when it is first needed: a plan that is refused leaves none behind."""
        return None if self.out is None else controller_key(self.out, self._key_file)

    def arrays(self, name: str) -> ArrayWriter | None:
        """The file of that name (``SCORES`` or ``ANSWERS``), open for arrays; None where nothing is written."""
        if self.out is None:
            return None
        if name not in self._writers:
            self._writers[name] = ArrayWriter(self.out / name)
        return self._writers[name]

    def pseudonyms(self, keys: Iterable[str]) -> NDArray[np.str_]:
        """(n,) keyed names of records, from their user keys; empty where there is no key."""
        made = [] if self._key is None else [pseudonym(self._key, key, PSEUDONYM_DIGITS) for key in keys]
        return np.array(made, f"U{PSEUDONYM_DIGITS}")

    def commit(self, made: RecordSet, ids: Ids, contents: Iterable[bytes], *, content: str = RECORD) -> RecordSet:
        """Put a keyed root in the place of a bare hash, and keep the leaves; without a key the set stays as it is.

        Args:
            made: the set with its bare hash.
            ids: its records.
            contents: what is known of each record's content, in that order.
            content: the same in words.
        """
        if self._key is None:
            return made
        found = commit_records(self._key, ids, contents)
        self._sets[made.role] = (found, content)
        return replace(made, digest=found.root, keyed=True)

    def digest(self, ids: Ids, contents: Iterable[bytes], bare: Callable[[], str]) -> str:
        """The keyed root of records that are no set of their own; a bare hash without a key."""
        return bare() if self._key is None else commit_records(self._key, ids, contents).root

    def finish(self, result: AuditResult) -> AuditResult:
        """Close all files and name them in the result, which is still to be written."""
        if self.out is None or self._key is None:
            return result
        result = with_pseudonyms(result, self._key, PSEUDONYM_DIGITS)
        for writer in self._writers.values():
            writer.close()
        if self._sets:
            sets = {
                role: {"n": one.n, "root": one.root, "leaf": WHAT.format(content=content), "leaves": list(one.leaves)}
                for role, (one, content) in self._sets.items()
            }
            _write(self.out / COMMITMENTS, canonical_json({"version": 1, "sets": sets}))
        for name in ABOUT:  # what an earlier run in this folder left is no evidence of this one
            stale = name not in self._writers and not (name == COMMITMENTS and self._sets)
            if stale:
                (self.out / name).unlink(missing_ok=True)
        kept = [self._file(name) for name in ABOUT if (self.out / name).exists()]
        self.log.add(RESULT, " ".join(f"{file.path}={file.sha256}" for file in kept))
        _write(self.out / LOG, self.log.to_bytes())
        return replace(result, evidence=(*kept, self._file(LOG)), log_head=self.log.head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Leave no half-written file behind."""
        if kind is not None:
            for writer in self._writers.values():
                writer.discard()
            if self.out is not None:
                with suppress(OSError):  # there may be files of an earlier run in it
                    (self.out / EVIDENCE).rmdir()

    def _file(self, name: str) -> EvidenceFile:
        assert self.out is not None
        path = self.out / name
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        media, classification, holds = ABOUT[name]
        return EvidenceFile(name, f"sha256:{digest}", path.stat().st_size, media, classification, holds)


def _write(path: Path, data: bytes) -> None:
    from mnemoscope.reports.schema import write_whole

    write_whole(path, data)
