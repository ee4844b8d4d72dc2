"""What the tests of the ledger share: an engine on a fresh, migrated database."""

from collections.abc import AsyncIterator

import pytest

from medkg.storage.engine import Engine, migrate, open_engine


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    opened = open_engine(database_url)
    await migrate(opened)
    yield opened
    await opened.dispose()
