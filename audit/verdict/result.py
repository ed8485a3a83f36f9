"""The result document: one JSON source for every view. Rates in [0, 1], times in seconds, never NaN."""

from dataclasses import dataclass, field
from typing import Literal

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.class_rows import ClassRow
from mnemoscope.audit.verdict.declared import Declared
from mnemoscope.audit.verdict.evidence_files import EvidenceFile
from mnemoscope.audit.verdict.individual_rows import Individual
from mnemoscope.audit.verdict.policy_record import Deviation, PolicyRecord
from mnemoscope.audit.verdict.record_map import RecordMap
from mnemoscope.audit.verdict.request_rows import RequestRow
from mnemoscope.audit.verdict.sensitivity_rows import SensitivityRow
from mnemoscope.audit.verdict.tuned import Tuned
from mnemoscope.audit.verdict.worst_case_rows import WorstCase

__all__ = [
    "SCHEMA_VERSION",
    "AuditResult",
    "Check",
    "ClassRow",
    "Cost",
    "Coverage",
    "Curve",
    "DataSummary",
    "Declared",
    "Defended",
    "Distribution",
    "Endpoint",
    "Environment",
    "EpsilonRow",
    "EvidenceFile",
    "ExposedRecord",
    "Finding",
    "GateResult",
    "Individual",
    "Limits",
    "Measured",
    "ModelGroup",
    "NotRun",
    "PlanSummary",
    "Reconstructed",
    "RecordMap",
    "RecordSet",
    "RequestRow",
    "SensitivityRow",
    "Subject",
    "TprAt",
    "Utility",
    "Verdict",
    "WorstCase",
]

SCHEMA_VERSION = "1.5.0"

Word = Literal["WITHIN BOUND", "OUTSIDE BOUND", "INCONCLUSIVE", "NOT ASSESSED"]
Tier = Literal["A", "B", "C", "D"]
Tail = Literal["residual", "over-forgotten"]
ModelRole = Literal["before", "after", "retrained", "no-op", "reseeded"]
Outcome = Literal["within", "beyond", "undecided", "not computed"]
GateStatus = Literal["pass", "fail", "not run", "not applicable"]


@dataclass(frozen=True)
class Verdict:
    """The word with its tier and why.

    Attributes:
        word: one of the four words.
        tier: assurance tier; None where no deletion verdict is possible.
        sentence: the fixed sentence of the word.
        meaning: what it means here, one plain sentence.
        reasons: why, most important first.
        flags: "exploratory", "not fit for use", ...
        direction: whether a signal found is residual or over-forgotten.
        next_step: what would decide it, and at what cost; empty when decided.
    """

    word: Word
    tier: Tier | None
    sentence: str
    meaning: str
    reasons: tuple[str, ...]
    flags: tuple[str, ...] = ()
    direction: Literal["residual", "over-forgotten", "both"] | None = None
    next_step: str = ""


@dataclass(frozen=True)
class Endpoint:
    """One decision of the verdict: an estimate against its bound.

    Attributes:
        id: "P1", "P2", "P3", "P4", "P5", "P6" or "P7".
        part: what is measured within it, e.g. "TPR, residual", "AUC difference".
        attack: attack it was computed with; empty for utility and structure.
        primary: whether it decides WITHIN (every other one can only add an OUTSIDE finding).
        required: whether WITHIN BOUND needs it.
        estimate: the number with its interval.
        bound: the policy's bound on it.
        outcome: within | beyond | undecided | not computed.
        p_value: one-sided p-value of "beyond the bound", before Holm; None where it is no test.
        detail: a sentence for the reader (or the reason why it was not computed).
    """

    id: str
    part: str
    attack: str
    primary: bool
    required: bool
    estimate: Estimate
    bound: float | None
    outcome: Outcome
    p_value: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class GateResult:
    """One validity gate, "G1" to "G8", or "drift"."""

    id: str
    title: str
    rule: str
    status: GateStatus
    observed: str
    fails_to: str


@dataclass(frozen=True)
class TprAt:
    """TPR at one target FPR and tail; ``grey`` between 1/n and 8/n non-members: shown, never an endpoint."""

    fpr: float
    tail: Tail
    tpr: Estimate
    realised_fpr: Estimate
    grey: bool


