"""The pieces of a service that need no Kafka: what it is given, and when it counts as alive."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from pydantic import SecretStr
from tests.unit.runtime.stage_kit import header, record

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ConfigurationError, ContractError, ResourceUnavailableError
from medkg.contracts.messages import DeadLetter
from medkg.contracts.stages import StageType
from medkg.runtime import process as process_module
from medkg.runtime.blobs import open_blobs
from medkg.runtime.metrics import Metrics
from medkg.runtime.process import run
from medkg.runtime.records import Record
from medkg.runtime.service import HandleBatch, ServiceHost, batch_service, stage_service
from medkg.runtime.serving import ALL_TOPICS, RunningService, liveness
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.runtime.topologies import PinnedTopologies, TopologyLoader

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"


@dataclass
class FakePublisher:
    sent: list[Message] = field(default_factory=list)

    def send(self, item: Message) -> None:
        self.sent.append(item)


def host(**fields: Any) -> ServiceHost:
    blobs = open_blobs("memory:")
    return ServiceHost(
        settings=RuntimeSettings(worker_id="worker-1", **fields),
        kafka=KafkaSettings(),
        publisher=cast(Any, FakePublisher()),
        blobs=blobs,
        topologies=TopologyLoader(TOPOLOGIES),
        pinned=PinnedTopologies(blobs),
        metrics=Metrics(),
    )


def test_every_topic_that_anybody_reads_or_writes_is_created() -> None:
    assert {topics.JOBS, topics.GATE, topics.LIFECYCLE, topics.DEAD_LETTER, topics.MINERU_QUEUE} < set(ALL_TOPICS)
    assert {stage_type.topic for stage_type in StageType} < set(ALL_TOPICS)
    assert len(ALL_TOPICS) == len(set(ALL_TOPICS))


def test_a_service_that_needs_a_database_says_which_setting_names_it() -> None:
    with pytest.raises(ConfigurationError, match="MEDKG_DATABASE_URL"):
        _ = host().database_url
    named = host(database_url=SecretStr("postgresql://here"))
    assert named.database_url == named.for_stages.database_url == "postgresql://here"
    assert host().for_stages.database_url == ""  # most stages need none


def test_a_stage_service_reads_its_own_topic_in_a_window_of_its_settings() -> None:
    service = stage_service(StageType.CHUNK)
    window = service.window(RuntimeSettings(concurrency=3, high_water=30, low_water=10, drain_seconds=1))
    assert (service.name, service.topics) == ("chunk", ("medkg.chunk.v1",))
    assert (window.lanes, window.take, window.high_water, window.low_water, window.drain_seconds) == (3, 1, 30, 10, 1)


async def test_a_stage_service_opens_a_handler_that_answers() -> None:
    async with stage_service(StageType.CHUNK).open(host()) as handler:
        (dead,) = await handler.handle([record(b"poison")])
    assert dead.topic == topics.DEAD_LETTER


async def test_a_batch_service_handles_in_bulk_and_refuses_with_dead_letters() -> None:
    seen: list[Sequence[Record]] = []

    @asynccontextmanager
    async def opened(_: ServiceHost) -> AsyncIterator[HandleBatch]:
        async def handle(records: Sequence[Record]) -> list[Message]:
            seen.append(records)
            return [Message("out", "k", b"", [])]

        yield handle

    service = batch_service("bulk", ("a", "b"), opened, batch_records=7)
    window = service.window(RuntimeSettings())
    assert (service.topics, window.lanes, window.take, window.is_paced) == (("a", "b"), 1, 7, True)
    taken = [record(b"1"), record(b"2", offset=8)]
    async with service.open(host()) as handler:
        assert await handler.handle(taken) == [Message("out", "k", b"", [])]
        letters = handler.refuse(taken, ContractError("too large"))
    assert seen == [taken]
    about = [msgspec.json.decode(header(item, "medkg_dead_letter"), type=DeadLetter) for item in letters]
    assert [(one.position.offset, one.failure.message, one.worker) for one in about] == [
        (7, "too large", "worker-1"),
        (8, "too large", "worker-1"),
    ]


@dataclass
class FakeWorker:
    is_healthy: bool = True
    failure: BaseException | None = None
    seconds_without_progress: float = 0.0


@dataclass
class FakeSubscription:
    seconds_since_poll: float = 0.0


@pytest.mark.parametrize(
    ("worker", "subscription", "says"),
    [
        (FakeWorker(), FakeSubscription(), None),
        (FakeWorker(seconds_without_progress=899), FakeSubscription(59), None),
        (FakeWorker(is_healthy=False, failure=RuntimeError("bug")), FakeSubscription(), "a task died: RuntimeError"),
        (FakeWorker(), FakeSubscription(61), "not polled for 61 s"),
        (FakeWorker(seconds_without_progress=901), FakeSubscription(), "nothing was finished for 901 s"),
    ],
)
def test_alive_means_progress(worker: FakeWorker, subscription: FakeSubscription, says: str | None) -> None:
    at_work = RunningService(stage_service(StageType.CHUNK), cast(Any, worker), cast(Any, subscription))
    faults = liveness([at_work], stall_seconds=900)
    assert set(faults) == (set() if says is None else {"chunk"})
    assert says is None or says in faults["chunk"]


@pytest.mark.parametrize("with_uvloop", [True, False])
def test_the_main_coroutine_runs_with_and_without_uvloop(monkeypatch: pytest.MonkeyPatch, with_uvloop: bool) -> None:
    if not with_uvloop:
        monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    monkeypatch.setattr(process_module, "gc", cast(Any, type("Quiet", (), {"freeze": int, "set_threshold": print})))

    async def main() -> int:
        await asyncio.sleep(0)
        return 3

    assert run(main()) == 3


def test_a_fleet_that_cannot_start_exits_with_two_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def cannot(*_: object) -> int:
        raise ResourceUnavailableError("reaching Kafka at nowhere: refused")

    monkeypatch.setattr("sys.argv", ["medkg-chunk"])
    monkeypatch.setattr(process_module, "run_until_stopped", cannot)
    monkeypatch.setattr(process_module, "configure_logging", lambda settings: None)
    monkeypatch.setattr(process_module, "gc", cast(Any, type("Quiet", (), {"freeze": int, "set_threshold": print})))
    with pytest.raises(SystemExit) as caught:
        process_module.serve(StageType.CHUNK)
    assert caught.value.code == 2
    assert "reaching Kafka at nowhere" in caplog.text
