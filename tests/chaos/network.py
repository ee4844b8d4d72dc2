"""A wire that can be slowed, cut, and made to lose its connections: a proxy between services and Kafka or PostgreSQL.

The relay runs on a thread of its own. Slowing delays every piece of data in both directions; cutting closes every
connection and refuses new ones, as a firewall that answers does; losing leaves every connection open while nothing
passes through it any more, as a firewall that has forgotten it does. All for everybody, or for the processes that are
named: the others do not notice.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_PIECE = 65_536
EVERYBODY: frozenset[int] = frozenset()
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Relays connections made to ``listen`` on to ``target``; each is (host, port) or the path of a Unix socket."""

    def __init__(self, listen: tuple[str, int] | Path, target: tuple[str, int] | Path) -> None:
        self._listen = listen
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._open: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}  # near end -> far end
        self._delay_seconds = 0.0
        self._is_cut = False
        self._victims = EVERYBODY
        self._hit: dict[asyncio.StreamWriter, bool] = {}  # by near end: whether it is a victim's
        self._lost: set[asyncio.StreamWriter] = set()  # near ends of connections that nothing passes through

    def slow(self, seconds: float, victims: frozenset[int] = EVERYBODY) -> None:
        """Hold every piece of data for so long, of everybody or of these processes; until :meth:`heal`."""
        self._choose(victims)
        self._delay_seconds = seconds

    def cut(self, victims: frozenset[int] = EVERYBODY) -> None:
        """Close every connection, and every new one at once, until :meth:`heal`; or those of these processes."""
        self._choose(victims)
        self._is_cut = True
        self._call(self._close_all)

    def lose(self, victims: frozenset[int] = EVERYBODY) -> None:
        """What is sent on the connections of today is taken and goes nowhere, for ever; new ones are as ever."""
        self._choose(victims)

        async def lose() -> None:
            self._lost |= {near for near in self._open if self._is_hit(near)}

        self._call(lose)

    def heal(self) -> None:
        """As it was at first, but for connections that were lost."""
        self._is_cut = False
        self._delay_seconds = 0.0
        self._choose(EVERYBODY)

    def _choose(self, victims: frozenset[int]) -> None:
        async def choose() -> None:
            self._victims = victims
            ports = _ports_of(victims)
            self._hit = {near: _belongs_to(near, victims, ports) for near in self._open} if victims else {}

        self._call(choose)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(timeout=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()
        self._call(self._close_all)
        self._call(self._end)
        self._thread.join(timeout=10)
        self._loop.close()

    def _call(self, what: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await what()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

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
        for near, far in list(self._open.items()):
            if self._is_hit(near):
                near.transport.abort()
                far.transport.abort()

    async def _connected(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self._is_cut and self._is_hit(near):
            near.transport.abort()
            return
        try:
            far_reader, far = await self._dial()
        except OSError:
            near.transport.abort()
            return
        self._open[near] = far
        try:
            await asyncio.gather(self._relay(near_reader, far, near), self._relay(far_reader, near, near))
        finally:
            del self._open[near]
            self._lost.discard(near)
            near.transport.abort()
            far.transport.abort()

    async def _dial(self) -> Pair:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection(*self._target)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, near: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while piece := await reader.read(_PIECE):
                if self._delay_seconds and self._is_hit(near):
                    await asyncio.sleep(self._delay_seconds)
                if near in self._lost:
                    continue
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.close()

    def _is_hit(self, near: asyncio.StreamWriter) -> bool:
        if not self._victims:
            return True
        if near not in self._hit:
            self._hit[near] = _belongs_to(near, self._victims, _ports_of(self._victims))
        return self._hit[near]


def _belongs_to(near: asyncio.StreamWriter, processes: frozenset[int], ports: frozenset[int]) -> bool:
    """Whether one of these processes, which have these ports, has made a connection."""
    end = near.get_extra_info("socket")
    if end is not None and end.family == socket.AF_UNIX:  # Linux tells who is at the other end
        pid, _, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return pid in processes
    return near.get_extra_info("peername")[1] in ports


def _ports_of(processes: frozenset[int]) -> frozenset[int]:
    found: set[int] = set()
    for pid in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {one.laddr.port for one in psutil.Process(pid).net_connections("tcp") if one.laddr}
    return frozenset(found)
