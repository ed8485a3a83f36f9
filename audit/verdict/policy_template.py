"""The commented policy that people start from: every key with its default, what it means, and why the default."""

import textwrap
from dataclasses import fields

from mnemoscope.audit.verdict.policy import Policy

__all__ = ["EXPLAINED", "policy_template"]

EXPLAINED: dict[str, tuple[str, str, str]] = {
    "alpha": (
        "False positive rate at which the endpoints are read.",
        "Left out, it is the smallest candidate at which the counts give the rule enough power; chosen from counts "
        "alone, before any score.",
        "0.01",
    ),
    "alpha_candidates": (
        "The rates that may be chosen, ascending.",
        "Attacks matter most where they are rarely wrong, so the smallest rate that the records can bear is best.",
        "",
    ),
    "min_power": (
        "Least simulated chance of WITHIN BOUND, when nothing leaks, at which a rate is used.",
        "Below it, an audit of a clean deletion would mostly end undecided, and its cost would be for nothing.",
        "",
    ),
    "tpr_ratio": (
        "P1, G1, G3: how many times the false positive rate the true positive rate may be.",
        "2 reads as: at most twice as often right as falsely alarmed; as a privacy parameter, an epsilon of 0.69.",
        "",
    ),
    "tpr_margin": (
        "P2: margin on the difference of true positive rates to retrained models.",
        "Left out, it is alpha: together with the rate of retrained models that is the ratio of 2 again.",
        "0.01",
    ),
    "auc_margin": (
        "P2: margin on the difference of AUC to retrained models.",
        "It is the chance that a forgotten record outranks a never-seen one: one pair in twenty may fall otherwise "
        "than after retraining, which some six hundred records a side can show.",
        "",
    ),
    "exposure_bound": (
        "P3: bound on the share of forgotten minus never-seen records beyond their own threshold.",
        "Left out, it is alpha: as many again as would stand out by chance.",
        "0.01",
    ),
    "retained_bound": (
        "P4: bound on the rise of the retained records' rate over retrained models.",
        "Left out, it is the larger of 0.02 and alpha: two more in a hundred found than retraining lets be found.",
        "0.02",
    ),
    "utility_margin": (
        "P5: accuracy that may be lost against retrained models.",
        "Two more wrong answers in a hundred; it flags a model and never makes it OUTSIDE BOUND.",
        "",
    ),
    "level": ("Confidence of every one-sided limit that decides.", "The usual error of one in twenty.", ""),
    "interval_level": ("Confidence of the two-sided intervals that are printed.", "The usual one.", ""),
    "equivalence_level": (
        "P2: the two-sided interval that must lie within the margin.",
        "0.90 is two one-sided tests with an error of one in twenty each.",
        "",
    ),
    "holm_level": (
        "Error of OUTSIDE BOUND over all attacks, endpoints and tails together.",
        "Many attacks are tried; without a correction a clean model would be accused by one of them.",
        "",
    ),
    "control_level": (
        "G2: error of the negative control.",
        "It ends an audit when it fails, so it may fail by chance once in a hundred audits only.",
        "",
    ),
    "control_permutations": ("G2: permutations of its test.", "They give a p-value of 0.01 to within 0.005.", ""),
    "fdr_level": ("False discoveries among the individuals that are listed.", "One in twenty names is wrong.", ""),
    "drift_level": (
        "p-value below which a classifier without the model counts as drift.",
        "Strict: drift takes P1 and P3 out of the decision.",
        "",
    ),
    "min_references": (
        "Retrained models from which P2 decides.",
        "With fewer, the spread between training seeds is not known well enough.",
        "",
    ),
    "references_for_a": (
        "Retrained models from which tier A is possible.",
        "With 19, one model further out than all of them has a chance of one in twenty.",
        "",
    ),
    "duplicate_distance": (
        "G4: records nearer than this share of the norm count as near duplicates.",
        "A copy with a little noise lies below it; look at the pairs that are found, and set it for your data.",
        "",
    ),
    "max_duplicate_share": (
        "G4: share of forget records with a duplicate elsewhere that is still allowed.",
        "A duplicate that stayed keeps its twin's signal; a hundredth cannot move a rate by more than that.",
        "",
    ),
    "near_chance": (
        "Agreement with the labels (Cohen's kappa) at which labels or preprocessing are probably wrong.",
        "A model that knows nothing scores 0; hours of attacks on wrong labels are spared.",
        "",
    ),
    "primary_attack": (
        "The attack that decides WITHIN BOUND.",
        "Left out, it is the first of primary_order that the input allows.",
        '"lira"',
    ),
    "primary_order": (
        "Attacks from strongest to weakest.",
        "From attacks that model each record by itself to those that model none.",
        "",
    ),
    "power_runs": (
        "Simulated audits behind a printed power.",
        "200 give a chance of 0.7 to within about six points.",
        "",
    ),
    "power_retained_factor": (
        "Rate of retained records assumed in the power simulation, in units of alpha.",
        "Nobody knows it before the first score; 10 stands for a model that knows its records well.",
        "",
    ),
    "claimed_epsilon": (
        "P7: epsilon of a claim of certified removal that is to be tested.",
        "Left out: no claim is made. It can be refuted here, never confirmed.",
        "1.0",
    ),
    "claimed_delta": ("P7: delta of the claim.", "A claim without one has 0.", ""),
    "profile": (
        '"full", or "smoke" for a short run that only shows that the pipeline works.',
        "A smoke run is NOT ASSESSED on purpose, whatever its numbers are, so that nobody quotes it.",
        "",
    ),
}
"""Every key of the policy: what it means, why its default, and an example where the default is to leave it out."""

