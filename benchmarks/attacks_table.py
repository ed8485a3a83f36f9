"""Keep what every attack of a finished audit found, a row for each attack, game and set of models.

mnemoscope run examples/attacks_location30.toml --out runs/attacks_location30
python benchmarks/attacks_table.py runs/attacks_location30 --out benchmarks/results/attacks_location30.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mnemoscope.audit.verdict.result import AuditResult, Finding
from mnemoscope.reports.schema import read_result


def _numbers(finding: Finding) -> dict[str, object]:
    auc = finding.auc
    row: dict[str, object] = {
        "attack": finding.attack,
        "game": finding.game,
        "models": finding.models,
        "auc": auc.value,
        "auc_low": auc.low,
        "auc_high": auc.high,
        "n_in": finding.n_in,
        "n_out": finding.n_out,
    }
    rates = {}
    for at in finding.tpr:
        if at.tail == "residual" and at.tpr.value is not None:
            rates[f"{at.fpr:g}"] = [at.tpr.value, at.tpr.low, at.tpr.high, at.realised_fpr.value, at.grey]
    row["tpr_low_high_realised_fpr_grey"] = rates
    return row


def table(result: AuditResult) -> dict[str, object]:
    """Return the rows with what they were measured on; what several subjects share stands once."""
    rows: list[dict[str, object]] = []
    for subject in result.subjects:
        for finding in subject.findings:
            row = _numbers(finding)
            row["subject"] = subject.name if finding.models == "after" else ""
            if row not in rows:
                rows.append(row)
    return {
        "data": result.data.name,
        "data_digest": result.data.digest,
        "plan": result.plan.digest,
        "seed": result.plan.seed,
        "alpha": result.plan.alpha,
        "primary": result.plan.primary_attack,
        "sets": {s.role: s.n_records for s in result.data.sets},
        "n_models": max(group.n_models for subject in result.subjects for group in subject.models),
        "verdicts": {s.name: f"{s.verdict.word}, tier {s.verdict.tier}" for s in result.subjects},
        "rows": rows,
        "measured": {s.name: [asdict(m) for m in s.measured] for s in result.subjects if s.measured},
        "defended": {s.name: [asdict(d) for d in s.defended] for s in result.subjects if s.defended},
        "epsilons": {s.name: [asdict(e) for e in s.epsilons] for s in result.subjects if s.epsilons},
        "reconstructed": {s.name: [asdict(r) for r in s.reconstructed] for s in result.subjects if s.reconstructed},
        "costs": {c.step: c.seconds for c in result.costs},
        "environment": asdict(result.environment),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished audit, with its result.json")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    made = table(read_result(args.run))
    args.out.write_text(json.dumps(made, indent=1) + "\n")
    for row in made["rows"]:  # type: ignore[attr-defined]
        if row["game"] in ("forgetting", "difference-never", "difference-kept"):
            rates = row["tpr_low_high_realised_fpr_grey"].get("0.01")
            print(
                f"{row['attack']:28} {row['game']:16} {row['models']:10} {row['subject']:8} AUC {row['auc']:.3f} "
                + ("" if rates is None else f"TPR {rates[0]:.2%} at FPR {rates[3]:.2%}")
            )


if __name__ == "__main__":
    main()
