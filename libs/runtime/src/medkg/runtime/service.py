"""What a service is: the topics it reads, how its handler is opened, and the window it runs in."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass

from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ConfigurationError, MedkgError
from medkg.contracts.implementation import Host
from medkg.contracts.stages import StageType
from medkg.runtime.artefacts import Artefacts
from medkg.runtime.blobs import BlobStore
from medkg.runtime.broker import Publisher
from medkg.runtime.memory import ByteBudget
from medkg.runtime.metrics import Metrics
from medkg.runtime.outcome import dead_letter, failure_of
from medkg.runtime.records import Record
from medkg.runtime.registry import OpenStages, installed
from medkg.runtime.resilience.failure_limits import FailureLimits, FailureRule
from medkg.runtime.resilience.opening import open_guards
from medkg.runtime.resilience.threads import StageThreads
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.runtime.stage_handler import StageHandler, StageServices
from medkg.runtime.topologies import PinnedTopologies, TopologyLoader
from medkg.runtime.worker import Handler, WindowSettings


@dataclass(frozen=True, slots=True)
class ServiceHost:
    """What a process gives to the services in it."""

    settings: RuntimeSettings
    kafka: KafkaSettings
    publisher: Publisher
    blobs: BlobStore
    topologies: TopologyLoader
    pinned: PinnedTopologies
    metrics: Metrics

    @property
    def database_url(self) -> str:
        """The PostgreSQL of this fleet.

        Raises:
            ConfigurationError: none is set.
        """
        url = self.settings.database_url.get_secret_value()
        if not url:
            raise ConfigurationError("opening the database: none is named; set MEDKG_DATABASE_URL=postgresql://…")
        return url

    @property
    def for_stages(self) -> Host:
        return Host(self.settings.data_dir, self.blobs, self.settings.database_url.get_secret_value())


@dataclass(frozen=True, slots=True)
class Service:
    """A consumer group: the topics it reads, how its handler is opened, and the window it runs in.

    ``is_patient``: one record may rightly take hours; its handler watches the time, and being slow is no fault.
    """

    name: str
    topics: tuple[str, ...]
    open: Callable[[ServiceHost], AbstractAsyncContextManager[Handler]]
    window: Callable[[RuntimeSettings], WindowSettings]
    is_patient: bool = False


def stage_service(stage_type: StageType) -> Service:
    """The service that runs one kind of stage with whatever implementations are installed."""

    @asynccontextmanager
    async def open_handler(host: ServiceHost) -> AsyncIterator[Handler]:
        name, settings = stage_type.service, host.settings
        metrics = host.metrics.resilience(name)
        guards_of = open_guards(name, settings.worker_id, host.kafka, host.publisher.send, host.topologies, metrics)
        given_up, count = metrics.threads_given_up, settings.threads
        threads_of = closing(StageThreads(count, name, given_up=given_up))
        one_thread_of = closing(StageThreads(1, f"{name}-python", at_most=count, given_up=given_up))
        async with OpenStages(installed(stage_type), host.for_stages) as stages, guards_of as guards:
            with threads_of as threads, one_thread_of as one_thread:
                await stages.open_default()  # what cannot work is said at start, not to every document
                services = StageServices(
                    stages=stages,
                    topologies=host.pinned,
                    policies=host.topologies.policies,
                    artefacts=Artefacts(host.blobs, host.settings.inline_bytes),
                    budget=ByteBudget(host.settings.open_bytes),
                    threads=threads,
                    one_thread=one_thread,
                    guards=guards,
                    limits=FailureLimits(FailureRule(settings.dead_letter_run, settings.dead_letter_ratio), name),
                    park_seconds=settings.park_retry_seconds,
                    metrics=host.metrics.stages,
                    say=host.publisher.send,
                    tell_starts_seconds=settings.tell_starts_seconds,
                )
                yield StageHandler(stage_type, host.settings.worker_id, services)

    def window(settings: RuntimeSettings) -> WindowSettings:
        return WindowSettings(
            lanes=settings.concurrency,
            high_water=settings.high_water,
            low_water=settings.low_water,
            high_water_bytes=settings.high_water_bytes,
            drain_seconds=settings.drain_seconds,
            is_fair=True,
        )

    return Service(stage_type.service, (stage_type.topic,), open_handler, window)


HandleBatch = Callable[[Sequence[Record]], Awaitable[Sequence[Message]]]


def batch_service(
    name: str,
    reads: Sequence[str],
    open_handler: Callable[[ServiceHost], AbstractAsyncContextManager[HandleBatch]],
    *,
    batch_records: int = 1_000,
) -> Service:
    """A service that handles records in bulk, one batch at a time, in the order of each partition."""

    @asynccontextmanager
    async def open_batches(host: ServiceHost) -> AsyncIterator[Handler]:
        async with open_handler(host) as handle:
            yield _BatchHandler(handle, host.settings.worker_id)

    def window(settings: RuntimeSettings) -> WindowSettings:
        return WindowSettings(
            lanes=1,
            take=batch_records,
            high_water=4 * batch_records,
            low_water=batch_records,
            high_water_bytes=settings.high_water_bytes,
            drain_seconds=settings.drain_seconds,
            is_paced=True,
        )

    return Service(name, tuple(reads), open_batches, window)


class _BatchHandler:
    def __init__(self, handle: HandleBatch, worker: str) -> None:
        self._handle = handle
        self._worker = worker

    async def handle(self, records: Sequence[Record]) -> list[Message]:
        return list(await self._handle(records))

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]:
        failure = failure_of(error)
        return [dead_letter(record, failure, self._worker) for record in records]