HEAD = """\
# A policy for mnemoscope: what "within bound" means for you. No authority set these numbers: they are defaults of the
# tool, and whoever answers for the model may replace them. Check it:  mnemoscope policy check {name}
#
# Name it in a plan, above the first table, as  policy = "{name}"  or give it to compare and scores as --policy.
# It is fixed with the plan before the first score; a gate with other bounds states nothing.
# Rates are proportions between 0 and 1, never percent.

reason = ""       # why these bounds, as a whole: for which model, which release, which people

[owner]           # who answers for the bounds
name = ""
role = ""

[policy]
"""

TAIL = """
[reasons]         # why a bound has its value, key by key; say it at least for what you change
# auc_margin = "..."

[gate]            # what `mnemoscope gate` asks for beside the words; a bound that is exceeded blocks always
# subjects = ["finetune"]         # which subjects count; by default all but noop, the control that deletes nothing
inconclusive = "block"            # or "warn": undecided then passes with a warning
controls = "block"                # or "warn": a word without G1 (could the attack see?) or G2 (does it see ghosts?)
exploratory = "block"             # or "warn": the plan was not fixed before the first score
not_fit_for_use = "block"         # or "warn": the model lost more accuracy than utility_margin
# min_tier = "B"                  # least assurance: A, B, C or D
# max_age_days = 90               # a model in service changes; how old may the result be
# attacks = ["lira"]              # must have produced a number
# coverage = ["membership inference"]     # classes of attack that must have been executed
# gates = ["G4", "G5"]            # must have been run and passed
"""


def policy_template(name: str = "policy.toml") -> str:
    """Return a commented policy to start from; read back, it is the default policy.

    Args:
        name: of the file, for its comments; what does not fit a comment is left out of it.
    """
    shown = "".join(c for c in name if c.isprintable() and c not in '"\\{}') or "policy.toml"
    lines = [HEAD.replace("{name}", shown)]
    for f in fields(Policy):
        meaning, why, example = EXPLAINED[f.name]
        default = f.default
        lines += [f"# {line}" for text in (meaning, f"Why: {why}") for line in textwrap.wrap(text, 116)]
        lines.append(f"# {f.name} = {example}" if default is None else f"{f.name} = {_toml(default)}")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n" + TAIL


def _toml(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return repr(value)
