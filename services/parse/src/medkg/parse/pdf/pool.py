"""Processes that read PDFs: kept for the next file while all goes well, killed and replaced when one goes wrong."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec

from medkg.contracts.document import Document
from medkg.contracts.errors import ContentError, ParserKilledError, all_errors
from medkg.parse.pdf.child import HEAD, Answer, Asked, frame

log = logging.getLogger(__name__)

_DECODE = msgspec.json.Decoder(Answer).decode
_ERRORS = {error.code: error for error in all_errors(ContentError)}
_LAST_WORDS = 400  # characters of what a process said before it died


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What one process is given for one file; after ``files`` of them it is replaced."""

    processes: int = 2
    memory_bytes: int = 1 << 30
    timeout_seconds: float = 25.0
    output_bytes: int = 64 << 20
    files: int = 200


class ParserPool:
    """Up to ``processes`` files are read at once. Close it when it is no longer used."""

    def __init__(self, limits: PoolLimits, command: tuple[str, ...] = ()) -> None:
        self._limits = limits
        self._command = command or (sys.executable, "-m", "medkg.parse.pdf.child", str(limits.memory_bytes))
        self._turn = asyncio.Semaphore(limits.processes)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    async def read(self, data: bytes, asked: Asked) -> Document:
        """The document of a file.

        Raises:
            ContentError: what the parser says of it; ParserKilledError where it took the process down, or had to be
                stopped for its time or output.
        """
        async with self._process() as process:
            try:
                async with asyncio.timeout(self._limits.timeout_seconds):
                    answer = await process.ask(data, asked, self._limits.output_bytes)
            except TimeoutError as error:
                raise ParserKilledError(
                    f"reading PDF {asked.record}: not done after {self._limits.timeout_seconds:g} s (timeout_seconds)"
                ) from error
            except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
                raise ParserKilledError(f"reading PDF {asked.record}: {await process.last_words(error)}") from error
            process.is_good = True
        if answer.document is None:
            raise _ERRORS.get(answer.code, ContentError)(answer.message, record=asked.record)
        return answer.document

    async def close(self) -> None:
        """End all processes."""
        for process in list(self._all):
            await process.kill()
        self._all.clear()
        self._idle.clear()

    @property
    def pids(self) -> list[int]:
        """Of the processes that live."""
        return [process.pid for process in self._all]

    @asynccontextmanager
    async def _process(self) -> AsyncIterator["_Process"]:
        """A process for one file; one that was not used to a good end is killed, whatever the reason."""
        async with self._turn:
            process = self._idle.pop() if self._idle else await _Process.start(self._command)
            self._all.add(process)
            process.is_good = False
            try:
                yield process
            finally:
                if process.is_good and process.files < self._limits.files:
                    self._idle.append(process)
                else:
                    self._all.discard(process)
                    await asyncio.shield(process.kill())


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.files = 0
        self.is_good = False

    @classmethod
    async def start(cls, command: tuple[str, ...]) -> "_Process":
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, data: bytes, asked: Asked, output_bytes: int) -> Answer:
        """What it answers.

        Raises:
            EOFError: it has died. ValueError: it answers more than it may.
        """
        self.files += 1
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EOFError("it has no pipes")
        stdin.write(frame(msgspec.json.encode(asked)))
        stdin.write(frame(data))
        await stdin.drain()
        size = int.from_bytes(await stdout.readexactly(HEAD), "big")
        if size > output_bytes:
            raise ValueError(f"what it makes of it is {size} bytes, over the limit of {output_bytes} (output_bytes)")
        return _DECODE(await stdout.readexactly(size))

    async def last_words(self, error: BaseException) -> str:
        """Why it died, as far as anybody knows."""
        if isinstance(error, ValueError):  # msgspec's errors are such, too
            return str(error)
        said = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                code = await self._process.wait()
                said = f"the parser's process ended with {code}"
                if self._process.stderr is not None:
                    lines = (await self._process.stderr.read(65_536)).decode(errors="replace").split("\n")
                    said += f": {' '.join(line for line in lines[-3:] if line)[:_LAST_WORDS]}"
        return said or "the parser's process broke off"

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
