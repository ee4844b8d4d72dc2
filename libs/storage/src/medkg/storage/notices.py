"""Waking up on PostgreSQL's NOTIFY."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.contracts.errors import ResourceUnavailableError
from medkg.storage.transactions import translated

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


async def listen(engine: AsyncEngine, channel: str, wake: Callable[[], None]) -> None:
    """Call ``wake`` at every notice on a channel, on a connection of its own, until cancelled.

    A lost connection is made again, and ``wake`` is called then too: a notice may have been missed. Who listens looks
    by itself from time to time all the same.
    """
    while True:
        try:
            async with translated(f"listening on {channel}"):
                await _listen_once(engine, channel, wake)
        except ResourceUnavailableError as error:
            log.warning("%s; again in %s s", error.message, _AGAIN_SECONDS)
        wake()
        await asyncio.sleep(_AGAIN_SECONDS)


async def _listen_once(engine: AsyncEngine, channel: str, wake: Callable[[], None]) -> None:
    ended = asyncio.Event()
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection

        def heard(*_: object) -> None:
            wake()

        def lost(*_: object) -> None:
            ended.set()

        await driver.add_listener(channel, heard)
        driver.add_termination_listener(lost)
        try:
            wake()
            await ended.wait()
        finally:
            driver.remove_termination_listener(lost)
            if not driver.is_closed():
                await driver.remove_listener(channel, heard)
