"""What the tests of the tables share: an engine on a fresh, empty database."""

from collections.abc import AsyncIterator

import pytest

from medkg.storage.engine import Engine, open_engine


@pytest.fixture
async def bare(database_url: str) -> AsyncIterator[Engine]:
    """An engine on a database without a table."""
    opened = open_engine(database_url)
    yield opened
    await opened.dispose()
