"""What the contract of methods needs to know of each: settings that suit small models, and what does not apply."""

from collections.abc import Iterable

import pytest
from toy_models import mlp_subject, network_subject

from mnemoscope.audit.testing_methods import method_contract, method_keeps_form, method_works
from mnemoscope.unlearning import METHODS

EXEMPT = {
    # The control that must do nothing, whatever is asked.
    "noop": frozenset({"method_works", "method_reads_the_request"}),
}
"""Checks that do not apply, with the reason."""

SETTINGS: dict[str, dict[str, object]] = {
    "controlled": {"settings": '{"epochs": 3}', "points": 5, "halvings": 2},
    "silver_linings_reading": {"epochs": 2, "fit_steps": 10},
    "noisy_finetune_reading": {"epochs": 2, "every": 12},
    "adversarial": {"epochs": 2, "draws": 2, "pretrain": 20},
    "boundary_expand": {"epochs": 3, "lr": 1e-3},
    "boundary_shrink": {"epochs": 3, "lr": 1e-3},
    "influence": {"records": 20},
    "influence_exact": {"damping": 10.0, "tolerance": 0.1},
    "influence_second_order": {"iterations": 3},
    "fisher_empirical": {"alpha": 1e-9},  # more, and all noise is at its cap, whatever was forgotten
    "ssd": {"alpha": 2.0},
    "ssd_label_free": {"alpha": 1.2},
    "top_k_perturbation_reading": {"noise": 2.0, "repair": 2},
    "random_k_perturbation_reading": {"repair": 2},
    "unrolling_sgd": {"scale": 0.01},  # 20 epochs from random weights are far outside of the expansion
    "amun": {"epochs": 3, "steps": 5, "radius": 0.4},
    "neggrad_plus": {"epochs": 3},
    "random_labels": {"epochs": 3},
    "salun": {"epochs": 3},
    "l1_sparse": {"epochs": 3},
    "amnesiac": {"repair_epochs": 5},  # nearly every batch of 32 held one of the 60 records: it starts from nothing
    "cf_k": {"epochs": 3},
    "eu_k": {"epochs": 5, "lr": 0.1},
    "scissorhands": {"epochs": 3},
    "unsir": {"repair_epochs": 5},
    "condensation": {"epochs": 8, "alternations": 1, "offline_epochs": 2, "clusters": 5},
    "pruned": {"sparsity": 0.8, "recovery": 3, "settings": '{"epochs": 2}'},
}
"""Settings that suit 240 records of 64 values and an MLP, where a method's defaults are made for large networks."""

SGD_ONLY = {"unrolling_sgd"}
"""Methods that undo the steps of SGD, and refuse other optimisers."""

OWN_TRAINING = {"sisa"}
"""Methods that serve only models of their own training: the same contract on such models is in test_sisa.py."""

COSTLY = {"adversarial", "amnesiac", "condensation", "mini_unlearning_reading", "noisy_finetune_reading"}
"""Methods whose checks take long even here: they are made in the slow stage."""

SERVED = {name: make for name, make in METHODS.items() if name not in OWN_TRAINING}


def contract_of(first: str, last: str) -> list[object]:
    """Checks on an MLP, of methods named from one letter to another: a file of tests is one worker's."""
    names = {name: make for name, make in SERVED.items() if first <= name[0] <= last}
    checks = method_contract(names, mlp_subject, exempt={k: v for k, v in EXEMPT.items() if k in names},
                             settings={k: v for k, v in SETTINGS.items() if k in names})  # fmt: skip
    return [pytest.param(check, id=name, marks=slow(name.split("-")[0])) for name, check in checks]


def slow(name: str) -> list[pytest.MarkDecorator]:
    """Marks of what is tested of a method."""
    return [pytest.mark.slow] if name in COSTLY else []


def costly_apart(names: Iterable[str]) -> list[object]:
    """Parameters, one a method."""
    return [pytest.param(name, marks=slow(name)) for name in names]


ON_NETWORKS = [name for name in SERVED if name != "noop"]


def keeps_form_and_works_on(network: str, name: str) -> None:
    """Check a method on a network, with and without the normalisation that the network's name says."""
    subject = network_subject(network, "sgd" if name in SGD_ONLY else "adamw")
    method = METHODS[name](**SETTINGS.get(name, {}))
    method_works(method, subject)
    method_keeps_form(method, subject)
