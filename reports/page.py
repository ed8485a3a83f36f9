"""The values that the templates of the report show: picked and counted from one result, with titles of tables."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.verdict.result import AuditResult, Endpoint, Finding, ModelRole, Subject, Utility
from mnemoscope.reports import compliance, phrases, texts
from mnemoscope.reports.drawing import Drawn, composition, overview, pareto, subject_figures
from mnemoscope.reports.facts import (
    accuracy,
    by_subject,
    gap,
    headline,
    main_game,
    main_role,
    next_step,
    primary_curves,
    sanity_checks,
)

__all__ = ["page_values", "reading", "report_id"]

MANY_SUBJECTS = 8
"""Beyond it each subject gets the one figure that carries its verdict: hundreds of drawings are no report."""

MOST_SUBJECTS = 16
"""Beyond it the page draws what compares subjects alone; ``mnemoscope figures`` draws every one by itself."""

MANY_FINDINGS = 400
"""From here on the tables of all attacks are thin; every number stays in result.json."""


@dataclass(frozen=True)
class AttackRow:
    """Outcomes of one attack's endpoints, counted."""

    attack: str
    primary: bool
    beyond: int
    undecided: int
    within: int
    missing: int


def report_id(digest: str) -> str:
    """The name of a report: the result that it was made from.

    >>> report_id("sha256:0123456789abcdef")
    'MNE-0123456789ab'
    """
    return f"MNE-{phrases.short_digest(digest)}"


def _some(part: int, whole: int, what: str) -> str:
    return f"{part} of {whole} {what}" if whole != 1 else f"{what.removesuffix('s')}: {'yes' if part else 'no'}"


def _endpoints_title(endpoints: list[Endpoint]) -> str:
    counts = Counter(e.outcome for e in endpoints)
    said = ", ".join(f"{counts[o]} {o}" for o in ("beyond", "undecided", "within", "not computed") if counts[o])
    return f"Endpoints of the primary attack and of the model: {said}"


def _gates_title(subject: Subject) -> str:
    counts = Counter(g.status for g in subject.gates)
    said = ", ".join(f"{counts[s]} {s}" for s in ("pass", "fail", "not run", "not applicable") if counts[s])
    return f"{len(subject.gates)} gates: {said}"


def _utility_title(subject: Subject, role: ModelRole) -> str:
    judged: list[Utility] = [u for u in subject.utility if u.models == role and u.accuracy.value is not None]
    if not judged:
        return "Accuracy"
    return "Accuracy " + ", ".join(f"{phrases.percent(u.accuracy.value or 0.0)} on {u.records}" for u in judged)


def _game_title(name: str, findings: list[Finding], role: ModelRole) -> tuple[str, str]:
    """What a table of findings shows, and how its intervals were made."""
    judged = [f for f in findings if f.models == role and f.auc.value is not None] or [
        f for f in findings if f.auc.value is not None
    ]
    title = f"{len(findings)} findings in the {phrases.plain(name, 40)} game"
    if judged:
        best = max(judged, key=lambda f: abs((f.auc.value or 0.5) - 0.5))
        title += f"; farthest from chance: {phrases.plain(best.attack, 40)}, AUC {best.auc.value:.3f}"
    methods = {e.ci.method for f in findings for e in (f.auc, *(t.tpr for t in f.tpr)) if e.ci is not None}
    return title, f"Intervals: {'; '.join(phrases.plain(m) for m in sorted(methods)[:4])}." if methods else ""


def _games(subject: Subject, role: ModelRole, only: set[str] | None) -> list[dict[str, Any]]:
    """Findings grouped by game, in the order in which they come."""
    games = []
    for name in dict.fromkeys(f.game for f in subject.findings):
        if only is not None and name not in only:
            continue
        findings = [f for f in subject.findings if f.game == name]
        title, method = _game_title(name, findings, role)
        question = GAMES[name].question if name in GAMES else ""
        games.append({"name": name, "question": question, "findings": findings, "title": title, "method": method})
    return games


def _by_attack(subject: Subject) -> list[AttackRow]:
    rows = []
    for attack in dict.fromkeys(e.attack for e in subject.endpoints if e.attack):
        mine = [e for e in subject.endpoints if e.attack == attack]
        counts = Counter(e.outcome for e in mine)
        rows.append(
            AttackRow(attack, any(e.primary for e in mine), counts["beyond"], counts["undecided"], counts["within"],
                      counts["not computed"])
        )  # fmt: skip
    return rows


