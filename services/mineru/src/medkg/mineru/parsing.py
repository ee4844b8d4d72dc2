"""One file through MinerU, however long it takes: submitted, looked at from time to time, submitted again when lost."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from medkg.contracts.errors import (
    PayloadMalformedError,
    ResourceUnavailableError,
    SourceMalformedError,
    StageTimeoutError,
)
from medkg.mineru.answers import EmptyResult, Output, read_answer
from medkg.mineru.api import Answer, MineruApi, NoSuchRoute, TaskFailed, TaskState
from medkg.mineru.clock import Clock
from medkg.mineru.tasks import TaskNotes

log = logging.getLogger(__name__)

_AGAIN_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts to reach MinerU; the last one repeats


@dataclass(frozen=True, slots=True)
class Patience:
    """``poll_seconds`` between two looks, ``parse_seconds`` for one submission, ``resubmits`` after a spoilt one."""

    poll_seconds: float = 3.0
    parse_seconds: float = 21_600.0
    resubmits: int = 3
    mode: str = "auto"
    max_answer_bytes: int = 536_870_912


@dataclass(frozen=True, slots=True)
class Work:
    """A file to be parsed. ``key`` names it in the notes about tasks."""

    key: str
    name: str
    data: bytes
    fields: Mapping[str, str]


@dataclass(slots=True)
class Parsing:
    """Has files parsed. Safe for any number of files at once."""

    api: MineruApi
    notes: TaskNotes
    clock: Clock
    patience: Patience
    _has_tasks: bool | None = field(default=None)

    async def run(self, work: Work) -> Output:
        """What MinerU makes of a file.

        Goes on with a task that an earlier run has begun. While MinerU does not answer, waits for it: that is nobody's
        fault and burns no attempt.

        Raises:
            PayloadUnsupportedError: MinerU does not take it. PayloadMalformedError: MinerU has tried, and cannot.
            SourceMalformedError: MinerU's answers make no sense. StageTimeoutError: it takes too long.
        """
        task_id = await self.notes.find(work.key)
        spoilt: Exception | None = None
        for attempt in range(1 + self.patience.resubmits):
            ends = self.clock.monotonic() + self.patience.parse_seconds
            try:
                answer = await self._answer(work, task_id, ends)
                if answer is not None:
                    return await asyncio.to_thread(read_answer, answer, max_bytes=self.patience.max_answer_bytes)
                log.warning("MinerU has lost the task of %s: it is submitted again", work.key)
            except TaskFailed as error:
                spoilt = PayloadMalformedError(f"parsing {work.key} with MinerU: {error or 'the task failed'}")
            except EmptyResult:
                spoilt = PayloadMalformedError(f"parsing {work.key} with MinerU: it was done, and there is no result")
            except SourceMalformedError as error:
                spoilt = error
            task_id = ""
            await self.notes.keep(work.key, "")
            if attempt < self.patience.resubmits:
                await self.clock.sleep(_AGAIN_SECONDS[min(attempt, len(_AGAIN_SECONDS) - 1)])
        raise spoilt or ResourceUnavailableError(
            f"parsing {work.key} with MinerU: it lost the task {1 + self.patience.resubmits} times"
        )

    async def _answer(self, work: Work, task_id: str, ends: float) -> Answer | None:
        """The answer to one submission; None where MinerU has lost it."""
        if not task_id and not await self._asks_by_tasks():
            return await self._parse_at_once(work, ends)
        if not task_id:
            task_id = await self._submitted(work, ends)
            if not task_id:
                return await self._parse_at_once(work, ends)
        return await self._followed(work, task_id, ends)

    async def _submitted(self, work: Work, ends: float) -> str:
        """The id of a new task; empty where the server has none."""
        tried = 0
        while True:
            try:
                task_id = await self.api.submit(work.data, work.name, work.fields)
            except NoSuchRoute:
                if self.patience.mode == "tasks":
                    raise SourceMalformedError(
                        "submitting to MinerU: it has no /tasks; set MEDKG_MINERU_MODE=sync or auto"
                    ) from None
                self._has_tasks = False
                return ""
            except ResourceUnavailableError as error:
                await self._wait_for_mineru(work, error, tried, ends)
                tried += 1
                continue
            self._has_tasks = True
            await self.notes.keep(work.key, task_id)
            return task_id

    async def _followed(self, work: Work, task_id: str, ends: float) -> Answer | None:
        tried = 0
        while True:
            self._check_time(work, ends)
            try:
                status = await self.api.status(task_id)
                if status.state is TaskState.LOST:
                    return None
                if status.state is TaskState.FAILED:
                    raise TaskFailed(status.error)
                if status.state is TaskState.COMPLETED:
                    return await self.api.result(task_id)
                tried = 0
            except ResourceUnavailableError as error:
                await self._wait_for_mineru(work, error, tried, ends)
                tried += 1
                continue
            await self.clock.sleep(self.patience.poll_seconds)

    async def _parse_at_once(self, work: Work, ends: float) -> Answer:
        tried = 0
        while True:
            left = ends - self.clock.monotonic()
            self._check_time(work, ends)
            try:
                return await self.api.parse(work.data, work.name, work.fields, seconds=left)
            except ResourceUnavailableError as error:
                await self._wait_for_mineru(work, error, tried, ends)
                tried += 1

    async def _asks_by_tasks(self) -> bool:
        if self.patience.mode == "sync":
            return False
        return self._has_tasks is not False

    async def _wait_for_mineru(self, work: Work, error: ResourceUnavailableError, tried: int, ends: float) -> None:
        self._check_time(work, ends)
        seconds = _AGAIN_SECONDS[min(tried, len(_AGAIN_SECONDS) - 1)]
        log.warning("%s; again in %s s", error.message, seconds)
        await self.clock.sleep(seconds)

    def _check_time(self, work: Work, ends: float) -> None:
        if self.clock.monotonic() > ends:
            raise StageTimeoutError(
                f"parsing {work.key} with MinerU: not done after {self.patience.parse_seconds:g} s "
                "(MEDKG_MINERU_PARSE_SECONDS)"
            )