@dataclass(frozen=True)
class Finding:
    """One attack in one game on one set of models."""

    attack: str
    game: str
    models: ModelRole
    primary: bool
    auc: Estimate
    balanced_accuracy: Estimate
    tpr: tuple[TprAt, ...]
    n_in: int
    n_out: int
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Points of one ROC curve with a pointwise band, thinned for drawing."""

    attack: str
    game: str
    models: ModelRole
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n_in: int
    n_out: int


@dataclass(frozen=True)
class Distribution:
    """A histogram of one attack's scores for one group of (model, record) pairs."""

    attack: str
    game: str
    models: ModelRole
    group: Literal["in", "out"]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """A measure of forgetting over whole fleets, with what exact retraining scores beside it.

    Attributes:
        measure: its name.
        unit: e.g. "nats".
        direction: what a larger value means.
        value: of the models after deletion.
        floor: of retrained models in their place: what perfect forgetting scores.
        excess: value minus floor, record by record: the figure to read; None where it has none.
        no_op: of models to which nothing was done; None where it has none.
        n_models: models a side.
        n_records: forgotten records behind it.
        note: what the reader must know.
    """

    measure: str
    unit: str
    direction: str
    value: Estimate
    floor: Estimate
    n_models: int
    n_records: int
    note: str = ""
    excess: Estimate | None = None
    no_op: Estimate | None = None


@dataclass(frozen=True)
class Defended:
    """One attack against the same models behind a defence.

    Attributes:
        defence: what was done to the answers or to the training.
        attack: the primary attack where the defended answers still allow it, else the first of the plan that they do.
        game: the question asked.
        models: which models.
        auc: with its interval.
        tpr: at the audit's FPR, residual tail.
        fpr: that FPR; None where the counts bear none.
        test_accuracy: what the defence costs.
        note: what the reader must know.
    """

    defence: str
    attack: str
    game: str
    models: ModelRole
    auc: Estimate
    tpr: Estimate
    fpr: float | None
    test_accuracy: Estimate
    note: str = ""


@dataclass(frozen=True)
class EpsilonRow:
    """A lower bound on epsilon that follows from scores.

    Attributes:
        method: how it was computed.
        attack: whose scores.
        game: the question asked.
        models: which models.
        bound: the bound; 0 says that these scores show no leak, never that there is none.
        ceiling: the largest bound that this sample could ever show.
        level: confidence of the bound.
        delta: of (epsilon, delta).
        assumption: what it quantifies over, and under which model.
        fleet: which models, where they were trained otherwise than the audited ones; "" for those.
        claimed: epsilon that an accountant states for that training at the same delta, where this bound could refute
            it; None elsewhere.
        refuted: whether the bound, with its confidence, is above the claim: the claim is wrong then.
    """

    method: str
    attack: str
    game: str
    models: ModelRole
    bound: Estimate
    ceiling: float
    level: float
    delta: float
    assumption: str
    fleet: str = ""
    claimed: float | None = None
    refuted: bool = False


@dataclass(frozen=True)
class Reconstructed:
    """An attack that recovers data rather than scoring records.

    Attributes:
        attack: its name.
        models: which versions it was given.
        success: what it reached, with its interval.
        chance: the same without the models.
        unit: what ``success`` counts.
        n: trials.
        note: what was tried.
        control: success on pairs of models that never held the records; None where there are none.
    """

    attack: str
    models: ModelRole
    success: Estimate
    chance: Estimate
    unit: str
    n: int
    note: str = ""
    control: Estimate | None = None


@dataclass(frozen=True)
class Coverage:
    """Whether a class of attack that a reader expects was executed.

    Attributes:
        attack_class: e.g. "membership inference".
        executed: True where something of the class ran on these models.
        by: what ran, or what could.
        reason: why nothing ran, and what would provide it.
    """

    attack_class: str
    executed: bool
    by: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Utility:
    """Accuracy of one set of models on one set of records."""

    records: Literal["forget", "retain", "holdout", "test"]
    models: ModelRole
    accuracy: Estimate
    gap_to_retrained: Estimate | None = None


@dataclass(frozen=True)
class ExposedRecord:
    """One individual flagged under false-discovery control; restricted edition only, and there under its pseudonym."""

    record_id: int
    key: str
    p_value: float
    exposed_in: Estimate
    pseudonym: str = ""


@dataclass(frozen=True)
class ModelGroup:
    """Models of one kind, with digests so that a third party can tell them apart."""

    name: str
    role: ModelRole | Literal["shadow"]
    n_models: int
    digest: str
    description: str = ""
    method: str = ""
    tuned_on: str = ""


