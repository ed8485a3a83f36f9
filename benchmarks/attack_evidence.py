"""Write ``attacks/evidence.json``, and fill the tables of ``docs/attacks.md`` from it.

For each attack: its known-answer test, what it finds where a leak was planted, what where none is, a figure on real
data.

    python benchmarks/attack_evidence.py                      # the worlds again, about two minutes on one core
    python benchmarks/attack_evidence.py --results benchmarks/results/attacks_*.json     # and the figures on real data
    python benchmarks/attack_evidence.py --keep-worlds --results FILE...                 # these alone
    python benchmarks/attack_evidence.py --docs               # only docs/attacks.md, from evidence.json

A result is what ``benchmarks/attacks_table.py`` writes. An attack in several files takes its figure from the first.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from mnemoscope.attacks import ATTACKS, MEASURES, RECONSTRUCTIONS
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.reconstruction import run_reconstruction
from mnemoscope.audit.statistics.roc import auc
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.testing import LEAST_AUC, planted_auc, silent_auc, silent_band
from mnemoscope.audit.testing_fleets import LIVE
from mnemoscope.audit.testing_worlds import toy_worlds, trained_worlds

ROOT = Path(__file__).parents[1]
EVIDENCE, DOCS = ROOT / "attacks/evidence.json", ROOT / "docs/attacks.md"
Row = dict[str, Any]

KNOWN_ANSWERS = {
    "tests/attacks/test_lira.py::test_vector_of_the_reference": "lira_per_record lira_offline_per_record",
    "tests/attacks/test_lira.py::test_equals_its_slow_twin_and_leaves_one_out": (
        "lira lira_shared lira_offline lira_offline_shared"
    ),
    "tests/attacks/test_lira_corrected.py::test_models_of_one_pool_vary_less_and_the_factor_says_by_how_much": (
        "lira_finite_population"
    ),
    "tests/attacks/test_lira_corrected.py::test_one_threshold_has_its_rate_at_every_number_of_models": (
        "lira_calibrated"
    ),
    "tests/attacks/test_bavaria.py::test_vectors_of_the_reference": (
        "bavaria_n bavaria_t bavaria_n_offline bavaria_t_offline"
    ),
    "tests/attacks/test_base.py::test_vector_of_the_reference": "base base_offline",
    "tests/attacks/test_base.py::test_base2_and_base3_are_the_published_formulas": "base2 base3",
    "tests/attacks/test_base.py::test_tuning_equals_a_search_by_hand": "base_offline_tuned rmia_offline_tuned",
    "tests/attacks/test_calibrated.py::test_difficulty_and_offset_by_hand": "difficulty sablayrolles",
    "tests/attacks/test_calibrated.py::test_attack_s_ranks_as_the_loss_and_holds_its_rate_on_other_models": "attack_s",
    "tests/attacks/test_calibrated.py::test_attack_r_is_the_releases_interpolation": "attack_r",
    "tests/attacks/test_quantile.py::test_the_known_conditional_distribution_is_found": "quantile",
    "tests/attacks/test_quantile.py::test_by_class_is_a_standard_score_within_the_class": "quantile_by_class",
    "tests/attacks/test_rmia.py::test_scores_equal_the_definition_and_ties_are_ordered_by_the_ratio": "rmia",
    "tests/attacks/test_rmia.py::test_worked_example_of_the_reference": "rmia_offline",
    "tests/attacks/test_threshold.py::test_population_gives_exact_p_values": "population",
    "tests/attacks/test_threshold.py::test_global_rules_give_the_vectors_of_the_reference": (
        "loss confidence entropy modified_entropy correctness"
    ),
    "tests/attacks/test_threshold.py::test_by_class_is_the_distance_from_the_threshold_of_an_exhaustive_search": (
        "loss_by_class confidence_by_class entropy_by_class modified_entropy_by_class correctness_by_class"
    ),
    "tests/attacks/test_difference.py::test_known_answer_of_the_logistic_attack": (
        "difference difference_sorted_diff difference_l2_distance difference_sorted_basic"
    ),
    "tests/attacks/test_difference.py::test_known_answer_of_the_other_classifiers": (
        "difference_direct_diff_tree difference_direct_concat_tree difference_tree difference_forest difference_mlp"
    ),
    "tests/attacks/test_difference_margin.py::test_auc_of_a_world_in_closed_form": "difference_margin",
    "tests/attacks/test_difference_margin.py"
    "::test_offline_is_the_distance_from_pairs_in_which_the_record_was_not_deleted": "difference_margin_offline",
    "tests/attacks/test_difference_margin.py::test_by_class_is_standardised_by_hand_counted_medians": (
        "difference_margin_by_class"
    ),
    "tests/attacks/test_difference_margin.py::test_margins_do_not_saturate": "difference_margin_uncalibrated",
    "tests/attacks/test_boundary_distance.py::test_distance_to_a_hyperplane_is_the_textbooks": "boundary_distance",
    "tests/attacks/test_gradient_attacks.py::test_scores_are_minus_the_log_norm_of_each_records_gradient": (
        "gradient_norm gradient_norm_last_layer"
    ),
    "tests/attacks/test_gradient_attacks.py"
    "::test_calibration_is_the_difference_to_the_mean_of_the_other_out_models": "gradient_norm_calibrated",
    "tests/attacks/test_gradient_attacks.py"
    "::test_alignment_is_minus_the_cosine_with_the_population_and_with_the_deletion": (
        "gradient_alignment gradient_alignment_deletion"
    ),
    "tests/attacks/test_distillation_attacks.py::test_trajectories_are_the_losses_of_a_student_epoch_by_epoch": (
        "loss_trajectory"
    ),
    "tests/attacks/test_distillation_attacks.py"
    "::test_attack_d_is_the_distance_from_the_students_mean_in_their_spread": "attack_d",
    "tests/attacks/test_label_augmentation.py::test_the_classifier_finds_the_likelihood_ratio_of_independent_bits": (
        "label_augmentation label_rotation"
    ),
    "tests/attacks/test_label_augmentation.py::test_the_count_is_of_right_answers_wherever_the_queries_lie": (
        "label_augmentation_count label_rotation_count label_noise label_flips"
    ),
    "tests/attacks/test_u_lira.py::test_naive_twin_fits_both_gaussians_without_the_target": "u_lira",
    "tests/attacks/test_ruli.py::test_naive_twin_of_one_target_and_of_the_fleet": "ruli",
    "tests/attacks/test_iam.py::test_naive_twin_with_the_target_left_out": "iam iam_offline",
    "tests/attacks/test_samia.py::test_the_network_is_the_written_formula": "samia",
    "tests/attacks/test_shokri.py::test_scores_are_those_of_the_naive_twin": "shokri shokri_forest shokri_mlp",
    "tests/attacks/test_shokri.py::test_the_log_scale_orders_what_probabilities_tie": "shokri_log",
    "tests/attacks/test_ml_leaks.py::test_adversary_1_equals_a_naive_twin": "ml_leaks_1",
    "tests/attacks/test_ml_leaks.py::test_within_one_data_set_adversary_2_is_adversary_1": "ml_leaks_2",
    "tests/attacks/test_ml_leaks.py::test_adversary_3_reads_the_statistics_of_the_paper": "ml_leaks_3",
    "tests/attacks/test_svm.py::test_scores_are_the_distance_from_the_boundary_of_the_published_machine": (
        "svm_correctness svm_confidence svm_entropy svm_probability"
    ),
    "tests/attacks/test_svm.py"
    "::test_row_24_the_modified_entropy_is_song_and_mittals_and_the_faulty_one_has_its_own_name": (
        "svm_modified_entropy"
    ),
    "tests/attacks/test_svm.py"
    "::test_row_24_the_faulty_function_equals_the_release_on_random_batches_and_saturated_ones": (
        "svm_modified_entropy_as_published"
    ),
    "tests/attacks/test_ensemble.py::test_two_attacks_with_one_half_of_the_leak_each_are_better_together": "ensemble",
    "tests/attacks/test_klom.py::test_null_values_are_the_known_ones": "klom",
    "tests/attacks/test_klom.py::test_the_gaussian_plug_in_has_its_bias_and_its_value": "klom_gaussian",
    "tests/attacks/test_forgetting_quality.py::test_identical_gaussians_score_the_known_null": "forgetting_quality",
    "tests/attacks/test_tail.py::test_the_exponential_world_has_a_closed_form": "loss_tnr_reading",
    "tests/attacks/test_swap.py::test_a_fleet_that_happens_to_hold_pairs_scores_what_the_pairs_score": "swap",
    "tests/attacks/test_ruli.py::test_naive_twin_of_efficacy_leaves_both_twins_out": "ruli_efficacy",
    "tests/attacks/test_gaussian_poisoning.py::test_closed_form_of_a_linear_model": "gaussian_poisoning",
    "tests/attacks/test_relearn_time.py::test_one_weight_is_relearned_as_computed_by_hand": "relearn_time",
    "tests/attacks/test_linear_reconstruction.py::test_ridge_identity_is_exact_and_public_curvature_comes_close": (
        "linear_reconstruction"
    ),
    "tests/attacks/test_inversion.py::test_the_gradient_estimate_is_the_deleted_gradient_in_both_forms": (
        "unlearning_inversion"
    ),
    "tests/attacks/test_inversion.py::test_the_drop_of_a_biased_class_is_named": "label_inversion",
    "tests/attacks/test_inversion.py::test_the_inversion_of_a_linear_model_is_its_weight_row": "model_inversion",
    "tests/attacks/test_inversion.py::test_the_guess_is_the_most_probable_value_by_bayes": "attribute_inference",
}
"""The test whose right answer is known beforehand -> the names that it vouches for."""

MEASURE_SETTINGS: dict[str, dict[str, Any]] = {
    "forgetting_quality": {"steps": 20},
    "relearn_time": {"train_on": "forget", "lr": 0.1, "tolerance": 0.1, "cap": 20, "models": 6},
}
"""Settings that suit fleets as small as these."""

DRAWN = "contract's drawn fleets: the true class gains 4 logits in models that trained on a record; or nothing"
TRAINED = "contract's trained fleets: small models that know the audited records by heart; or records nobody audits"
PLAYED = {
    "version": (("difference-kept", "retrained"),),
    "plain": (("forgetting", "no-op"), ("membership", "before")),
}
"""In which game and on which models strength is read, first come first served."""
GAMES_IN_WORDS = {
    ("difference-kept", "retrained"): "AUC, difference-kept, exact retraining",
    ("forgetting", "no-op"): "AUC, forgetting, no-op",
    ("membership", "before"): "AUC, membership, before deletion",
}


def known_answers() -> dict[str, str]:
    """Return the test for each name."""
    return {name: test for test, names in KNOWN_ANSWERS.items() for name in names.split()}


def _row(found: float, threshold: float, null: float, band: tuple[float | None, float], worlds: str) -> Row:
    def short(value: float | None) -> float | None:
        return None if value is None else round(float(value), 4)

    return {
        "planted_leak": short(found),
        "threshold": short(threshold),
        "null": short(null),
        "null_band": [short(band[0]), short(band[1])],
        "worlds": worlds,
    }


def of_attack(name: str) -> Row:
    """Return an attack's AUC in both worlds of the contract."""
    attack = ATTACKS[name]()
    if name != "iam":
        worlds = TRAINED if attack.needs & LIVE else DRAWN
        return _row(planted_auc(attack), LEAST_AUC, silent_auc(attack), silent_band(attack), worlds)
    # It asks which of the records that the first model held are still in.
    worlds = toy_worlds(0.0, n_records=120)
    scores = score_fleet(attack, worlds.after, rng=np.random.default_rng(0))
    found = auc(scores[worlds.role == Role.KEPT], scores[worlds.role == Role.FORGOTTEN])
    about = (
        "kept against forgotten records after exact retraining in drawn fleets; the contract's fleets without a leak"
    )
    return _row(found, LEAST_AUC, silent_auc(attack), silent_band(attack), about)


