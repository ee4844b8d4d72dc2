"""A file through MinerU's API, against a server that plays it with recorded outputs and with faults."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from tests.servers.mineru.clock import FakeClock
from tests.servers.mineru.server import FakeMineru, Faults, Recorded

from medkg.contracts.errors import (
    PayloadMalformedError,
    PayloadUnsupportedError,
    ResourceUnavailableError,
    SourceMalformedError,
    StageTimeoutError,
)
from medkg.mineru.api import MineruApi
from medkg.mineru.breaker import Breaker
from medkg.mineru.parsing import Parsing, Patience, Work
from medkg.mineru.tasks import TaskNotes

PDF = b"%PDF-1.4 one"
CONTENT = json.dumps([{"type": "text", "text": "Sciatica", "text_level": 1, "bbox": [1, 2, 3, 4], "page_idx": 0}])


class Notes:
    """Blobs of one process."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.blobs.get(key)

    async def replace(self, key: str, data: bytes) -> None:
        self.blobs[key] = data


class World:
    """A MinerU that knows one file, and what a service does with it."""

    def __init__(self, *, seconds: float = 10.0, speaks_tasks: bool = True, wraps: int = 1) -> None:
        self.clock = FakeClock()
        recorded = {hashlib.sha256(PDF).hexdigest(): Recorded({"content_list": CONTENT})}
        self.server = FakeMineru(
            recorded, self.clock.monotonic, seconds=seconds, speaks_tasks=speaks_tasks, wraps=wraps
        )
        self.notes = Notes()
        self.breaker = Breaker(self.clock, failures=5, seconds=30)
        self.patience = Patience(max_answer_bytes=1_000_000)

    @asynccontextmanager
    async def parsing(self) -> AsyncIterator[Parsing]:
        """A service, freshly started."""
        async with self.server.serving() as url, httpx.AsyncClient(base_url=url, timeout=5) as client:
            api = MineruApi(client, self.breaker, max_answer_bytes=1_000_000)
            yield Parsing(api, TaskNotes(self.notes, "server"), self.clock, self.patience)


WORK = Work("tenant/file", "file.pdf", PDF, {"lang_list": "en", "return_content_list": "true"})


async def test_a_file_is_submitted_looked_at_until_it_is_done_and_fetched() -> None:
    world = World(seconds=10)
    async with world.parsing() as parsing:
        output = await parsing.run(WORK)
    assert output.content_list[0]["text"] == "Sciatica"
    assert (output.version, output.backend) == ("3.4.4", "pipeline")
    assert world.server.requests[0] == "POST /tasks"
    assert len(world.server.submissions) == 1
    assert world.server.requests[-1].endswith("/result")


async def test_hours_of_work_cost_nothing_but_looks() -> None:
    world = World(seconds=5 * 3_600)
    async with world.parsing() as parsing:
        output = await parsing.run(WORK)
    assert output.content_list
    assert len(world.server.submissions) == 1
    assert 5 * 3_600 <= world.clock.seconds < 5 * 3_600 + 10


async def test_work_without_end_is_given_up_with_its_reason() -> None:
    world = World(seconds=1e9)
    async with world.parsing() as parsing:
        with pytest.raises(StageTimeoutError, match="not done after 21600 s"):
            await parsing.run(WORK)


async def test_a_task_that_mineru_has_lost_is_submitted_again() -> None:
    world = World()
    world.server.faults = Faults(loses_tasks=2)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list
    assert len(world.server.submissions) == 3


async def test_losing_every_task_is_mineru_at_fault_and_not_the_file() -> None:
    world = World()
    world.server.faults = Faults(loses_tasks=100)
    async with world.parsing() as parsing:
        with pytest.raises(ResourceUnavailableError, match="lost the task 4 times"):
            await parsing.run(WORK)


async def test_while_mineru_is_down_nothing_is_burnt_and_the_breaker_spares_it() -> None:
    world = World()
    world.server.faults = Faults(unavailable=12)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list
    assert len(world.server.submissions) == 1
    assert max(world.clock.slept) >= 25  # it was left alone for most of half a minute
    assert not world.breaker.is_open


async def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    world = World(seconds=0)
    world.server.faults = Faults(breaks_off=3)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list


