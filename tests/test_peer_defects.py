"""Every fault found in another tool has a test here, by number, or a reason why it cannot occur yet."""

import ast
import re
from pathlib import Path

import pytest

from mnemoscope import attacks
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.verdict.policy import Policy

TESTS = Path(__file__).parent
NUMBERS = range(1, 34)

COVERED: dict[int, tuple[str, ...]] = {
    1: ("statistics/test_roc.py::test_peer_defect_row_1_ties_split_and_ends_missing",),
    2: ("attacks/test_lira.py::test_row_2_a_record_without_a_model_is_refused_by_id",),
    3: ("records/test_design.py::test_peer_defect_row_3_requests_are_obeyed_or_refused",),
    4: (
        "models/test_training.py::test_peer_defect_4_membership_is_what_the_optimiser_saw",
        "work/test_workspace.py::test_what_the_optimiser_saw_must_be_what_the_design_says",
    ),
    5: (
        "attacks/test_base.py::test_row_5_nothing_is_tuned_on_the_records_that_are_scored_then",
        "attacks/test_rmia.py::test_row_14_nothing_is_tuned_on_the_labels_of_the_target",
        "attacks/test_threshold.py::test_thresholds_are_optimistic_only_where_they_were_searched",
        "attacks/test_contract.py::test_the_contract_catches_scores_fitted_on_their_own_model",
    ),
    6: ("models/test_inference.py::test_peer_defect_6_one_transfer_out",),
    7: (
        "attacks/test_threshold.py::test_row_7_the_loss_attack_points_the_right_way",
        "attacks/test_contract.py::test_the_contract_catches_a_faulty_attack",
    ),
    8: ("statistics/test_epsilon.py::test_peer_defect_row_8_maximum_over_guess_counts",),
    9: ("models/test_training.py::test_peer_defect_9_schedule_follows_its_formula",),
    10: ("attacks/test_rmia.py::test_row_10_counts_equal_the_matrix_without_building_it",),
    11: (
        "work/test_workspace.py::test_peer_defect_11_each_model_commits_before_the_next_begins",
        "work/test_store.py::test_peer_defect_16_and_11_a_cache_known_by_counts_serves_the_wrong_model",
        "work/test_kill.py::test_five_kills_then_the_same_bits",
    ),
    12: ("work/test_workspace.py::test_peer_defect_12_one_balanced_fleet_serves_every_record",),
    13: ("statistics/test_epsilon.py::test_peer_defect_row_13_maximum_over_thresholds_and_interval_types",),
    14: (
        "attacks/test_base.py::test_row_14_tuning_never_reads_the_sides_of_the_target",
        "attacks/test_rmia.py::test_row_14_labels_travel_with_their_ids",
        "attacks/test_rmia.py::test_row_14_nothing_is_tuned_on_the_labels_of_the_target",
    ),
    15: ("statistics/test_epsilon.py::test_peer_defect_row_15_upper_bootstrap_limit_as_headline",),
    16: ("work/test_store.py::test_peer_defect_16_and_11_a_cache_known_by_counts_serves_the_wrong_model",),
    17: ("attacks/test_lira.py::test_row_17_float32_softmax_ties_what_margins_order",),
    18: (
        "attacks/test_order.py::test_row_18_the_contract_rejects_an_attack_that_reads_the_order",
        "attacks/test_order.py::test_row_18_the_permutation_of_the_contract_moves_records_and_models",
        "attacks/test_order.py::test_row_18_members_that_come_first_in_a_file_are_not_found_by_their_place",
        "attacks/test_contract.py::test_the_contract_catches_a_faulty_attack",
    ),
    19: (
        "attacks/test_quantile.py::test_row_19_fitting_on_the_non_members_that_are_scored_finds_a_leak_that_is_not_there",
        "attacks/test_threshold.py::test_row_19_p_values_hold_their_level_because_the_population_is_not_the_audited",
        "verdict/test_onemodel.py::test_row_19_an_attack_fitted_on_what_it_scores_fails_the_negative_control",
    ),
    20: (
        "attacks/test_lira.py::test_row_20_fixed_variance_is_centred_and_each_side_has_its_own",
        "attacks/test_lira.py::test_row_20_the_offline_score_is_one_sided",
        "attacks/test_lira.py::test_row_20_extreme_offline_scores_do_not_tie",
        "models/test_inference.py::test_peer_defect_20_every_model_is_asked_the_same",
    ),
    21: (
        "attacks/test_u_lira.py::test_row_21_gaussians_on_correctness_in_sample_find_a_leak_that_is_not_there",
        "attacks/test_lira.py::test_row_21_gaussians_on_correctness_in_sample_find_a_leak_that_is_not_there",
    ),
    22: (
        "attacks/test_ruli.py::test_row_22_the_score_is_one_number_per_record_not_a_mean_over_the_forget_set",
        "attacks/test_lira.py::test_row_22_the_score_is_one_number_per_record_not_a_mean_over_the_forget_set",
    ),
    23: (
        "test_peer_defects.py::test_row_23_attacks_that_know_the_record_come_first",
        "test_peer_defects.py::test_row_23_an_svm_is_never_the_headline_and_its_line_says_that_it_is_weak",
        "attacks/test_svm.py"
        "::test_row_23_the_pooled_svm_is_weaker_than_an_attack_that_knows_the_record_where_difficulty_varies",
    ),
    24: (
        "answers/test_signals.py::test_row_24_modified_entropy_is_song_and_mittals",
        "attacks/test_svm.py::test_row_24_the_modified_entropy_is_song_and_mittals_and_the_faulty_one_has_its_own_name",
        "attacks/test_svm.py::test_row_24_the_faulty_function_equals_the_release_on_random_batches_and_saturated_ones",
        "attacks/test_svm.py::test_row_24_the_faulty_attack_misses_a_leak_that_the_right_one_sees",
    ),
    25: (
        "verdict/test_rules.py::test_row_25_failure_is_never_low_risk",
        "verdict/test_onemodel.py::test_row_25_a_failing_primary_attack_is_not_assessed",
        "reports/test_phrases.py::test_defect_25_a_failed_attack_reads_as_missing_never_as_zero",
    ),
    26: ("verdict/test_rules.py::test_row_26_no_low_word_without_tail_interval_and_positive_control",),
    27: (
        "work/test_store.py::test_peer_defect_27_state_comes_back_as_it_was_or_is_refused",
        "work/test_kill.py::test_five_kills_then_the_same_bits",
        "reports/test_schema.py::test_defect_27_sets_and_odd_objects_are_refused_not_turned_into_text",
    ),
    28: ("answers/test_signals.py::test_row_28_true_class_values_index_rows_and_the_class_count_is_the_models",),
    29: (
        "verdict/test_rules.py::test_row_29_over_forgetting_has_its_own_word",
        "statistics/test_roc.py::test_peer_defect_row_29_over_forgetting_is_reported_in_its_own_tail",
        "reports/test_figures.py::test_defect_29_over_forgetting_has_a_mark_and_words_of_its_own",
    ),
    30: (
        "work/test_store.py::test_peer_defect_30_pickles_are_refused_and_never_run",
        "work/test_plan.py::test_peer_defect_30_a_plan_that_is_no_text_is_refused",
        "front/test_scores.py::test_row_30_a_pickle_inside_never_runs",
        "reports/test_schema.py::test_defect_30_files_that_are_no_result_are_refused",
    ),
    31: (
        "attacks/test_ruli.py::test_row_31_ratios_of_densities_with_a_fixed_bandwidth_are_zero_over_zero",
        "attacks/test_ruli.py::test_row_31_a_fixed_bandwidth_is_blind_on_a_narrow_scale",
        "test_peer_defects.py::test_row_31_kernels_are_those_of_one_file_that_works_in_logarithms",
    ),
    32: (
        "attacks/test_forgetting_quality.py"
        "::test_row_32_two_fleets_retrained_alike_read_above_one_and_only_the_floor_says_that_it_is_nothing",
        "verdict/test_retrained_beside.py::test_row_32_two_retrained_fleets_are_not_told_apart",
        "verdict/test_retrained_beside.py"
        "::test_row_32_the_figure_alone_reads_above_one_and_only_a_retrained_row_shows_that_it_is_nothing",
        "verdict/test_procedure.py::test_indistinguishability_has_its_floor_at_one_half",
        "verdict/test_onemodel.py::test_row_32_retrained_models_score_the_null_beside_every_figure",
    ),
    33: (
        "answers/test_signals.py::test_row_33_softmax_twice_is_another_order",
        "front/test_scores.py::test_row_33_softmax_twice_is_refused",
        "attacks/test_distillation_attacks.py::test_row_33_nothing_is_chosen_on_the_target",
    ),
}