def _limits(estimate: Estimate, spread: Estimate | None = None) -> tuple[float, float, float]:
    """Return value, lower and upper limit; with the distances of ``spread`` where the value has no interval."""
    given = estimate if estimate.ci is not None or spread is None else spread
    if estimate.value is None or given.value is None or given.low is None or given.high is None:
        raise ValueError(f"no value or no interval: {estimate}")
    return estimate.value, estimate.value + given.low - given.value, estimate.value + given.high - given.value


def of_measure(name: str) -> Row:
    """Return a measure's excess over its floor after a poor deletion, and after retraining."""
    measure = MEASURES[name](**MEASURE_SETTINGS.get(name, {}))
    live = bool(measure.needs & (Need.ORACLE | Need.GRADIENT))
    read: list[tuple[float, float, float]] = []
    unit = ""
    for leak in (True, False):
        worlds = trained_worlds(leak) if live else toy_worlds(1.5 if leak else 0.0, n_models=36, n_records=40)
        found = measure.measure(worlds, rng=np.random.default_rng(0))
        read.append(_limits(found.value if found.excess is None else found.excess))
        unit = found.unit if found.excess is None else f"excess over the floor, {found.unit}"
    made = "trained on for a few steps without the records" if live else "with 1.5 of 4 logits left"
    about = f"{unit}: {'trained' if live else 'drawn'} fleets, {made}; exact retraining"
    (leak, leak_low, leak_high), (none, none_low, none_high) = read
    half = leak - leak_low if leak > 0 else leak - leak_high
    return _row(leak, half, none, (none - none_high, none - none_low), about)


