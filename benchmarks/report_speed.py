"""Claim: a report over 30 methods x 15 attacks x 200,000 records renders as HTML in under 10 s and stays under 5 MB.

The result is made up (a Gaussian world, closed forms, seeded nowhere for nothing is drawn) but has the shape of a real
procedure audit: every attack in six games and model sets at four false positive rates, curves, histograms, classes, a
map of records. Rendering is timed in a fresh process, matplotlib's import included; reading the file and printing its
digest are timed apart. Rendering is one thread: where other work has its share of the cores (``load_before`` above the
number of cores) the seconds of the processor are what an idle machine would take at most, and the limit is held against
them. The PDF of the same result is timed beside it: it has no limit in the claim, and takes minutes.
Exit code 1 when a limit is missed. Writes ``benchmarks/results/report_speed.json``.

    python benchmarks/report_speed.py [--methods 30] [--attacks 15] [--no-pdf] [--profile] [--out FILE]
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import NormalDist

from mnemoscope.audit.statistics.intervals import rate
from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.class_rows import ClassRow
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.record_map import RecordMap
from mnemoscope.audit.verdict.result import (
    AuditResult,
    Check,
    Cost,
    Coverage,
    Curve,
    DataSummary,
    Distribution,
    Endpoint,
    Environment,
    Finding,
    GateResult,
    ModelGroup,
    NotRun,
    PlanSummary,
    RecordSet,
    Subject,
    TprAt,
    Utility,
)
from mnemoscope.audit.verdict.rules import decide
from mnemoscope.provenance import environment, timestamp
from mnemoscope.reports.schema import to_json

HTML_SECONDS, HTML_BYTES = 10.0, 5_000_000
RECORDS, ALPHA, POLICY = 200_000, 0.01, Policy()
FPRS = (0.1, 0.01, 0.001, 0.0001)
GAMES = (
    ("forgetting", "after"), ("forgetting", "retrained"), ("forgetting", "no-op"), ("membership", "before"),
    ("retention", "after"), ("retention", "retrained"),
)  # fmt: skip
NORMAL = NormalDist()
HTML_CHILD = """
import json, resource, sys, time
from mnemoscope.reports.schema import read_result
start = time.perf_counter(); result = read_result(sys.argv[1]); read = time.perf_counter() - start
start, cpu = time.perf_counter(), time.process_time()
from mnemoscope.reports.html import render_html
page = render_html(result).encode()
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
open(sys.argv[2], "wb").write(page)
print(json.dumps({"read_seconds": read, "seconds": seconds, "cpu_seconds": cpu, "bytes": len(page),
                  "figures": page.count(b'role="img"'),
                  "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""
PDF_CHILD = """
import json, resource, sys, time
from mnemoscope.reports.schema import read_result
result = read_result(sys.argv[1])
start, cpu = time.perf_counter(), time.process_time()
from mnemoscope.reports.pdf import {name}
data = {name}(result)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
from pypdf import PdfReader
pages = len(PdfReader(__import__("io").BytesIO(data)).pages)
open(sys.argv[2], "wb").write(data)
print(json.dumps({{"seconds": seconds, "cpu_seconds": cpu, "bytes": len(data), "pages": pages,
                  "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}}))
"""


def power(shift: float, fpr: float) -> float:
    """TPR of a world in which a fifth of the records is shifted further than the others."""
    z = NORMAL.inv_cdf(1 - fpr)
    return 0.8 * (1 - NORMAL.cdf(z - 0.4 * shift)) + 0.2 * (1 - NORMAL.cdf(z - 1.9 * shift))


def number(value: float, se: float) -> Estimate:
    return Estimate(value, Interval(value - 2 * se, value + 2 * se, 0.95, "two", "two-way variance"), n=RECORDS)


def finding(attack: str, game: str, models: str, shift: float, primary: bool) -> Finding:
    rows = tuple(
        TprAt(fpr, tail, rate(round(power(sign * shift, fpr) * RECORDS), RECORDS),  # type: ignore[arg-type]
              rate(round(fpr * RECORDS), RECORDS), False)
        for tail, sign in (("residual", 1), ("over-forgotten", -1)) for fpr in FPRS
    )  # fmt: skip
    auc = 0.8 * NORMAL.cdf(0.28 * shift) + 0.2 * NORMAL.cdf(1.3 * shift)
    return Finding(attack, game, models, primary, number(auc, 0.001), rate(round(auc * RECORDS), RECORDS), rows,  # type: ignore[arg-type]
                   RECORDS, RECORDS)  # fmt: skip


def curve(attack: str, models: str, shift: float, points: int) -> Curve:
    fpr = [math.exp(math.log(1 / RECORDS) * (1 - i / (points - 1))) * 0.999 for i in range(points)]
    tpr = [power(shift, x) for x in fpr]
    limits = [rate(round(t * RECORDS), RECORDS) for t in tpr]
    return Curve(attack, "forgetting", models, tuple(fpr), tuple(tpr), tuple(e.low or 0.0 for e in limits),  # type: ignore[arg-type]
                 tuple(e.high or 1.0 for e in limits), RECORDS, RECORDS)  # fmt: skip


def histograms(models: str, shift: float) -> list[Distribution]:
    edges = tuple(-4 + 11 * i / 40 for i in range(41))
    cells = []
    for group, s in (("in", shift), ("out", 0.0)):

        def below(x: float, s: float = s) -> float:
            return 0.8 * NORMAL.cdf(x - 0.4 * s) + 0.2 * NORMAL.cdf(x - 1.9 * s)

        counts = tuple(round(RECORDS * (below(b) - below(a))) for a, b in zip(edges, edges[1:], strict=False))
        cells.append(Distribution("attack 0", "forgetting", models, group, edges, counts))  # type: ignore[arg-type]
    return cells


def endpoints(findings: list[Finding], shift: float) -> list[Endpoint]:
    rows = []
    for f in findings:
        if (f.game, f.models) != ("forgetting", "after"):
            continue
        for t in (t for t in f.tpr if t.fpr == ALPHA):
            e, bound = t.tpr, 2 * ALPHA
            outcome = "within" if e.high <= bound else "beyond" if e.low > bound else "undecided"
            rows.append(Endpoint("P1", f"TPR at {ALPHA:.1%} FPR, {t.tail}", f.attack, f.primary, f.primary, e, bound,
                                 outcome, 1e-9 if outcome == "beyond" else 0.5, "threshold from other models"))  # type: ignore[arg-type]  # fmt: skip
        extra = number(f.auc.value - 0.5, 0.001)
        inside = extra.low > -0.05 and extra.high < 0.05
        rows.append(Endpoint("P2", "AUC difference to retrained", f.attack, f.primary, f.primary, extra, 0.05,
                             "within" if inside else "beyond", 0.5 if inside else 1e-9))  # fmt: skip
    jump = power(shift, ALPHA) - ALPHA
    rows += [
        Endpoint("P3", "share above own record's threshold, residual", "", True, True, number(jump, 0.001), ALPHA,
                 "beyond" if jump > 0.012 else "within", 1e-9 if jump > 0.012 else 0.5),
        Endpoint("P4", "retained TPR minus retrained", "", True, True, number(0.002, 0.002), 0.02, "within", 0.5),
        Endpoint("P5", "accuracy minus retrained", "", False, False, number(-0.001, 0.001), 0.02, "within", 0.5),
    ]  # fmt: skip
    return rows


def subject(number_: int, methods: int, attacks: int, points: int, classes: int) -> Subject:
    shift = 1.2 * (1 - number_ / max(1, methods - 1))
    names = [f"attack {i}" for i in range(attacks)]
    level = {"after": shift, "retrained": 0.0, "no-op": 1.2, "before": 1.2}
    findings = [
        finding(name, game, models, 1.1 if game == "retention" else level[models] * (1 - 0.04 * i), i == 0)
        for i, name in enumerate(names) for game, models in GAMES
    ]  # fmt: skip
    gates = tuple(
        GateResult(f"G{i}", title, "the rule of the policy", "pass", f"{RECORDS:,} of {RECORDS:,}", "INCONCLUSIVE")
        for i, title in enumerate(("positive control", "negative control", "precision", "disjointness", "identity",
                                   "use", "references", "plan"), 1)
    )  # fmt: skip
    rows = endpoints(findings, shift)
    verdict = decide(rows, gates, policy=POLICY, limits=limits_of("procedure", has_fleet=True), alpha=ALPHA)
    n = RECORDS // classes
    by_class = tuple(
        ClassRow(f"class {c}", n, rate(round(power(shift, ALPHA) * n), n), rate(round(ALPHA * n), n),
                 rate(round(ALPHA * n), n), rate(round(ALPHA * n), n), 0.5)
        for c in range(classes)
    )  # fmt: skip
    cell = RECORDS // 400
    places = RecordMap("attack 0", tuple(i / 20 for i in range(21)), ((cell,) * 20,) * 20, (cell * 20,) * 20, RECORDS)
    return Subject(
        name=f"method {number_}", method=f"method_{number_}", settings={"learning_rate": 0.01, "epochs": 3},
        verdict=verdict, endpoints=tuple(rows), gates=gates, findings=tuple(findings),
        curves=tuple(curve(names[0], m, level[m], points) for m in ("after", "retrained", "no-op"))
        + tuple(curve(name, "after", shift, points) for name in names[1:]),
        distributions=tuple(d for m in ("after", "retrained", "no-op") for d in histograms(m, level[m])),
        utility=tuple(
            Utility(records, models, rate(round(0.93 * RECORDS), RECORDS), number(0.001, 0.001))  # type: ignore[arg-type]
            for models in ("before", "after", "retrained") for records in ("forget", "retain", "holdout", "test")
        ),
        models=tuple(
            ModelGroup(f"{role} {number_}", role, 48, f"sha256:{number_:064x}", "drawn")  # type: ignore[arg-type]
            for role in ("before", "after", "retrained")
        ),
        cost_fraction_of_retraining=0.05 + 0.9 * number_ / methods,
        by_class=by_class, record_map=places,
    )  # fmt: skip


def made_up(methods: int, attacks: int, points: int = 33, classes: int = 30) -> AuditResult:
    """A procedure audit of the given size; nothing in it was measured."""
    names = tuple(f"attack {i}" for i in range(attacks))
    power_ = Estimate(0.97, Interval(0.93, 0.98, 0.95, "two", "Clopper-Pearson"), 194, 200)
    return AuditResult(
        title=f"{methods} ways of deleting, {attacks} attacks, {RECORDS:,} records",
        mode="procedure", created_at="2026-11-21T00:00:00Z",
        data=DataSummary(
            "drawn", "sha256:" + "0" * 64, RECORDS, classes, (32, 32, 3),
            (RecordSet("audited", RECORDS, "sha256:" + "1" * 64, "drawn from closed forms"),),
            (Check("duplicates", "Duplicates across roles", "pass", f"0 of {RECORDS:,}"),),
        ),
        plan=PlanSummary("sha256:" + "2" * 64, POLICY.as_dict(), names[0], names, ALPHA, "given", power_,
                         {"0.01": 0.97}, True, 0),
        limits=limits_of("procedure", has_fleet=True),
        subjects=tuple(subject(i, methods, attacks, points, classes) for i in range(methods)),
        environment=Environment("0.1.0", "3.12", "made up", {"numpy": "2"}, "made up", 2, 2**33, "cpu"),
        costs=(Cost("attacks", 21.3, 48, 0),),
        not_run=(NotRun("reconstruction", "none was asked for"),),
        limitations=("The numbers are made up.",),
        coverage=(Coverage("membership inference", True, names), Coverage("model inversion", False, (), "none named")),
    )  # fmt: skip


def timed(code: str, source: Path, target: Path) -> dict[str, object]:
    """Run one rendering in a fresh process; what it prints, and the load before it."""
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(target)], capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return {**found, "load_before": round(load, 1)}


def profile(source: Path) -> None:
    """Print where the time of the HTML goes."""
    import cProfile
    import pstats

    from mnemoscope.reports.html import render_html
    from mnemoscope.reports.schema import read_result

    result = read_result(source)
    with cProfile.Profile() as watch:
        render_html(result)
    pstats.Stats(watch).sort_stats("cumulative").print_stats(40)
    pstats.Stats(watch).sort_stats("tottime").print_stats(20)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", type=int, default=30)
    parser.add_argument("--attacks", type=int, default=15)
    parser.add_argument("--no-pdf", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, and write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "report_speed.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "result.json"
        source.write_bytes(to_json(made_up(options.methods, options.attacks)))
        if options.profile:
            profile(source)
            return 0
        size = source.stat().st_size
        html = timed(HTML_CHILD, source, Path(folder) / "report.html")
        files = {} if options.no_pdf else {
            name: timed(PDF_CHILD.format(name=name), source, Path(folder) / name)
            for name in ("summary_pdf", "report_pdf")
        }  # fmt: skip
    passed = html["cpu_seconds"] < HTML_SECONDS and html["bytes"] < HTML_BYTES  # type: ignore[operator]
    result = {
        "claim": (__doc__ or "").splitlines()[0],
        "methods": options.methods, "attacks": options.attacks, "records": RECORDS, "result_bytes": size,
        "html": html, **files, "limits": {"html_seconds": HTML_SECONDS, "html_bytes": HTML_BYTES}, "passed": passed,
        "measured_at": timestamp(), "environment": asdict(environment("cpu")),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
