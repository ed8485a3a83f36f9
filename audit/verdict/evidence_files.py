"""The files beside a result that its numbers rest on, each named by its digest."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Classification", "EvidenceFile"]

Classification = Literal["public", "internal", "restricted"]


@dataclass(frozen=True)
class EvidenceFile:
    """A file that an audit wrote beside its result.

    Attributes:
        path: from the folder of result.json, with forward slashes, e.g. "evidence/scores.npz".
        sha256: digest of its bytes, "sha256:<64 hex digits>".
        n_bytes: its size.
        media_type: e.g. "application/json".
        classification: who may have it. "restricted" holds values of single records, under keyed pseudonyms.
        holds: what is in it, a sentence for the reader.
    """

    path: str
    sha256: str
    n_bytes: int
    media_type: str
    classification: Classification
    holds: str
