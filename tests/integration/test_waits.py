"""The table of waits on a real PostgreSQL: what is released, when, to whom, and how often."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.waits_kit import (
    Published,
    add_document,
    add_job,
    add_page,
    branch,
    end_job,
    gate,
    rows,
    run,
    wait,
    waiting,
)

from medkg.storage import waits_sql
from medkg.storage.engine import migrate, open_engine
from medkg.storage.ledger_fields import set_field
from medkg.storage.waits import Admission, WaitKind, Waits

pytestmark = pytest.mark.postgres


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(database_url)
    await migrate(opened)
    yield opened
    await opened.dispose()


# admission


async def test_a_job_that_was_admitted_before_keeps_what_it_was_pinned_to(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    first = Admission("job", "clinic", "digest-1", 1)
    assert await waits.admit([first]) == {"job": first}
    later = Admission("job", "other", "digest-2", 2)
    new = Admission("job-2", "clinic", "digest-2", 2)
    assert await waits.admit([later, new, new]) == {"job": first, "job-2": new}
    assert await waits.admit([]) == {}


async def test_of_two_routers_that_admit_at_once_both_see_the_same(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    asked = [Admission("job", "clinic", f"digest-{number}", number) for number in range(8)]
    answers = await asyncio.gather(*(waits.admit([one]) for one in asked))
    assert len({answer["job"].digest for answer in answers}) == 1


# parking


async def test_parking_again_changes_nothing(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    await waits.park([wait("a", request="first"), wait("a", request="first"), wait("b")])
    await waits.park([wait("a", request="second")])
    published = Published()
    assert await waits.release_pages(published, tenant_bound=100) == 2
    await waits.park([wait("a"), wait("b")])
    assert await waits.release_pages(published, tenant_bound=100) == 0
    assert await waiting(engine) == set()
    row = (await rows(engine, "SELECT * FROM waits WHERE wait_id = 'a'"))[0]
    assert (row.request, row.state, row.reason) == ("first", "released", "room")
    assert row.released_at is not None
    await waits.park([])


async def test_the_order_in_which_batches_are_parked_never_deadlocks(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    names = [f"w{number}" for number in range(200)]
    batches = [random.Random(seed).sample(names, 200) for seed in range(6)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(waits.park([wait(name) for name in batch]) for batch in batches))
    assert len(await waiting(engine)) == 200


# pages


async def test_pages_are_handed_out_while_a_tenant_has_room(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    await waits.park([wait(f"p{number}", page=number, needed=10) for number in range(8)])
    published = Published()
    assert await waits.release_pages(published, tenant_bound=25) == 3  # 0, 10 and 20 under way before each of them
    assert published.names == ["p0", "p1", "p2"]
    assert await waits.release_pages(published, tenant_bound=25) == 0  # what was handed out still takes its room

    await add_job(engine, documents=20)
    await add_page(engine, 0)
    await add_page(engine, 1)  # two pages came, with ten documents each; one page is still to come
    assert await waits.release_pages(published, tenant_bound=25) == 0
    await run(engine, "UPDATE jobs SET completed = 5, skipped = 3, failed = 2, rejected = 1")
    assert await waits.release_pages(published, tenant_bound=25) == 1  # 9 under way and 10 to come
    assert published.names[3:] == ["p3"]


async def test_the_documents_of_ended_and_other_tenants_jobs_take_no_room(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    await add_job(engine, "ended", documents=1_000)
    await end_job(engine, "ended")
    await add_job(engine, "other", tenant="other", documents=1_000)
    await waits.park([wait("a", needed=10), wait("b", tenant="other", job="other", needed=10)])
    published = Published()
    assert await waits.release_pages(published, tenant_bound=10) == 1
    assert published.names == ["a"]


async def test_a_tenant_with_a_thousand_pages_starves_nobody(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    await waits.park([wait(f"big{number:04}", tenant="big", job=f"b{number}", needed=1) for number in range(1_000)])
    await waits.park([wait("small", tenant="small", job="s", needed=1)])
    published = Published()
    assert await waits.release_pages(published, tenant_bound=10_000, limit=50) == 50
    assert "small" in published.names[:2]


async def test_tenants_take_turns_page_by_page(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    for tenant in ("a", "b", "c"):
        await waits.park([wait(f"{tenant}{number}", tenant=tenant, job=f"{tenant}{number}") for number in range(3)])
    published = Published()
    for _ in range(3):
        await waits.release_pages(published, tenant_bound=100, limit=3)
    assert [sorted(name[0] for name in batch) for batch in published.batches] == [["a", "b", "c"]] * 3


async def test_while_one_router_hands_out_pages_another_looks_on(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    await waits.park([wait("a")])
    let_go = asyncio.Event()
    begun = asyncio.Event()

    async def slow(due: object) -> None:
        begun.set()
        await let_go.wait()

    first = asyncio.create_task(waits.release_pages(slow, tenant_bound=10))
    async with asyncio.timeout(10):
        await begun.wait()
        assert await waits.release_pages(Published(), tenant_bound=10) == 0
        let_go.set()
        assert await first == 1


# gates


@pytest.mark.parametrize(
    ("field", "equals", "column", "value"),
    [
        ("pdf_ir_ready", "true", "pdf_ir_ready", True),
        ("pdf_ir_failed", "true", "pdf_ir_failed", True),
        ("pdf_downloaded", "true", "pdf_downloaded", True),
        ("post_pdf_started", "true", "post_pdf_started", True),
        ("current_stage", '"embed"', "current_stage", "embed"),
        ("pipeline_name", '"auto"', "pipeline_name", "auto"),
        ("pipeline_version", '"1.0"', "pipeline_version", "1.0"),
    ],
)
async def test_a_gate_opens_when_its_field_has_the_value(
    engine: AsyncEngine, field: str, equals: str, column: str, value: object
) -> None:
    waits, published = Waits(engine), Published()
    await add_document(engine, "doc")
    await add_document(engine, "other")
    await waits.park([gate("g", doc="doc", field=field, equals=equals)])
    await run(engine, f"UPDATE documents SET {column} = :value WHERE doc_id = 'other'", value=value)
    assert await waits.release_gates(published) == 0
    await run(engine, f"UPDATE documents SET {column} = :value WHERE doc_id = 'doc'", value=value)
    assert await waits.release_gates(published) == 1
    assert await waits.release_gates(published) == 0
    assert published.names == ["g"]


async def test_a_gate_may_wait_for_a_field_to_be_false(engine: AsyncEngine) -> None:
    waits, published = Waits(engine), Published()
    await waits.park([gate("g", doc="doc", equals="false")])
    assert await waits.release_gates(published) == 0  # nothing is known of the document yet
    await add_document(engine, "doc")
    assert await waits.release_gates(published) == 1


@pytest.mark.parametrize(
    ("count", "equals", "opens"), [(2, "2", True), (2, "2.0", True), (2, '"2"', False), (2, "3", False)]
)
async def test_a_gate_may_wait_for_the_retries_of_a_stage(
    engine: AsyncEngine, count: int, equals: str, opens: bool
) -> None:
    waits, published = Waits(engine), Published()
    await add_document(engine, "doc")
    await waits.park([gate("g", doc="doc", field="retry_count_per_stage.ocr_two", equals=equals)])
    assert await waits.release_gates(published) == 0
    await run(
        engine, "UPDATE documents SET retry_count_per_stage = CAST(:counts AS jsonb)", counts=f'{{"ocr_two": {count}}}'
    )
    assert await waits.release_gates(published) == opens


async def test_a_gate_on_a_field_that_the_ledger_lacks_stays_shut(engine: AsyncEngine) -> None:
    waits, published = Waits(engine), Published()
    await add_document(engine, "doc")
    await waits.park([gate("g", doc="doc", field="no_such_field", equals="true"), gate("h", doc="doc", equals="null")])
    assert await waits.release_gates(published) == 0


async def test_a_signal_that_comes_before_the_document_is_kept(engine: AsyncEngine) -> None:
    waits, published = Waits(engine), Published()
    assert await set_field(engine, "clinic", "job", "doc", "pdf_ir_ready", True) == 1
    await waits.park([gate("g", doc="doc")])
    assert await waits.release_gates(published) == 1


async def test_a_gate_runs_out_of_patience_and_not_before(engine: AsyncEngine) -> None:
    waits, published = Waits(engine), Published()
    await waits.park([gate("soon", doc="a", timeout=60), gate("never", doc="b"), gate("now", doc="c", timeout=0)])
    assert await waits.release_expired(published) == 1
    await run(engine, "UPDATE waits SET due_at = due_at - interval '61 seconds' WHERE wait_id = 'soon'")
    assert await waits.release_expired(published) == 1
    assert published.names == ["now", "soon"]
    reasons = await rows(engine, "SELECT DISTINCT reason FROM waits WHERE state = 'released'")
    assert [row.reason for row in reasons] == ["timeout"]


# joins


async def test_a_join_is_released_once_when_all_branches_have_come(engine: AsyncEngine) -> None:
    waits, published = Waits(engine), Published()
    await waits.park([branch("doc", "embed", 3), branch("doc", "extract", 3), branch("other", "embed", 3)])
    assert await waits.release_joins(published) == 0
    await waits.park([branch("doc", "embed", 3)])  # the same branch again is not another one
    assert await waits.release_joins(published) == 0
    await waits.park([branch("doc", "chunk", 3)])
    assert await waits.release_joins(published) == 3
    assert await waits.release_joins(published) == 0
    assert published.batches == [["doc-chunk", "doc-embed", "doc-extract"]]  # in the order of their names
    assert await waiting(engine) == {"other-embed"}


async def test_the_limit_never_cuts_a_join_in_two(engine: AsyncEngine) -> None:
    waits, published = Waits(engine), Published()
    await waits.park([branch(f"doc{number}", name) for number in range(10) for name in ("a", "b")])
    while await waits.release_joins(published, limit=3):
        pass
    assert [len(batch) for batch in published.batches] == [6, 6, 6, 2]
    assert len(published.names) == len(set(published.names)) == 20


# what may go wrong


Release = Callable[[Waits, Published], Any]
RELEASES: dict[str, Release] = {
    "pages": lambda waits, publish: waits.release_pages(publish, tenant_bound=1_000, limit=7),
    "gates": lambda waits, publish: waits.release_gates(publish, limit=7),
    "expired": lambda waits, publish: waits.release_expired(publish, limit=7),
    "joins": lambda waits, publish: waits.release_joins(publish, limit=7),
}


async def something_due(engine: AsyncEngine, count: int = 1) -> None:
    """So many rows of every kind that can be released now (a join: two rows)."""
    waits = Waits(engine)
    for number in range(count):
        await add_document(engine, f"doc{number}")
    await run(engine, "UPDATE documents SET pdf_ir_ready = true")
    await waits.park([wait(f"page{number}", job=f"job{number}", tenant=f"t{number % 3}") for number in range(count)])
    await waits.park([gate(f"gate{number}", doc=f"doc{number}") for number in range(count)])
    await waits.park([gate(f"late{number}", doc=f"late{number}", timeout=0) for number in range(count)])
    await waits.park([branch(f"doc{number}", name) for number in range(count) for name in ("a", "b")])


@pytest.mark.parametrize("kind", list(RELEASES))
async def test_what_could_not_be_published_waits_on(engine: AsyncEngine, kind: str) -> None:
    waits, published = Waits(engine), Published(fails=1)
    await something_due(engine)
    before = await waiting(engine)
    with pytest.raises(ConnectionError):
        await RELEASES[kind](waits, published)
    assert await waiting(engine) == before
    released = await RELEASES[kind](waits, published)
    assert len(published.names) == released > 0
    assert await waiting(engine) == before - set(published.names)


@pytest.mark.parametrize("seed", range(5))
async def test_any_number_of_routers_release_every_row_exactly_once(database_url: str, seed: int) -> None:
    chance = random.Random(seed)
    count = 40
    async with AsyncExitStack() as stack:
        engines = [open_engine(database_url, pool_size=2) for _ in range(4)]
        for opened in engines:
            stack.push_async_callback(opened.dispose)
        await migrate(engines[0])
        await something_due(engines[0], count)
        published: Counter[str] = Counter()
        groups: list[tuple[str, int]] = []

        async def publish(due: Any) -> None:
            await asyncio.sleep(chance.random() * 0.01)  # what makes transactions overlap, not what is waited for
            if chance.random() < 0.2:
                raise ConnectionError("no broker")
            published.update(row.wait_id for row in due)
            joins = Counter((row.job_id, row.doc_id) for row in due if row.kind == WaitKind.JOIN)
            groups.extend((doc, size) for (_, doc), size in joins.items())

        async def router(opened: AsyncEngine) -> None:
            waits = Waits(opened)
            while await waiting(opened):
                for release in chance.sample(list(RELEASES.values()), len(RELEASES)):
                    try:
                        await release(waits, publish)  # type: ignore[arg-type]  # called like Published
                    except ConnectionError:
                        continue

        async with asyncio.timeout(60):
            await asyncio.gather(*(router(opened) for opened in engines))
    assert set(published.values()) == {1}
    assert len(published) == count * 5
    assert all(size == 2 for _, size in groups)
    assert len(groups) == count


# the end of a job


async def test_the_waits_of_ended_jobs_are_forgotten_and_no_others(engine: AsyncEngine) -> None:
    waits = Waits(engine)
    await add_job(engine, "ended", documents=1)
    await end_job(engine, "ended")
    await add_job(engine, "running", documents=1)
    await waits.park(
        [wait("a", job="ended"), wait("b", job="running"), wait("c", job="unknown"), branch("d", "x", job="ended")]
    )
    assert await waits.forget_finished() == 2
    assert await waiting(engine) == {"b", "c"}
    assert await waits.forget_finished() == 0


# cost


@pytest.mark.slow
async def test_looking_for_what_is_due_among_ten_thousand_costs_milliseconds(engine: AsyncEngine) -> None:
    await run(
        engine,
        "INSERT INTO jobs (job_id, tenant_id, first_event_at, last_event_at, admitted_at, documents) "
        "SELECT 'j' || g, 't' || g, now(), now(), now(), 100 FROM generate_series(0, 99) g",
    )
    await run(
        engine,
        "INSERT INTO documents (job_id, doc_id, tenant_id, is_known) "
        "SELECT 'j' || g % 100, 'd' || g, 't', true FROM generate_series(1, 20000) g",
    )
    for kind in ("gate", "page", "join"):
        await run(
            engine,
            """INSERT INTO waits (wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed,
                 ledger_field, equals, due_at, request, origin)
               SELECT CAST(:kind AS text) || g, :kind, 't' || g % 100, 'j' || g % 100, 'd' || g, 's', g, '', 2,
                 CASE WHEN :kind = 'gate' THEN 'pdf_ir_ready' END, CASE WHEN :kind = 'gate' THEN jsonb 'true' END,
                 CASE WHEN :kind = 'gate' THEN now() + interval '1 day' END, repeat('x', 3000), repeat('y', 500)
               FROM generate_series(1, 10000) g""",
            kind=kind,
        )
    await run(engine, "ANALYZE")
    waits, published = Waits(engine), Published()
    statements: dict[str, tuple[Any, dict[str, Any], str]] = {
        "gates": (waits_sql.DUE_GATES, {"limit": 500, "topics": [], "rooms": []}, "waits_waiting"),
        "expired": (waits_sql.EXPIRED_GATES, {"limit": 500, "topics": [], "rooms": []}, "waits_due"),
        "joins": (waits_sql.COMPLETE_JOINS, {"limit": 1_500}, "waits_waiting"),
        "pages": (waits_sql.DUE_PAGES, {"bound": 0, "parked": 0, "limit": 50}, "waits_waiting"),
    }
    async with engine.begin() as connection:
        for name, (statement, values, index) in statements.items():
            plan = await connection.execute(text(f"EXPLAIN {statement.text}"), values)
            assert index in "\n".join(plan.scalars()), name
    looks: tuple[Callable[[], Awaitable[int]], ...] = (
        lambda: waits.release_gates(published),
        lambda: waits.release_expired(published),
        lambda: waits.release_joins(published),
        lambda: waits.release_pages(published, tenant_bound=0),
    )
    for look in looks:
        begun = time.perf_counter()
        assert await look() == 0
        assert time.perf_counter() - begun < 0.5  # about 5 to 60 ms; far from it, an index is not used


@pytest.mark.slow
@pytest.mark.parametrize("is_analysed", [False, True])
async def test_asking_for_the_files_of_ten_thousand_looks_at_each_wait_once(
    engine: AsyncEngine, is_analysed: bool
) -> None:
    """With and without statistics: a comparison of every wait with every other would take a minute."""
    await run(
        engine,
        """INSERT INTO waits (wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed,
             ledger_field, equals, due_at, request, origin, file_sha256)
           SELECT 'w' || g, 'gate', 't' || g % 7, 'j' || g % 100, 'd' || g, 's', 0, '', 1,
             'pdf_ir_ready', jsonb 'true', now() + interval '1 day', repeat('x', 3000), '', 'sha-' || g % 9000
           FROM generate_series(1, 10000) g""",
    )
    if is_analysed:
        await run(engine, "ANALYZE")
    waits, published = Waits(engine), Published()
    begun = time.perf_counter()
    while await waits.ask_for_files(published, older_seconds=60, limit=2_000):
        pass
    took = time.perf_counter() - begun
    files = await rows(engine, "SELECT DISTINCT tenant_id, file_sha256 FROM waits")
    assert len(published.names) == len(set(published.names)) == len(files)
    assert took < 5  # under a second; far from it, each wait is compared with all
