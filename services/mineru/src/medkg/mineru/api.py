"""MinerU's HTTP API: 3.x with its tasks, and 2.x, which only knows ``POST /file_parse``.

Facts from MinerU's own source (``mineru/cli/fast_api.py``, 3.4.4 and 2.5.0 to 2.7.0). Nothing that comes back is
trusted: answers are read up to a limit, and only then decoded.
"""

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

import httpx
import msgspec

from medkg.contracts.errors import PayloadUnsupportedError, ResourceUnavailableError, SourceMalformedError
from medkg.mineru.breaker import Breaker

_SMALL_ANSWER = 1_048_576  # bytes of a status: ours are some hundred
_QUOTED = 300


class TaskState(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"  # the server does not know it: it has been restarted, or the task was too old


@dataclass(frozen=True, slots=True)
class TaskStatus:
    state: TaskState
    error: str = ""
    queued_ahead: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of a result, and what they are said to be."""

    data: bytes
    media_type: str


class _Status(msgspec.Struct):
    task_id: str = ""
    status: str = ""
    error: str | None = None
    queued_ahead: int | None = None


class _Health(msgspec.Struct):
    version: str = ""
    queued_tasks: int = 0
    processing_tasks: int = 0


class NoSuchRoute(Exception):
    """The server does not have it: an older MinerU."""


class TaskFailed(Exception):
    """MinerU has tried and not been able to."""


class MineruApi:
    """One MinerU server. ``client`` has its base URL and time limits."""

    def __init__(self, client: httpx.AsyncClient, breaker: Breaker, *, max_answer_bytes: int) -> None:
        self._client = client
        self._breaker = breaker
        self._max_answer_bytes = max_answer_bytes

    async def version(self) -> str:
        """What the server calls itself; empty where it does not say (2.x).

        Raises:
            ResourceUnavailableError: it does not answer.
        """
        async with self._asked("GET", "/health") as answer:
            if answer.status_code != httpx.codes.OK:
                return ""
            data = await self._body(answer, _SMALL_ANSWER)
        try:
            return msgspec.json.decode(data, type=_Health).version[:60]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""

    async def submit(self, data: bytes, name: str, fields: Mapping[str, str]) -> str:
        """Give MinerU a file; the id of the task.

        Raises:
            NoSuchRoute: it has no tasks. PayloadUnsupportedError: it does not take such a file.
            ResourceUnavailableError: it does not answer, or is full. SourceMalformedError: what it says makes no sense.
        """
        async with self._asked("POST", "/tasks", data, name, fields) as answer:
            if answer.status_code in {404, 405}:
                raise NoSuchRoute
            body = await self._accepted(answer, "submitting a file", _SMALL_ANSWER)
        task_id = _status(body, "submitting a file").task_id
        if not task_id or len(task_id) > 200 or not task_id.replace("-", "").replace("_", "").isalnum():
            raise SourceMalformedError(f"submitting a file to MinerU: the answer names no task: {_quoted(body)}")
        return task_id

    async def status(self, task_id: str) -> TaskStatus:
        """How a task stands.

        Raises:
            ResourceUnavailableError: it does not answer. SourceMalformedError: what it says makes no sense.
        """
        async with self._asked("GET", f"/tasks/{task_id}") as answer:
            if answer.status_code in {404, 410}:
                return TaskStatus(TaskState.LOST)
            body = await self._accepted(answer, "asking for a task", _SMALL_ANSWER)
        found = _status(body, "asking for a task")
        if found.status not in set(TaskState):
            raise SourceMalformedError(f"asking MinerU for a task: its status is {found.status[:60]!r}")
        return TaskStatus(TaskState(found.status), (found.error or "")[:_QUOTED], found.queued_ahead or 0)

    async def result(self, task_id: str) -> Answer | None:
        """What a completed task has made; None where the server does not know it any more, or it is not done after all.

        Raises:
            TaskFailed: it could not be done. ResourceUnavailableError, SourceMalformedError: as ``status``.
        """
        async with self._asked("GET", f"/tasks/{task_id}/result") as answer:
            if answer.status_code in {202, 404, 410}:
                return None
            return await self._answer(answer, "fetching a result")

    async def parse(self, data: bytes, name: str, fields: Mapping[str, str], *, seconds: float) -> Answer:
        """Give MinerU a file and wait until it is done, on one connection.

        Raises:
            TaskFailed, PayloadUnsupportedError, ResourceUnavailableError, SourceMalformedError: as the others.
        """
        async with self._asked("POST", "/file_parse", data, name, fields, seconds=seconds) as answer:
            return await self._answer(answer, "parsing a file")

    async def _answer(self, answer: httpx.Response, doing: str) -> Answer:
        body = await self._accepted(answer, doing, self._max_answer_bytes)
        return Answer(body, answer.headers.get("content-type", "").partition(";")[0].strip().lower())

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        name: str = "",
        fields: Mapping[str, str] | None = None,
        *,
        seconds: float = math.nan,
    ) -> AsyncIterator[httpx.Response]:
        """An answer while it is open. Server faults and silence count for the breaker; everything else is an answer."""
        await self._breaker.admitted()
        files = None if data is None else {"files": (name, data, "application/pdf")}
        timeout = self._client.timeout if math.isnan(seconds) else httpx.Timeout(30.0, read=seconds, write=600.0)
        has_answered = False
        try:
            async with self._client.stream(method, path, files=files, data=fields, timeout=timeout) as answer:
                if answer.status_code in {408, 425, 429} or answer.status_code >= 500:
                    body = await self._body(answer, 65_536)
                    if not (answer.status_code == 500 and path == "/file_parse"):  # 2.x: how it says "not this file"
                        raise ResourceUnavailableError(
                            f"asking MinerU ({method} {path}): {answer.status_code} {_quoted(body)}"
                        )
                    has_answered = True
                    raise TaskFailed(_quoted(body))
                yield answer
                has_answered = True
        except (NoSuchRoute, TaskFailed, PayloadUnsupportedError, SourceMalformedError):
            has_answered = True
            raise
        except httpx.DecodingError as error:
            has_answered = True
            raise SourceMalformedError(f"asking MinerU ({method} {path}): the answer cannot be decoded") from error
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise ResourceUnavailableError(
                f"asking MinerU ({method} {path}): no answer: {said}; is it up? (MEDKG_MINERU_URL)"
            ) from error
        except ResourceUnavailableError:
            raise
        except BaseException:  # cancelled: that says nothing about MinerU
            self._breaker.abandoned()
            has_answered = True
            raise
        finally:
            if has_answered:
                self._breaker.succeeded()
            else:
                self._breaker.failed()

    async def _accepted(self, answer: httpx.Response, doing: str, limit: int) -> bytes:
        body = await self._body(answer, limit)
        status = answer.status_code
        if status in {200, 202}:
            return body
        if status == 422 or (status == 400 and _is_about_settings(body)):
            raise ResourceUnavailableError(
                f"{doing}: MinerU refuses our settings, not the file: {status} {_quoted(body)} (MEDKG_MINERU_…)"
            )
        if status in {400, 413, 415}:
            raise PayloadUnsupportedError(f"{doing}: MinerU refuses it: {status} {_quoted(body)}")
        if status == 409:
            raise TaskFailed(_quoted(body))
        raise SourceMalformedError(f"{doing}: MinerU answers {status} {_quoted(body)}")

    async def _body(self, answer: httpx.Response, limit: int) -> bytes:
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > limit:
                raise SourceMalformedError(
                    f"reading MinerU's answer: over {limit} bytes (MEDKG_MINERU_MAX_ANSWER_BYTES)"
                )
        return bytes(body)


def _status(body: bytes, doing: str) -> _Status:
    try:
        return msgspec.json.decode(body, type=_Status)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SourceMalformedError(f"{doing}: MinerU's answer cannot be read: {error}") from error


def _is_about_settings(body: bytes) -> bool:
    """Whether a refusal names a field that is the same for every file: none of them may fail for it."""
    words = _quoted(body).lower()
    return any(name in words for name in ("backend", "parse_method", "parse method", "lang"))


class _Said(msgspec.Struct):
    detail: object = None
    error: object = None
    message: object = None


def _quoted(body: bytes) -> str:
    """What an answer says in words: ``detail`` (3.x), ``error`` (2.x)."""
    try:
        said = msgspec.json.decode(body, type=_Said)
        words = said.error or said.detail or said.message
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        words = body.decode(errors="replace")
    return " ".join(str(words or "").split())[:_QUOTED]
