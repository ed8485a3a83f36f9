"""Methods from s to z keep the contract on an MLP."""

import pytest
from contract_settings import contract_of

CASES = contract_of("s", "z")


@pytest.mark.parametrize("check", [c for _, c in CASES], ids=[i for i, _ in CASES])
def test_contract(check):
    check()
