"""A job summary in Markdown: the words, the endpoint that matters most, what was not checked, what would decide it."""

import html
import re
from collections.abc import Collection, Sequence

from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.reports import phrases
from mnemoscope.reports.decisive import endpoint_name, not_checked, worst_endpoint
from mnemoscope.reports.facts import accuracy, gap, headline, main_role, next_step
from mnemoscope.reports.schema import from_json, result_digest, to_json

__all__ = ["escape", "markdown_summary", "table"]

MARKS = {"circle": "●", "triangle": "▲", "square": "■", "ring": "○"}
REASONS_SHOWN = 2
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = (("#", "&#35;"), ("://", "&#58;//"), ("@", "&#64;"), ("www.", "www&#46;"))


def escape(value: object, limit: int = phrases.SHOWN_CHARACTERS) -> str:
    r"""Make text of unknown origin literal in Markdown: no markup, no HTML, no link, no mention.

    >>> escape("<b>[x](http://y)</b> @all | `a`")
    '&lt;b&gt;\\[x\\](http&#58;//y)&lt;/b&gt; &#64;all \\| \\`a\\`'
    """
    text = html.escape(_SPECIAL.sub(r"\\\1", phrases.plain(value, limit)), quote=False)
    for raw, entity in _ENTITIES:
        text = text.replace(raw, entity)
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; cells are escaped already."""
    return [
        "| " + " | ".join(head) + " |",
        "| " + " | ".join("---" for _ in head) + " |",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def markdown_summary(
    result: AuditResult, *, gate: Sequence[str] = (), counted: Collection[str] | None = None, digest: str = ""
) -> str:
    """Render a result as a job summary.

    Args:
        result: what an audit found.
        gate: lines about the gate that read it, as plain text; shown first.
        counted: subjects that count for the gate; None does not say.
        digest: of the document that was read, where it is not that of this release's own encoding.

    Returns:
        Markdown with a newline at its end; the same result gives the same text.
    """
    data = to_json(result)
    result = from_json(data)
    lines = [f"## {escape(result.title)}", ""]
    if gate:
        lines += [f"**{escape(gate[0], 400)}**", "", *(f"- {escape(line, 600)}" for line in gate[1:])]
        lines += [""] if len(gate) > 1 else []
    lines += _verdicts(result, counted)
    for subject in result.subjects:
        lines += _subject(result, subject)
    lines += _power(result)
    unchecked = not_checked(result)
    lines += ["### What was not checked", ""]
    lines += [f"- {escape(line, 600)}" for line in unchecked] or ["- nothing that the plan names was left out"]
    lines += ["", "### Limitations", ""]
    lines += [f"- {escape(line, 600)}" for line in result.limitations]
    lines += [f"- {escape(line, 600)}" for line in result.warnings]
    lines += ["", *_provenance(result, digest or result_digest(data))]
    return "\n".join(lines) + "\n"


def _verdicts(result: AuditResult, counted: Collection[str] | None) -> list[str]:
    if not result.subjects:
        return ["The result holds no subject: nothing was audited, and no statement is made.", ""]
    fpr = next((h.fpr for s in result.subjects if (h := headline(result, s)).fpr is not None), None)
    rate = "TPR" if fpr is None else f"TPR at {phrases.percent(fpr)} FPR"
    head = ["subject", "verdict", "tier", rate, "retrained", "accuracy minus retrained", "flags"]
    head += ["counts for the gate"] if counted is not None else []
    rows = []
    for subject in result.subjects:
        v, h = subject.verdict, headline(result, subject)
        row = [
            escape(subject.name, 60),
            f"{MARKS[phrases.SHAPES[v.word]]} **{v.word}**",
            v.tier or "none",
            _plain(phrases.estimate(h.after)),
            _plain(phrases.estimate(h.retrained)),
            _plain(phrases.estimate(gap(subject), "difference")),
            escape(", ".join(v.flags)) or "none",
        ]
        if counted is not None:
            row.append("yes" if subject.name in counted else "no")
        rows.append(row)
    words = dict.fromkeys(subject.verdict.word for subject in result.subjects)
    sentences = {s.verdict.word: s.verdict.sentence for s in result.subjects}
    return [*table(head, rows), "", *(f"- **{word}**: {escape(sentences[word], 400)}" for word in words), ""]


def _subject(result: AuditResult, subject: Subject) -> list[str]:
    v, worst = subject.verdict, worst_endpoint(result, subject)
    lines = [f"### {escape(subject.name)}: {v.word}", "", escape(v.meaning, 600), ""]
    if worst is not None:
        number = phrases.estimate(worst.estimate, phrases.kind_of(worst))
        lines += [
            f"- Endpoint that matters most: {escape(endpoint_name(worst))}: {_plain(number)}; bound: "
            f"{_plain(phrases.bound(worst))}; {worst.outcome}."
        ]
    lines += [f"- Why: {escape(reason, 600)}" for reason in v.reasons[:REASONS_SHOWN]]
    if len(v.reasons) > REASONS_SHOWN:
        lines.append(f"- and {len(v.reasons) - REASONS_SHOWN} more reasons, in the report")
    failed = [gate for gate in subject.gates if gate.status == "fail"]
    lines += [f"- Gate {escape(g.id)} ({escape(g.title)}) failed: {escape(g.observed, 400)}" for g in failed]
    missing = [gate.id for gate in subject.gates if gate.status == "not run"]
    if missing:
        lines.append(f"- Gates not run: {escape(', '.join(missing))}")
    role = main_role(result)
    lines.append(
        f"- Accuracy: forgotten {_plain(phrases.estimate(accuracy(subject, 'forget', role)))}; never seen "
        f"{_plain(phrases.estimate(accuracy(subject, 'holdout', role)))}"
    )
    step = next_step(subject)
    lines.append(f"- What would make it conclusive: {escape(step, 600) if step else 'nothing more is needed'}")
    return [*lines, ""]


def _power(result: AuditResult) -> list[str]:
    power = result.plan.power
    if power.value is None or result.plan.alpha is None:
        return []
    return [
        f"Chance of WITHIN BOUND when nothing leaks, simulated from the counts: {_plain(phrases.power(power))}.",
        "",
    ]


def _provenance(result: AuditResult, digest: str) -> list[str]:
    plan = result.plan
    rows = [
        ("result", f"`{digest}`"),
        ("plan", f"`{_code(plan.digest)}`, {_when(result)}"),
        ("data", f"{escape(result.data.name)}, `{_code(result.data.digest)}`"),
        ("made", f"{escape(result.created_at, 40)}, mnemoscope {escape(result.environment.mnemoscope, 40)}"),
        ("edition", result.edition),
    ]
    if plan.decided is not None:
        owner = plan.decided.owner or "nobody is named"
        role = f", {plan.decided.role}" if plan.decided.role else ""
        rows.append(("policy decided by", escape(f"{owner}{role}", 300)))
        if plan.decided.reason:
            rows.append(("reason", escape(plan.decided.reason, 600)))
    lines = table(("source", "digest and origin"), rows)
    if plan.deviations:
        lines += ["", "Changed after another plan had been fixed and scored:", ""]
        lines += [
            f"- {escape(d.key)}: {escape(d.committed or 'not there')} → {escape(d.ran or 'not there')}"
            for d in plan.deviations
        ]
    return [*lines, "", "Evidence about the attacks that were run, and no legal determination."]


def _when(result: AuditResult) -> str:
    return "fixed before the first score" if result.plan.committed_before_scores else "not fixed before the first score"


def _plain(text: str) -> str:
    """Our own numbers: what would be markup is none in them, but a reason inside may come from elsewhere."""
    return escape(text, 400)


def _code(text: str) -> str:
    """A digest inside backticks, whatever it holds."""
    return phrases.plain(text, 80).replace("`", "'").replace("|", "\\|")
