"""Why a document does not go on: each case in one clear sentence, from a real ledger and real waits."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.router_kit import PDF, RouterUnderTest, file_of, routers
from tests.integration.waits_kit import add_job, run

from medkg.contracts.messages import BreakerChange, BreakerState
from medkg.gateway.explaining import Finding, Flow
from medkg.gateway.faults import NotFoundError
from medkg.gateway.waiting_desk import Breakers
from medkg.gateway.why import Explainer
from medkg.storage.engine import migrate, open_engine
from medkg.storage.ledger_reader import LedgerReader
from medkg.storage.operators import Action, decide
from medkg.storage.waits_reader import WaitsReader

pytestmark = pytest.mark.postgres


@dataclass
class Desk:
    """A desk whose Kafka says what a test tells it to."""

    waits: WaitsReader
    lag: int | None = 0
    members: int | None = 1
    breakers: tuple[BreakerChange, ...] = ()
    asked: list[str] = field(default_factory=list)

    async def flow(self, topic: str) -> Flow:
        self.asked.append(topic)
        return Flow(topic, "medkg-some", self.lag, self.members, self.breakers)

    async def decide(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(database_url)
    await migrate(opened)
    await add_job(opened, documents=1)
    await run(
        opened,
        "INSERT INTO topologies (digest, canonical_json) VALUES (:digest, :text)",
        digest=PDF.digest,
        text=PDF.canonical_json,
    )
    await run(opened, "UPDATE jobs SET pipeline_digest = :digest, pipeline_name = 'pdf'", digest=PDF.digest)
    yield opened
    await opened.dispose()


@pytest.fixture
async def router(engine: AsyncEngine) -> AsyncIterator[RouterUnderTest]:
    async with routers(engine, 1) as (one,):
        yield one


@pytest.fixture
def desk(engine: AsyncEngine) -> Desk:
    return Desk(WaitsReader(engine))


async def at_stage(engine: AsyncEngine, stage: str, *, quiet_minutes: int = 0, **columns: Any) -> None:
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", :{name}" for name in columns)
    await run(
        engine,
        "INSERT INTO documents (job_id, doc_id, tenant_id, is_known, first_event_at, last_event_at, current_stage, "
        f"source_id{names}) VALUES ('job', 'doc-1', 'clinic', true, now(), "
        f"now() - CAST(:quiet AS int) * interval '1 minute', :stage, 'PMC1'{values})",
        stage=stage,
        quiet=quiet_minutes,
        **columns,
    )


async def why(desk: Desk, engine: AsyncEngine, identity: str = "doc-1") -> list[Finding]:
    found = await Explainer(desk, LedgerReader(engine), "clinic").explain(identity)
    return list(found.findings)


async def test_at_a_gate_it_tells_the_queue_the_parser_and_who_else_waits(
    router: RouterUnderTest, engine: AsyncEngine, desk: Desk
) -> None:
    await at_stage(engine, "pdf_gate")
    await router.arrive(PDF, "pdf_gate", "doc-0", file=file_of("first"))
    await router.look()
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    await router.arrive(PDF, "pdf_gate", "doc-2", file=file_of("a"))
    await router.look()
    desk.lag, desk.members = 7, 2
    (found,) = await why(desk, engine)
    assert (found.kind, found.stage) == ("gate", "pdf_gate")
    assert found.sentence == "waits at gate pdf_gate until pdf_ir_ready = true"
    assert found.freed_by == "pdf_ir_ready = true in the ledger; it goes on at chunk"
    assert found.others == "1 more for the same file, 2 more at pdf_gate"
    assert "1 files were asked for before it" in found.tried[0]
    assert found.tried[1] == "the PDF parser: 2 at work, 7 requests unread"
    assert found.next_action == "the document fails"
    assert found.next_at is not None
    assert found.command.startswith("medkg gates release")

    desk.members = 0
    desk.breakers = (BreakerChange("mineru.http/gpu", BreakerState.OPEN, 1, "w"),)
    (found,) = await why(desk, engine)
    assert "the PDF parser is paused by its breaker mineru.http/gpu" in found.tried
    assert any("has no members" in line for line in found.tried)


async def test_what_was_done_by_hand_is_told_with_its_reason(
    router: RouterUnderTest, engine: AsyncEngine, desk: Desk
) -> None:
    await at_stage(engine, "pdf_gate")
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    await decide(engine, "clinic", Action.EXTEND, who="ann", why="the parser moves", job_id="job", seconds=60)
    answer = await Explainer(desk, LedgerReader(engine), "clinic").explain("doc-1")
    assert answer.by_hand[0].startswith("extend at pdf_gate by ann, ")
    assert answer.by_hand[0].endswith("the parser moves")
    assert (answer.subject, answer.state, answer.source_id) == ("document", "in_flight", "PMC1")


async def test_a_signal_that_came_late_is_offered_for_taking_up(
    router: RouterUnderTest, engine: AsyncEngine, desk: Desk
) -> None:
    await at_stage(engine, "pdf_gate", failure_at=datetime.now(UTC), failure_disposition="failed", failures=["x#0"])
    await router.arrive(PDF, "pdf_gate", "doc-1", file=file_of("a"))
    await run(engine, "UPDATE waits SET state = 'released', reason = 'timeout', late_at = now()")
    found = (await why(desk, engine))[0]
    assert found.kind == "late"
    assert "came after gate pdf_gate had run out of patience" in found.sentence


async def test_a_retry_tells_when_and_what_went_wrong_before(
    router: RouterUnderTest, engine: AsyncEngine, desk: Desk
) -> None:
    await at_stage(engine, "embed")
    await run(
        engine,
        "INSERT INTO stage_runs (job_id, doc_id, page, stage, attempt, outcome, finished_at, failure_code, "
        "failure_message) VALUES ('job', 'doc-1', 0, 'embed', 1, 2, now(), 'stage_timeout', 'no answer')",
    )
    due = await router.now_ms() + 90_000
    await router.arrive(PDF, "embed", "doc-1", attempt=2, not_before_ms=due)
    (found,) = await why(desk, engine)
    assert (found.kind, found.sentence) == ("retry", "waits for attempt 2 of embed")
    assert found.tried == ("attempt 1 retrying: stage_timeout: no answer",)
    assert found.next_at is not None
    assert abs(found.next_at.timestamp() * 1_000 - due) < 2


async def test_a_join_names_the_branch_that_is_missing(
    router: RouterUnderTest, engine: AsyncEngine, desk: Desk
) -> None:
    await at_stage(engine, "extract")
    await router.arrive(PDF, "kg", "doc-1", came_from="extract")
    (found,) = await why(desk, engine)
    assert (found.kind, found.sentence) == ("join", "waits before kg for embed; extract has come")


async def test_a_missing_pipeline_is_named(router: RouterUnderTest, engine: AsyncEngine, desk: Desk) -> None:
    lost = type(PDF).from_canonical_json(PDF.model_copy(update={"version": "9.9"}).model_dump_json(by_alias=True))
    await at_stage(engine, "pdf_gate")
    await router.arrive(lost, "pdf_gate", "doc-1", is_pinned=False)
    await router.look()
    (found,) = await why(desk, engine)
    assert found.kind == "unread"
    assert "the blob store has no" in found.sentence


@pytest.mark.parametrize(
    ("lag", "members", "quiet", "breaker", "kind", "says"),
    [
        (5, 0, 0, None, "no_members", "has no members"),
        (5, 2, 0, None, "backlog", "is in line for embed"),
        (0, 2, 0, None, "working", "embed is at work on it"),
        (0, 2, 30, None, "lost", "its message is lost"),
        (0, None, 30, None, "lost", "its message is lost"),
        (None, None, 30, None, "working", "embed is at work on it"),
        (5, 2, 0, BreakerState.OPEN, "breaker", "embed is paused: the breaker embed.openai/gpu@h is open"),
        (5, 2, 0, BreakerState.HALF_OPEN, "breaker", "is half-open"),
        (5, 2, 0, BreakerState.CLOSED, "backlog", "is in line for embed"),
    ],
)
async def test_a_document_under_way_is_in_line_at_work_paused_unserved_or_lost(
    engine: AsyncEngine,
    desk: Desk,
    lag: int | None,
    members: int | None,
    quiet: int,
    breaker: BreakerState | None,
    kind: str,
    says: str,
) -> None:
    await at_stage(engine, "embed", quiet_minutes=quiet)
    desk.lag, desk.members = lag, members
    if breaker is not None:
        desk.breakers = (BreakerChange("embed.openai/gpu@h", breaker, 1, "w", 1_700_000_000_000),)
    (found,) = await why(desk, engine)
    assert (found.kind, desk.asked) == (kind, ["medkg.embed.v1"])
    assert says in found.sentence
    if kind == "lost":
        assert found.command == "medkg ledger reconcile"


async def test_a_dead_letter_is_told_with_the_command_that_redrives_it(engine: AsyncEngine, desk: Desk) -> None:
    at = datetime.now(UTC)
    await at_stage(
        engine,
        "embed",
        failure_at=at,
        failure_stage="embed",
        failure_code="stage_timeout",
        failure_disposition="failed",
        failures=["embed#0"],
    )
    (found,) = await why(desk, engine)
    assert (found.kind, found.sentence) == ("ended", "failed at embed: stage_timeout: ")
    await run(
        engine,
        "INSERT INTO dead_letters (dead_letter_id, job_id, tenant_id, doc_id, stage, code, message, causes, topic, "
        "partition, \"offset\", dead_at) VALUES ('t/0/1', 'job', 'clinic', 'doc-1', 'embed', "
        "'stage_timeout', 'no answer in 30 s', '[]', 't', 0, 1, now())",
    )
    (found,) = await why(desk, engine)
    assert found.kind == "dead_letter"
    assert found.sentence == "failed at embed: stage_timeout: no answer in 30 s"
    assert found.command == "medkg dead-letters redrive 't/0/1'"


async def test_of_a_job_each_kind_of_wait_is_told_once_with_its_number(
    router: RouterUnderTest, engine: AsyncEngine, desk: Desk
) -> None:
    for number in range(3):
        await router.arrive(PDF, "pdf_gate", f"doc-{number}", file=file_of(str(number)))
    await run(
        engine,
        "INSERT INTO waits (wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed, request, "
        "origin) VALUES ('p', 'page', 'clinic', 'job', '', 'ingest', 1, '', 100, '{}', '{}')",
    )
    found = {finding.kind: finding for finding in await why(desk, engine, "job")}
    assert (found["gate"].documents, found["page"].documents) == (3, 1)
    assert "a page is held: 1 documents of the tenant are under way" in found["page"].sentence
    assert await why(desk, engine, "job")


async def test_another_tenants_document_is_as_good_as_absent(engine: AsyncEngine, desk: Desk) -> None:
    await at_stage(engine, "embed")
    with pytest.raises(NotFoundError, match="neither a job nor a document"):
        await Explainer(desk, LedgerReader(engine), "other").explain("doc-1")


def test_the_later_word_about_a_breaker_holds_and_nonsense_is_passed_over() -> None:
    known = Breakers()
    for value in (
        b'{"name":"embed.x/p","state":"open","revision":5,"worker":"a"}',
        b'{"name":"embed.x/p","state":"closed","revision":4,"worker":"b"}',
        b"nonsense",
        b'{"name":"chunk.x/p","state":"open","revision":1,"worker":"a"}',
    ):
        known.hear(value)
    (only,) = known.of("embed")
    assert only.state is BreakerState.OPEN