@cache
def _digits() -> tuple[Any, Any]:
    from mnemoscope.audit.testing_reconstruction import digits_data, digits_models

    data = digits_data()
    return data, digits_models(data)


def of_reconstruction(name: str) -> Row:
    """Return a reconstruction's advantage over chance on pairs that lost the record, and on pairs that never had it."""
    from mnemoscope.audit import testing_reconstruction as toys

    worlds: dict[str, tuple[dict[str, Any], str, Callable[[], Any]]] = {
        "linear_reconstruction": (
            {"decay": toys.DECAY},
            "softmax regressions at their optimum without the record; another record deleted",
            toys.optimum_cases,
        ),
        "unlearning_inversion": (
            {"steps": 120, "restarts": 1},
            "one step up a digit's loss; two trainings that never had it",
            lambda: toys.step_cases(*_digits(), rate=0.05, white_box=True),
        ),
        "label_inversion": (
            {"steps": 2, "tries": 4},
            "one step up a digit's loss; two trainings that never had it",
            lambda: toys.step_cases(*_digits(), n_cases=10, first=20, rate=0.3, white_box=False),
        ),
        "model_inversion": (
            {"steps": 60},
            "a model trained on digits; an untrained one",
            lambda: toys.class_cases(_digits()[0]),
        ),
        "attribute_inference": (
            {"columns": (0, 5)},
            "a model that knows its records' labels by heart; records it does not hold",
            toys.table_cases,
        ),
    }
    settings, about, make = worlds[name]
    found = run_reconstruction(RECONSTRUCTIONS[name](**settings), *make(), rng=np.random.default_rng(0))
    assert found.control_advantage is not None
    leak, leak_low, _ = _limits(found.advantage, found.success)
    none, none_low, _ = _limits(found.control_advantage)
    # Below chance is no success: chance is the best of several guesses for one of them.
    return _row(leak, leak - leak_low, none, (None, none - none_low), f"advantage over chance, {found.unit}: {about}")


