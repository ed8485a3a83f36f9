"""The user's policy: bounds, margins and levels, fixed before any score and printed in every report.

No authority set these numbers: they are defaults that a controller may replace, in TOML.
"""

import difflib
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from mnemoscope.audit.errors import InvalidInput

__all__ = ["BESIDE", "POWER_SHOWN_AT_MOST", "Policy", "load_policy", "policy_values"]

POWER_SHOWN_AT_MOST = 0.98
"""A simulated power of 1.00 would promise more than 200 simulated audits can know."""

_RATES = (
    "level", "interval_level", "equivalence_level", "holm_level", "control_level", "min_power", "fdr_level",
    "drift_level", "auc_margin", "utility_margin", "max_duplicate_share",
)  # fmt: skip
_OPTIONAL_RATES = ("alpha", "tpr_margin", "exposure_bound", "retained_bound")
BESIDE = ("owner", "reason", "reasons", "gate")
"""What may stand beside the bounds in a policy; ``policy_file`` reads it."""

LARGEST_FILE = 1 << 20
"""Bytes of a policy file: a few hundred lines fit many times over."""

_COUNTS = ("min_references", "references_for_a", "control_permutations", "power_runs")


Profile = Literal["full", "smoke"]


@dataclass(frozen=True)
class Policy:
    """What "within bound" means. All rates are proportions in (0, 1), never percent.

    Attributes:
        alpha: false-alarm rate of the endpoints; None = the smallest candidate the counts bear.
        alpha_candidates: the rates that may be chosen, ascending.
        min_power: least simulated probability of WITHIN BOUND, when nothing leaks, at which an alpha is used.
        tpr_ratio: P1, G1 and G3: how many times alpha the rate may be (2 = at most twice as often right as falsely
            alarmed, epsilon 0.69).
        tpr_margin: P2: margin on the TPR difference to retrained models; None = alpha.
        auc_margin: P2: margin on the AUC difference to retrained models.
        exposure_bound: P3: bound on the exceedance share of forgotten minus never-seen records; None = alpha.
        retained_bound: P4: bound on the rise of the retained records' TPR over retrained; None = max(0.02, alpha).
        utility_margin: P5: accuracy that may be lost against retrained models.
        level: confidence of every one-sided limit that decides (P1, P3, P4, P5, G1, G3).
        interval_level: confidence of the two-sided intervals that are printed.
        equivalence_level: P2: two-sided interval that must lie within the margin (0.90 = two tests at 5 %).
        holm_level: family-wise error of OUTSIDE BOUND over attacks x endpoints x tails.
        control_level: G2: error of the negative control.
        control_permutations: G2: permutations of the joint max-T test.
        fdr_level: false-discovery rate of the list of exposed individuals.
        drift_level: p-value below which the classifier without the model counts as drift.
        min_references: retrained models from which P2 decides; below it P2 is description.
        references_for_a: retrained models from which tier A is possible.
        duplicate_distance: G4: pairs nearer than this share of the norm count as near duplicates.
        max_duplicate_share: G4: share of forget records with a duplicate that is still allowed.
        near_chance: the sanity line: holdout agreement with the labels, Cohen's kappa, at or below which labels or
            preprocessing are probably wrong.
        primary_attack: name of the attack that decides WITHIN; None = the first of ``primary_order`` that is run.
        primary_order: names from strongest to weakest.
        power_runs: simulated audits behind a printed power (one-model mode, which is cheap, uses ten times as many).
        power_retained_factor: TPR of retained records assumed in the power simulation, in units of alpha.
        claimed_epsilon: P7: epsilon of a claim of certified removal that is to be tested; None = no claim.
        claimed_delta: P7: delta of the claim, in [0, 1).
        profile: "full", or "smoke" for a run that only shows that the pipeline works: its word is NOT ASSESSED on
            purpose, whatever the numbers are.
    """

    alpha: float | None = None
    alpha_candidates: tuple[float, ...] = (0.001, 0.01, 0.05, 0.1)
    min_power: float = 0.70
    tpr_ratio: float = 2.0
    tpr_margin: float | None = None
    auc_margin: float = 0.05
    exposure_bound: float | None = None
    retained_bound: float | None = None
    utility_margin: float = 0.02
    level: float = 0.95
    interval_level: float = 0.95
    equivalence_level: float = 0.90
    holm_level: float = 0.05
    control_level: float = 0.01
    control_permutations: int = 1999
    fdr_level: float = 0.05
    drift_level: float = 0.01
    min_references: int = 5
    references_for_a: int = 19
    duplicate_distance: float = 0.05
    max_duplicate_share: float = 0.01
    near_chance: float = 0.05
    primary_attack: str | None = None
    primary_order: tuple[str, ...] = (
        "lira",
        "lira_offline",
        "rmia",
        "rmia_offline",
        "population",
        "modified_entropy",
    )
    power_runs: int = 200
    power_retained_factor: float = 10.0
    claimed_epsilon: float | None = None
    claimed_delta: float = 0.0
    profile: Profile = "full"

    def __post_init__(self) -> None:
        for name in (*_RATES, *_OPTIONAL_RATES, "duplicate_distance", "near_chance"):
            value = getattr(self, name)
            if value is None and name in _OPTIONAL_RATES:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise InvalidInput(f"policy.{name}={value!r}: must be a proportion between 0 and 1 (not percent)")
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInput(f"policy.{name}={value!r}: must be a whole number of at least 1")
        for name, least in (("tpr_ratio", 1.0), ("power_retained_factor", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < float("inf"):
                raise InvalidInput(f"policy.{name}={value!r}: must be a finite number above {least:g}")
        claim, delta = self.claimed_epsilon, self.claimed_delta
        number = isinstance(claim, int | float) and not isinstance(claim, bool)
        if claim is not None and not (number and 0 <= claim < 1e6):
            raise InvalidInput(f"policy.claimed_epsilon={claim!r}: must be a number of at least 0, or be left out")
        if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 <= delta < 1:
            raise InvalidInput(f"policy.claimed_delta={delta!r}: must lie in [0, 1)")
        candidates = self.alpha_candidates
        if not candidates or any(
            isinstance(a, bool) or not isinstance(a, int | float) or not 0 < a < 0.5 for a in candidates
        ):
            raise InvalidInput(
                f"policy.alpha_candidates={candidates!r}: give one or more proportions between 0 and 0.5"
            )
        if list(candidates) != sorted(set(candidates)):
            raise InvalidInput(f"policy.alpha_candidates={candidates!r}: must ascend, each once")
        if not all(isinstance(name, str) and name for name in self.primary_order):
            raise InvalidInput(f"policy.primary_order={self.primary_order!r}: must hold names of attacks")
        if self.primary_attack is not None and not (isinstance(self.primary_attack, str) and self.primary_attack):
            raise InvalidInput(f"policy.primary_attack={self.primary_attack!r}: must be the name of an attack")
        if self.profile not in get_args(Profile):
            raise InvalidInput(f"policy.profile={self.profile!r}: allowed are 'full' and 'smoke'")

    def tpr_bound(self, alpha: float) -> float:
        """P1's bound on the TPR at this alpha (also G1's and G3's)."""
        return min(1.0, self.tpr_ratio * alpha)

    def tpr_margin_at(self, alpha: float) -> float:
        """P2's margin on the TPR difference at this alpha."""
        return alpha if self.tpr_margin is None else self.tpr_margin

    def exposure_bound_at(self, alpha: float) -> float:
        """P3's bound on the difference of exceedance shares at this alpha."""
        return alpha if self.exposure_bound is None else self.exposure_bound

    def retained_bound_at(self, alpha: float) -> float:
        """P4's bound on the rise of the retained records' TPR at this alpha."""
        return max(0.02, alpha) if self.retained_bound is None else self.retained_bound

    def candidates(self) -> tuple[float, ...]:
        """The rates to consider, ascending: the given alpha alone, or all candidates."""
        return self.alpha_candidates if self.alpha is None else (self.alpha,)

    def choose_primary(self, names: "tuple[str, ...] | list[str]") -> str:
        """Name the attack that decides WITHIN among those that can run: the policy's, else the first in its order.

        Raises:
            InvalidInput: no names, or the policy's primary attack is not among them.
        """
        if not names:
            raise InvalidInput("no attack can run on this input: provide what at least one attack needs")
        if self.primary_attack is not None:
            if self.primary_attack not in names:
                raise InvalidInput(
                    f"policy.primary_attack={self.primary_attack!r} cannot run here; attacks that can: "
                    f"{', '.join(names)}. Choose one of these or provide what it needs"
                )
            return self.primary_attack
        ranked = [name for name in self.primary_order if name in names]
        return ranked[0] if ranked else names[0]

    def as_dict(self) -> dict[str, str | int | float | bool | None]:
        """The policy as flat values for ``PlanSummary.policy``; tuples become comma-separated text."""
        return {
            key: ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
            if isinstance(value, tuple)
            else value
            for key, value in asdict(self).items()
        }

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON (RFC 8785) of all fields."""
        import rfc8785

        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if values["profile"] == "full":  # policies made before there was such a key keep their digest
            del values["profile"]
        return "sha256:" + hashlib.sha256(rfc8785.dumps(values)).hexdigest()


def load_policy(source: "Policy | Path | str | Mapping[str, object] | None" = None) -> Policy:
    """Read a policy; what is not given keeps its default.

    Args:
        source: a TOML file (keys at the top or under ``[policy]``), a mapping, a ``Policy``, or None = defaults. What
            stands beside the bounds (``BESIDE``) is checked and left to ``policy_file.read_policy``.

    Raises:
        InvalidInput: the file cannot be read, a key is unknown (the nearest is suggested), or a value is not allowed.

    >>> load_policy({"alpha": 0.05}).tpr_bound(0.05)
    0.1
    """
    if source is None:
        return Policy()
    if isinstance(source, Policy):
        return source
    values = policy_values(source)
    if any(key in values for key in BESIDE):
        from mnemoscope.audit.verdict.policy_file import read_policy

        return read_policy(values).bounds
    known = [f.name for f in fields(Policy)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise InvalidInput(f"policy: unknown key {key!r}; {hint}")
    clean = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for key in ("alpha_candidates", "primary_order"):
        if key in clean and not isinstance(clean[key], tuple):
            raise InvalidInput(f"policy.{key}={clean[key]!r}: must be a list")
    return Policy(**clean)  # type: ignore[arg-type]


def policy_values(source: "Path | str | Mapping[str, object]") -> dict[str, object]:
    """Return the keys of a policy in one flat mapping, with what stands beside the bounds (``BESIDE``) as it is.

    Args:
        source: a TOML file, or a mapping: keys at the top, or bounds under ``[policy]``.

    Raises:
        InvalidInput: the file cannot be read, or a key stands where it cannot.
    """
    values = _read_toml(Path(source)) if isinstance(source, str | Path) else dict(source)
    inner = values.get("policy")
    if not isinstance(inner, Mapping):
        return values
    extra = sorted(set(values) - {"policy", *BESIDE})
    if extra:
        raise InvalidInput(f"policy: keys {', '.join(extra)} stand outside of [policy]; move them into it")
    outside = {key: value for key, value in values.items() if key != "policy"}
    twice = sorted(set(outside) & set(inner))
    if twice:
        raise InvalidInput(f"policy: {', '.join(twice)} is given both inside and outside of [policy]; give it once")
    return {**inner, **outside}


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidInput(
            f"policy file {path}: cannot be read ({error.strerror}); give an existing TOML file"
        ) from error
    if len(data) > LARGEST_FILE:
        raise InvalidInput(f"policy file {path}: is larger than {LARGEST_FILE:,} bytes; is it a policy?")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"policy file {path}: is not valid TOML ({error}); correct it") from error
