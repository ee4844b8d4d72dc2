"""The gate in front of a PDF parser, on a real PostgreSQL: asked once, released at once, and never in silence."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.router_kit import PDF, RouterUnderTest, file_of, kinds, request_of, routers, told
from tests.integration.waits_kit import add_document, rows, run, waiting

from medkg.contracts import topics
from medkg.contracts.pdf import PdfRequested
from medkg.gate_router import release
from medkg.storage.engine import migrate, open_engine
from medkg.storage.operators import Action, decide
from medkg.storage.parsed_files import ParsedFile, file_failed, file_parsed
from medkg.storage.signals import signal

pytestmark = pytest.mark.postgres


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(database_url)
    await migrate(opened)
    yield opened
    await opened.dispose()


@pytest.fixture
async def router(engine: AsyncEngine) -> AsyncIterator[RouterUnderTest]:
    async with routers(engine, 1) as (one,):
        yield one


def parsed(sha256: str, tenant: str = "clinic", **fields: Any) -> ParsedFile:
    given: dict[str, Any] = {
        "document_key": f"parsed/{sha256}",
        "document_sha256": "d" * 64,
        "document_bytes": 12,
    } | fields
    return ParsedFile(tenant, sha256, "mineru", "3.0", **given)


async def test_a_file_is_asked_for_once_however_many_documents_wait_for_it(router: RouterUnderTest) -> None:
    shared = file_of("a")
    for doc in ("doc-1", "doc-2", "doc-3"):
        await router.arrive(PDF, "pdf_gate", doc, job=f"job-{doc}", file=shared)
        await router.react()
        await router.look()
    await router.arrive(PDF, "pdf_gate", "doc-4", file=file_of("b"))
    await router.arrive(PDF, "pdf_gate", "doc-1", job="job-doc-1", file=shared)  # the same arrival again
    await router.look()
    asked = [msgspec.json.decode(item.value, type=PdfRequested) for item in router.sent(topics.MINERU_QUEUE)]
    assert [(each.doc_id, each.file) for each in asked] == [("doc-1", shared), ("doc-4", file_of("b"))]
    assert asked[0].tenant_id == "clinic"
    assert asked[0].deadline.endswith("Z")


async def test_tenants_do_not_share_files(router: RouterUnderTest) -> None:
    for tenant in ("clinic", "other"):
        await router.arrive(PDF, "pdf_gate", "doc", job=f"job-{tenant}", tenant=tenant, file=file_of("a"))
    await router.look()
    assert len(router.sent(topics.MINERU_QUEUE)) == 2


async def test_a_parsed_file_lets_all_go_on_with_its_document(router: RouterUnderTest, engine: AsyncEngine) -> None:
    shared = file_of("a")
    for doc in ("doc-1", "doc-2"):
        await router.arrive(PDF, "pdf_gate", doc, file=shared)
    await router.look()
    assert await file_parsed(engine, parsed(shared.sha256)) == 2
    await router.look()
    for item in router.sent("medkg.chunk.v1"):
        request = request_of(item)
        assert (request.stage, request.pipeline) == ("chunk", PDF.ref)
        assert request.artefacts["document"].key == f"parsed/{shared.sha256}"
        assert "file" not in request.artefacts
    assert len(router.sent("medkg.chunk.v1")) == 2
    assert await waiting(engine) == set()


async def test_a_file_that_was_parsed_before_is_not_asked_for_and_releases_at_once(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    known = file_of("known")
    await file_parsed(engine, parsed(known.sha256))
    await router.arrive(PDF, "pdf_gate", "doc-1", file=known)
    await router.look()
    assert router.sent(topics.MINERU_QUEUE) == []
    assert [request_of(item).doc_id for item in router.sent("medkg.chunk.v1")] == ["doc-1"]
    assert (await rows(engine, "SELECT pdf_ir_ready FROM documents"))[0].pdf_ir_ready


async def test_a_file_that_cannot_be_parsed_fails_its_documents_with_that_reason_and_may_be_asked_for_again(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    shared = file_of("scan")
    await router.arrive(PDF, "pdf_gate", "doc-1", file=shared)
    await router.look()
    failure = parsed(
        shared.sha256, document_key="", failure_code="payload_unsupported", failure_message="the pages are images"
    )
    await file_failed(engine, failure)
    await router.look()
    (failed,) = [told(item) for item in router.sent(topics.LIFECYCLE) if kinds([item]) == ["stage.failed"]]
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.disposition) == ("payload_unsupported", "rejected")
    assert "the pages are images" in failed.failure.message
    assert await waiting(engine) == set()

    await router.arrive(PDF, "pdf_gate", "doc-1", job="job-2", file=shared)
    await router.look()
    assert len(router.sent(topics.MINERU_QUEUE)) == 2


async def test_a_field_that_is_set_without_a_document_fails_and_says_what_is_missing(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    await signal(engine, "clinic", "doc-1", "pdf_ir_ready", job_id="job")
    await router.look()
    (failed,) = [told(item) for item in router.sent(topics.LIFECYCLE) if kinds([item]) == ["stage.failed"]]
    assert failed.failure is not None
    assert "no parsed document of its file" in failed.failure.message


async def test_a_signal_for_a_document_that_nobody_knows_is_kept_until_it_comes(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    taken = await signal(engine, "clinic", "doc-1", "pdf_ir_ready")
    assert (taken.jobs, taken.is_kept) == (0, True)
    await file_parsed(engine, parsed(file_of("a").sha256))
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    await router.arrive(PDF, "pdf_gate", "doc-1", job="job-other", tenant="other", file=file_of("a"))
    await router.look()
    assert [request_of(item).tenant_id for item in router.sent("medkg.chunk.v1")] == ["clinic"]


async def test_a_kept_signal_has_a_deadline(router: RouterUnderTest, engine: AsyncEngine) -> None:
    await signal(engine, "clinic", "doc-1", "pdf_ir_ready", keep_seconds=-1)
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    await router.look()
    assert router.sent("medkg.chunk.v1") == []
    await router.waits.forget_finished()
    assert await rows(engine, "SELECT * FROM kept_signals") == []


async def test_a_signal_that_comes_too_late_is_recorded_and_the_document_can_be_taken_up_again(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    shared = file_of("a")
    await add_document(engine, "doc-1")
    await router.arrive(PDF, "pdf_gate", "doc-1", file=shared)
    await run(engine, "UPDATE waits SET due_at = now() - interval '1 second'")
    await router.look()
    (failed,) = [told(item) for item in router.sent(topics.LIFECYCLE) if kinds([item]) == ["stage.failed"]]
    assert failed.failure is not None
    assert failed.failure.code == "gate_condition_unmet"

    await file_parsed(engine, parsed(shared.sha256))
    router.hear(("job", "doc-1"))
    await router.react()
    (late,) = await rows(engine, "SELECT * FROM waits")
    assert (late.state, late.reason) == ("released", "timeout")
    assert late.late_at is not None
    assert router.sent("medkg.chunk.v1") == []

    (decided,) = await decide(
        engine, "clinic", Action.RELEASE, who="ann", why="the parser was down", wait_ids=[late.wait_id]
    )
    assert decided.doc_id == "doc-1"
    await router.look()
    (item,) = router.sent("medkg.chunk.v1")
    assert (request_of(item).redrive, request_of(item).artefacts["document"].size_bytes) == (1, 12)
    assert "document.redriven" in kinds(router.sent(topics.LIFECYCLE))


@pytest.mark.parametrize("action", list(Action))
async def test_an_operator_releases_fails_or_extends_with_a_reason_on_record(
    router: RouterUnderTest, engine: AsyncEngine, action: Action
) -> None:
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    before = (await rows(engine, "SELECT due_at FROM waits"))[0].due_at
    decided = await decide(engine, "clinic", action, who="ann", why="asked by the ward", job_id="job", seconds=3_600)
    assert len(decided) == 1
    assert await decide(engine, "other", action, who="eve", why="mine", job_id="job", seconds=60) == []
    await router.look()
    record = (await rows(engine, "SELECT * FROM operator_actions"))[0]
    assert (record.action, record.who, record.why) == (action.value, "ann", "asked by the ward")
    said = kinds(router.sent(topics.LIFECYCLE))
    if action is Action.RELEASE:
        assert len(router.sent("medkg.chunk.v1")) == 1
    elif action is Action.FAIL:
        failure = told(router.sent(topics.LIFECYCLE)[-1]).failure
        assert failure is not None
        assert "failed by ann: asked by the ward" in failure.message
    else:
        assert said == ["stage.started"]
        after = (await rows(engine, "SELECT due_at FROM waits"))[0].due_at
        assert 3_590 < (after - before).total_seconds() < 3_610


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"who": " "}, "say who"),
        ({"why": ""}, "say who"),
        ({"job_id": ""}, "name the waits"),
        ({"action": Action.EXTEND, "seconds": 0.0}, "is not between"),
    ],
)
async def test_a_decision_without_a_reason_is_refused(engine: AsyncEngine, fields: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"action": Action.FAIL, "who": "ann", "why": "reasons", "job_id": "job"} | fields
    with pytest.raises(ValueError, match=says):
        await decide(engine, "clinic", given.pop("action"), **given)


async def test_a_missing_pipeline_holds_up_nobody_else_and_is_looked_for_again(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    lost = PDF.model_copy(update={"version": "9.9"})
    lost = type(PDF).from_canonical_json(lost.model_dump_json(by_alias=True))
    await router.arrive(lost, "pdf_gate", "doc-lost", file=file_of("lost"), is_pinned=False)
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    await file_parsed(engine, parsed(file_of("a").sha256))
    await file_parsed(engine, parsed(file_of("lost").sha256))
    await router.look()
    assert [request_of(item).doc_id for item in router.sent("medkg.chunk.v1")] == ["doc-1"]
    (left,) = await rows(engine, "SELECT * FROM waits WHERE state = 'waiting'")
    assert (left.kind, left.doc_id) == ("unread", "doc-lost")
    assert "the blob store has no" in left.reason
    assert 4 < (left.look_again_at - left.arrived_at).total_seconds() < 10

    await run(
        engine,
        "INSERT INTO topologies (digest, canonical_json) VALUES (:digest, :text)",
        digest=lost.digest,
        text=lost.canonical_json,
    )
    await run(engine, "UPDATE waits SET look_again_at = now() WHERE state = 'waiting'")
    await router.look()
    await router.look()
    assert [request_of(item).doc_id for item in router.sent("medkg.chunk.v1")] == ["doc-1", "doc-lost"]


async def test_a_pipeline_that_is_lost_while_a_document_waits_leaves_it_waiting_alone(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    other = type(PDF).from_canonical_json(PDF.model_copy(update={"version": "9.9"}).model_dump_json(by_alias=True))
    await router.arrive(other, "pdf_gate", "doc-1", file=file_of("a"))
    await router.arrive(PDF, "pdf_gate", "doc-2", file=file_of("b"))
    await file_parsed(engine, parsed(file_of("a").sha256))
    await file_parsed(engine, parsed(file_of("b").sha256))
    router.lose(other)
    await router.look()
    assert [request_of(item).doc_id for item in router.sent("medkg.chunk.v1")] == ["doc-2"]
    (left,) = await rows(engine, "SELECT * FROM waits WHERE state = 'waiting'")
    assert (left.doc_id, left.looks) == ("doc-1", 1)


async def test_a_retry_goes_back_to_its_stage_when_it_is_due(router: RouterUnderTest, engine: AsyncEngine) -> None:
    due = await router.now_ms() + 60_000
    await router.arrive(PDF, "embed", "doc-1", attempt=3, not_before_ms=due)
    await router.arrive(PDF, "embed", "doc-1", attempt=3, not_before_ms=due)
    await router.arrive(PDF, "embed", "doc-1", attempt=4, not_before_ms=due + 1)
    await router.look()
    assert router.sent("medkg.embed.v1") == []
    seconds = (await router.waits.look()).seconds_until_due
    assert seconds is not None
    assert 50 < seconds <= 60
    await run(engine, "UPDATE waits SET due_at = now() WHERE attempt = 3")
    await router.look()
    (item,) = router.sent("medkg.embed.v1")
    assert (request_of(item).attempt, request_of(item).not_before_ms, request_of(item).stage) == (3, 0, "embed")
    await router.look()
    assert len(router.sent("medkg.embed.v1")) == 1


async def test_a_topic_takes_no_more_than_its_bound_and_tenants_take_turns(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    for number in range(30):
        await router.arrive(PDF, "pdf_gate", f"big-{number}", tenant="big", job="big", file=file_of(f"big{number}"))
        await file_parsed(engine, parsed(file_of(f"big{number}").sha256, tenant="big"))
    for number in range(2):
        await router.arrive(PDF, "pdf_gate", f"s-{number}", tenant="small", job="small", file=file_of(f"s{number}"))
        await file_parsed(engine, parsed(file_of(f"s{number}").sha256, tenant="small"))
    router.bound(10, unread=4)
    await router.look()
    first = [request_of(item).tenant_id for item in router.sent("medkg.chunk.v1")]
    assert len(first) == 6  # 10, less the 4 that are unread
    assert first.count("small") == 2
    router.bound(10, unread=10)
    await router.look()
    assert len(router.sent("medkg.chunk.v1")) == 6
    router.bound(1_000, unread=0)
    await router.look()
    assert len(router.sent("medkg.chunk.v1")) == 32


def _has_sent(router: RouterUnderTest, count: int) -> bool:
    return len(router.sent("medkg.chunk.v1")) == count


async def test_a_document_is_released_by_its_signal_and_not_only_by_the_sweep(
    router: RouterUnderTest, engine: AsyncEngine
) -> None:
    for number in range(5):
        await router.arrive(PDF, "pdf_gate", f"doc-{number}", file=file_of(str(number)))
    took = []
    async with router.running():
        for number in range(5):
            await asyncio.sleep(0.05)  # idle
            begun = asyncio.get_running_loop().time()
            await file_parsed(engine, parsed(file_of(str(number)).sha256))
            await router.until(partial(_has_sent, router, number + 1))
            took.append(asyncio.get_running_loop().time() - begun)
    print(f"\nreleased after {[round(each * 1000) for each in took]} ms")
    assert sorted(took)[2] < router.releaser.settings.sweep_seconds / 2


async def test_a_lost_notice_is_made_good_by_the_sweep(router: RouterUnderTest, engine: AsyncEngine) -> None:
    router.releaser.settings = router.releaser.settings.model_copy(update={"sweep_seconds": 0.2})
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    async with router.running(is_deaf=True):
        await asyncio.sleep(0.05)
        await file_parsed(engine, parsed(file_of("a").sha256))
        await router.until(lambda: len(router.sent("medkg.chunk.v1")) == 1)


async def test_what_changes_while_the_releaser_rests_is_looked_at_once(
    router: RouterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests, rested, looks = 0, asyncio.Event(), 0
    look = router.releaser.waits.look

    async def rest(count: int, worked_seconds: float) -> None:
        nonlocal rests
        rests += 1
        await rested.wait()

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await look()

    monkeypatch.setattr(release, "rest", rest)
    monkeypatch.setattr(router.releaser.waits, "look", counted)
    async with router.running(is_deaf=True):
        await router.until(lambda: rests == 1)
        for _ in range(5):
            router.releaser.wake()
            await asyncio.sleep(0.01)
        assert looks == 1
        rested.set()
        await router.until(lambda: rests == 2)
        assert looks == 2
