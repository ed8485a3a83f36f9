"""Write the evidence of every unlearning method, and the tables of docs/unlearning.md, from leagues that were run.

    mnemoscope league examples/league_location30.toml --out runs/league_location30
    mnemoscope league examples/league_cifar10_procedure.toml --out runs/league_cifar10_procedure
    mnemoscope league examples/league_cifar10.toml --out runs/league_cifar10
    python benchmarks/method_evidence.py --keep runs/league_location30 runs/league_cifar10_procedure runs/league_cifar10

``--keep`` copies their tables to ``benchmarks/results/NAME.json``; without it the committed ones are read again.

A method's figure is what the strongest attack finds after it: a rate with limits, of the first league that has one.
Leagues of single models measure none; a method that ran in no other has the gap of accuracies to retrained models,
which says how near it comes to them and nothing of what an attack finds. The first words of ``what`` say which it is.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from mnemoscope.reports.league import LEAGUE_NAME
from mnemoscope.unlearning import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ("league_location30", "league_cifar10_procedure", "league_cifar10")
DATA = {"league_location30": "location30", "league_cifar10_procedure": "cifar10", "league_cifar10": "cifar10"}
EVIDENCE, DOCUMENT = ROOT / "unlearning/evidence.json", ROOT / "docs/unlearning.md"
BEGIN, END = "<!-- measured here: begin {name} -->", "<!-- measured here: end {name} -->"

TESTS: dict[str, tuple[str, str]] = {
    "retrain": (
        "methods::test_retraining_reads_nothing_of_the_model_and_nothing_of_the_forget_records",
        "methods::test_retraining_is_training_without_the_records_and_leaves_an_attack_nothing",
    ),
    "sisa": (
        "sisa::test_deletion_is_training_from_scratch_on_what_is_left_bit_for_bit",
        "sisa::test_deleted_records_are_no_longer_known_better_than_others",
    ),
    "noop": (
        "methods::test_noop_is_the_model",
        "methods::test_noop_is_the_model_for_every_request_and_an_attack_finds_as_much_after_it_as_before",
    ),
    "finetune": (
        "methods::test_finetuning_reads_no_forget_record",
        "l1_sparse::test_weights_shrink_and_forget_loss_rises_further_than_in_finetuning",
    ),
    "gradient_ascent": (
        "methods::test_ascent_reads_no_retained_record",
        "methods::test_ascent_stops_near_what_unseen_records_look_like",
    ),
    "influence": (
        "influence::test_the_influence_step_is_the_published_recursion_over_vectors",
        "influence::test_influence_climbs_the_forget_loss_and_spares_the_retained",
    ),
    "influence_exact": (
        "influence::test_the_exact_step_is_the_dense_solution",
        "influence::test_the_exact_step_arrives_at_the_retained_records_minimum",
    ),
    "influence_first_order": (
        "influence::test_the_first_order_step_is_a_difference_of_summed_gradients",
        "influence::test_correct_labels_come_back",
    ),
    "influence_second_order": (
        "influence::test_lissa_solves_the_damped_system",
        "influence::test_the_second_order_step_arrives_at_the_corrected_records_minimum",
    ),
    "fisher": (
        "fisher::test_the_noise_is_that_of_the_six_steps",
        "fisher::test_a_class_is_forgotten_and_the_others_are_known",
    ),
    "fisher_empirical": (
        "fisher::test_the_empirical_noise_is_that_of_the_formula",
        "fisher::test_empirical_noise_forgets_wrong_labels_that_it_spares_where_they_are_retained",
    ),
    "ssd": ("ssd::test_weights_are_shrunk_by_the_rule", "ssd::test_a_class_is_forgotten"),
    "ssd_label_free": ("ssd::test_weights_are_shrunk_by_the_rule", "ssd::test_a_class_is_forgotten"),
    "unrolling_sgd": (
        "unrolling_sgd::test_one_step_of_plain_sgd_is_taken_back_exactly",
        "unrolling_sgd::test_it_climbs_the_forget_loss",
    ),
    "top_k_perturbation_reading": (
        "parameter_perturbation::test_top_k_moves_the_weights_of_the_largest_squared_gradients",
        "parameter_perturbation::test_top_k_hurts_a_class_more_than_the_others_and_random_k_does_not",
    ),
    "random_k_perturbation_reading": (
        "parameter_perturbation::test_random_k_moves_each_weight_with_the_same_chance",
        "parameter_perturbation::"
        "test_random_k_and_its_repair_move_forget_records_towards_what_retraining_makes_of_them",
    ),
    "pruned": (
        "pruning::test_nothing_pruned_and_nothing_forgotten_is_the_model",
        "pruning::test_a_sparse_model_forgets_more_by_the_same_inner_method",
    ),
    "neggrad_plus": (
        "neggrad_plus::test_a_step_is_the_papers",
        "neggrad_plus::test_forget_loss_rises_and_retained_records_stay",
    ),
    "random_labels": (
        "relabelling::test_random_labels_train_on_with_wrong_labels",
        "relabelling::test_forget_records_are_forgotten_and_retained_ones_kept",
    ),
    "salun": (
        "relabelling::test_salun_is_the_papers_update_with_other_weights_held",
        "relabelling::test_forget_records_are_forgotten_and_retained_ones_kept",
    ),
    "scrub": (
        "teachers::test_scrub_is_the_papers_order_of_steps",
        "teachers::test_scrub_forgets_and_retained_records_stay",
    ),
    "scrub_r": (
        "teachers::test_rewind_takes_the_last_epoch_whose_error_is_nearest_to_that_of_unseen_records",
        "teachers::test_scrub_forgets_and_retained_records_stay",
    ),
    "bad_teacher": (
        "teachers::test_bad_teacher_is_the_papers_update",
        "teachers::test_bad_teacher_makes_forget_records_unsure_and_keeps_the_others",
    ),
    "l1_sparse": (
        "l1_sparse::test_an_epoch_is_the_papers_update",
        "l1_sparse::test_weights_shrink_and_forget_loss_rises_further_than_in_finetuning",
    ),
    "amnesiac": (
        "amnesiac::test_the_updates_of_sensitive_batches_are_taken_back_and_no_others",
        "amnesiac::test_repair_brings_back_what_is_retained_and_not_what_is_forgotten",
    ),
    "cf_k": (
        "last_layers::test_all_layers_of_cf_k_are_finetuning_to_the_bit",
        "last_layers::test_wrong_labels_are_lost_in_the_last_layer_as_far_as_it_holds_them",
    ),
    "eu_k": (
        "last_layers::test_eu_k_reads_nothing_of_the_layers_it_starts_anew",
        "last_layers::test_all_layers_of_eu_k_forget_like_retraining",
    ),
    "amun": (
        "amun::test_it_trains_on_the_named_sets_with_the_pairs_of_the_search",
        "amun::test_the_examples_move_forget_records_towards_what_retraining_makes_of_them",
    ),
    "boundary_shrink": (
        "boundary::test_shrink_teaches_each_record_the_class_of_its_pushed_point",
        "boundary::test_a_class_is_forgotten_and_the_others_are_not",
    ),
    "boundary_expand": (
        "boundary::test_expand_trains_a_class_more_and_takes_it_away",
        "boundary::test_a_class_is_forgotten_and_the_others_are_not",
    ),
    "relevance_perturbation": (
        "relevance::test_relevance_is_that_of_the_epsilon_rule",
        "relevance::test_a_class_is_forgotten_at_the_head",
    ),
    "noisy_finetune_reading": (
        "per_instance_privacy::test_noise_has_the_deviation_that_the_account_assumes",
        "per_instance_privacy::test_wrong_labels_are_forgotten_that_retained_records_contradict",
    ),
    "pseudo_probability_reading": (
        "pseudo_probability::test_steps_are_those_of_the_lagrangian_and_its_dual",
        "pseudo_probability::test_forget_records_lose_their_class_as_far_as_the_bound_on_retained_ones_permits",
    ),
    "condensation": (
        "condensation::test_offline_and_online_are_the_authors_loops",
        "condensation::test_forget_records_move_towards_what_retraining_makes_of_them_and_retained_ones_stay",
    ),
    "unsir": (
        "unsir::test_impair_and_repair_are_the_papers_passes",
        "unsir::test_a_class_goes_by_the_noise_that_was_learnt_and_the_others_stay",
    ),
    "scissorhands": (
        "scissorhands::test_steps_are_the_papers",
        "scissorhands::test_each_part_moves_forget_records_towards_what_retraining_makes_of_them",
    ),
    "adversarial": (
        "adversarial::test_the_defenders_slopes_are_the_formulas",
        "adversarial::test_a_class_is_forgotten_and_the_others_are_kept",
    ),
    "silver_linings_reading": (
        "silver_linings_reading::test_information_is_its_formula_and_zero_for_sides_alike",
        "silver_linings_reading::test_forget_records_become_harder_to_tell_from_unseen_ones",
    ),
    "mini_unlearning_reading": (
        "mini_unlearning::test_with_every_gradient_computed_it_is_the_training_without_the_records",
        "mini_unlearning::test_wrong_labels_are_forgotten_and_estimates_that_went_wrong_are_not_trusted",
    ),
    "controlled": (
        "control::test_the_search_stops_where_the_share_of_the_accuracy_is_left",
        "control::test_the_wrapper_keeps_the_utility_that_its_method_loses",
    ),
}
"""The two tests of each method, in tests/unlearning/test_FILE.py: of its algorithm, and that it forgets.

