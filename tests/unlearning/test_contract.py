"""Every method keeps the contract on an MLP, and its form on networks with and without normalisation."""

import pytest
from toy_models import NETWORKS, mlp_subject, network_subject

from mnemoscope.audit.testing_methods import method_contract, method_keeps_form, method_works
from mnemoscope.unlearning import METHODS

EXEMPT = {
    # The control that must do nothing, whatever is asked.
    "noop": frozenset({"method_works", "method_reads_the_request"}),
}
"""Checks that do not apply, with the reason."""

SETTINGS: dict[str, dict[str, object]] = {
    "pruned": {"sparsity": 0.8, "recovery": 3, "settings": '{"epochs": 2}'},
}
"""Settings that suit 240 records of 64 values and an MLP, where a method's defaults are made for large networks."""

OWN_TRAINING = {"sisa"}
"""Methods that serve only models of their own training: the same contract on such models is in test_sisa.py."""

SERVED = {name: make for name, make in METHODS.items() if name not in OWN_TRAINING}
CASES = method_contract(SERVED, mlp_subject, exempt=EXEMPT, settings=SETTINGS)


@pytest.mark.parametrize("check", [c for _, c in CASES], ids=[i for i, _ in CASES])
def test_contract(check):
    check()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", [name for name in SERVED if name != "noop"])
def test_networks(name, network):
    method, subject = METHODS[name](**SETTINGS.get(name, {})), network_subject(network)
    method_works(method, subject)
    method_keeps_form(method, subject)
