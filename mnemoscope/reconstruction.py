"""Attacks that recover data, run on the version pairs of an audit, and which classes of attack were executed at all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mnemoscope.audit.answers.reconstruction import Case, Reconstruction, VersionPair
from mnemoscope.audit.errors import InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.reconstruction import run_reconstruction
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import Coverage, Reconstructed

if TYPE_CHECKING:
    from mnemoscope.audit.work.orders import Replica
    from mnemoscope.audit.work.workspace import ModelRef, Workspace

__all__ = ["coverage", "reconstruct"]

TWINS: "tuple[Replica, ...]" = ("A", "B")
"""Retrained fleets that stand for two versions of which neither held the records."""

PAIRS = 4
"""Version pairs attacked: each is a model of its own, and the interval is over models."""


def reconstruct(
    attacks: Sequence[Reconstruction],
    workspace: "Workspace",
    after: Sequence["ModelRef"],
    *,
    seed: int,
    level: float,
) -> tuple[tuple[Reconstructed, ...], dict[str, str]]:
    """Attack the first version pairs of one subject, beside a control that holds nothing of the secret records.

    The control is the same question on retrained twins, which never held the records; for an attack that is told the
    records but for one attribute, it is the same pair and records that no version ever saw.

    Args:
        attacks: what is tried.
        workspace: where the models are.
        after: the subject's models after deletion.
        seed: the audit's root seed.
        level: confidence of intervals.

    Returns:
        A row for each attack that ran, and name -> reason for those that cannot work on these pairs.
    """
    rows: list[Reconstructed] = []
    refused: dict[str, str] = {}
    design = workspace.design
    chosen = list(range(min(PAIRS, design.n_models)))

    def cases(first: Sequence["ModelRef"], second: Sequence["ModelRef"], role: Role) -> list[Case]:
        one, two = (workspace.oracles([models[k] for k in chosen]) for models in (first, second))
        public = design.records(0, Role.POPULATION)
        made = []
        for k, earlier, later in zip(chosen, one, two, strict=True):
            trained = int(design.records(k, Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN).size)
            deleted = int(design.records(k, Role.FORGOTTEN).size)
            made.append(Case.of(VersionPair(earlier, later, public, trained, deleted), design.records(k, role)))
        return made

    for attack in attacks:
        if hasattr(attack, "decay") and workspace.recipe.optimizer == "sgd":
            attack = replace(attack, decay=workspace.recipe.weight_decay)  # type: ignore[type-var]
        rng = generator(seed, "reconstruction", attack.name)
        try:
            pairs = cases(workspace.fleet("before"), after, Role.FORGOTTEN)
            if attack.name == "attribute_inference":
                controls = cases(workspace.fleet("before"), after, Role.NEVER)
            else:
                one, two = (workspace.fleet("retrained", replica=replica) for replica in TWINS)
                controls = cases(one, two, Role.FORGOTTEN)
            found = run_reconstruction(attack, pairs, controls, rng=rng, level=level)
        except (InvalidInput, UnsupportedModel, MissingNeed) as error:
            refused[attack.name] = str(error)
            continue
        note = f"{found.note}; {found.n_models} pairs of versions; beyond chance {_text(found.advantage)}"
        note += "" if found.control_advantage is None else f", the control {_text(found.control_advantage)}"
        note += "".join(f"; {name} {value:.3g}" for name, value in found.details.items())
        rows.append(
            Reconstructed(
                found.name, "after", found.success, found.chance, found.unit, found.n, note, control=found.control
            )
        )
    return tuple(rows), refused


def _text(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not measured"
    shown = f"{estimate.value:+.3f}"
    return shown if estimate.ci is None else f"{shown} ({estimate.ci.lower:+.3f} to {estimate.ci.upper:+.3f})"


CLASSES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("attribute inference", ("attribute_inference",), "name attribute_inference in attacks.reconstructions"),
    ("model inversion", ("model_inversion",), "name model_inversion in attacks.reconstructions"),
    (
        "reconstruction",
        ("linear_reconstruction", "unlearning_inversion", "label_inversion"),
        "name one of them in attacks.reconstructions",
    ),
)
"""Classes that reconstruction attacks execute: (class, by what, what would provide it)."""


def coverage(
    attacks: Sequence[str], reconstructions: Sequence[str], refused: Mapping[str, str]
) -> tuple[Coverage, ...]:
    """Return which of the classes of attack that EDPB Opinion 28/2024 (paragraph 55) lists were executed here.

    Args:
        attacks: names of the membership attacks run.
        reconstructions: names of the reconstruction attacks run.
        refused: name -> reason for those that were asked for and cannot work on these models.
    """
    rows = [Coverage("membership inference", bool(attacks), tuple(attacks), "" if attacks else "no attack was run")]
    for name, able, remedy in CLASSES:
        ran = tuple(attack for attack in reconstructions if attack in able)
        reasons = [f"{attack}: {refused[attack]}" for attack in able if attack in refused]
        why = "; ".join(reasons) if reasons else "" if ran else f"not asked for: {remedy}"
        rows.append(Coverage(name, bool(ran), ran, why))
    rows += [
        Coverage("exfiltration", False, (), "a property of the system that serves the model, not of its files"),
        Coverage("regurgitation of training data", False, (), "does not apply: a classifier generates no data"),
    ]
    return tuple(rows)
