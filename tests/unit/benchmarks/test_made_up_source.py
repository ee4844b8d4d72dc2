import time
from typing import Any

from medkg.benchmarks.loads import arrivals
from medkg.benchmarks.noop import BusyChunk, MadeUpSource, Parse, made_up_id
from medkg.contracts.context import StageContext
from medkg.contracts.document import AdapterRequest, IngestPage

CTX = StageContext("t", "d", "j")


async def page_of(paths: list[str], cursor: str = "", limit: int = 500) -> IngestPage:
    return await MadeUpSource().execute(CTX, AdapterRequest("files", {"paths": paths}, cursor, limit))


async def every_page(paths: list[str], limit: int) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        page = await page_of(paths, cursor, limit)
        assert page.payloads
        found += [payload.source_id for payload in page.payloads]
        if not page.next_cursor:
            return found
        cursor = page.next_cursor


async def test_pages_hold_every_document_once() -> None:
    assert await every_page(["25", "100"], limit=10) == [made_up_id(number) for number in range(25)]


async def test_documents_have_the_size_that_was_asked_for() -> None:
    page = await page_of(["1", "1900"])
    assert len(page.payloads[0].text) == 1900


async def test_a_paced_source_gives_what_has_arrived_and_nothing_early() -> None:
    begin = time.time() - arrivals(100, 10.0)[4] - 1e-6  # five have arrived
    paths = ["100", "10", "10.0", repr(begin)]
    page = await page_of(paths)
    assert len(page.payloads) >= 5
    late = arrivals(100, 10.0)[len(page.payloads) - 1] + begin
    assert late <= time.time()


async def test_a_paced_source_gives_every_document_once() -> None:
    paths = ["200", "10", "100000", repr(time.time())]
    assert await every_page(paths, limit=50) == [made_up_id(number) for number in range(200)]


async def test_a_busy_stage_uses_up_the_cpu_that_it_was_told_to() -> None:
    payload: Any = (await page_of(["1", "10"])).payloads[0]
    document = await Parse().execute(CTX, payload)
    before = time.thread_time()
    chunks = BusyChunk(20).execute(CTX, document)
    assert time.thread_time() - before >= 0.02
    assert [chunk.text for chunk in chunks] == [payload.text]
