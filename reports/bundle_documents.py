"""The small documents that a bundle adds to a result: the policy, the environment, and how to verify."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from mnemoscope.audit.verdict.result import AuditResult, Environment
from mnemoscope.reports.manifest import ATTESTATIONS, MANIFEST, SUMS, Edition, canonical

__all__ = ["Machine", "environment_document", "guide", "policy_document"]


@dataclass(frozen=True)
class Machine:
    """Where a bundle was made; nothing in it names a person, a host or a path.

    Attributes:
        environment: versions and hardware.
        packages: every installed distribution with its version.
        commit: of the tool's source where it runs from a checkout; None for an installed package.
        dirty: whether files of this checkout differ from the commit; None without one.
        threads: environment variables that say how many threads numerical libraries use, and that fix hashing.
    """

    environment: Environment
    packages: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    threads: Mapping[str, str] = field(default_factory=dict)


def policy_document(result: bytes) -> bytes:
    """The resolved policy: every bound with its value, who decided it and why, as a ``result.json`` has them.

    Args:
        result: the bytes of a result that was read before. Its values are taken as they stand there, so that a later
            release, which may know more of them, finds the same document.
    """
    plan = json.loads(result)["plan"]
    return canonical({"values": plan["policy"], "decided": plan.get("decided")})


def environment_document(result: AuditResult, machine: Machine) -> bytes:
    """Describe where the audit ran, as its result says, and beside it where the bundle was made.

    An audit knows the versions that can change a number; the full list of packages is that of the bundling, and is
    worth as much as the two places are alike: what differs is named.
    """
    audit, here = result.environment, machine.environment
    versions = {**here.packages, "mnemoscope": here.mnemoscope, "python": here.python}
    ran = {**audit.packages, "mnemoscope": audit.mnemoscope, "python": audit.python}
    differs = sorted(name for name, version in ran.items() if versions.get(name) != version)
    differs += [n for n in ("platform", "cpu", "cores", "memory_bytes") if getattr(audit, n) != getattr(here, n)]
    document: dict[str, Any] = {
        "audit": asdict(audit),
        "determinism": {
            "root_seed": result.plan.seed,
            "streams": "one for each task, seeded by SHA-256 of the root seed and the task's name (NumPy PCG64, torch)",
            "repeatable": "the same inputs, seed, releases and machine give the same result but for times and costs; "
            "other hardware or releases are compared within a tolerance",
        },
        "bundling": {
            "environment": asdict(here),
            "packages": dict(machine.packages),
            "source": {"commit": machine.commit, "dirty": machine.dirty},
            "threads": dict(machine.threads),
            "differs_from_audit": differs,
        },
    }
    return canonical(document)


def guide(result: AuditResult, edition: Edition, tool: str, withheld: int) -> bytes:
    """The text of ``VERIFY.md``: the same bundle has the same."""
    from mnemoscope.reports.phrases import plain

    left_out = (
        f"This edition leaves out {withheld} file{'' if withheld == 1 else 's'} of a higher one. `{MANIFEST}` lists\n"
        "their digests, so that a holder of them can show that they are the same."
        if withheld
        else "This edition leaves out no file."
    )
    title = plain(result.title).replace("`", "'").replace("\n", " ")
    template = (files("mnemoscope.reports") / "templates" / "verify.md").read_text(encoding="utf-8")
    text = template.format(
        edition=edition,
        title=title,
        created=plain(result.created_at, 40),
        schema=result.schema_version,
        tool=tool,
        attestations=ATTESTATIONS,
        sums=SUMS,
        withheld=left_out,
    )
    return text.encode("utf-8")
