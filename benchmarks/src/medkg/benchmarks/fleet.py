"""medkg itself under measurement: a fleet with every service as a process of its own."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from medkg.benchmarks.loads import Load, Outcome
from medkg.benchmarks.noop import made_up_id
from medkg.benchmarks.processes import check_alive, started
from medkg.benchmarks.topic_log import TopicLog, written_ms
from medkg.benchmarks.usage import Meter, Place
from medkg.contracts import topics
from medkg.contracts.ids import document_id, stable_id
from medkg.contracts.messages import EVENT_DECODER, EventType
from medkg.contracts.stages import StageType
from medkg.runtime.broker import Publisher, ensure_topics, job_event
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine, migrate, open_engine

STAGES = ("ingest", "parse", "validate", "chunk", "embed", "index", "extract", "kg")
COORDINATION = ("gate_router", "ledger")
_TYPES = ("Ingest", "Parse", "Validate", "Chunk", "Embed", "Index", "Extract", "KG")
_COMPLETED = ("ce_type", EventType.STAGE_COMPLETED.encode())
_SAY_EVERY_SECONDS = 5.0
_PREPARATION_SECONDS = 0.5  # from the submission of a paced job to the arrival of its first document


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """How the fleet is set up. ``uses`` replaces the stage that does nothing by another, as ``uses:`` and ``with:``."""

    size: int = 1_900
    page: int = 500
    partitions: int = 1
    replicas: Mapping[str, int] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    topologies: Path | None = None  # instead of the stages that do nothing
    tenant_documents: int = 20_000  # under way at once
    profiled: str = ""  # the service to run under cProfile


@dataclass(slots=True)
class Fleet:
    """A fleet at work, as a submitter and an observer see it."""

    place: Place
    plan: FleetPlan
    engine: Engine
    publisher: Publisher
    workers: Mapping[str, psutil.Process]
    coordination: Mapping[str, psutil.Process]
    events: TopicLog
    requests: TopicLog
    _runs: int = field(default=0)

    def meter(self) -> Meter:
        """Counts the CPU of the fleet and its servers from now on."""
        return Meter(self.place, self.workers, self.coordination)

    async def run(self, load: Load) -> Outcome:
        """Submit a load as one job (``alone``: as a job a document) and wait until the ledger says that all has ended.

        Raises:
            TimeoutError: it has not, in time.
            RuntimeError: a document failed.
        """
        self._runs += 1
        tenant = f"run-{self._runs}-{stable_id(time.time_ns())[:8]}"
        first_event, first_request = self.events.end(), self.requests.end()
        meter, begun = self.meter(), time.time()
        if load.alone:
            arrived = await self._submit_alone(load, tenant, begun)
        else:
            arrived = await self._submit_at_once(load, tenant, begun)
        jobs = load.documents if load.alone else 1
        await self.ended(tenant, jobs, load.deadline_seconds, f"medkg, {load.documents} documents")
        seconds, usage = time.time() - begun, meter.read()
        if not load.per_second:
            return Outcome(seconds, usage)
        completed = self._completed(first_event)
        requested = {
            (message.key() or b"").decode(): written_ms(message)
            for message in self.requests.read(first_request, self.requests.end())
        }
        latencies = tuple(completed[name] - at * 1000 for name, at in arrived.items())
        hops = tuple(completed[name] - requested[name] for name in arrived) if load.alone else ()
        return Outcome(seconds, usage, latencies, hops)

    async def submit(self, selection: Mapping[str, object], tenant: str, pipeline: str = "noop") -> str:
        """Publish a job event for the files source; the id of its job."""
        submission = {"tenant_id": tenant, "source": "files", "pipeline": pipeline, "selection": selection}
        event_id = stable_id(tenant, time.time_ns())
        job_id, item = job_event(json.dumps(submission).encode(), source="benchmark", event_id=event_id)
        if refused := await self.publisher.publish([item]):
            raise RuntimeError(f"submitting a job: {refused[0]}")
        return job_id

    async def ended(
        self,
        tenant: str,
        jobs: int,
        deadline_seconds: float,
        what: str,
        *,
        may_refuse: bool = False,
        look_seconds: float = 0.0,
    ) -> None:
        """Return when so many jobs of a tenant have ended well; ``may_refuse``: or with some documents refused.

        It is looked every ``look_seconds``; 0: as often as does not disturb what is measured.

        Raises:
            TimeoutError: they have not, in time; the message says how far they are.
            RuntimeError: a document failed, a job was rejected, or a process of the fleet has ended.
        """
        begun = said = time.monotonic()
        sql = "SELECT state, count(*), sum(completed) FROM jobs WHERE tenant_id = $1 GROUP BY state"
        while True:
            async with self.engine.connect() as connection:
                rows: Sequence[Any] = (await connection.exec_driver_sql(sql, (tenant,))).all()
            states = {state: int(count) for state, count, _ in rows}
            partly = states.get("completed_with_failures", 0)
            if states.get("rejected") or (partly and not may_refuse):
                raise RuntimeError(f"{what}: jobs ended as {states}")
            if states.get("completed", 0) + partly >= jobs:
                return
            now, done = time.monotonic(), sum(int(completed) for _, _, completed in rows)
            if now - begun > deadline_seconds:
                raise TimeoutError(f"{what}: after {now - begun:.0f} s the jobs are {states}, {done} documents done")
            if now - said > _SAY_EVERY_SECONDS:
                said = now
                check_alive({**self.workers, **self.coordination})
                print(f"    {what}: {done} done", flush=True)
            await asyncio.sleep(look_seconds or (0.05 if jobs == 1 else 0.25))

    async def completed_of(self, tenant: str) -> int:
        """How many documents of a tenant's jobs went all the way."""
        async with self.engine.connect() as connection:
            found = await connection.exec_driver_sql("SELECT sum(completed) FROM jobs WHERE tenant_id = $1", (tenant,))
            return int(found.scalar() or 0)

    async def _submit_at_once(self, load: Load, tenant: str, begun: float) -> dict[str, float]:
        """When each document arrives, by its id."""
        paths = [str(load.documents), str(self.plan.size)]
        first = begun + _PREPARATION_SECONDS
        if load.per_second:
            paths += [str(load.per_second), str(first)]
        await self.submit({"paths": paths}, tenant)
        return {
            document_id(tenant, "files", made_up_id(number)): first + arrival
            for number, arrival in enumerate(load.arrivals() if load.per_second else ())
        }

    async def _submit_alone(self, load: Load, tenant: str, begun: float) -> dict[str, float]:
        """When each document arrives, by the id of its job."""
        arrived: dict[str, float] = {}
        async with asyncio.TaskGroup() as group:

            async def submit(at: float) -> None:
                arrived[await self.submit({"paths": ["1", str(self.plan.size)]}, tenant)] = at

            for arrival in load.arrivals():
                await asyncio.sleep(max(0.0, begun + arrival - time.time()))
                group.create_task(submit(begun + arrival))
        return arrived

    def _completed(self, first_event: int) -> dict[str, int]:
        """When the last stage completed each document, by the ids of the document and of its job."""
        found: dict[str, int] = {}
        for message in self.events.read(first_event, self.events.end()):
            if _COMPLETED in (message.headers() or ()):
                event = EVENT_DECODER.decode(message.value() or b"")
                if event.stage == STAGES[-1]:
                    found[event.doc_id] = found[event.job_id] = written_ms(message)
        return found


