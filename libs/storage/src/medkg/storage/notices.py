"""Waking up on PostgreSQL's NOTIFY, and what a notice says."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.contracts.errors import ResourceUnavailableError
from medkg.storage.transactions import translated

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


class Notice(msgspec.Struct, frozen=True):
    """What has changed: jobs whose documents ended, documents (job, document) that may pass a gate.

    ``truncated``: there is more than is named, or nobody knows what was missed.
    """

    jobs: tuple[str, ...] = ()
    documents: tuple[tuple[str, str], ...] = ()
    truncated: bool = False


EVERYTHING = Notice(truncated=True)
_DECODE = msgspec.json.Decoder(Notice).decode


def read_notice(payload: str) -> Notice:
    """A notice as it came; what cannot be read may mean anything."""
    try:
        return _DECODE(payload)
    except (msgspec.MsgspecError, RecursionError):
        return EVERYTHING


async def listen(engine: AsyncEngine, channel: str, heard: Callable[[Notice], None]) -> None:
    """Call ``heard`` with every notice on a channel, on a connection of its own, until cancelled.

    A lost connection is made again, and ``heard`` is told :data:`EVERYTHING` then: a notice may have been missed. Who
    listens looks by itself from time to time all the same.
    """
    while True:
        try:
            async with translated(f"listening on {channel}"):
                await _listen_once(engine, channel, heard)
        except ResourceUnavailableError as error:
            log.warning("%s; again in %s s", error.message, _AGAIN_SECONDS)
        heard(EVERYTHING)
        await asyncio.sleep(_AGAIN_SECONDS)


async def _listen_once(engine: AsyncEngine, channel: str, heard: Callable[[Notice], None]) -> None:
    ended = asyncio.Event()
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection

        def told(_connection: object, _pid: object, _channel: object, payload: object) -> None:
            heard(read_notice(str(payload)))

        def lost(*_: object) -> None:
            ended.set()

        try:
            await driver.add_listener(channel, told)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # it lay in the pool, and is gone
            await connection.invalidate()
            raise ResourceUnavailableError(f"listening on {channel}: the connection is gone: {error}") from error
        driver.add_termination_listener(lost)
        try:
            heard(EVERYTHING)
            await ended.wait()
        finally:
            driver.remove_termination_listener(lost)
            if not driver.is_closed():
                await driver.remove_listener(channel, told)
