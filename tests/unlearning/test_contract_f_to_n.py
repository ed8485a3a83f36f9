"""Methods from f to n keep the contract on an MLP."""

import pytest
from contract_settings import contract_of

CHECKS = contract_of("f", "n")


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()