NOT_YET: dict[int, str] = {}
"""Faults in parts that are not built."""


def defined(file: Path) -> set[str]:
    """Names of the tests of a file."""
    return {node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_every_number_has_a_test_or_a_reason() -> None:
    assert sorted([*COVERED, *NOT_YET]) == list(NUMBERS)
    assert all(COVERED.values())
    assert all(NOT_YET.values())


@pytest.mark.parametrize("number", sorted(COVERED))
def test_the_tests_named_exist(number: int) -> None:
    for name in COVERED[number]:
        file, _, function = name.partition("::")
        assert function in defined(TESTS / file), name


def test_a_test_that_bears_a_number_is_listed_under_it() -> None:
    numbered = re.compile(r"test_(?:peer_defect_(?:row_)?|row_|defect_)((?:\d+_and_)*\d+)_")
    found = 0
    for file in TESTS.rglob("test_*.py"):
        for function in defined(file):
            match = numbered.match(function)
            for number in match[1].split("_and_") if match else ():
                found += 1
                assert f"{file.relative_to(TESTS).as_posix()}::{function}" in COVERED.get(int(number), ()), function
    assert found > 30


def test_row_31_kernels_are_those_of_one_file_that_works_in_logarithms() -> None:
    """Row 31: libraries' kernel densities are exponentiated or have a bandwidth of one; no attack uses them."""
    files = list(Path(attacks.__file__).parent.glob("*.py"))
    assert len(files) > 3
    for file in files:
        assert not re.search(r"\b(gaussian_kde|KernelDensity)\b", file.read_text("utf-8")), file


def test_row_23_attacks_that_know_the_record_come_first() -> None:
    """Row 23: with models of its own to learn from, an attack that treats all records alike is never the headline."""
    order = Policy().primary_order
    learns = [bool(attacks.ATTACKS[name]().needs & (Need.SHADOW_IN | Need.SHADOW_OUT)) for name in order]
    assert learns[0]
    assert learns == sorted(learns, reverse=True)


def test_row_23_an_svm_is_never_the_headline_and_its_line_says_that_it_is_weak() -> None:
    """Row 23: the literature's SVMs are there for comparison; no audit runs one unless it is named."""
    named = {name for name in attacks.ATTACKS if name.startswith("svm")}
    assert len(named) == 6
    assert not named & {*attacks.DEFAULT_ATTACKS, *Policy().primary_order}
    for name in named:
        assert "weak" in (type(attacks.ATTACKS[name]()).__doc__ or "").splitlines()[0]
