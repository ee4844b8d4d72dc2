"""A fleet in the test's own process: every service as its own consumer group, stores and database of the test's own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from medkg.contracts.stages import StageType
from medkg.gate_router.app import SERVICE as GATE_ROUTER
from medkg.haystack.retrieval import HybridSearch
from medkg.ledger.app import SERVICE as LEDGER
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.broker import publish_job_event
from medkg.runtime.service import Service, ServiceHost, stage_service
from medkg.runtime.serving import RunningService, running
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.graph_reader import GraphReader

STAGES = [stage for stage in StageType if stage is not StageType.GATE]
ALL_SERVICES: tuple[Service, ...] = (*(stage_service(stage) for stage in STAGES), GATE_ROUTER, LEDGER)
ENDED = ("completed", "completed_with_failures", "rejected")


@dataclass(frozen=True, slots=True)
class BrokerUnderTest:
    """Where the suite runs: librdkafka's in-process cluster, or a real Apache Kafka."""

    bootstrap: str
    prefix: str
    is_in_process: bool

    @property
    def settings(self) -> KafkaSettings:
        if self.is_in_process:
            return KafkaSettings(
                bootstrap=self.bootstrap,
                topic_prefix=self.prefix,
                is_in_process=True,
                fetch_wait_ms=10,
                session_timeout_ms=6_000,
                heartbeat_interval_ms=300,
            )
        return KafkaSettings(
            bootstrap=self.bootstrap,
            topic_prefix=self.prefix,
            partitions=2,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=200,
        )


@pytest.fixture(params=["in-process", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[BrokerUnderTest]:
    """Every test that uses it runs on both brokers."""
    if request.param == "kafka":
        yield BrokerUnderTest(request.getfixturevalue("kafka"), topic_prefix, is_in_process=False)
        return
    with embedded_broker() as bootstrap:
        yield BrokerUnderTest(bootstrap, topic_prefix, is_in_process=True)


class FleetUnderTest:
    """What a test asks of a fleet."""

    def __init__(self, host: ServiceHost, at_work: Sequence[RunningService], database_url: str) -> None:
        self.host = host
        self.at_work = at_work
        self.engine = open_engine(database_url)

    async def close(self) -> None:
        await self.engine.dispose()

    async def submit(
        self, selection: dict[str, Any], *, source: str = "files", tenant: str = "default", pipeline: str | None = None
    ) -> str:
        """Publish a job event and return the id of its job."""
        data: dict[str, Any] = {"tenant_id": tenant, "source": source, "selection": selection}
        if pipeline is not None:
            data["pipeline"] = pipeline
        return await publish_job_event(self.host.kafka, msgspec.json.encode(data), source="test")

    async def ended(self, job_id: str, *, seconds: float = 60) -> Any:
        """The row of a job once it has ended; fails with what there is when it does not in time."""
        return await ended_job(self.engine, job_id, seconds=seconds)

    async def until(
        self, sql: str, is_met: Callable[[list[Any]], bool], what: str, *, seconds: float = 30, **parameters: Any
    ) -> Any:
        """The first row of the first answer that meets a condition."""
        return await until_rows(self.engine, sql, is_met, what, seconds=seconds, **parameters)

    async def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """Rows of the fleet's database."""
        return await rows_of(self.engine, sql, **parameters)

    async def graph(self, tenant: str = "default") -> list[tuple[Any, ...]]:
        """The whole graph of a tenant, sorted."""
        return await GraphReader(self.engine).export(tenant)

    @asynccontextmanager
    async def search(self) -> AsyncIterator[HybridSearch]:
        """A retriever on the fleet's index."""
        search = HybridSearch(self.host.settings.data_dir)
        try:
            yield search
        finally:
            await search.aclose()


async def rows_of(engine: Engine, sql: str, **parameters: Any) -> list[Any]:
    """Rows of a database."""
    async with engine.connect() as connection:
        return list((await connection.execute(text(sql), parameters)).all())


async def until_rows(
    engine: Engine, sql: str, is_met: Callable[[list[Any]], bool], what: str, *, seconds: float, **parameters: Any
) -> Any:
    """The first row of the first answer that meets a condition; fails with the state of things after a while."""
    deadline = time.monotonic() + seconds
    while True:
        rows = await rows_of(engine, sql, **parameters)
        if is_met(rows):
            return rows[0] if rows else None
        if time.monotonic() > deadline:
            documents = await rows_of(
                engine,
                "SELECT state, current_stage, failure_code, failure_message, count(*) FROM documents "
                "GROUP BY 1, 2, 3, 4",
            )
            pytest.fail(f"waited {seconds} s for {what}: {rows}; documents: {documents}")
        await asyncio.sleep(0.05)


async def ended_job(engine: Engine, job_id: str, *, seconds: float) -> Any:
    """The row of a job once it has ended."""
    sql = "SELECT * FROM jobs WHERE job_id = :job"
    what = f"job {job_id} to end"
    return await until_rows(
        engine, sql, lambda rows: bool(rows) and rows[0].state in ENDED, what, seconds=seconds, job=job_id
    )


StartFleet = Callable[..., Any]


@pytest.fixture
def start_fleet(
    broker: BrokerUnderTest, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StartFleet:
    """Starts fleets on the test's broker, database and folder: ``async with start_fleet() as fleet``."""
    root = Path(__file__).resolve().parents[1]

    @asynccontextmanager
    async def start(
        services: Sequence[Service] = ALL_SERVICES, *, topologies: Path = root / "topologies", **settings: Any
    ) -> AsyncIterator[FleetUnderTest]:
        monkeypatch.setenv("MEDKG_INGEST_FILES_ROOTS", "/")
        runtime = RuntimeSettings(
            data_dir=tmp_path / "data",
            database_url=SecretStr(database_url),
            topologies_dir=topologies,
            drain_seconds=5,
            **settings,
        )
        engine = open_engine(database_url)
        await migrate(engine)
        await engine.dispose()
        failed = asyncio.Event()
        async with running(services, runtime, broker.settings, failed.set) as (host, at_work):
            fleet = FleetUnderTest(host, at_work, database_url)
            try:
                yield fleet
            finally:
                await fleet.close()
        assert not failed.is_set(), "a worker died"

    return start