def _figure(what: str, value: Mapping[str, Any], result: Mapping[str, Any], path: str) -> Row | None:
    ci = value.get("ci")
    if value.get("value") is None or ci is None:
        return None
    numbers = {"value": value["value"], "low": ci["lower"], "high": ci["upper"]}
    return {"what": what, **numbers, "data": Path(result["data"]).stem, "plan": result["plan"], "result": path}


def _figures(result: Mapping[str, Any], path: str) -> Iterator[tuple[str, Row | None]]:
    """Yield (name, figure) of all that a result says of registered names."""
    for name, make in ATTACKS.items():
        for game, models in PLAYED["version" if make().needs & Need.BEFORE else "plain"]:
            for row in result["rows"]:
                if (row["attack"], row["game"], row["models"]) == (name, game, models):
                    ci = None if row["auc_low"] is None else {"lower": row["auc_low"], "upper": row["auc_high"]}
                    value = {"value": row["auc"], "ci": ci}
                    yield name, _figure(GAMES_IN_WORDS[game, models], value, result, path)
    for subject in sorted(result.get("measured", {}), key=lambda name: name != "noop"):
        for row in result["measured"][subject]:
            part = "value" if row["excess"] is None else "excess"
            what = f"{'excess over retraining, ' if part == 'excess' else ''}{row['unit']}, {subject}"
            yield row["measure"], _figure(what, row[part], result, path)
    for subject in sorted(result.get("reconstructed", {}), key=lambda name: name == "noop"):
        for row in result["reconstructed"][subject]:
            control = row["control"] or {"value": None}
            beside = [("chance", row["chance"]["value"]), ("control", control["value"])]
            words = [f"{name} {value:.2f}" for name, value in beside if value is not None]
            what = f"{row['unit']}, {subject} ({', '.join(words)})"
            yield row["attack"], _figure(what, row["success"], result, path)


