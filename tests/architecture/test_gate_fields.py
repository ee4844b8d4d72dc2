"""What a topology may wait for is what the ledger has and the gate-router looks at."""

from medkg.contracts.topology import LEDGER_FIELDS
from medkg.storage.ledger import GATE_FIELDS
from medkg.storage.waits import GATE_COLUMNS


def test_every_field_that_a_gate_may_wait_for_is_one_that_the_router_looks_at() -> None:
    assert set(LEDGER_FIELDS) == set(GATE_COLUMNS)


def test_every_field_that_can_be_set_is_one_that_a_gate_may_wait_for() -> None:
    assert set(GATE_FIELDS) <= set(LEDGER_FIELDS)
