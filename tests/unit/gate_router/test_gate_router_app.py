"""The composition of the router: what goes to whom, and that a part that died is not overlooked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.gate_router import app
from medkg.runtime.records import Record
from medkg.runtime.service import HandleBatch


class Parts:
    """Stand-ins for the engine, the admitter, the parker and the releaser."""

    def __init__(self) -> None:
        self.admitted: list[Record] = []
        self.arrived: list[Record] = []
        self.dies: Exception | None = None
        self.ended: list[str] = []
        self.let_die = asyncio.Event()

    async def dispose(self) -> None:
        self.ended.append("engine")

    async def admit(self, records: list[Record]) -> list[Message]:
        self.admitted += records
        return [Message("said", "admitted", b"", []) for _ in records]

    async def park(self, records: list[Record]) -> list[Message]:
        self.arrived += records
        return [Message("said", "parked", b"", []) for _ in records]

    def heard(self, _: object) -> None:
        raise AssertionError("nobody listens here")

    def parked(self, _: object) -> None:
        raise AssertionError("nothing is parked here")

    def close(self) -> None:
        self.ended.append("groups")

    async def lags(self, _: object) -> dict[str, int]:
        return {}

    async def run(self) -> None:
        try:
            await self.let_die.wait()
            raise RuntimeError("the releaser died")
        finally:
            self.ended.append("releaser")


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Parts, HandleBatch]]:
    parts = Parts()

    async def nothing(*_: object) -> None:
        return None

    async def forever(*_: object) -> None:
        await asyncio.Event().wait()

    class Host:
        database_url = "postgresql://nowhere"
        topologies = pinned = publisher = kafka = blobs = None
        settings = type("Settings", (), {"worker_id": "router-1", "inline_bytes": 0})

    def given(*_: object, **__: object) -> Any:
        return parts

    for name, value in {
        "open_engine": given,
        "Waits": given,
        "Admitter": given,
        "Parker": given,
        "Releaser": given,
        "Groups": given,
        "prepare": nothing,
        "listen": forever,
    }.items():
        monkeypatch.setattr(app, name, value)
    host: Any = Host()
    async with app.open_router(host) as handle:
        await asyncio.sleep(0)  # the releaser has begun
        yield parts, handle
    assert parts.ended == ["releaser", "groups", "engine"]  # what uses the engine ends before it


def record(topic: str) -> Record:
    return Record(topic, 0, 0, None, b"", [])


async def test_jobs_are_admitted_and_arrivals_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as (parts, handle):
        messages = await handle([record(topics.GATE), record(topics.JOBS), record(topics.GATE)])
        assert [item.key for item in messages] == ["admitted", "parked", "parked"]
        assert (len(parts.admitted), len(parts.arrived)) == (1, 2)


async def test_a_releaser_that_died_takes_the_router_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as (parts, handle):
        parts.let_die.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="the releaser died"):
            await handle([record(topics.JOBS)])
        assert parts.admitted == []


def test_the_router_reads_jobs_and_arrivals() -> None:
    assert (app.SERVICE.name, app.SERVICE.topics) == ("gate-router", (topics.JOBS, topics.GATE))
