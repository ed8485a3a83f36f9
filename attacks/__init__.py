"""One file an attack; ``ATTACKS`` names them all and loads a file only when its attack is made."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.answers.reconstruction import Reconstruction
from mnemoscope.audit.statistics.measures import Measure

__all__ = [
    "ATTACKS",
    "DEFAULT_ATTACKS",
    "DEFAULT_MEASURES",
    "DEFAULT_VERSION_ATTACKS",
    "DEFAULT_VERSION_ATTACKS_ALONE",
    "MEASURES",
    "RECONSTRUCTIONS",
]


def _make(module: str, kind: str, **settings: str | int | float | bool) -> Attack:
    attack: Attack = getattr(import_module(f"mnemoscope.attacks.{module}"), kind)(**settings)
    return attack


def _make_measure(module: str, kind: str, **settings: str | int | float | bool) -> Measure:
    measure: Measure = getattr(import_module(f"mnemoscope.attacks.{module}"), kind)(**settings)
    return measure


ATTACKS: dict[str, Callable[..., Attack]] = {
    "lira": partial(_make, "lira", "LiRA"),
    "lira_shared": partial(_make, "lira", "LiRA", variance="shared"),
    "lira_per_record": partial(_make, "lira", "LiRA", variance="per-record"),
    "lira_offline": partial(_make, "lira", "LiRA", online=False),
    "lira_offline_shared": partial(_make, "lira", "LiRA", online=False, variance="shared"),
    "lira_offline_per_record": partial(_make, "lira", "LiRA", online=False, variance="per-record"),
    "lira_finite_population": partial(_make, "lira_corrected", "LiRAFinitePopulation"),
    "lira_calibrated": partial(_make, "lira_corrected", "LiRACalibrated"),
    "bavaria_n": partial(_make, "bavaria", "BaVarIA"),
    "bavaria_t": partial(_make, "bavaria", "BaVarIA", form="t"),
    "bavaria_n_offline": partial(_make, "bavaria", "BaVarIA", online=False),
    "bavaria_t_offline": partial(_make, "bavaria", "BaVarIA", form="t", online=False),
    "base": partial(_make, "base", "BASE"),
    "base_offline": partial(_make, "base", "BASE", online=False, scale=0.33),
    "base_offline_tuned": partial(_make, "base", "BASE", online=False, scale="tuned"),
    "base2": partial(_make, "base", "LinearBASE", parameters=2),
    "base3": partial(_make, "base", "LinearBASE", parameters=3),
    "difficulty": partial(_make, "difficulty", "Difficulty"),
    "sablayrolles": partial(_make, "sablayrolles", "Sablayrolles"),
    "attack_s": partial(_make, "ye", "AttackS"),
    "attack_r": partial(_make, "ye", "AttackR"),
    "quantile": partial(_make, "quantile", "Quantile"),
    "quantile_by_class": partial(_make, "quantile", "QuantileByClass"),
    "rmia": partial(_make, "rmia", "RMIA"),
    "rmia_offline": partial(_make, "rmia", "RMIA", online=False),
    "rmia_offline_tuned": partial(_make, "rmia", "RMIA", online=False, offline_a="tuned"),
    "population": partial(_make, "population", "Population"),
    "loss": partial(_make, "threshold", "Threshold", rule="loss"),
    "confidence": partial(_make, "threshold", "Threshold", rule="confidence"),
    "entropy": partial(_make, "threshold", "Threshold", rule="entropy"),
    "modified_entropy": partial(_make, "threshold", "Threshold", rule="modified_entropy"),
    "correctness": partial(_make, "threshold", "Threshold", rule="correctness"),
    "loss_by_class": partial(_make, "threshold", "Threshold", rule="loss", by_class=True),
    "confidence_by_class": partial(_make, "threshold", "Threshold", rule="confidence", by_class=True),
    "entropy_by_class": partial(_make, "threshold", "Threshold", rule="entropy", by_class=True),
    "modified_entropy_by_class": partial(_make, "threshold", "Threshold", rule="modified_entropy", by_class=True),
    "correctness_by_class": partial(_make, "threshold", "Threshold", rule="correctness", by_class=True),
    "difference": partial(_make, "difference", "Difference"),
    "difference_sorted_diff": partial(_make, "difference", "Difference", feature="sorted_diff"),
    "difference_l2_distance": partial(_make, "difference", "Difference", feature="l2_distance"),
    "difference_direct_diff_tree": partial(_make, "difference", "Difference", feature="direct_diff", classifier="tree"),
    "difference_direct_concat_tree": partial(
        _make, "difference", "Difference", feature="direct_concat", classifier="tree"
    ),
    "difference_sorted_basic": partial(_make, "difference", "Difference", feature="sorted_basic"),
    "difference_tree": partial(_make, "difference", "Difference", classifier="tree"),
    "difference_forest": partial(_make, "difference", "Difference", classifier="forest"),
    "difference_mlp": partial(_make, "difference", "Difference", classifier="mlp"),
    "difference_margin": partial(_make, "difference_margin", "DifferenceMargin"),
    "difference_margin_offline": partial(_make, "difference_margin", "DifferenceMargin", online=False),
    "difference_margin_by_class": partial(_make, "difference_margin", "DifferenceMarginAlone", by_class=True),
    "difference_margin_uncalibrated": partial(_make, "difference_margin", "DifferenceMarginAlone"),
    "boundary_distance": partial(_make, "boundary_distance", "BoundaryDistance"),
    "gradient_norm": partial(_make, "gradient_norm", "GradientNorm"),
    "gradient_norm_last_layer": partial(_make, "gradient_norm", "GradientNorm", layers="last"),
    "gradient_norm_calibrated": partial(_make, "gradient_norm", "GradientNorm", calibrated=True),
    "gradient_alignment": partial(_make, "gradient_alignment", "GradientAlignment"),
    "gradient_alignment_deletion": partial(_make, "gradient_alignment", "GradientAlignment", direction="deletion"),
    "loss_trajectory": partial(_make, "trajectory", "LossTrajectory"),
    "attack_d": partial(_make, "distillation", "AttackD"),
    "label_augmentation": partial(_make, "label_augmentation", "LabelAugmentation"),
    "label_augmentation_count": partial(_make, "label_augmentation", "LabelAugmentation", classifier="count"),
    "label_rotation": partial(_make, "label_augmentation", "LabelAugmentation", family="rotations"),
    "label_rotation_count": partial(
        _make, "label_augmentation", "LabelAugmentation", family="rotations", classifier="count"
    ),
    "label_noise": partial(_make, "label_augmentation", "LabelAugmentation", family="noise", classifier="count"),
    "label_flips": partial(_make, "label_augmentation", "LabelAugmentation", family="flips", classifier="count"),
    "u_lira": partial(_make, "u_lira", "ULiRA"),
    "ruli": partial(_make, "ruli", "Ruli"),
    "iam": partial(_make, "iam", "IAM"),
    "iam_offline": partial(_make, "iam", "IAM", fitted="perfect"),
    "samia": partial(_make, "samia", "Samia"),
    "shokri": partial(_make, "shokri", "Shokri"),
    "shokri_log": partial(_make, "shokri", "Shokri", scale="log"),
    "shokri_forest": partial(_make, "shokri", "Shokri", classifier="forest"),
    "shokri_mlp": partial(_make, "shokri", "Shokri", classifier="mlp"),
    "ml_leaks_1": partial(_make, "ml_leaks", "MLLeaks"),
    "ml_leaks_2": partial(_make, "ml_leaks", "MLLeaks", adversary=2),
    "ml_leaks_3": partial(_make, "ml_leaks", "MLLeaksUnsupervised"),
    "svm_correctness": partial(_make, "svm", "SVM", feature="correctness"),
    "svm_confidence": partial(_make, "svm", "SVM"),
    "svm_entropy": partial(_make, "svm", "SVM", feature="entropy"),
    "svm_modified_entropy": partial(_make, "svm", "SVM", feature="modified_entropy"),
    "svm_probability": partial(_make, "svm", "SVM", feature="probability"),
    "svm_modified_entropy_as_published": partial(_make, "svm", "SVM", feature="modified_entropy_as_published"),
    "ensemble": partial(_make, "ensemble", "Ensemble"),
}
"""Every attack by name; an entry also takes other settings of the attack, e.g. ``ATTACKS["rmia"](gamma=1.0)``."""

MEASURES: dict[str, Callable[..., Measure]] = {
    "klom": partial(_make_measure, "klom", "Klom"),
    "klom_gaussian": partial(_make_measure, "klom", "Klom", estimator="gaussian"),
    "forgetting_quality": partial(_make_measure, "forgetting_quality", "ForgettingQuality"),
    "loss_tnr_reading": partial(_make_measure, "tail", "LossTail"),
    "swap": partial(_make_measure, "swap", "Swap"),
    "ruli_efficacy": partial(_make_measure, "ruli_efficacy", "RuliEfficacy"),
    "gaussian_poisoning": partial(_make_measure, "gaussian_poisoning", "GaussianPoisoning"),
    "relearn_time": partial(_make_measure, "relearn_time", "RelearnTime"),
}
"""Every measure of forgetting by name: functions of whole fleets, each with its floor beside it."""


def _reconstruction(module: str, kind: str, **settings: str | int | float | bool) -> Reconstruction:
    made: Reconstruction = getattr(import_module(f"mnemoscope.attacks.{module}"), kind)(**settings)
    return made


RECONSTRUCTIONS: dict[str, Callable[..., Reconstruction]] = {
    "linear_reconstruction": partial(_reconstruction, "linear_reconstruction", "LinearReconstruction"),
    "unlearning_inversion": partial(_reconstruction, "unlearning_inversion", "UnlearningInversion"),
    "label_inversion": partial(_reconstruction, "unlearning_inversion", "LabelInversion"),
    "model_inversion": partial(_reconstruction, "model_inversion", "ModelInversion"),
    "attribute_inference": partial(_reconstruction, "attribute_inference", "AttributeInference"),
}
"""Every attack that recovers data instead of scoring records, by name."""

DEFAULT_ATTACKS = (
    "lira",
    "lira_offline",
    "rmia",
    "rmia_offline",
    "population",
    "loss",
    "correctness",
    "modified_entropy_by_class",
    "modified_entropy",
)
"""What an audit runs unless told otherwise: each published idea once, in its best variant."""

DEFAULT_VERSION_ATTACKS = ("difference_margin",)
"""What an audit of a fleet asks of one who holds both versions, unless told otherwise."""

DEFAULT_VERSION_ATTACKS_ALONE = ("difference_margin_uncalibrated", "difference_margin_by_class")
"""The same for one model before and after, with no model of the attacker's own."""

DEFAULT_MEASURES: tuple[str, ...] = ("klom_gaussian", "swap", "ruli_efficacy")
"""What an audit of a fleet prints beside the attacks unless told otherwise."""