def _by_attack_title(rows: list[AttackRow]) -> str:
    beyond = [row.attack for row in rows if row.beyond]
    if not beyond:
        return (
            f"No endpoint of {len(rows)} {'attack' if len(rows) == 1 else 'attacks and scorers'} lies beyond its bound"
        )
    if len(beyond) == 1:
        return f"A finding beyond the bound rests on one attack or scorer alone: {phrases.plain(beyond[0], 40)}"
    return f"{len(beyond)} of {len(rows)} attacks and scorers find something beyond the bound"


def _roc_data(result: AuditResult, subject: Subject) -> str:
    """Points of the ROC figure for the read-out, as JSON: what the curve shows, no more digits than can be seen."""
    curves = primary_curves(result, subject)
    if not curves:
        return ""
    # The figure's own axes: see figures.roc.
    left = max(1 / max(max(c.n_out for c in curves), 2), 1e-5)

    def rounded(values: tuple[float, ...]) -> list[float]:
        return [float(f"{v:.4g}") for v in values]

    lines = [
        {"role": c.models, "fpr": rounded(c.fpr), "tpr": rounded(c.tpr), "low": rounded(c.low), "high": rounded(c.high)}
        for c in curves
    ]
    alpha = result.plan.alpha if result.plan.alpha is not None else max(left, 0.01)
    # Rates that the tables print too, so that the script shows no number of its own before it is asked.
    listed = {t.fpr for f in subject.findings if f.attack == curves[0].attack for t in f.tpr if t.tpr.value is not None}
    data = {"left": left, "alpha": alpha, "rates": sorted(listed), "lines": lines}
    return json.dumps(data, separators=(",", ":"))


def _figures(result: AuditResult, subject: Subject, number: int) -> list[Drawn]:
    count = len(result.subjects)
    if count > MOST_SUBJECTS:
        return []
    drawn = subject_figures(result, subject, number, only=("bounds",) if count > MANY_SUBJECTS else None)
    if len(result.subjects) == 1:  # the summary shows it
        drawn = [f for f in drawn if f.key != f"s{number}-rates"]
    return drawn


def _subject(result: AuditResult, subject: Subject, number: int, *, figures: bool, thin: bool) -> dict[str, Any]:
    role = main_role(result)
    found: dict[str, list[Drawn]] = {section: [] for section in ("S5", "S7", "S8", "S9", "S12")}
    for f in _figures(result, subject, number) if figures else []:
        found[f.section if f.section in found else "S7"].append(f)
    deciding = [e for e in subject.endpoints if e.primary or not e.attack]
    rows = _by_attack(subject)
    return {
        "number": number,
        "it": subject,
        "h": headline(result, subject),
        "gap": gap(subject),
        "next": next_step(subject),
        "forget": accuracy(subject, "forget", role),
        "holdout": accuracy(subject, "holdout", role),
        "test": accuracy(subject, "test", role),
        "figures": found,
        "roc": _roc_data(result, subject) if figures else "",
        "games": _games(subject, role, {main_game(result)} if thin else None),
        "deciding": deciding,
        "other": [e for e in subject.endpoints if not e.primary and e.attack],
        "by_attack": rows,
        "by_attack_of": _by_attack_title(rows),
        "endpoints_of": _endpoints_title(deciding),
        "gates_of": _gates_title(subject),
        "utility_of": _utility_title(subject, role),
    }


def reading(result: AuditResult) -> str:
    """The figure of the summary in one plain sentence, for a reader without statistics."""
    if not result.subjects:
        return ""
    subject = result.subjects[0]
    h = headline(result, subject)
    if h.fpr is None or h.after.value is None:
        return f"No rate can be given: {h.after.reason or 'the counts bear none'}."
    fpr, group = phrases.percent(h.fpr), "training" if result.mode == "membership" else "forgotten"
    start = f"Read it like this: an attacker who wrongly accuses {fpr} of the records that no model saw"
    if len(result.subjects) > 1:
        return (
            f"{start} would pick out about {fpr} of the {group} ones if nothing were left of them. The further right a "
            "point lies, the more of them can still be told apart."
        )
    parts = [f"{start} picks out {phrases.percent(h.after.value)} of the {group} ones"]
    if result.mode != "membership":
        if h.before.value is not None:
            parts.append(f"before the deletion it was {phrases.percent(h.before.value)}")
        if h.retrained.value is not None:
            parts.append(f"of models trained again without them it is {phrases.percent(h.retrained.value)}")
    parts.append(f"if nothing were left, it would be about {fpr}")
    return "; ".join(parts) + "."