@asynccontextmanager
async def fleet(place: Place, plan: FleetPlan | None = None) -> AsyncIterator[Fleet]:
    """Start a fleet on topics, tables and a folder of its own; end its processes when the block is left.

    The database must be empty, or that of an earlier fleet of the same benchmark: tenants are never used twice.
    """
    plan = plan or FleetPlan()
    kafka = KafkaSettings(
        bootstrap=place.kafka, topic_prefix=f"medkg-{time.time_ns() // 1_000_000}-", partitions=plan.partitions
    )
    folder = place.folder / kafka.topic_prefix.rstrip("-")
    engine = open_engine(place.database)
    await migrate(engine)
    publisher = Publisher(kafka)
    commands = {name: _command(name, plan) for name in (*_replicated(STAGES, plan), *COORDINATION)}
    with ExitStack() as stack:
        processes = stack.enter_context(started(commands, _environment(place, kafka, plan, folder)))
        await _topics_exist(kafka)
        events = TopicLog(place.kafka, kafka.topic_prefix + topics.LIFECYCLE)
        stack.callback(events.close)
        requests = TopicLog(place.kafka, kafka.topic_prefix + _REQUESTS)
        stack.callback(requests.close)
        workers = {name: process for name, process in processes.items() if name not in COORDINATION}
        coordination = {name: processes[name] for name in COORDINATION}
        yield Fleet(place, plan, engine, publisher, workers, coordination, events, requests)
    await publisher.close()
    await engine.dispose()


_REQUESTS = StageType.INGEST.topic


async def _topics_exist(kafka: KafkaSettings) -> None:
    await ensure_topics(kafka, [topics.JOBS, topics.LIFECYCLE, _REQUESTS])


def _replicated(names: tuple[str, ...], plan: FleetPlan) -> list[str]:
    """``chunk``, ``chunk-2``, …"""
    return [
        name if number == 1 else f"{name}-{number}"
        for name in names
        for number in range(1, plan.replicas.get(name, 1) + 1)
    ]


def _command(name: str, plan: FleetPlan) -> list[str]:
    how = ["-m", "cProfile", "-o", f"{name}.prof"] if name == plan.profiled else []
    return [*how, "-m", f"medkg.{name.partition('-')[0]}"]


def _environment(place: Place, kafka: KafkaSettings, plan: FleetPlan, folder: Path) -> dict[str, str]:
    topologies = plan.topologies or _write_topologies(folder / "topologies", plan.uses)
    return os.environ | {
        "MEDKG_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "MEDKG_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "MEDKG_KAFKA_PARTITIONS": str(kafka.partitions),
        "MEDKG_DATABASE_URL": place.database,
        "MEDKG_DATA_DIR": str(folder / "data"),
        "MEDKG_TOPOLOGIES_DIR": str(topologies),
        "MEDKG_INGEST_FILES_ROOTS": "/",
        "MEDKG_ROUTER_PAGE_DOCUMENTS": str(plan.page),
        "MEDKG_ROUTER_TENANT_DOCUMENTS": str(plan.tenant_documents),
        "MEDKG_LOG_LEVEL": "warning",
    }


def _write_topologies(folder: Path, uses: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True)
    lines = ['version: "1.0"', "name: noop", "stages:"]
    for index, (name, kind) in enumerate(zip(STAGES, _TYPES, strict=True)):
        after = f", depends_on: [{STAGES[index - 1]}]" if index else ""
        lines.append(f"  - {{name: {name}, type: {kind}Stage, {uses.get(name, 'uses: noop')}{after}}}")
    (folder / "noop.yaml").write_text("\n".join(lines))
    (folder / "resilience.yaml").write_text("policies:\n  default: {}\n")
    return folder