def measured(results: Sequence[Path]) -> dict[str, Row]:
    """Return the figure for each name that a result has; the first of several."""
    found: dict[str, Row] = {}
    for path in results:
        inside = path.resolve().relative_to(ROOT).as_posix()
        for name, figure in _figures(json.loads(path.read_text(encoding="utf-8")), inside):
            if figure is not None:
                found.setdefault(name, figure)
    return found


def worlds_of_all() -> dict[str, Row]:
    """Measure every registered name on its worlds."""
    import torch

    torch.set_num_threads(1)
    rows = {}
    kinds: tuple[tuple[Mapping[str, Any], Callable[[str], Row]], ...] = (
        (ATTACKS, of_attack),
        (MEASURES, of_measure),
        (RECONSTRUCTIONS, of_reconstruction),
    )
    for registry, measure in kinds:
        for name in registry:
            start = time.perf_counter()
            row = rows[name] = measure(name)
            seconds = time.perf_counter() - start
            print(
                f"{name:34} planted {row['planted_leak']:8.4f}  silent {row['null']:8.4f}  {seconds:5.1f} s", flush=True
            )
    return rows


REGION = re.compile(r"(<!-- measured here: begin[^>]*-->\n)(.*?)(<!-- measured here: end -->)", re.DOTALL)
COLUMN = "measured here"


def shown(figure: Mapping[str, Any] | None) -> str:
    """Return a figure as a table cell shows it."""
    if figure is None:
        return "–"
    beside = re.search(r"\(chance .*?\)", figure["what"])
    text = f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] {figure['data']}"
    return text if beside is None else f"{text} {beside[0]}"


def names_in(line: str) -> list[str]:
    """Return what stands between backticks in the first cell of a table's line."""
    return re.findall(r"`(\w+)`", line.split("|")[1])


def filled(text: str, evidence: Mapping[str, Row]) -> str:
    """Return the document with the column "measured here" of each table between the two comments written anew."""

    def table(region: re.Match[str]) -> str:
        lines, column = [], None
        for line in region[2].split("\n"):
            if not line.startswith("|"):
                column = None
            elif COLUMN in line:
                column = [cell.strip() for cell in line.split("|")].index(COLUMN)
            elif column is not None and not line.startswith("| -"):
                cells = line.split("|")
                names = [name for name in names_in(line) if name in evidence]
                cells[column] = " " + "<br>".join(shown(evidence[name]["measured"]) for name in names) + " "
                line = "|".join(cells)
            lines.append(line)
        return region[1] + "\n".join(lines) + region[3]

    return REGION.sub(table, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[], help="files that attacks_table.py wrote")
    parser.add_argument("--keep-worlds", action="store_true", help="take the worlds' numbers from evidence.json")
    parser.add_argument("--docs", action="store_true", help="only rewrite the tables of docs/attacks.md")
    args = parser.parse_args()
    before = json.loads(EVIDENCE.read_text(encoding="utf-8")) if EVIDENCE.exists() else {}
    if not args.docs:
        worlds = before if args.keep_worlds else worlds_of_all()
        figures = measured(args.results) if args.results else {n: row["measured"] for n, row in before.items()}
        tests = known_answers()
        evidence = {
            name: {
                "known_answer": tests.get(name, ""),
                **{part: worlds[name][part] for part in ("planted_leak", "threshold", "null", "null_band", "worlds")},
                "measured": figures.get(name),
            }
            for name in (*ATTACKS, *MEASURES, *RECONSTRUCTIONS)
        }
        EVIDENCE.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
        lacking = [name for name, row in evidence.items() if row["measured"] is None]
        print(f"{len(evidence)} rows; without a figure on real data: {', '.join(lacking) or 'none'}")
        before = evidence
    if DOCS.exists():
        DOCS.write_text(filled(DOCS.read_text(encoding="utf-8"), before), encoding="utf-8")


if __name__ == "__main__":
    main()
