"""The gateway under test."""

import pytest
from tests.unit.gateway.asking import Gateway


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()