@dataclass(frozen=True)
class Subject:
    """One way of deleting, audited: verdict, its endpoints and gates, and all numbers behind it."""

    name: str
    method: str
    settings: dict[str, str | int | float | bool | None]
    verdict: Verdict
    endpoints: tuple[Endpoint, ...]
    gates: tuple[GateResult, ...]
    findings: tuple[Finding, ...]
    curves: tuple[Curve, ...]
    distributions: tuple[Distribution, ...]
    utility: tuple[Utility, ...]
    models: tuple[ModelGroup, ...]
    exposed: tuple[ExposedRecord, ...] = ()
    cost_fraction_of_retraining: float | None = None
    measured: tuple[Measured, ...] = ()
    defended: tuple[Defended, ...] = ()
    epsilons: tuple[EpsilonRow, ...] = ()
    reconstructed: tuple[Reconstructed, ...] = ()
    tuned: Tuned | None = None
    by_class: tuple[ClassRow, ...] = ()
    record_map: RecordMap | None = None
    individuals: tuple[Individual, ...] = ()
    sensitivity: tuple[SensitivityRow, ...] = ()
    worst_case: tuple[WorstCase, ...] = ()


@dataclass(frozen=True)
class RecordSet:
    """How many records play a role.

    Attributes:
        role: the role.
        n_records: how many.
        digest: which: the root of a keyed commitment where ``keyed``, else a hash that who can list the records can
            repeat.
        note: what the reader must know.
        keyed: whether the digest needs the controller's key to be computed again.
    """

    role: str
    n_records: int
    digest: str
    note: str = ""
    keyed: bool = False


@dataclass(frozen=True)
class Check:
    """A pre-flight check with its outcome: duplicates, drift, sanity of accuracies."""

    id: str
    title: str
    status: GateStatus
    observed: str
    remedy: str = ""


@dataclass(frozen=True)
class DataSummary:
    """The data set and its record sets."""

    name: str
    digest: str
    n_records: int
    n_classes: int
    shape: tuple[int, ...]
    sets: tuple[RecordSet, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Limits:
    """What this input can say at most (verdict.md): the tier's cap and why."""

    highest_tier: Tier | None
    may_say: str
    cannot_say: str


@dataclass(frozen=True)
class PlanSummary:
    """What was fixed before the first score.

    Attributes:
        digest: of the canonical plan with its policy.
        policy: the resolved policy, key -> value.
        primary_attack: the attack that decides WITHIN.
        attacks: all attacks run.
        alpha: the FPR of the endpoints; None where the counts bear none.
        alpha_source: "given" or "chosen from counts".
        power: simulated probability of WITHIN BOUND for the whole rule when nothing leaks, never above 0.98.
        power_by_alpha: the same for each candidate alpha ("0.01" -> 0.98).
        committed_before_scores: False makes the audit exploratory.
        seed: root seed; -1 in the public edition, where it would say which records were drawn.
        decided: who decided the policy, why, and the gate's rules that were fixed with it; None where it says nothing.
        deviations: what differs from the plan that was committed first; only an exploratory audit has any.
    """

    digest: str
    policy: dict[str, str | int | float | bool | None]
    primary_attack: str
    attacks: tuple[str, ...]
    alpha: float | None
    alpha_source: str
    power: Estimate
    power_by_alpha: dict[str, float]
    committed_before_scores: bool
    seed: int
    decided: PolicyRecord | None = None
    deviations: tuple[Deviation, ...] = ()


@dataclass(frozen=True)
class Environment:
    """Versions and hardware."""

    mnemoscope: str
    python: str
    platform: str
    packages: dict[str, str]
    cpu: str
    cores: int
    memory_bytes: int
    device: str


@dataclass(frozen=True)
class Cost:
    """Seconds of one step; tasks computed now and reused from the store."""

    step: str
    seconds: float
    computed: int = 0
    reused: int = 0


@dataclass(frozen=True)
class NotRun:
    """Something a reader may expect that was not run, with what would provide it."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class AuditResult:
    """Everything one audit found. ``mode`` says which question could be asked at all.

    ``evidence`` lists the files beside it that it can be recomputed from; ``log_head`` is the digest of the last line
    of their hash-chained log, "" where none was kept.
    """

    title: str
    mode: Literal["procedure", "one-model", "membership"]
    created_at: str
    data: DataSummary
    plan: PlanSummary
    limits: Limits
    subjects: tuple[Subject, ...]
    environment: Environment
    costs: tuple[Cost, ...]
    not_run: tuple[NotRun, ...]
    limitations: tuple[str, ...]
    schema_version: str = SCHEMA_VERSION
    edition: Literal["public", "internal", "restricted"] = "internal"
    coverage: tuple[Coverage, ...] = ()
    requests: tuple[RequestRow, ...] = ()
    declared: Declared | None = None
    warnings: tuple[str, ...] = field(default=())
    evidence: tuple[EvidenceFile, ...] = ()
    log_head: str = ""
