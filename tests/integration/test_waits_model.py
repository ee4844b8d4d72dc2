"""The router's release under concurrent replicas: any history ends with every document released exactly once.

The replicas are real (parker, releaser, PostgreSQL); only Kafka is a list. A replica can die inside a release, after it
has published and before it has marked: what it published is published again, under the same id.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from tests.fixtures_postgres import NewDatabase
from tests.integration.router_kit import GATED, PDF, Outbox, RouterUnderTest, arrival, file_of, request_of, routers

from medkg.contracts.cloudevents import Message
from medkg.storage.engine import migrate, open_engine
from medkg.storage.parsed_files import ParsedFile, file_parsed
from medkg.storage.signals import signal

pytestmark = pytest.mark.postgres

T = TypeVar("T")
REPLICAS = 3
_DOCUMENTS = st.integers(0, 11)
_FILES = 5


def parsed(number: int) -> ParsedFile:
    sha256 = file_of(str(number)).sha256
    return ParsedFile(
        "clinic", sha256, "mineru", "3", document_key=f"parsed/{number}", document_sha256="d", document_bytes=1
    )


class Died(BaseException):
    """A replica is gone: nothing of it catches this."""


class Mortal(Outbox):
    """An outbox that kills whoever publishes to it, when it is told to."""

    dies: bool = False

    async def publish(self, messages: Any) -> dict[int, str]:
        refused = await super().publish(messages)
        if self.dies:
            self.dies = False
            raise Died
        return refused


class RouterHistories(RuleBasedStateMachine):
    """Arrivals, signals, looks and deaths in any order. Every step is run to its end before the next."""

    loop: asyncio.AbstractEventLoop
    server: str

    @initialize()
    def start(self) -> None:
        self.arrived: set[int] = set()
        self.signalled: set[int] = set()
        self.joined: dict[int, set[str]] = {}
        self._stack = _fleet(self.server)
        self.fleet, self.outbox = self._do(self._stack.__anext__())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    @rule(number=_DOCUMENTS, replica=st.integers(0, REPLICAS - 1))
    def a_document_comes(self, number: int, replica: int) -> None:
        self.arrived.add(number)
        self._do(self.fleet[replica].arrive(PDF, "pdf_gate", f"doc-{number}", file=file_of(str(number % _FILES))))

    @rule(number=st.integers(0, _FILES - 1))
    def a_file_is_parsed(self, number: int) -> None:
        self.signalled.add(number)
        self._do(file_parsed(self.fleet[0].engine, parsed(number)))

    @rule(number=_DOCUMENTS, branch=st.sampled_from(["embed", "extract"]), replica=st.integers(0, REPLICAS - 1))
    def a_branch_comes(self, number: int, branch: str, replica: int) -> None:
        self.joined.setdefault(number, set()).add(branch)
        self._do(self.fleet[replica].arrive(PDF, "kg", f"join-{number}", came_from=branch))

    @rule(replica=st.integers(0, REPLICAS - 1))
    def one_looks(self, replica: int) -> None:
        self._do(self.fleet[replica].react())

    @rule()
    def all_look_at_once(self) -> None:
        async def looks() -> None:
            await asyncio.gather(*(each.look() for each in self.fleet))

        self._do(looks())

    @rule(replica=st.integers(0, REPLICAS - 1))
    def one_dies_between_publishing_and_marking(self, replica: int) -> None:
        self.outbox.dies = True
        try:
            self._do(self.fleet[replica].look())
        except Died:
            return
        finally:
            self.outbox.dies = False

    @invariant()
    def nothing_is_released_too_soon(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for item in self.outbox.published:
            if item.topic == "medkg.chunk.v1":
                number = int(request_of(item).doc_id.removeprefix("doc-"))
                assert number in self.arrived
                assert number % _FILES in self.signalled
            elif item.topic == "medkg.kg.v1":
                number = int(request_of(item).doc_id.removeprefix("join-"))
                assert self.joined[number] == {"embed", "extract"}

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        self.all_look_at_once()
        self.all_look_at_once()
        due = {f"doc-{number}" for number in self.arrived if number % _FILES in self.signalled}
        met = {f"join-{number}" for number, branches in self.joined.items() if len(branches) == 2}
        assert _effects(self.outbox, "medkg.chunk.v1") == dict.fromkeys(due, 1)
        assert _effects(self.outbox, "medkg.kg.v1") == dict.fromkeys(met, 1)
        self._do(self._stack.aclose())


def _effects(outbox: Outbox, topic: str) -> dict[str, int]:
    """How many different requests each document has brought to a topic; the same one twice is one in effect."""
    items = [item for item in outbox.published if item.topic == topic]
    once = {(dict(item.headers)["ce_id"], item.value): request_of(item).doc_id for item in items}
    return dict(Counter(once.values()))


async def _fleet(url: str) -> Any:
    engine = open_engine(url, pool_size=10)
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE waits, documents, parsed_files, file_waiters, kept_signals"))
    outbox = Mortal()
    async with routers(engine, REPLICAS) as fleet:
        for each in fleet:
            each.outbox = outbox
            each.releaser.publisher = outbox
        try:
            yield fleet, outbox
        finally:
            await engine.dispose()


@pytest.fixture
def server(postgres_server: str, new_database: NewDatabase) -> Iterator[tuple[asyncio.AbstractEventLoop, str]]:
    """A loop and a migrated database for a test that is no coroutine."""
    loop = asyncio.new_event_loop()
    context = new_database()
    url = loop.run_until_complete(context.__aenter__())

    async def prepare() -> None:
        engine = open_engine(url)
        await migrate(engine)
        await engine.dispose()

    loop.run_until_complete(prepare())
    yield loop, url
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


def test_any_history_of_three_replicas_releases_everything_that_is_due_once_in_effect(
    server: tuple[asyncio.AbstractEventLoop, str],
) -> None:
    class Bound(RouterHistories):
        """On this test's database."""

    Bound.loop, Bound.server = server
    examples = int(os.environ.get("MEDKG_MODEL_EXAMPLES", "6"))
    quiet = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Bound, settings=quiet)


