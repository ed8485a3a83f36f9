"""Every method works on a CNN without normalisation and keeps its form."""

import pytest
from contract_settings import ON_NETWORKS, keeps_form_and_works_on


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_NETWORKS)
def test_network(name):
    keeps_form_and_works_on("plain", name)
