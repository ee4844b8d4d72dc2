"""The same attempt may wait again and again, while a peer is left alone: no wait may be taken for one that is over."""

from typing import Any

import pytest
from tests.unit.runtime.stage_kit import request, topology

from medkg.gate_router.parking import Origin, Parker
from medkg.runtime.blobs import open_blobs
from medkg.runtime.topologies import PinnedTopologies
from medkg.storage.waits import WaitKind


@pytest.mark.parametrize("change", [{"not_before_ms": 2_000}, {"attempt": 3}, {"redrive": 1}])
async def test_a_wait_is_told_apart_by_attempt_redrive_and_the_time_it_waits_for(change: dict[str, Any]) -> None:
    pinned, given = PinnedTopologies(open_blobs("memory:")), topology()
    await pinned.pin(given)
    nothing: Any = None
    parker = Parker(nothing, pinned, "router-1", "medkg/gate-router", 100)
    origin = Origin("medkg.gate.v1", 0, 7, ())
    first = await parker.wait_of(request(given, not_before_ms=1_000, attempt=2), origin)
    again = await parker.wait_of(request(given, not_before_ms=1_000, attempt=2), origin)
    other = await parker.wait_of(request(given, **({"not_before_ms": 1_000, "attempt": 2} | change)), origin)
    assert (first.kind, first.due_ms, first.next_topic) == (WaitKind.RETRY, 1_000, "medkg.parse.v1")
    assert first.wait_id == again.wait_id
    assert first.wait_id != other.wait_id
