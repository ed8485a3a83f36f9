"""Results for tests of whatever reads one: consistent documents of every word, and edits of them."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from mnemoscope.audit.verdict.consistency import policy_of
from mnemoscope.audit.verdict.result import AuditResult, GateResult, Limits, Subject
from mnemoscope.audit.verdict.rules import decide


@cache
def factory() -> ModuleType:
    path = Path(__file__).parents[1] / "reports" / "result_factory.py"
    spec = importlib.util.spec_from_file_location("result_factory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def brief(result: AuditResult) -> AuditResult:
    """The same words with a tenth of the numbers behind them, for tests that write a document many times."""
    return replace(result, subjects=tuple(_brief(subject) for subject in result.subjects))


def _brief(subject: Subject) -> Subject:
    return replace(
        subject, findings=subject.findings[:1], curves=subject.curves[:1], distributions=subject.distributions[:1],
        utility=subject.utility[:6], endpoints=tuple(e for e in subject.endpoints if e.attack in ("", "lira")),
    )  # fmt: skip


def _bare(subject: Subject) -> Subject:
    """What a word and its comparison rest on: no drawings, nothing that stands beside the verdict."""
    none = {"curves": (), "distributions": (), "measured": (), "defended": (), "epsilons": (), "reconstructed": ()}
    return replace(_brief(subject), **none)


@cache
def made(name: str) -> AuditResult:
    """A result of the factory by its name there, in brief."""
    return brief(getattr(factory(), name)())


def clean(name: str = "mine", *, failed: Sequence[str] = (), missing: Sequence[str] = ("G5",)) -> Subject:
    """A subject that leaks nothing, by exact retraining, with gates that failed or were not run."""
    made = _bare(replace(factory().subject("retrain"), name=name, method="mine"))
    return replace(made, gates=factory().gates(failed=failed, missing=missing))


def leaking(name: str = "mine") -> Subject:
    return _bare(replace(factory().subject("noop"), name=name, method="mine"))


def with_drift(subject: Subject) -> Subject:
    gate = GateResult("drift", "drift", "no classifier separates them", "fail", "AUC 0.7", "INCONCLUSIVE")
    return replace(subject, gates=(*subject.gates, gate))


def without_gate(subject: Subject, gate: str) -> Subject:
    return replace(subject, gates=tuple(g for g in subject.gates if g.id != gate))


def edited(subject: Subject, change: Callable[..., object], **wanted: object) -> Subject:
    """Apply a change to the endpoints that have all wanted attributes; the word is left as it is."""
    hits = [e for e in subject.endpoints if all(getattr(e, key) == value for key, value in wanted.items())]
    assert hits, wanted
    return replace(subject, endpoints=tuple(change(e) if e in hits else e for e in subject.endpoints))


def audit(
    *subjects: Subject,
    policy: dict[str, object] | None = None,
    limits: Limits | None = None,
    flags: Sequence[str] = (),
    committed: bool = True,
) -> AuditResult:
    """A result of these subjects, with the words that follow from their endpoints and gates."""
    base = factory().result(subjects)
    plan = replace(base.plan, policy={**base.plan.policy, **(policy or {})}, committed_before_scores=committed)
    limits = limits or base.limits
    given = (*flags, *(() if committed else ("exploratory",)))
    words = [
        decide(s.endpoints, s.gates, policy=policy_of(plan.policy), limits=limits, alpha=plan.alpha, flags=given)
        for s in subjects
    ]
    judged = tuple(replace(s, verdict=word) for s, word in zip(subjects, words, strict=True))
    return replace(base, plan=plan, limits=limits, subjects=judged)
