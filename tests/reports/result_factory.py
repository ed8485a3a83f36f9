"""Realistic results for tests: every word, every mode, missing values with reasons; numbers are computed, not typed."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.stats import beta, norm

from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import (
    AuditResult,
    Check,
    Cost,
    Coverage,
    Curve,
    DataSummary,
    Defended,
    Distribution,
    Endpoint,
    Environment,
    EpsilonRow,
    ExposedRecord,
    Finding,
    GateResult,
    Measured,
    ModelGroup,
    NotRun,
    PlanSummary,
    Reconstructed,
    RecordSet,
    RequestRow,
    Subject,
    TprAt,
    Utility,
)
from mnemoscope.audit.verdict.rules import decide

ALPHA, N, POLICY = 0.01, 14_400, Policy()
SHIFT = {"noop": 1.15, "finetune": 0.62, "gradient_ascent": -0.35, "retrain": 0.0}
FPRS = (0.1, 0.01, 0.001, 0.0001)


def digest(*parts: object) -> str:
    return "sha256:" + hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def rate(k: int, n: int, level: float = 0.95, sides: str = "two") -> Estimate:
    tail = (1 - level) / (2 if sides == "two" else 1)
    low = float(beta.ppf(tail, k, n - k + 1)) if k and sides != "upper" else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n and sides != "lower" else 1.0
    return Estimate(k / n, Interval(low, high, level, sides, "Clopper-Pearson"), k, n)  # type: ignore[arg-type]


def number(value: float, se: float, level: float = 0.90, n: int = N) -> Estimate:
    z = float(norm.ppf((1 + level) / 2))
    return Estimate(value, Interval(value - z * se, value + z * se, level, "two", "two-way variance"), n=n)


@cache
def power_of(shift: float, fpr: float) -> float:
    """Gaussian mean world: a fifth of the records is shifted three times as far, as on real data."""
    z = norm.isf(fpr)
    return float(0.8 * norm.sf(z - shift * 0.4) + 0.2 * norm.sf(z - shift * 1.9))


@cache
def finding(attack: str, game: str, models: str, shift: float, *, n: int = N, primary: bool = False) -> Finding:
    rows = []
    for tail, sign in (("residual", 1), ("over-forgotten", -1)):
        for fpr in FPRS:
            if fpr * n < 1:
                missing = Estimate(
                    None, n=n, reason=f"an FPR of {fpr:g} needs at least {int(1 / fpr):,} never-seen trials"
                )
                rows.append(TprAt(fpr, tail, missing, missing, False))  # type: ignore[arg-type]
                continue
            k = round(power_of(sign * shift, fpr) * n)
            rows.append(TprAt(fpr, tail, rate(k, n), rate(round(fpr * n), n), fpr * n < 8))  # type: ignore[arg-type]
    auc = float(norm.cdf(0.7 * shift / np.sqrt(2)))
    accuracy = rate(round(n * (0.5 + abs(auc - 0.5) * 0.7)), n)
    return Finding(attack, game, models, primary, number(auc, 0.004, 0.95), accuracy, tuple(rows), n, n)  # type: ignore[arg-type]


@cache
def curve(attack: str, game: str, models: str, shift: float, n: int = N) -> Curve:
    fpr = [*np.geomspace(1 / n, 0.999, 32), 1.0]
    tpr = [*(power_of(shift, x) for x in fpr[:-1]), 1.0]
    low, high = zip(*((e.low, e.high) for e in (rate(round(t * n), n) for t in tpr)), strict=True)
    return Curve(attack, game, models, tuple(map(float, fpr)), tuple(map(float, tpr)), low, high, n, n)  # type: ignore[arg-type]


@cache
def histograms(attack: str, game: str, models: str, shift: float, n: int = N) -> tuple[Distribution, ...]:
    edges = np.linspace(-4, 7, 41)
    cells = []
    for group, s in (("in", shift), ("out", 0.0)):
        share = np.diff(0.8 * norm.cdf(edges - 0.4 * s) + 0.2 * norm.cdf(edges - 1.9 * s))
        counts = tuple(int(c) for c in np.round(share * n))
        cells.append(Distribution(attack, game, models, group, tuple(map(float, edges)), counts))  # type: ignore[arg-type]
    return tuple(cells)


def p1(attack: str, primary: bool, found: Finding) -> list[Endpoint]:
    rows = []
    for t in found.tpr:
        if t.fpr != ALPHA or t.tpr.k is None:
            continue
        low, high = rate(t.tpr.k, N, 0.95, "lower"), rate(t.tpr.k, N, 0.95, "upper")
        bound = 2 * ALPHA
        outcome = "within" if high.high <= bound else "beyond" if low.low > bound else "undecided"
        shown = low if outcome == "beyond" else high
        p = float(norm.sf((t.tpr.value - bound) / 0.002))
        part = f"TPR at 1.0% FPR, {t.tail}"
        rows.append(
            Endpoint("P1", part, attack, primary, primary, shown, bound, outcome, p, "threshold from other folds")
        )  # type: ignore[arg-type]
    return rows


def against(id_: str, part: str, value: float, se: float, bound: float, *, primary: bool = True) -> Endpoint:
    e = number(value, se)
    inside, beyond = -bound < e.low and e.high < bound, e.low > bound or e.high < -bound
    outcome = "within" if inside else "beyond" if beyond else "undecided"
    p = float(norm.sf((abs(value) - bound) / se))
    return Endpoint(id_, part, "lira" if id_ == "P2" else "", primary, primary, e, bound, outcome, p)  # type: ignore[arg-type]


def gates(*, failed: Sequence[str] = (), missing: Sequence[str] = ("G5",)) -> tuple[GateResult, ...]:
    rows = (
        ("G1", "positive control", "lower limit of TPR at 1 % FPR above 2 % on no-op unlearning",
         "no-op 1,742 of 14,400 (12.1 %, at least 11.4 %)", "INCONCLUSIVE"),
        ("G2", "negative control", "max-T permutation p-value above 1 % on retrained fleet B",
         "p = 0.412 over 1,999 permutations; AUC 0.499", "NOT ASSESSED"),
        ("G3", "precision", "upper limit of the realised FPR at most 2 %", 
         "144 of 14,400, at most 1.1 %", "INCONCLUSIVE"),
        ("G4", "disjointness", "at most 1 % of forget records with a duplicate elsewhere", "0 of 600", "INCONCLUSIVE"),
        ("G5", "identity", "digest tested = digest served", "no digest was declared as served", "NOT ASSESSED"),
        ("G6", "use", "accuracy within 2 points of retrained", "-0.1 points", "flag"),
        ("G7", "references", "at least 5 retrained models", "72 retrained models", "tier"),
        ("G8", "plan", "digest fixed before the first score", "fixed 41 s before", "flag"),
    )  # fmt: skip
    return tuple(
        GateResult(i, t, r, "fail" if i in failed else "not run" if i in missing else "pass", o, f)
        for i, t, r, o, f in rows
    )


def subject(
    name: str, *, shift: float | None = None, failed: Sequence[str] = (), settings: dict | None = None
) -> Subject:
    s = SHIFT.get(name, 0.0) if shift is None else shift
    attacks = {"lira": 1.0, "rmia": 0.95, "population": 0.35, "modified-entropy": 0.3}
    endpoints: list[Endpoint] = []
    findings: list[Finding] = []
    for attack, strength in attacks.items():
        primary = attack == "lira"
        after = finding(attack, "forgetting", "after", s * strength, primary=primary)
        findings += [after] + [
            finding(attack, game, models, x * strength, primary=primary)
            for game, models, x in (
                ("forgetting", "retrained", 0.0), ("forgetting", "no-op", SHIFT["noop"]), ("membership", "before", 1.2),
                ("retention", "after", 1.1), ("retention", "retrained", 1.05),
            )
        ]  # fmt: skip
        endpoints += p1(attack, primary, after)
    jump = power_of(s, ALPHA) - ALPHA
    drop = power_of(-s, ALPHA) - ALPHA
    auc = float(norm.cdf(0.7 * s / np.sqrt(2))) - 0.5
    endpoints += [
        against("P2", "TPR difference to retrained, residual", jump + 0.0003, 0.0011, 0.01),
        against("P2", "TPR difference to retrained, over-forgotten", drop - 0.0002, 0.0011, 0.01),
        against("P2", "AUC difference to retrained", auc + 0.0008, 0.004, 0.05),
        against("P3", "share above own record's threshold, residual", max(jump * 0.8, 0.0004), 0.0012, 0.01),
        against("P4", "retained TPR at 1.0% FPR minus retrained", 0.0021, 0.003, 0.02),
        against("P5", "accuracy minus retrained", -0.0012, 0.001, 0.02, primary=False),
        Endpoint("P6", "rows inside the artefact", "", False, False,
                 Estimate(None, reason="a neural network stores no rows"),
                 0.0, "not computed", None, "no structural check applies to this architecture"),
    ]  # fmt: skip
    all_gates = gates(failed=failed)
    limits = limits_of("procedure", has_fleet=True)
    verdict = decide(endpoints, all_gates, policy=POLICY, limits=limits, alpha=ALPHA)
    accuracies = {
        "before": {"forget": 14_390, "retain": 14_388, "holdout": 13_910, "test": 20_730},
        "after": {"forget": 13_900 + int(400 * s), "retain": 14_370, "holdout": 13_905, "test": 20_700},
        "retrained": {"forget": 13_902, "retain": 14_380, "holdout": 13_904, "test": 20_715},
    }
    utility = tuple(
        Utility(
            records,
            models,
            rate(min(k, n), n),
            None if models == "retrained" else number(0.0001 * len(models), 0.0007, 0.95, n),
        )  # type: ignore[arg-type]
        for models, row in accuracies.items()
        for records, k in row.items()
        for n in (21_384 if records == "test" else N,)
    )
    roles = (("after", s), ("retrained", 0.0), ("no-op", SHIFT["noop"]))
    return Subject(
        name=name,
        method=name,
        settings=settings if settings is not None else {"learning_rate": 0.01, "epochs": 3, "batch": 64},
        verdict=verdict,
        endpoints=tuple(endpoints),
        gates=all_gates,
        findings=tuple(findings),
        curves=tuple(curve("lira", "forgetting", m, x) for m, x in roles)
        + (curve("rmia", "forgetting", "after", s * 0.95),),
        distributions=tuple(d for m, x in roles for d in histograms("lira", "forgetting", m, x)),
        utility=utility,
        models=(
            ModelGroup("before", "before", 72, digest("before"), "trained on background, kept and forgotten records"),
            ModelGroup(f"after {name}", "after", 72, digest(name), "after deletion", name, "nothing"),
            ModelGroup("retrained A", "retrained", 72, digest("A"), "the reference of equivalence"),
            ModelGroup("retrained B", "retrained", 72, digest("B"), "the negative control"),
        ),
        exposed=(ExposedRecord(17, "digits/0017", 0.00021, rate(9, 24)),) if s > 1 else (),
        cost_fraction_of_retraining={"noop": 0.0, "finetune": 0.11, "gradient_ascent": 0.02, "retrain": 1.0}.get(name),
        measured=(
            Measured("klom", "nats", "further from retraining", number(1.2 * abs(s) + 0.9, 0.05, 0.95, 600),
                     number(0.9, 0.05, 0.95, 600), 72, 600, "24 models a side"),
        ),
        defended=(
            Defended("label-only", "correctness", "forgetting", "after", number(0.5 + 0.1 * s, 0.004, 0.95, N),
                     Estimate(None, reason="every score is 0 or 1"), ALPHA, rate(20_700, 21_384), "equal scores"),
        ),
        epsilons=(
            EpsilonRow("split Clopper-Pearson", "lira", "forgetting", "after", number(0.7 * abs(s), 0.1, 0.95, N), 5.6,
                       0.95, 1e-5, "one training run of this recipe"),
        ),
        reconstructed=(
            Reconstructed("linear_reconstruction", "after", number(0.31, 0.04, 0.95, 24), number(0.12, 0.03, 0.95, 24),
                          "cosine similarity", 24, "one deletion a pair"),
        ),
    )  # fmt: skip


def data() -> DataSummary:
    sets = (("audited", 600), ("background", 400), ("population", 300), ("calibration", 200), ("test", 297))
    return DataSummary(
        "digits", digest("digits"), 1_797, 10, (8, 8, 1),
        tuple(
            RecordSet(r, n, digest(r), "24 forgotten, 24 kept, 24 never seen of 72 models" if r == "audited" else "")
            for r, n in sets
        ),
        (
            Check("duplicates", "Exact and near duplicates across roles", "pass",
                  "0 exact and 0 near pairs of 600 audited records"),
            Check("drift", "Can forget and never-seen records be told apart without the model?", "pass",
                  "AUC 0.503 (95 % CI 0.488 to 0.518; n = 28,800), p = 0.62"),
            Check("sanity", "Are the models better than chance on holdout records?", "pass",
                  "holdout accuracy 96.6 % with 10 classes"),
        ),
    )  # fmt: skip


def result(subjects: Sequence[Subject] | None = None) -> AuditResult:
    subjects = tuple(subject(name) for name in SHIFT) if subjects is None else tuple(subjects)
    return AuditResult(
        title="Four ways of removing records from a digits classifier",
        mode="procedure",
        created_at="2026-11-21T05:40:00Z",
        data=data(),
        plan=PlanSummary(
            digest("plan"), POLICY.as_dict(), "lira", ("lira", "rmia", "population", "modified-entropy"), ALPHA,
            "chosen from counts", Estimate(0.98, Interval(0.93, 0.98, 0.95, "two", "Clopper-Pearson"), 196, 200),
            {"0.001": 0.02, "0.01": 0.98, "0.05": 0.96, "0.1": 0.84}, True, 0,
        ),
        limits=limits_of("procedure", has_fleet=True),
        subjects=subjects,
        environment=Environment("0.1.0", "3.12.3", "Linux 6.8 x86_64", {"torch": "2.15.0", "numpy": "2.4.6"},
                                "a common processor", 2, 8 * 2**30, "cpu"),
        costs=(
            Cost("train before", 1.9, 72, 0), Cost("train retrained A, B, C", 5.6, 216, 0),
            Cost("unlearn finetune", 0.4, 72, 0),
            Cost("attacks", 21.3, 48, 0), Cost("power simulation", 38.0, 0, 1), Cost("report", 2.1),
        ),
        coverage=(
            Coverage("membership inference", True, ("lira", "rmia")),
            Coverage("model inversion", False, (), "none was asked for; name one in attacks.reconstructions"),
        ),
        not_run=(
            NotRun("white-box attacks", "they need gradients, and this audit recorded answers only",
                   "give the models themselves"),
            NotRun("reconstruction and inversion", "not part of this plan"),
            NotRun("G5 identity", "no digest was declared as served",
                   "declare the digest of the served model in the plan"),
        ),
        limitations=(
            "An attack that fails is no proof that the data is gone: another attack, more queries, or access to both "
            "versions of the model may succeed.",
            "The bounds are a policy of whoever ordered the audit; no authority set them.",
            "Copies, backups, recipients and derived models are outside of this test.",
        ),
    )  # fmt: skip


def successive() -> AuditResult:
    """Three requests of two methods: one whose first deletion comes back, one that was never scored."""
    none = Estimate(None, reason="the counts bear no rate")
    rows = [
        RequestRow(
            name, name, r, 3, "lira", ALPHA, rate(40 * r, 1000 * r), rate(35, 1000), rate(30 + 20 * r, 1000),
            number(0.02 * (r - 1), 0.006, 0.95) if r > 1 else Estimate(None, reason="the first request has just been"),
            rate(12 * r, 1000 * r), rate(10 * r, 1000 * r), rate(870, 1000), number(-0.01 * r, 0.004, 0.95),
            "OUTSIDE BOUND", "works on what the request before left behind",
        )
        for name in ("finetune", "noop") for r in (1, 2, 3)
    ]  # fmt: skip
    unscored = replace(rows[0], subject="<b>odd</b>", fpr=None, tpr=none, newest=none, first=none, test_gap=none)
    return replace(result(), requests=(*rows, unscored))


def inconclusive() -> Subject:
    return replace(subject("retrain", failed=("G1",)), name="weak attack")


def not_assessed() -> Subject:
    return replace(subject("retrain", failed=("G2",)), name="broken control")


@cache
def all_words() -> AuditResult:
    return result([subject("retrain"), subject("noop"), inconclusive(), not_assessed()])


@cache
def one_model(n: int = 600) -> AuditResult:
    """One target, five references: counts of hundreds, missing and grey rates."""
    base = subject("finetune")
    findings = tuple(finding("lira-offline", "forgetting", m, s, n=n, primary=True)
                     for m, s in (("before", 1.2), ("after", 0.5), ("retrained", 0.0)))  # fmt: skip
    curves = tuple(
        curve("lira-offline", "forgetting", m, s, n) for m, s in (("before", 1.2), ("after", 0.5), ("retrained", 0.0))
    )
    shapes = tuple(
        d
        for m, s in (("before", 1.2), ("after", 0.5), ("retrained", 0.0))
        for d in histograms("lira-offline", "forgetting", m, s, n)
    )
    one = replace(
        base,
        findings=findings,
        curves=curves,
        distributions=shapes,
        name="scrubbed.safetensors",
        method="given by the user",
    )
    made = result([one])
    plan = replace(made.plan, primary_attack="lira-offline", attacks=("lira-offline",), alpha=0.1)
    return replace(
        made,
        mode="one-model",
        title="One model before and after",
        plan=plan,
        limits=limits_of("one-model", n_retrained=5),
    )


@cache
def membership() -> AuditResult:
    """One model and who is a member: leakage only, no deletion verdict."""
    limits = limits_of("membership")
    endpoints: list[Endpoint] = []
    verdict = decide(endpoints, (), policy=POLICY, limits=limits)
    base = subject("noop")
    one = replace(
        base, name="model", method="none", verdict=verdict, endpoints=(), gates=(), models=base.models[:1], exposed=(),
        findings=(finding("population", "membership", "before", 0.8, n=1000, primary=True),),
        curves=(curve("population", "membership", "before", 0.8, 1000),),
        distributions=histograms("population", "membership", "before", 0.8, 1000),
        utility=(Utility("retain", "before", rate(990, 1000)), Utility("holdout", "before", rate(910, 1000))),
        cost_fraction_of_retraining=None, measured=(), defended=(), epsilons=(), reconstructed=(),
    )  # fmt: skip
    made = result([one])
    plan = replace(made.plan, primary_attack="population", attacks=("population",), alpha=None,
                   power=Estimate(None, reason="no deletion verdict, so no power"), power_by_alpha={})  # fmt: skip
    return replace(
        made, mode="membership", title="What one model reveals about its training records", plan=plan, limits=limits
    )


HOSTILE = "<script>alert(1)</script>&\"'\u202egnp.\u2066\x1b[2J[bold red]" + "A" * 10_000


@cache
def hostile() -> AuditResult:
    one = replace(subject("noop"), name=HOSTILE, method=HOSTILE, settings={HOSTILE: HOSTILE})
    made = result([one, subject("retrain")])
    return replace(
        made, title=HOSTILE, data=replace(made.data, name=HOSTILE), warnings=(HOSTILE,),
        not_run=(NotRun(HOSTILE, HOSTILE, HOSTILE),), limitations=(HOSTILE,),
    )  # fmt: skip
