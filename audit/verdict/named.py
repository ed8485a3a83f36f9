"""Give single records of a result their keyed names, which is all that a document may call them by."""

from dataclasses import replace

from mnemoscope.audit.records.pseudonyms import pseudonym
from mnemoscope.audit.verdict.result import AuditResult, Subject

__all__ = ["with_pseudonyms"]


def with_pseudonyms(result: AuditResult, key: bytes, length: int = 16) -> AuditResult:
    """Return the result with a pseudonym beside the key of every record that it names.

    It is still a result for memory alone: keys are taken out, or all single records, when an edition of it is written.

    Args:
        result: as the audit returned it.
        key: the controller's secret.
        length: hex digits of a name.

    Raises:
        InvalidInput: the key or the length is not allowed.
    """

    def named(subject: Subject) -> Subject:
        return replace(
            subject,
            exposed=tuple(replace(x, pseudonym=pseudonym(key, x.key, length)) for x in subject.exposed),
            individuals=tuple(replace(x, pseudonym=pseudonym(key, x.key, length)) for x in subject.individuals),
        )

    return replace(result, subjects=tuple(named(subject) for subject in result.subjects))
