"""PostgreSQL on a host whose cable is pulled: who waits for it finds out, and says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from tests.fixtures_postgres import NewDatabase
from tests.integration.far_host import PORT, far_host

from medkg.contracts.errors import ResourceUnavailableError
from medkg.storage import engine as engines
from medkg.storage.engine import Engine, open_engine
from medkg.storage.transactions import translated

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

SILENCE_SECONDS = 4


@asynccontextmanager
async def far_engine(
    new_database: NewDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Engine, Callable[[], None]]]:
    """An engine that has just asked something of a PostgreSQL on another host, and what pulls that host's cable."""
    monkeypatch.setattr(engines, "SILENCE_SECONDS", SILENCE_SECONDS)
    async with new_database() as near:
        url = make_url(near)
        socket = Path(str(url.query["host"])) / f".s.PGSQL.{url.port or PORT}"
        with far_host(socket, folder / "relay.log") as (address, pull):
            far = url.set(host=address, port=PORT, query={}).render_as_string(hide_password=False)
            engine = open_engine(far)
            async with asyncio.timeout(20):
                while True:
                    try:
                        await ask(engine, "SELECT 1")
                        break
                    except ResourceUnavailableError:  # the relay is starting
                        await asyncio.sleep(0.1)
            yield engine, pull
            await engine.dispose(close=False)


async def ask(engine: Engine, statement: str) -> None:
    async with translated("asking"), engine.connect() as connection:
        await connection.execute(text(statement))


async def test_a_statement_on_its_way_ends_when_nothing_comes_back(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with far_engine(new_database, tmp_path, monkeypatch) as (engine, pull):
        asked = asyncio.create_task(ask(engine, "SELECT pg_sleep(600)"))
        await asyncio.sleep(0.5)  # PostgreSQL has it, and nothing more is to be sent
        pull()
        with pytest.raises(ResourceUnavailableError):
            await asyncio.wait_for(asked, 5 * SILENCE_SECONDS)


async def test_a_pooled_connection_is_not_waited_for_after_its_host_is_gone(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_CONNECT_SECONDS", SILENCE_SECONDS)
    async with far_engine(new_database, tmp_path, monkeypatch) as (engine, pull):
        pull()
        with pytest.raises(ResourceUnavailableError):
            await asyncio.wait_for(ask(engine, "SELECT 1"), 5 * SILENCE_SECONDS)


async def test_a_statement_may_take_longer_than_silence_may(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with far_engine(new_database, tmp_path, monkeypatch) as (engine, _):
        await ask(engine, f"SELECT pg_sleep({2 * SILENCE_SECONDS})")