The second shows that forget records move towards what retraining makes of them, where the method should manage that,
for some with a class or wrong labels alone. Of the controls it shows that retraining is training without the records,
and that an attack finds as much after ``noop`` as before it.
"""


def test_id(short: str) -> str:
    """The test as pytest names it."""
    file, _, function = short.partition("::")
    return f"tests/unlearning/test_{file}.py::{function}"


def read_results() -> dict[str, dict[str, Any]]:
    """Return the committed leagues by name."""
    folder = ROOT / "benchmarks/results"
    paths = {name: folder / f"{name}.json" for name in RESULTS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def figure(name: str, results: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """What an attack finds after a method, in the first league that has it with limits; else its gap to retraining."""
    for what in ("tpr", "gap"):
        for league, table in results.items():
            for row in table["rows"]:
                ci = row[what]["ci"]
                if row["method"] != name or row[what]["value"] is None or ci is None:
                    continue
                said = "gap of accuracies to retrained models"
                if what == "tpr":
                    said = f"TPR at {100 * row['fpr']:g} % FPR, {row['strongest']}, forgotten records"
                return {
                    "what": f"{said} ({row['forget']})", "value": row[what]["value"], "low": ci["lower"],
                    "high": ci["upper"], "data": DATA[league], "plan": table["digest"],
                    "result": f"benchmarks/results/{league}.json",
                }  # fmt: skip
    return None


def rows_of_evidence(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the file's rows, in the order of the registry."""
    return {
        name: {
            "known_answer": test_id(TESTS[name][0]) if name in TESTS else "",
            "forgets": test_id(TESTS[name][1]) if name in TESTS else "",
            "measured": figure(name, results),
        }
        for name in METHODS
    }