def _words_of(result: AuditResult) -> str:
    counts = Counter(s.verdict.word for s in result.subjects)
    return ", ".join(f"{n} {word}" for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _plan_endpoints(result: AuditResult) -> list[Endpoint]:
    """The questions of the plan: the primary attack's endpoints and those of the model, each once."""
    seen: dict[tuple[str, str], Endpoint] = {}
    for s in result.subjects:
        for e in s.endpoints:
            if e.primary or not e.attack:
                seen.setdefault((e.id, e.part), e)
    return sorted(seen.values(), key=lambda e: e.id)


def page_values(result: AuditResult, *, digest: str, figures: bool) -> dict[str, Any]:
    """Everything that the templates show, for a result of the edition that is shown.

    Args:
        result: as read back from its file.
        digest: of that file.
        figures: False leaves out the drawings.
    """
    thin = sum(len(s.findings) for s in result.subjects) > MANY_FINDINGS
    subjects = [_subject(result, s, i, figures=figures, thin=thin) for i, s in enumerate(result.subjects, 1)]
    records, sanity = sanity_checks(result)
    coverage, scope = compliance.coverage_rows(result), compliance.scope_rows(result)
    executed = sum(row.status == "executed" for row in coverage)
    looked = sum(row.verified != "no" for row in scope)
    structure = [(s, e) for s in result.subjects for e in s.endpoints if e.id == "P6"]
    inside = sum(e.outcome == "beyond" for _, e in structure)
    declared = compliance.declared_of(result)
    return {
        "r": result,
        "digest": digest,
        "report_id": report_id(digest),
        "artefact": compliance.tested_artefact(result),
        "declared": declared,
        "missing": compliance.missing_word(result),
        "subjects": subjects,
        "requests": by_subject(result),
        "overview": (overview(result) or _only_rates(result)) if figures else None,
        "composition": composition(result) if figures else None,
        "trade_offs": pareto(result) if figures else [],
        "reading": reading(result),
        "checked": compliance.checked(result),
        "unchecked": compliance.unchecked(result),
        "dates": compliance.dates(result),
        "people": compliance.people(result),
        "notices": compliance.notices(result),
        "scope": scope,
        "verified_of": f"Of {len(scope)} kinds of copies this tool looked at {looked}",
        "threat_model": compliance.threat_model(result),
        "coverage": coverage,
        "coverage_of": f"{executed} of {len(coverage)} classes of attack were executed",
        "plan_endpoints": _plan_endpoints(result),
        "record_checks": records,
        "sanity": sanity,
        "structure": structure,
        "structure_of": f"Forgotten rows inside the artefact: {_some(inside, len(structure), 'checks')}",
        "evidence_of_process": any(d.kind == "process record" for d in declared.documents),
        "has_epsilons": any(s.epsilons for s in result.subjects),
        "has_individuals": any(s.exposed or s.individuals for s in result.subjects),
        "thin": thin,
        "MOST_SUBJECTS": MOST_SUBJECTS,
        "words_of": _words_of(result),
        "total_seconds": math.fsum(c.seconds for c in result.costs),
        "limitations_version": texts.text_version("limitations"),
        "limitations_fixed": texts.fixed_limitations(),
        "limitations_said": compliance.extra_limitations(result),
        "limitations_computed": compliance.computed_limitations(result),
        "cross_references": texts.cross_references(),
        "cross_version": texts.text_version("cross_reference"),
        "MARKS": texts.MARKS,
        "glossary": texts.glossary(),
        "model_digests": list(dict.fromkeys((m.name, s.name, m.digest) for s in result.subjects for m in s.models)),
    }


def _only_rates(result: AuditResult) -> Drawn | None:
    """The figure of the summary where there is one subject: its rates before, after and retrained against the bound."""
    if len(result.subjects) != 1:
        return None
    return next(iter(subject_figures(result, result.subjects[0], 1, only=("rates",))), None)