async def test_a_service_that_died_goes_on_with_the_task_it_had_begun() -> None:
    world = World(seconds=3_600)
    async with world.parsing() as parsing:
        running = asyncio.create_task(parsing.run(WORK))
        while not world.server.requests[2:]:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list
    assert len(world.server.submissions) == 1


async def test_done_without_a_result_is_tried_again_and_then_a_failure_of_the_file() -> None:
    world = World()
    world.server.faults = Faults(empty_results=1)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list
        world.server.faults = Faults(empty_results=100)
        with pytest.raises(PayloadMalformedError, match="there is no result"):
            await parsing.run(WORK)


async def test_a_task_that_failed_is_tried_again_and_then_a_failure_of_the_file() -> None:
    world = World()
    world.server.faults = Faults(fails_tasks=1)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list
        world.server.faults = Faults(fails_tasks=100)
        with pytest.raises(PayloadMalformedError, match="CUDA out of memory"):
            await parsing.run(WORK)


@pytest.mark.parametrize("wraps", [0, 1, 2], ids=["plain", "in a string", "in a string in a string"])
async def test_json_is_read_however_often_it_is_encoded(wraps: int) -> None:
    world = World(wraps=wraps)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list[0]["text"] == "Sciatica"


async def test_an_older_mineru_without_tasks_is_asked_the_old_way() -> None:
    world = World(speaks_tasks=False)
    async with world.parsing() as parsing:
        assert (await parsing.run(WORK)).content_list
        assert (await parsing.run(WORK)).content_list
    assert world.server.requests == ["POST /tasks", "POST /file_parse", "POST /file_parse"]


async def test_a_file_that_mineru_refuses_is_refused_at_once() -> None:
    world = World()
    world.server.faults = Faults(refuses=(400, {"detail": "Unsupported file type: .exe"}))
    async with world.parsing() as parsing:
        with pytest.raises(PayloadUnsupportedError, match="Unsupported file type"):
            await parsing.run(WORK)


@pytest.mark.parametrize(
    "refusal", [(422, {"detail": [{"loc": ["body", "files"]}]}), (400, {"detail": "Invalid backend: xyz"})]
)
async def test_settings_that_mineru_refuses_fail_no_file(refusal: tuple[int, dict[str, object]]) -> None:
    world = World()
    world.server.faults = Faults(refuses=refusal)
    world.patience = Patience(parse_seconds=100)
    async with world.parsing() as parsing:
        with pytest.raises(StageTimeoutError):
            await parsing.run(WORK)
    assert world.breaker.is_open


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[" * 100_000,
        b'{"results": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b'{"results": {"f": {"content_list": "[[[["}}}',
        b'{"results": {"f": {"content_list": "' + b"[" * 200_000 + b'"}}}',
        b'{"results": {"f": {"content_list": "\\ud800"}}}',
        b"\xff\xfe",
        b'{"results": [1, 2]}',
    ],
    ids=["nothing", "words", "deep", "deep objects", "broken inside", "deep inside", "half a pair", "bytes", "a list"],
)
async def test_answers_that_make_no_sense_end_in_a_named_error(body: bytes) -> None:
    world = World(seconds=0)
    world.server.faults = Faults(raw_body=body)
    async with world.parsing() as parsing:
        with pytest.raises((SourceMalformedError, PayloadMalformedError)):
            await parsing.run(WORK)


async def test_an_answer_without_end_is_cut_at_the_limit() -> None:
    world = World(seconds=0)
    world.server.faults = Faults(raw_body=b'"' + b"x" * 3_000_000 + b'"')
    async with world.parsing() as parsing:
        with pytest.raises(SourceMalformedError, match="over 1000000 bytes"):
            await parsing.run(WORK)


async def test_a_breaker_lets_one_try_and_the_others_wait() -> None:
    clock = FakeClock()
    changes: list[bool] = []
    breaker = Breaker(clock, failures=2, seconds=30, on_change=changes.append)
    for _ in range(2):
        await breaker.admitted()
        breaker.failed()
    assert changes == [True]
    await breaker.admitted()
    assert clock.seconds >= 30
    waiting = asyncio.create_task(breaker.admitted())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    breaker.succeeded()
    await asyncio.wait_for(waiting, 5)
    assert changes == [True, False]
