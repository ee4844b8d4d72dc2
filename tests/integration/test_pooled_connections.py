"""Connections that PostgreSQL has closed while they lay in the pool."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.contracts.errors import ResourceUnavailableError
from medkg.storage import engine as engines
from medkg.storage.engine import open_engine
from medkg.storage.transactions import translated

pytestmark = pytest.mark.postgres


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(database_url, pool_size=2)
    yield opened
    await opened.dispose()


async def close_all(engine: AsyncEngine, database_url: str) -> None:
    """Fill the pool with connections, and let the server close each of them."""
    async with engine.connect() as one, engine.connect() as another:
        await one.execute(text("SELECT 1"))
        await another.execute(text("SELECT 1"))
    beside = open_engine(database_url)
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    async with beside.connect() as connection:
        assert len((await connection.execute(text(statement + "pg_backend_pid()"))).all()) == 2
    await beside.dispose()


async def ask(engine: AsyncEngine) -> int:
    async with translated("asking"), engine.connect() as connection:
        return int(await connection.scalar(text("SELECT 1")) or 0)


async def test_who_asks_after_a_while_does_not_notice(
    engine: AsyncEngine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_FRESH_SECONDS", 0.0)
    await close_all(engine, database_url)
    assert await ask(engine) == 1


async def test_who_asks_at_once_is_told_to_ask_again_and_then_answered(engine: AsyncEngine, database_url: str) -> None:
    await close_all(engine, database_url)
    with pytest.raises(ResourceUnavailableError):
        await ask(engine)
    assert await ask(engine) == 1  # none of the others was handed out


async def test_a_connection_in_use_is_not_tested_between_two_transactions(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[object] = []
    monkeypatch.setattr(engine.dialect, "do_ping", tested.append)
    for _ in range(3):
        assert await ask(engine) == 1
    assert tested == []
    monkeypatch.setattr(engines, "_FRESH_SECONDS", 0.0)
    assert await ask(engine) == 1
    assert len(tested) == 1
