"""Methods from a to e keep the contract on an MLP."""

import pytest
from contract_settings import contract_of

CHECKS = contract_of("a", "e")


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()
