"""Methods from o to r keep the contract on an MLP."""

import pytest
from contract_settings import contract_of

CHECKS = contract_of("o", "r")


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()
