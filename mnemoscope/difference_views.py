"""A comparison of two audits as text for a terminal, as Markdown and as JSON: what bars a comparison comes first."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from mnemoscope.audit_difference import AuditDifference, Change, NumberPair, SubjectPair
from mnemoscope.reports import phrases
from mnemoscope.reports.markdown import escape, table

__all__ = ["difference_json", "difference_markdown", "difference_text"]

TIE = "A tie is no proof of equality: every difference inside its interval fits the numbers."


def difference_json(found: AuditDifference) -> str:
    """The whole comparison, every number of it, as JSON with sorted keys."""
    return json.dumps(asdict(found), indent=1, sort_keys=True, allow_nan=False) + "\n"


def difference_text(found: AuditDifference) -> str:
    """The comparison for a terminal: the primary attack's numbers, and how many of the others differ."""
    lines = [f"A {_side(found, 0)}", f"B {_side(found, 1)}", ""]
    for heading, changes in _changes(found):
        lines.append(f"{heading}:")
        lines += [f"  {_change(change)}" for change in changes]
        lines.append("")
    lines += [found.assumption, ""] if found.assumption else []
    for pair in found.pairs:
        lines.append(_title(pair))
        lines += [f"  A {_word(pair, 0)}", f"  B {_word(pair, 1)}"]
        lines += [f"  gate {gate}: {a} -> {b}" for gate, a, b in pair.gates]
        shown = [n for n in _shown(pair) if n.models == "after" or n.relation in ("higher", "lower")]
        lines += [f"  {_label(n)}: {_difference(n)}" for n in shown]
        lines += [f"  {line}" for line in _rest(pair)]
        lines.append("")
    lines.append(TIE)
    return "".join(phrases.plain(line, 2_000) + "\n" for line in lines)


def difference_markdown(found: AuditDifference) -> str:
    """The comparison as Markdown: as on the terminal, with every number of both audits beside its difference."""
    lines = ["## Two audits compared", ""]
    head = ("", "title", "made", "result")
    sides = (found.a, found.b)
    lines += table(
        head,
        [
            (name, escape(side.title), escape(side.created_at, 40), f"`{escape(side.digest, 80)}`")
            for name, side in zip("AB", sides, strict=True)
        ],
    )
    for heading, changes in _changes(found):
        lines += ["", f"**{heading}**", ""]
        lines += [f"- {escape(_change(change), 600)}" for change in changes]
    lines += ["", escape(found.assumption, 1_000), ""] if found.assumption else [""]
    for pair in found.pairs:
        lines += [f"### {escape(_title(pair), 200)}", ""]
        lines += [f"- A: {escape(_word(pair, 0), 300)}", f"- B: {escape(_word(pair, 1), 300)}"]
        lines += [f"- Gate {escape(gate)}: {escape(a)} → {escape(b)}" for gate, a, b in pair.gates]
        lines += ["", *_numbers(_shown(pair)), ""]
        if pair.endpoints:
            rows = [
                (escape(f"{e.id} {e.part}{f', {e.attack}' if e.attack else ''}"), escape(e.a or "not there", 300),
                 escape(e.b or "not there", 300))
                for e in pair.endpoints
            ]  # fmt: skip
            lines += [*table(("endpoint", "A", "B"), rows), ""]
        lines += [f"- {escape(line, 600)}" for line in _rest(pair)]
        others = [n for n in pair.numbers if n not in _shown(pair) and n.models == "after"]
        if others:
            lines += ["", "<details><summary>Other attacks, models after deletion</summary>", "", *_numbers(others)]
            lines += ["", "</details>"]
        lines.append("")
    lines += [TIE, "", "Evidence about the attacks that were run, and no legal determination."]
    return "\n".join(lines) + "\n"


def _side(found: AuditDifference, which: int) -> str:
    side = (found.a, found.b)[which]
    return f"{phrases.plain(side.title)}, made {phrases.plain(side.created_at, 40)}, {side.digest}"


def _changes(found: AuditDifference) -> Iterable[tuple[str, Sequence[Change]]]:
    for affects, heading in (
        ("numbers", "These make the numbers incomparable, so no difference is given"),
        ("words", "These make the words incomparable: they were decided by other rules"),
        ("neither", "Also not the same"),
    ):
        changes = [change for change in found.changes if change.affects == affects]
        if changes:
            yield heading, changes


def _change(change: Change) -> str:
    why = f" ({change.why})" if change.why else ""
    return f"{change.what}: {phrases.plain(change.a, 160)} -> {phrases.plain(change.b, 160)}{why}"


def _title(pair: SubjectPair) -> str:
    return pair.a if pair.a == pair.b else f"{phrases.plain(pair.a, 80)} and {phrases.plain(pair.b, 80)}"


def _word(pair: SubjectPair, which: int) -> str:
    word, tier, flags = pair.words[which]
    listed = f" [{', '.join(flags)}]" if flags else ""
    return f"{word}{f', tier {tier}' if tier else ''}{listed}"


def _shown(pair: SubjectPair) -> list[NumberPair]:
    """The primary attack's numbers and accuracies; where the audits have no primary attack in common, all after."""
    chosen = [n for n in pair.numbers if n.primary or not n.attack]
    return (
        chosen if any(n.primary for n in chosen) else [n for n in pair.numbers if not n.attack or n.models == "after"]
    )


def _label(n: NumberPair) -> str:
    where = f"{n.attack}, {n.game}, {n.models}" if n.attack else f"{n.game} records, {n.models}"
    return f"{n.quantity} ({where})"


def _kind_of_difference(n: NumberPair) -> phrases.Kind:
    return "shift" if n.kind == "score" else "difference"


def _difference(n: NumberPair) -> str:
    a, b = (("-" if e.value is None else phrases.amount(e.value, n.kind)) for e in (n.a, n.b))
    d = n.difference
    if d.value is None:
        return f"{a} -> {b}; {d.reason}"
    by = phrases.estimate(d, _kind_of_difference(n))
    same = "; the same models" if n.same_models else ""
    if n.same_models and d.ci is None:
        return f"{a} -> {b}; {d.reason}"
    return f"{a} -> {b}; {by}: {n.relation}{f' ({d.reason})' if d.reason else ''}{same}"


def _numbers(rows: Sequence[NumberPair]) -> list[str]:
    head = ("number", "A", "B", "B minus A", "B is")
    cells = []
    for n in rows:
        d = n.difference
        by = phrases.estimate(d, _kind_of_difference(n)) if d.value is not None else f"none: {d.reason}"
        if d.value is not None and d.ci is None:
            by += f"; {d.reason}"
        relation = n.relation + (" (the same models)" if n.same_models else "")
        a, b = (phrases.estimate(e, n.kind) for e in (n.a, n.b))
        cells.append([escape(text, 300) for text in (_label(n), a, b, by, relation)])
    return table(head, cells) if cells else ["No number stands in both."]


def _rest(pair: SubjectPair) -> list[str]:
    """What is not listed one by one, and how often chance alone would show a difference."""
    lines = list(pair.only)
    compared = [n for n in pair.numbers if n.relation != "not compared" and not n.same_models]
    if compared:
        counts = Counter(n.relation for n in compared)
        level = compared[0].difference.ci.level if compared[0].difference.ci is not None else 0.95
        by_chance = (1 - level) * len(compared)
        lines.append(
            f"{len(compared)} numbers compared in all: B higher in {counts['higher']}, lower in {counts['lower']}, "
            f"tied in {counts['tie']}; each interval stands by itself: where nothing differs, about {by_chance:.1f} of "
            f"them would miss zero by chance"
        )
    return lines
