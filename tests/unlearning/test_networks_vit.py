"""Every method works on a vision transformer and keeps its form."""

import pytest
from contract_settings import ON_NETWORKS, keeps_form_and_works_on


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_NETWORKS)
def test_network(name):
    keeps_form_and_works_on("vit", name)
