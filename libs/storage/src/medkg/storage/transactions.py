"""Transactions that try again when they lost against another, and errors that say whether waiting can help."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.contracts.errors import ResourceUnavailableError

T = TypeVar("T")

_ATTEMPTS = 5
_LOST = {"40001", "40P01"}  # serialization failure, deadlock
# Classes of SQLSTATE that a server which comes back will not repeat: connection, resources, operator, system.
_PASSING = ("08", "53", "57", "58")


async def in_transaction(engine: AsyncEngine, doing: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run ``work`` in a transaction of its own; one that lost against another (deadlock) is run again, a few times.

    Raises:
        ResourceUnavailableError: the database does not answer, or the transaction lost too often.
    """
    attempt = 0
    async with translated(doing):
        while True:
            attempt += 1
            try:
                async with engine.begin() as connection:
                    return await work(connection)
            except DBAPIError as error:
                if sqlstate(error) not in _LOST or attempt == _ATTEMPTS:
                    raise
            await asyncio.sleep(random.uniform(0.005, 0.05) * attempt)  # noqa: S311  spreads two losers, guards nothing


@asynccontextmanager
async def translated(doing: str) -> AsyncIterator[None]:
    """Turns what a database that does not answer raises into ResourceUnavailableError; ``doing`` begins its message."""
    try:
        yield
    except DBAPIError as error:
        state = sqlstate(error)
        is_passing = state in _LOST or state.startswith(_PASSING) or isinstance(error, InterfaceError)
        if is_passing or error.connection_invalidated:
            raise _unavailable(doing, error.orig or error) from error
        raise
    except (OSError, PoolTimeoutError) as error:  # TimeoutError is an OSError
        raise _unavailable(doing, error) from error


def sqlstate(error: DBAPIError) -> str:
    """The five characters by which PostgreSQL names an error; empty where it did not say anything."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _unavailable(doing: str, error: BaseException) -> ResourceUnavailableError:
    reason = str(error) or type(error).__name__
    return ResourceUnavailableError(f"{doing}: the database does not answer: {reason}; is it up? (MEDKG_DATABASE_URL)")