def percent(estimate: dict[str, Any]) -> str:
    """A share in percent with its limits."""
    if estimate["value"] is None:
        return "–"
    value, ci = f"{100 * estimate['value']:.1f}", estimate["ci"]
    return value if ci is None else f"{value} [{100 * ci['lower']:.1f}, {100 * ci['upper']:.1f}]"


def share(estimate: dict[str, Any]) -> str:
    """A share of one with its limits."""
    if estimate["value"] is None:
        return "–"
    value, ci = f"{estimate['value']:.2f}", estimate["ci"]
    return value if ci is None else f"{value} [{ci['lower']:.2f}, {ci['upper']:.2f}]"


def place(row: dict[str, Any]) -> str:
    """Its places, or why it has none."""
    if row["rank"] is None:
        return str(row["unranked"])
    first, last = row["rank"]
    return str(first) if first == last else f"{first} to {last}"


def markdown(table: dict[str, Any]) -> str:
    """One table a forget set; rates and gaps in percent."""
    parts = []
    for forget in dict.fromkeys(row["forget"] for row in table["rows"]):
        rows = [row for row in table["rows"] if row["forget"] == forget]
        fpr = next((row["fpr"] for row in rows if row["fpr"] is not None), None)
        at = "" if fpr is None else f" at {100 * fpr:g} % FPR"
        lines = [
            f"Forget set `{forget}`:",
            "",
            f"| method | strongest attack | its TPR{at}, % | over-forgotten, % | AUC | gap to retraining, points | "
            "test accuracy, points | cost | place |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in rows:
            cost = "–" if row["cost"] is None else f"{row['cost']:.2f}"
            unfit = "" if row["fit"] else " (not fit for use)"
            lines.append(
                f"| `{row['subject']}`{unfit} | {row['strongest']} | {percent(row['tpr'])} | "
                f"{percent(row['over_forgotten'])} | {share(row['auc'])} | {percent(row['gap'])} | "
                f"{percent(row['test'])} | {cost} | {place(row)} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def written(document: str, results: dict[str, dict[str, Any]]) -> str:
    """Return the document with its tables."""
    for name, table in results.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        if begin not in document:
            continue
        before, rest = document.split(begin)
        _, after = rest.split(end)
        document = f"{before}{begin}\n\n{markdown(table)}\n\n{end}{after}"
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, nargs="*", default=(), help="folders of leagues; their names are kept")
    for folder in parser.parse_args().keep:
        if folder.name not in RESULTS:
            parser.error(f"{folder}: allowed names: {', '.join(RESULTS)}")
        shutil.copyfile(folder / LEAGUE_NAME, ROOT / "benchmarks/results" / f"{folder.name}.json")
    results = read_results()
    EVIDENCE.write_text(json.dumps(rows_of_evidence(results), indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
