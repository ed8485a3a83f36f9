"""Every registered attack keeps every rule of the contract."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.population import Population
from mnemoscope.attacks.threshold import Threshold
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.testing import ATTACK_CHECKS, ContractViolation, attack_contract

CASES = attack_contract(ATTACKS)


@pytest.mark.parametrize("check", [c for _, c in CASES], ids=[i for i, _ in CASES])
def test_contract(check):
    check()
