"""Replicas of a parse service on a real Kafka, with a stage and policies in the test's hands."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from pydantic import SecretStr
from tests.fixtures_fleet import BrokerUnderTest
from tests.unit.runtime.stage_kit import implementation, request, topology

from medkg.contracts.context import StageContext
from medkg.contracts.stages import StageType
from medkg.contracts.topology import Topology
from medkg.runtime import service as service_module
from medkg.runtime.outcome import request_message
from medkg.runtime.service import ServiceHost, stage_service
from medkg.runtime.serving import RunningService, running
from medkg.runtime.settings import KafkaSettings, RuntimeSettings

TOPIC = StageType.PARSE.topic


class Scripted:
    """A stage for all replicas: remembers who ran what and when, and does what ``work`` says."""

    def __init__(self, work: Callable[[StageContext], Any]) -> None:
        self.work = work
        self.runs: list[tuple[str, float]] = []

    async def execute(self, ctx: StageContext, value: Any) -> Any:
        self.runs.append((ctx.doc_id, time.monotonic()))
        return self.work(ctx)


class Replica:
    """One process's worth of service."""

    def __init__(self, host: ServiceHost, at_work: RunningService, failed: asyncio.Event) -> None:
        self.host = host
        self.at_work = at_work
        self.failed = failed

    @property
    def partitions(self) -> int:
        return len(self.at_work.subscription.assigned)

    def shown(self, name: str, **labels: str) -> float:
        return self.host.metrics.registry.get_sample_value(name, labels) or 0.0


class Ground:
    """Starts replicas and gives them work."""

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self.kafka = kafka
        self.folder = folder
        self.topologies = folder / "topologies"
        self.pinned: Topology = topology()

    def write_policies(self, text: str) -> None:
        """What stands below ``policies: default:`` of resilience.yaml."""
        self.topologies.mkdir(exist_ok=True)
        lines = "\n".join(f"    {line}" for line in text.splitlines())
        (self.topologies / "resilience.yaml").write_text(f"policies:\n  default:\n{lines}\n")

    @asynccontextmanager
    async def replica(self, name: str, **settings: Any) -> AsyncIterator[Replica]:
        runtime = RuntimeSettings(
            data_dir=self.folder / "data",
            database_url=SecretStr(""),
            topologies_dir=self.topologies,
            worker_id=name,
            **({"drain_seconds": 3, "concurrency": 4} | settings),
        )
        failed = asyncio.Event()
        async with running([stage_service(StageType.PARSE)], runtime, self.kafka, failed.set) as (host, at_work):
            await host.pinned.pin(self.pinned)
            yield Replica(host, at_work[0], failed)

    async def ask(self, replica: Replica, doc_ids: Sequence[str]) -> None:
        """Let documents be parsed."""
        wanted = [request(self.pinned, doc_id=doc_id) for doc_id in doc_ids]
        assert not await replica.host.publisher.publish([request_message(TOPIC, each, "test") for each in wanted])

    def committed(self) -> int:
        """The sum of the committed offsets of the service."""
        prefix = self.kafka.topic_prefix
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": f"{prefix}medkg-parse"})
        try:
            count = len(consumer.list_topics(prefix + TOPIC, timeout=10).topics[prefix + TOPIC].partitions)
            places = consumer.committed([TopicPartition(prefix + TOPIC, n) for n in range(count)], timeout=10)
            return sum(max(place.offset, 0) for place in places)
        finally:
            consumer.close()


@pytest.fixture
def ground(kafka: str, topic_prefix: str, tmp_path: Path) -> Ground:
    settings = BrokerUnderTest(kafka, topic_prefix, is_in_process=False).settings
    return Ground(settings.model_copy(update={"partitions": 4}), tmp_path)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Makes a stage the installed one."""

    def installed(stage: Any) -> None:
        made = implementation(StageType.PARSE, stage, memoised=False)
        monkeypatch.setattr(service_module, "installed", lambda kind: {made.name: made})

    return installed


async def until(condition: Callable[[], bool], what: str, *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        await asyncio.sleep(0.02)
