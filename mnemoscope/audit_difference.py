"""Two audits side by side: the same subject at two times, or two ways of deleting, with intervals on differences.

What makes numbers incomparable is found first, and those numbers get no difference. Nothing is decided: a word that
changed is shown as it was said both times.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.square_and_add import square_and_add
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.consistency import policy_of, require_consistent
from mnemoscope.audit.verdict.result import AuditResult, Finding, Subject
from mnemoscope.reports.phrases import Kind

__all__ = ["AuditDifference", "Change", "EndpointPair", "NumberPair", "Side", "SubjectPair", "audit_difference"]

Relation = Literal["higher", "lower", "tie", "not compared"]
Affects = Literal["numbers", "words", "neither"]


@dataclass(frozen=True)
class Side:
    """One of the two documents.

    Attributes:
        title: of the audit.
        created_at: when it was made.
        digest: of its result.json.
        subjects: names in it.
    """

    title: str
    created_at: str
    digest: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """Something that is not the same in both.

    Attributes:
        what: e.g. "data", "policy.auc_margin", "package torch".
        a: in the first.
        b: in the second.
        affects: what it makes incomparable: all "numbers", the "words", or "neither" by itself.
        why: a sentence for the reader.
    """

    what: str
    a: str
    b: str
    affects: Affects
    why: str = ""


@dataclass(frozen=True)
class NumberPair:
    """One number in both audits.

    Attributes:
        quantity: e.g. "TPR at 1.0 % FPR, residual", "AUC", "accuracy".
        kind: how it is written.
        attack: whose number; "" for accuracy.
        game: the question, or the records of an accuracy.
        models: which models.
        primary: whether the attack decides WITHIN in both.
        a: in the first.
        b: in the second.
        difference: b minus a; without a value where the two cannot be compared.
        relation: of b to a: "tie" where the interval holds zero.
        same_models: the same models answered in both, by digest.
    """

    quantity: str
    kind: Kind
    attack: str
    game: str
    models: str
    primary: bool
    a: Estimate
    b: Estimate
    difference: Estimate
    relation: Relation
    same_models: bool


@dataclass(frozen=True)
class EndpointPair:
    """One endpoint in both audits; None where an audit does not have it."""

    id: str
    part: str
    attack: str
    a: str | None
    b: str | None
    outcome_a: str | None
    outcome_b: str | None


@dataclass(frozen=True)
class SubjectPair:
    """One subject of each audit.

    Attributes:
        a: name in the first.
        b: name in the second.
        words: word, tier and flags in both.
        gates: gates whose status is not the same: id, first, second.
        numbers: every number that both have.
        endpoints: endpoints of the primary attack and of none.
        only: numbers that one of them lacks, in words.
        shared: groups of models that stand in both, by digest.
    """

    a: str
    b: str
    words: tuple[tuple[str, str | None, tuple[str, ...]], tuple[str, str | None, tuple[str, ...]]]
    gates: tuple[tuple[str, str, str], ...]
    numbers: tuple[NumberPair, ...]
    endpoints: tuple[EndpointPair, ...]
    only: tuple[str, ...]
    shared: tuple[str, ...]


@dataclass(frozen=True)
class AuditDifference:
    """Everything that differs between two audits.

    Attributes:
        a: the first.
        b: the second.
        changes: what is not the same, what makes numbers incomparable first.
        assumption: what the intervals assume, and what is known about it here; "" where no difference is given.
        pairs: subjects compared.
    """

    a: Side
    b: Side
    changes: tuple[Change, ...]
    assumption: str
    pairs: tuple[SubjectPair, ...]

    def affecting(self, what: Affects) -> tuple[Change, ...]:
        """Return the changes that make numbers, words or neither incomparable."""
        return tuple(change for change in self.changes if change.affects == what)

    def text(self) -> str:
        """The comparison for a terminal."""
        from mnemoscope.difference_views import difference_text

        return difference_text(self)

    def markdown(self) -> str:
        """The comparison as Markdown."""
        from mnemoscope.difference_views import difference_markdown

        return difference_markdown(self)

    def json(self) -> str:
        """The comparison as JSON, every number of it."""
        from mnemoscope.difference_views import difference_json

        return difference_json(self)


def audit_difference(
    a: AuditResult, b: AuditResult, *, digests: tuple[str, str], subjects: Sequence[str] = ()
) -> AuditDifference:
    """Compare two audits.

    Args:
        a: the first.
        b: the second.
        digests: of both documents.
        subjects: none = every subject that both have, or the only one of each; one = that name in both; two = the first
            in ``a`` and the second in ``b``.

    Raises:
        InvalidInput: a document contradicts itself, or a subject is not there.
    """
    require_consistent(a, "the first result")
    require_consistent(b, "the second result")
    chosen = _choose(a, b, subjects)
    changes = tuple(sorted(_changes(a, b), key=lambda c: ("numbers", "words", "neither").index(c.affects)))
    barred = "; ".join(change.what for change in changes if change.affects == "numbers")
    pairs = tuple(_pair(a, b, one, two, barred) for one, two in chosen)
    assumption = "" if barred else _assumption(a, b, pairs, digests)
    sides = tuple(
        Side(r.title, r.created_at, digest, tuple(s.name for s in r.subjects))
        for r, digest in zip((a, b), digests, strict=True)
    )
    return AuditDifference(sides[0], sides[1], changes, assumption, pairs)


def _choose(a: AuditResult, b: AuditResult, wanted: Sequence[str]) -> list[tuple[Subject, Subject]]:
    ours, theirs = ({s.name: s for s in r.subjects} for r in (a, b))
    if len(wanted) > 2:
        raise InvalidInput(f"subjects: {len(wanted)} are given; give one for both audits, or two, one for each")
    if wanted:
        first, second = wanted[0], wanted[-1]
        for name, known, which in ((first, ours, "first"), (second, theirs, "second")):
            if name not in known:
                raise InvalidInput(
                    f"subject {name!r} is not in the {which} result; it holds {', '.join(known) or 'none'}"
                )
        return [(ours[first], theirs[second])]
    both = [name for name in ours if name in theirs]
    if both:
        return [(ours[name], theirs[name]) for name in both]
    if len(ours) == 1 and len(theirs) == 1:
        return [(next(iter(ours.values())), next(iter(theirs.values())))]
    raise InvalidInput(
        f"the two results share no subject: the first holds {', '.join(ours) or 'none'}, the second "
        f"{', '.join(theirs) or 'none'}. Name one of each with --subject, twice"
    )


def _changes(a: AuditResult, b: AuditResult) -> Iterator[Change]:
    """Everything that is not the same, from what matters most on."""

    def row(what: str, one: object, two: object, affects: Affects, why: str = "") -> Iterator[Change]:
        if one != two:
            yield Change(what, str(one), str(two), affects, why)

    yield from row("mode", a.mode, b.mode, "numbers", "another question was asked")
    yield from row("data", a.data.digest, b.data.digest, "numbers", "other records stand behind every number")
    sets = [{s.role: (s.n_records, s.digest) for s in r.data.sets} for r in (a, b)]
    moved = sorted(role for role in {*sets[0], *sets[1]} if sets[0].get(role) != sets[1].get(role))
    if moved and a.data.digest == b.data.digest:
        # Over a fleet the records are a sample of the data; of one model they are the request itself.
        shown = [", ".join(f"{role} {x[role][0]:,}" if role in x else f"{role} none" for role in moved) for x in sets]
        if a.mode == "procedure":
            yield Change("record sets", shown[0], shown[1], "neither", "other records of the same data were drawn")
        else:
            why = "other records were forgotten, or stood for never-seen ones"
            yield Change("record sets", shown[0], shown[1], "numbers", why)
    policies = [policy_of(r.plan.policy).as_dict() for r in (a, b)]
    for key in policies[0]:
        yield from row(f"policy.{key}", policies[0][key], policies[1][key], "words", "the words follow other rules")
    yield from row("alpha", a.plan.alpha, b.plan.alpha, "words", "the endpoints are read at another FPR")
    yield from row("primary attack", a.plan.primary_attack, b.plan.primary_attack, "words", "another attack decides")
    yield from row("fixed before scoring", a.plan.committed_before_scores, b.plan.committed_before_scores, "words")
    yield from row("edition", a.edition, b.edition, "neither", "one of them withholds numbers")
    yield from row("plan", a.plan.digest, b.plan.digest, "neither",
                   "training, attacks or their settings may differ: compare plan.json of both")  # fmt: skip
    yield from row("attacks", ", ".join(a.plan.attacks), ", ".join(b.plan.attacks), "neither")
    yield from row("seed", a.plan.seed, b.plan.seed, "neither")
    yield from row("schema", a.schema_version, b.schema_version, "neither")
    one, two = a.environment, b.environment
    yield from row("mnemoscope", one.mnemoscope, two.mnemoscope, "neither", "attacks may work otherwise")
    yield from row("python", one.python, two.python, "neither")
    yield from row("platform", one.platform, two.platform, "neither")
    yield from row("device", one.device, two.device, "neither")
    for name in sorted({*one.packages, *two.packages}):
        yield from row(f"package {name}", one.packages.get(name), two.packages.get(name), "neither")


def _pair(a: AuditResult, b: AuditResult, one: Subject, two: Subject, barred: str) -> SubjectPair:
    digests = [{m.digest: m for m in s.models} for s in (one, two)]
    shared = tuple(digests[0][d].name for d in digests[0] if d in digests[1])
    statuses = [{g.id: g.status for g in s.gates} for s in (one, two)]
    gates = tuple(
        (gate, statuses[0].get(gate, "absent"), statuses[1].get(gate, "absent"))
        for gate in sorted({*statuses[0], *statuses[1]})
        if statuses[0].get(gate) != statuses[1].get(gate)
    )
    numbers, only = _numbers(a, b, one, two, barred)
    words = tuple((s.verdict.word, s.verdict.tier, s.verdict.flags) for s in (one, two))
    return SubjectPair(
        one.name,
        two.name,
        (words[0], words[1]),
        gates,
        tuple(numbers),
        tuple(_endpoints(one, two)),
        tuple(only),
        shared,
    )


def _numbers(
    a: AuditResult, b: AuditResult, one: Subject, two: Subject, barred: str
) -> tuple[list[NumberPair], list[str]]:
    roles = [{m.role: {x.digest for x in s.models if x.role == m.role} for m in s.models} for s in (one, two)]
    primary = a.plan.primary_attack if a.plan.primary_attack == b.plan.primary_attack else ""
    rows: list[NumberPair] = []

    def add(quantity: str, kind: Kind, attack: str, game: str, models: str, x: Estimate, y: Estimate) -> None:
        same = models in roles[0] and roles[0].get(models) == roles[1].get(models)
        found = square_and_add(x, y)
        if barred:
            found = Estimate(None, reason=f"not comparable: {barred}")
        elif same and x == y:
            # One number printed twice: an interval for independent sides would say that it is uncertain.
            found = Estimate(0.0, reason="the same models on both sides") if x.value is not None else found
        rows.append(
            NumberPair(quantity, kind, attack, game, models, attack == primary != "", x, y, found, _relation(found),
                       same)
        )  # fmt: skip

    ours, theirs = ({(f.attack, f.game, f.models): f for f in s.findings} for s in (one, two))
    for key, f in ours.items():
        if key not in theirs:
            continue
        for fpr, tail, x, y in _rates(f, theirs[key], (a.plan.alpha, b.plan.alpha)):
            add(f"TPR at {100 * fpr:.3g} % FPR, {tail}", "rate", *key, x, y)
        add("AUC", "score", *key, f.auc, theirs[key].auc)
    used, given = ({(u.records, u.models): u for u in s.utility} for s in (one, two))
    for place, u in used.items():
        if place not in given:
            continue
        add("accuracy", "rate", "", *place, u.accuracy, given[place].accuracy)
        gaps = u.gap_to_retrained, given[place].gap_to_retrained
        if gaps[0] is not None and gaps[1] is not None:
            add("accuracy minus retrained", "difference", "", *place, gaps[0], gaps[1])
    only = [
        f"only in the {which}: {', '.join(f'{attack} ({game}, {models})' for attack, game, models in keys)}"
        for which, keys in (
            ("first", [key for key in ours if key not in theirs]),
            ("second", [key for key in theirs if key not in ours]),
        )
        if keys
    ]
    return rows, only


def _rates(
    one: Finding, two: Finding, alphas: tuple[float | None, float | None]
) -> Iterator[tuple[float, str, Estimate, Estimate]]:
    """The rates at the FPR of either audit; where not both recorded one there, at the smallest that both bear."""
    ours, theirs = ({(t.fpr, t.tail): t for t in f.tpr} for f in (one, two))
    common = {fpr for fpr, tail in ours if (fpr, tail) in theirs}
    wanted = common & {alpha for alpha in alphas if alpha is not None}
    if not wanted:
        borne = [
            fpr
            for (fpr, tail), t in ours.items()
            if fpr in common and not any(x.grey or x.tpr.value is None for x in (t, theirs[fpr, tail]))
        ]
        wanted = {min(borne)} if borne else set()
    for (fpr, tail), t in ours.items():
        if fpr in wanted and (fpr, tail) in theirs:
            yield fpr, tail, t.tpr, theirs[fpr, tail].tpr


def _relation(found: Estimate) -> Relation:
    if found.value == 0 and found.ci is None:
        return "tie"
    if found.value is None or found.low is None or found.high is None:
        return "not compared"
    if found.low > 0:
        return "higher"
    return "lower" if found.high < 0 else "tie"


def _endpoints(one: Subject, two: Subject) -> Iterator[EndpointPair]:
    """Endpoints of the primary attack and of no attack, by what they measure."""
    from mnemoscope.reports.decisive import endpoint_text

    ours, theirs = ({(e.id, e.part, e.attack): e for e in s.endpoints if e.primary or not e.attack} for s in (one, two))
    for key in dict.fromkeys((*ours, *theirs)):
        x, y = ours.get(key), theirs.get(key)
        yield EndpointPair(
            *key,
            None if x is None else endpoint_text(x),
            None if y is None else endpoint_text(y),
            None if x is None else x.outcome,
            None if y is None else y.outcome,
        )


def _assumption(a: AuditResult, b: AuditResult, pairs: Sequence[SubjectPair], digests: tuple[str, str]) -> str:
    """What the intervals on differences assume, and what the documents show about it."""
    told = "Intervals on differences treat the two sides as independent"
    if digests[0] == digests[1]:
        common = "both sides come from one audit: the same records, models before deletion and retrained models"
    else:
        shared = list(dict.fromkeys(name for pair in pairs for name in pair.shared))
        parts = [f"the same models, by digest ({', '.join(shared)})"] if shared else []
        sets = [{s.digest for s in r.data.sets} for r in (a, b)]
        # Other data would bar the numbers: the records are of the same data at least.
        parts.append("the same records" if sets[0] & sets[1] else "records of the same data")
        common = f"they share {' and '.join(parts)}"
    return (
        f"{told}, and {common}. What is shared moves both numbers the same way as a rule: the intervals are wider than "
        "they need be then. Where it moves them opposite ways they are too narrow. The two documents cannot tell "
        "which; the scores of both, record by record, could."
    )
