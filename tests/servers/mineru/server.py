"""MinerU's HTTP API as 3.4.4 and 2.5.0 speak it, on loopback, over plain sockets so that it can break off anywhere."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4


@dataclass
class Recorded:
    """What MinerU made of one file: the texts of its output files, by the name they have in an answer."""

    files: dict[str, str]


@dataclass
class Faults:
    """What goes wrong. Counters count down: so many times, then no more."""

    unavailable: int = 0  # answers 503
    breaks_off: int = 0  # answers that end in the middle
    loses_tasks: int = 0  # tasks that are forgotten when they are first asked for, as after a restart
    empty_results: int = 0  # done, with `{}` for the document
    fails_tasks: int = 0
    raw_body: bytes | None = None  # every result is this
    raw_type: str = "application/json"
    refuses: tuple[int, dict[str, Any]] | None = None  # status and body of every submission


@dataclass
class _Task:
    sha256: str
    stem: str
    ready_at: float


@dataclass
class FakeMineru:
    """State of one server. ``seconds`` is how long parsing takes, by ``now``."""

    recorded: Mapping[str, Recorded]  # by SHA-256 of the PDF
    now: Callable[[], float]
    seconds: float = 0.0
    speaks_tasks: bool = True
    wraps: int = 1  # how often a file's JSON is encoded into a string
    faults: Faults = field(default_factory=Faults)
    submissions: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    fields: list[bytes] = field(default_factory=list)
    at_work: int = 0
    most_at_work: int = 0
    _tasks: dict[str, _Task] = field(default_factory=dict)

    def restart(self) -> None:
        """All tasks are in memory only."""
        self._tasks.clear()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its base URL, while it runs."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) != b"":
                lines = head.decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, media_type, data = await self._answer(method, path, headers, body)
                whole = (
                    f"HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\ncontent-length: {len(data)}\r\n\r\n".encode()
                    + data
                )
                if self._happens("breaks_off"):
                    writer.write(whole[: len(whole) // 2])
                    break
                writer.write(whole)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        self.requests.append(f"{method} {path}")
        if self._happens("unavailable"):
            return _json(503, {"detail": "Task manager is unavailable"})
        if path == "/health" and self.speaks_tasks:
            return _json(200, {"status": "healthy", "version": "3.4.4", "protocol_version": 2})
        if method == "POST" and path == "/file_parse":
            return await self._file_parse(headers, body)
        if method == "POST" and path == "/tasks" and self.speaks_tasks:
            return self._submit(headers, body)
        if path.startswith("/tasks/") and self.speaks_tasks:
            return self._task(path.removeprefix("/tasks/"))
        return _json(404, {"detail": "Not Found"})

    async def _file_parse(self, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        if self.faults.refuses:
            return _json(*self.faults.refuses)
        sha256, stem = self._taken(headers, body)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await asyncio.sleep(0.01)
        self.at_work -= 1
        return self._result(sha256, stem)

    def _submit(self, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        if self.faults.refuses:
            return _json(*self.faults.refuses)
        sha256, stem = self._taken(headers, body)
        task_id = str(uuid4())
        self._tasks[task_id] = _Task(sha256, stem, self.now() + self.seconds)
        self.at_work = sum(task.ready_at > self.now() for task in self._tasks.values())
        self.most_at_work = max(self.most_at_work, self.at_work)
        return _json(202, {"task_id": task_id, "status": "pending", "queued_ahead": 0, "message": "Task submitted"})

    def _task(self, rest: str) -> tuple[int, str, bytes]:
        task_id, _, wants_result = rest.partition("/")
        if task_id in self._tasks and self._happens("loses_tasks"):
            self.restart()
        task = self._tasks.get(task_id)
        if task is None:
            return _json(404, {"detail": "Task not found"})
        is_done = self.now() >= task.ready_at
        if not wants_result:
            if is_done and self._happens("fails_tasks"):
                return _json(200, {"task_id": task_id, "status": "failed", "error": "CUDA out of memory"})
            return _json(200, {"task_id": task_id, "status": "completed" if is_done else "processing", "error": None})
        if not is_done:
            return _json(202, {"task_id": task_id, "status": "processing"})
        return self._result(task.sha256, task.stem)

    def _result(self, sha256: str, stem: str) -> tuple[int, str, bytes]:
        if self.faults.raw_body is not None:
            return 200, self.faults.raw_type, self.faults.raw_body
        found = self.recorded.get(sha256)
        if found is None or self._happens("empty_results"):
            return _json(200, {"backend": "pipeline", "version": "3.4.4", "results": {stem: {}}})
        files: dict[str, Any] = {}
        for name, text in found.files.items():
            value: Any = text
            for _ in range(self.wraps - 1):
                value = json.dumps(value)
            files[name] = value if self.wraps else json.loads(text)
        return _json(200, {"backend": "pipeline", "version": "3.4.4", "results": {stem: files}})

    def _taken(self, headers: dict[str, str], body: bytes) -> tuple[str, str]:
        boundary = headers["content-type"].partition("boundary=")[2].encode()
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, data = part.partition(b"\r\n\r\n")
            self.fields.append(head + b"=" + data[:200] if b"filename=" not in head else b"file")
            if b"filename=" in head:
                sha256 = hashlib.sha256(data[:-2]).hexdigest()
                name = head.partition(b'filename="')[2].partition(b'"')[0].decode()
        self.submissions.append(sha256)
        return sha256, name.removesuffix(".pdf")

    def _happens(self, fault: str) -> bool:
        left: int = getattr(self.faults, fault)
        setattr(self.faults, fault, max(left - 1, 0))
        return left > 0


def _json(status: int, value: Any) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(value).encode()
