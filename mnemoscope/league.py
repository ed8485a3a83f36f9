"""The league: the plan's ways of deleting, audited on several kinds of forget sets and seeds, in one table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.verdict.league import LeagueEntry, LeagueTable, league_table, simultaneous_level
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.audit.work.plan import LeaguePlan, Plan, nearest
from mnemoscope.controller_key import key_file
from mnemoscope.one_model_round import run_one_model_round
from mnemoscope.pipeline import open_workspace, run_plan
from mnemoscope.preparation import PreparedAudit
from mnemoscope.progress import Progress
from mnemoscope.requests import by_request

__all__ = ["DIFFICULTIES", "run_league"]

Ids = NDArray[np.int64]

DIFFICULTIES = ("high-memorisation", "low-memorisation", "entangled")
"""Kinds of forget sets that a pilot's models choose; "random" needs none."""

NOTES = {
    "procedure": "Limits on the strongest attack hold for all attacks, both tails and the AUC at once, a row at a "
    "time; seeds are averaged, and so are their limits.",
    "one-model": "One model a seed was deleted from: attacks on single records have no more than the retrained models "
    "to go by, and no verdict on the procedure is given; limits hold for all attacks, both tails and the AUC at once, "
    "a row at a time.",
}

WITHHELD = "Verdict words are withheld (league.verdicts = false in the plan): read the rates with their limits."

READ = 3
"""Numbers of an attack that places are read from: the rate in either tail, and the AUC."""


def run_league(
    plan: Plan, *, store: str | Path, out: Path | None = None, progress: Progress | None = None
) -> LeagueTable:
    """Audit every subject of a plan on every kind of forget set and seed of its ``[league]`` table.

    Args:
        plan: with ``[league]``; without one, random forget sets and seed 0.
        store: folder of finished work; what is there is not computed again.
        out: folder that receives ``league.json``, ``league.html``, and a folder for each audit; None writes nothing.
        progress: told of steps.

    Raises:
        InvalidInput: a kind of forget set that the mode does not know, named before any work.
    """
    league = plan.league or LeaguePlan()
    if league.mode == "procedure":
        allowed = ("random", *DIFFICULTIES)
        if unknown := [kind for kind in league.forget if kind not in allowed]:
            raise InvalidInput(
                f"league.forget={unknown[0]!r} is unknown{nearest(unknown[0], allowed)}; in mode 'procedure' allowed: "
                f"{', '.join(allowed)}. Classes and named records are deleted from in mode 'one-model'"
            )
    prepared = PreparedAudit(plan, progress=progress)
    level = prepared.policy.interval_level
    joint = {**plan.policy, "interval_level": simultaneous_level(level, READ * len(prepared.attacks))}
    # One key for all: a record has the same pseudonym in every audit of the league.
    key = None if out is None else key_file(out)
    entries, files = [], []
    for forget in league.forget:
        for seed in league.seeds:
            name = f"{forget.replace(':', '-').replace('/', '-')}-{seed}"
            one = replace(plan, name=f"{plan.name}: {forget}, seed {seed}", seed=seed, policy=joint, league=None)
            place = None if out is None else out / name
            result = _audit(one, league, forget, store=store, out=place, key=key, progress=progress)
            # Ranks compare methods on the same forgotten records, so the audit after each request is one by itself.
            for request, part in by_request(result):
                entries.append(LeagueEntry(f"{forget}, {request}" if request else forget, seed, part))
            files.append(f"{name}/result.json")
    table = league_table(
        entries,
        title=plan.name,
        digest=plan.digest,
        level=level,
        readings=frozenset(m.name for m in prepared.methods if getattr(m, "reading", False)),
        references=frozenset(m.name for m in prepared.methods if m.name == "retrain"),
        results=files,
        notes=(NOTES[league.mode], *([] if league.verdicts else [WITHHELD])),
        verdicts=league.verdicts,
    )
    if out is not None:
        from mnemoscope.reports.league import write_league

        write_league(table, out)
    return table


def _audit(
    plan: Plan,
    league: LeaguePlan,
    forget: str,
    *,
    store: str | Path,
    out: Path | None,
    key: Path | None,
    progress: Progress | None,
) -> AuditResult:
    if league.mode == "one-model":
        references = league.references
        return run_one_model_round(
            plan, forget, references=references, store=store, out=out, key=key, progress=progress
        )
    if forget != "random":
        plan = _on_difficult(plan, forget, league.share, store=store, progress=progress)
    return run_plan(plan, store=store, out=out, key=key, progress=progress)


def _on_difficult(plan: Plan, kind: str, share: float, *, store: str | Path, progress: Progress | None) -> Plan:
    """Return the plan with audited records of one kind of difficulty, as the models of the plan itself show it.

    As many records as before are trained on: what is no longer audited becomes background.
    """
    from mnemoscope.audit.work.store import Store

    prepared = PreparedAudit(plan, store=Store(store), progress=progress)
    ids = prepared.design.audited
    difficulty = record_difficulty(prepared, kind)
    chosen = np.sort(ids[np.argsort(-difficulty, kind="stable")[: max(1, round(share * ids.size))]])
    role = prepared.design.roles_of(ids)
    trained = float((role != Role.NEVER).mean())
    design = replace(
        plan.design,
        audited=int(chosen.size),
        records="ids:" + ",".join(str(i) for i in chosen),
        background=plan.design.background + round(trained * (ids.size - chosen.size)),
    )
    return replace(plan, design=design)


def record_difficulty(prepared: PreparedAudit, kind: str) -> NDArray[np.float64]:
    """Return how difficult each audited record is to forget, larger = more of the kind, (n,) float64.

    "high-memorisation": mean probability of the true class over models that saw the record minus that over models that
    did not (Feldman and Zhang 2020, arXiv 2008.03703); "low-memorisation" its negative. "entangled": nearness of the
    record's mean answer, by models that never saw it, to the mean answer of all records, in the spirit of the
    embedding-space entanglement of Zhao et al. 2024 (arXiv 2406.01257); they measure it between sets of penultimate
    features, of which recorded answers are what every model has.
    """
    workspace = open_workspace(prepared)
    design = prepared.design
    ids = design.audited
    labels = prepared.dataset.labels[prepared.dataset.positions(ids)]
    logits = workspace.answers(workspace.fleet("before"), ids)
    seen = design.roles_of(ids) != Role.NEVER
    if kind != "entangled":
        p = compute_signal("confidence", logits, labels)[:, :, 0]
        gap = _mean_where(p, seen) - _mean_where(p, ~seen)
        return gap if kind == "high-memorisation" else -gap
    z = logits[:, :, 0].astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    shares = np.exp(z)
    shares /= shares.sum(axis=-1, keepdims=True)
    mean = _mean_where(shares, ~seen[..., None])
    distance: NDArray[np.float64] = np.linalg.norm(mean - mean.mean(axis=0), axis=-1)
    return -distance


def _mean_where(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.where(mask, values, 0.0).sum(axis=0) / mask.sum(axis=0)
    return mean
