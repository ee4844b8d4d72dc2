"""A wire that can be slowed and cut: a proxy between the services and Kafka or PostgreSQL.

The relay runs on a thread of its own. Slowing delays every piece of data in both directions; cutting closes every
connection and refuses new ones, as a pulled cable and a firewall that answers do.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_PIECE = 65_536
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Relays connections made to ``listen`` on to ``target``; each is (host, port) or the path of a Unix socket."""

    def __init__(self, listen: tuple[str, int] | Path, target: tuple[str, int] | Path) -> None:
        self._listen = listen
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._delay_seconds = 0.0
        self._is_cut = False

    def slow(self, seconds: float) -> None:
        """Hold every piece of data for so long; 0 heals."""
        self._delay_seconds = seconds

    def cut(self) -> None:
        """Close every connection, and every new one at once, until :meth:`heal`."""
        self._is_cut = True
        self._call(self._close_all)

    def heal(self) -> None:
        """As it was at first."""
        self._is_cut = False
        self._delay_seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(timeout=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close_all)
        self._call(self._end)
        self._thread.join(timeout=10)
        self._loop.close()

    def _call(self, what: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await what()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=10)

    async def _serve(self) -> None:
        if isinstance(self._listen, Path):
            self._server = await asyncio.start_unix_server(self._connected, str(self._listen))
        else:
            self._server = await asyncio.start_server(self._connected, *self._listen)

    async def _end(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        self._loop.call_later(0.05, self._loop.stop)

    async def _close_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _connected(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self._is_cut:
            near.transport.abort()
            return
        try:
            far_reader, far = await self._dial()
        except OSError:
            near.transport.abort()
            return
        self._open |= {near, far}
        try:
            await asyncio.gather(self._relay(near_reader, far), self._relay(far_reader, near))
        finally:
            self._open -= {near, far}
            near.transport.abort()
            far.transport.abort()

    async def _dial(self) -> Pair:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection(*self._target)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while piece := await reader.read(_PIECE):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.close()