@asynccontextmanager
async def running(fleet: list[RouterUnderTest]) -> AsyncIterator[None]:
    contexts = [each.running() for each in fleet]
    for context in contexts:
        await context.__aenter__()
    try:
        yield
    finally:
        for context in contexts:
            await context.__aexit__(None, None, None)


async def test_thousands_that_are_parked_are_all_released_and_none_twice(database_url: str) -> None:
    """Signals in random order, with duplicates, a part of them early and a part for a file that many wait for."""
    count = int(os.environ.get("MEDKG_PARKED_DOCUMENTS", "1000"))
    chance = random.Random(7)
    engine = open_engine(database_url, pool_size=20)
    await migrate(engine)
    async with routers(engine, REPLICAS) as fleet:
        outbox = fleet[0].outbox
        await fleet[0].pinned.pin(PDF)
        early = set(chance.sample(range(count), count // 10))
        for number in early:
            await file_parsed(engine, parsed(number))
            if chance.random() < 0.5:
                await signal(engine, "clinic", f"doc-{number}", "pdf_ir_ready")
        begun = time.perf_counter()
        for start in range(0, count, 500):
            numbers = range(start, min(start + 500, count))
            records = [
                arrival(PDF, "pdf_gate", f"doc-{number}", file=file_of(str(number)), job=f"job-{number % 7}")
                for number in numbers
            ]
            await fleet[start % REPLICAS].parker.park(records)
            await fleet[(start + 1) % REPLICAS].parker.park(records[: len(records) // 3])  # delivered twice
        parking = time.perf_counter() - begun
        order = [number for number in range(count) for _ in range(1 + (number % 3 == 0))]
        chance.shuffle(order)
        released: list[Message] = []

        def is_done() -> bool:
            released[:] = [item for item in outbox.published if item.topic == "medkg.chunk.v1"]
            return len(released) >= count

        begun = time.perf_counter()
        async with running(fleet):
            lanes = [order[lane::4] for lane in range(4)]

            async def tell(numbers: list[int]) -> None:
                for number in numbers:
                    await file_parsed(engine, parsed(number))

            await asyncio.gather(*(tell(numbers) for numbers in lanes))
            signalled = time.perf_counter() - begun
            async with asyncio.timeout(30 + count / 40):
                while not is_done():
                    await asyncio.sleep(0.05)
        took = time.perf_counter() - begun
    await engine.dispose()
    print(
        f"\n{count} documents, {REPLICAS} routers: parked {count / parking:.0f}/s, {len(order)} signals in "
        f"{signalled:.1f} s, all released {took:.1f} s after the first signal: {count / took:.0f}/s"
    )
    assert max(Counter(request_of(item).doc_id for item in released).values()) == 1
    assert len(released) == count


async def test_ten_thousand_released_at_once_stay_within_the_bound_of_their_topic(database_url: str) -> None:
    """The condition of all comes true in one moment; the consumers work off what they get, and never have too much."""
    count, bound = int(os.environ.get("MEDKG_PARKED_DOCUMENTS", "1000")), 200
    engine = open_engine(database_url, pool_size=20)
    await migrate(engine)
    # No sweep helps within the test: whoever has filled the topic looks again when there is room.
    async with routers(engine, REPLICAS, topic_documents=bound, sweep_seconds=60) as fleet:
        outbox = fleet[0].outbox
        await fleet[0].pinned.pin(GATED)
        for start in range(0, count, 500):
            tenants = ["big"] * 500
            records = [
                arrival(GATED, "ready", f"doc-{start + n}", tenant=tenant, job=tenant)
                for n, tenant in enumerate(tenants[: count - start])
            ]
            await fleet[0].parker.park(records)
        await fleet[0].parker.park([arrival(GATED, "ready", "small-1", tenant="small", job="small")])
        worked_off, most = 0, 0

        def sent() -> int:
            return sum(item.topic == "medkg.chunk.v1" for item in outbox.published)

        async def lags(names: Any) -> dict[str, int]:
            return dict.fromkeys(names, sent() - worked_off)

        for each in fleet:
            each.releaser.rooms.lags = lags
            each.releaser.rooms.bound = bound
            each.releaser.rooms.fresh_seconds = 0.1
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO documents (job_id, doc_id, tenant_id, pdf_downloaded) "
                    "SELECT job_id, doc_id, tenant_id, true FROM waits"
                )
            )
        async with running(fleet), asyncio.timeout(30 + count / 40):
            while sent() < count + 1:
                await asyncio.sleep(0.02)
                most = max(most, sent() - worked_off)
                worked_off = min(sent(), worked_off + 100)
        first = [request_of(item).doc_id for item in outbox.published if item.topic == "medkg.chunk.v1"][: 2 * bound]
    await engine.dispose()
    print(f"\n{count} at once: at most {most} unread in the topic, whose bound is {bound}")
    assert most <= bound * REPLICAS  # each replica may fill what it saw free
    assert "small-1" in first
