"""Attacks that recover data, run on the version pairs of an audit, and which classes of attack were executed at all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnemoscope.audit.answers.reconstruction import Case, Reconstruction, VersionPair
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.reconstruction import run_reconstruction
from mnemoscope.audit.verdict.result import Coverage, Reconstructed

if TYPE_CHECKING:
    from mnemoscope.audit.work.workspace import ModelRef, Workspace

__all__ = ["coverage", "reconstruct"]

PAIRS = 4
"""Version pairs attacked: each is a model of its own, and the interval is over models."""


def reconstruct(
    attacks: Sequence[Reconstruction],
    workspace: "Workspace",
    after: Sequence["ModelRef"],
    *,
    seed: int,
    level: float,
) -> tuple[Reconstructed, ...]:
    """Attack the first version pairs of one subject; pairs of retrained twins, which never held the records, control.

    Args:
        attacks: what is tried.
        workspace: where the models are.
        after: the subject's models after deletion.
        seed: the audit's root seed.
        level: confidence of intervals.
    """
    if not attacks:
        return ()
    design = workspace.design
    chosen = list(range(min(PAIRS, design.n_models)))

    def cases(first: Sequence["ModelRef"], second: Sequence["ModelRef"]) -> list[Case]:
        one, two = (workspace.oracles([models[k] for k in chosen]) for models in (first, second))
        public = design.records(0, Role.POPULATION)
        made = []
        for k, earlier, later in zip(chosen, one, two, strict=True):
            deleted = design.records(k, Role.FORGOTTEN)
            pair = VersionPair(earlier, later, public, _trained(design, k), int(deleted.size))
            made.append(Case.of(pair, deleted))
        return made

    pairs = cases(workspace.fleet("before"), after)
    controls = cases(workspace.fleet("retrained", replica="A"), workspace.fleet("retrained", replica="B"))
    rows = []
    for attack in attacks:
        rng = generator(seed, "reconstruction", attack.name)
        found = run_reconstruction(attack, pairs, controls, rng=rng, level=level)
        details = ", ".join(f"{name} {value:.3g}" for name, value in found.details.items())
        note = f"{found.note}; {found.n_models} pairs of versions" + (f"; {details}" if details else "")
        rows.append(
            Reconstructed(
                found.name, "after", found.success, found.chance, found.unit, found.n, note, control=found.control
            )
        )
    return tuple(rows)


def _trained(design: Design, model: int) -> int:
    return int(design.records(model, Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN).size)


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


def coverage(attacks: Sequence[str], reconstructions: Sequence[str]) -> tuple[Coverage, ...]:
    """Return which of the classes of attack that EDPB Opinion 28/2024 (paragraph 55) lists were executed here.

    Args:
        attacks: names of the membership attacks run.
        reconstructions: names of the reconstruction attacks run.
    """
    rows = [Coverage("membership inference", bool(attacks), tuple(attacks), "" if attacks else "no attack was run")]
    for name, able, remedy in CLASSES:
        ran = tuple(attack for attack in reconstructions if attack in able)
        rows.append(Coverage(name, bool(ran), ran, "" if ran else f"not asked for: {remedy}"))
    rows += [
        Coverage("exfiltration", False, (), "this audit holds the model itself; how well it is guarded is not tested"),
        Coverage("regurgitation of training data", False, (), "a classifier generates no data"),
    ]
    return tuple(rows)
