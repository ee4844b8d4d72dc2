"""Waking up on NOTIFY: prompt, and not for good lost with a connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.waits_kit import add_document, rows, run

from medkg.storage import notices
from medkg.storage.engine import migrate, open_engine
from medkg.storage.ledger import CHANNEL
from medkg.storage.ledger_fields import set_field
from medkg.storage.notices import EVERYTHING, Notice, listen, read_notice

pytestmark = pytest.mark.postgres


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(database_url)
    await migrate(opened)
    yield opened
    await opened.dispose()


class Ear:
    """Counts how often it was woken."""

    def __init__(self) -> None:
        self.woken = 0
        self.heard: list[Notice] = []

    def __call__(self, notice: Notice) -> None:
        self.heard.append(notice)
        self.woken += 1

    async def more_than(self, before: int) -> None:
        await until(lambda: self.woken > before)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(engine: AsyncEngine, channel: str = CHANNEL) -> AsyncIterator[Ear]:
    ear = Ear()
    task = asyncio.create_task(listen(engine, channel, ear))
    await ear.more_than(0)  # it listens now: whatever came before may have been missed
    yield ear
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def notify(engine: AsyncEngine, channel: str = CHANNEL) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})


async def test_every_notice_wakes_the_listener(engine: AsyncEngine) -> None:
    async with listening(engine) as ear:
        for _ in range(3):
            before = ear.woken
            await notify(engine)
            await ear.more_than(before)


async def test_a_gate_field_that_is_set_wakes_whoever_waits_for_it(engine: AsyncEngine) -> None:
    await add_document(engine, "doc")
    async with listening(engine) as ear:
        before = ear.woken
        await set_field(engine, "clinic", "job", "doc", "pdf_ir_ready", True)
        await ear.more_than(before)


async def test_a_notice_names_the_document(engine: AsyncEngine) -> None:
    await add_document(engine, "doc")
    async with listening(engine) as ear:
        before = ear.woken
        await set_field(engine, "clinic", "job", "doc", "pdf_ir_ready", True)
        await ear.more_than(before)
        assert ear.heard[-1] == Notice(documents=(("job", "doc"),))


@pytest.mark.parametrize("payload", ["", "{", "[]", '{"documents": [["a"]]}', "[" * 5_000])
def test_a_notice_that_cannot_be_read_may_mean_anything(payload: str) -> None:
    assert read_notice(payload) == EVERYTHING


async def test_notices_of_other_channels_and_of_undone_transactions_wake_nobody(engine: AsyncEngine) -> None:
    async with listening(engine) as ear:
        before = ear.woken
        await notify(engine, "other")
        async with engine.connect() as connection:
            await connection.execute(text(f"NOTIFY {CHANNEL}"))
            await connection.rollback()
        await notify(engine)
        await ear.more_than(before)
        assert ear.woken == before + 1


async def test_a_lost_connection_is_made_again_and_wakes_at_once(
    engine: AsyncEngine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_AGAIN_SECONDS", 0.01)
    other = open_engine(database_url)
    async with listening(engine) as ear:
        for _ in range(2):
            before = ear.woken
            await run(
                other,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            await ear.more_than(before + 1)  # once because it was lost, once because it is back
            before = ear.woken
            await notify(other)
            await ear.more_than(before)
    await other.dispose()


async def test_a_server_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_AGAIN_SECONDS", 0.01)
    nowhere = open_engine("postgresql://nobody@127.0.0.1:1/none")
    ear = Ear()
    task = asyncio.create_task(listen(nowhere, CHANNEL, ear))
    await ear.more_than(3)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await nowhere.dispose()


async def test_a_listener_that_is_stopped_leaves_a_connection_that_can_be_used(engine: AsyncEngine) -> None:
    async with listening(engine):
        pass
    listeners = await rows(engine, "SELECT count(*) AS many FROM pg_listening_channels()")
    assert listeners[0].many == 0
