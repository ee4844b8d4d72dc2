"""Stage events, read as far as the ledger needs them."""

import msgspec

from medkg.contracts.messages import StageEvent
from medkg.storage.ledger_said import StageSaid, _Whole


def test_what_is_read_of_a_stage_event_is_what_contracts_says_it_holds() -> None:
    told = {field.name: (field.type, field.default) for field in msgspec.structs.fields(StageEvent)}
    for reading in (StageSaid, _Whole):
        for field in msgspec.structs.fields(reading):
            assert told[field.name] == (field.type, field.default), f"{reading.__name__}.{field.name}"
