"""Serving: one or several services on one connection to Kafka, from start to a clean stop."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import NoReturn

from prometheus_client import CollectorRegistry

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ConfigurationError, GpuNotAvailable, MedkgError
from medkg.contracts.implementation import Host
from medkg.contracts.stages import StageType
from medkg.runtime.artefacts import Artefacts
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.runtime.broker import KafkaHost, Publisher, Sink, Subscription, ensure_topics, reach
from medkg.runtime.exits import Exit
from medkg.runtime.health import HealthServer
from medkg.runtime.logs import configure_logging
from medkg.runtime.memory import ByteBudget, MemoryWatch, soft_limit
from medkg.runtime.metrics import Metrics
from medkg.runtime.outcome import dead_letter, failure_of
from medkg.runtime.records import Record
from medkg.runtime.registry import OpenStages, installed
from medkg.runtime.resilience.failure_limits import FailureLimits, FailureRule
from medkg.runtime.resilience.opening import open_guards
from medkg.runtime.resilience.shares import ShareKeeper
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.resilience.threads import StageThreads
from medkg.runtime.settings import KafkaSettings, RuntimeSettings, from_environment
from medkg.runtime.stage_handler import StageHandler, StageServices
from medkg.runtime.starting import Patience, Start, StoppedAtStart
from medkg.runtime.topologies import PinnedTopologies, TopologyLoader, default_topologies_dir
from medkg.runtime.worker import Handler, WindowSettings, Worker

log = logging.getLogger(__name__)

POLL_LIMIT_SECONDS = 60  # a consumer that was not polled for so long is stuck

ALL_TOPICS = (
    topics.JOBS,
    *(stage_type.topic for stage_type in StageType),
    topics.LIFECYCLE,
    topics.DEAD_LETTER,
    topics.MINERU_QUEUE,
    topics.BREAKERS,
)
COMPACTED_TOPICS = (topics.BREAKERS,)


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
        threads_of = closing(StageThreads(settings.threads, name, given_up=metrics.threads_given_up))
        async with OpenStages(installed(stage_type), host.for_stages) as stages, guards_of as guards:
            with threads_of as threads:
                await stages.open_default()  # what cannot work is said at start, not to every document
                services = StageServices(
                    stages=stages,
                    topologies=host.pinned,
                    policies=host.topologies.policies,
                    artefacts=Artefacts(host.blobs, host.settings.inline_bytes),
                    budget=ByteBudget(host.settings.open_bytes),
                    threads=threads,
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


@dataclass(slots=True)
class RunningService:
    """A service at work."""

    service: Service
    worker: Worker
    subscription: Subscription


@asynccontextmanager
async def running(
    services: Sequence[Service], settings: RuntimeSettings, kafka: KafkaSettings, on_failure: Callable[[], None]
) -> AsyncIterator[tuple[ServiceHost, list[RunningService]]]:
    """Services at work until the block is left; then they drain, leave their groups and close what they opened.

    ``on_failure`` is called when a worker has died; the process should stop then. What was opened before something
    failed is closed again: it can be tried anew.

    Raises:
        ConfigurationError: a setting cannot work.
        ResourceUnavailableError: Kafka, or what a service needs, does not answer.
    """
    await reach(kafka)
    await ensure_topics(kafka, ALL_TOPICS, compacted=COMPACTED_TOPICS)
    blobs = open_blobs(settings.blob_location, endpoint=settings.blobs_endpoint)
    await blobs.reach(settings.blob_location)
    async with AsyncExitStack() as stack:
        kafka_host = KafkaHost(kafka, drain_seconds=settings.drain_seconds, client_id=settings.worker_id)
        host = ServiceHost(
            settings=settings,
            kafka=kafka,
            publisher=kafka_host.publisher,
            blobs=blobs,
            topologies=TopologyLoader(settings.topologies_dir or default_topologies_dir()),
            pinned=PinnedTopologies(blobs),
            metrics=Metrics(),
        )
        at_work: list[RunningService] = []
        try:
            for service in services:
                handler = await stack.enter_async_context(service.open(host))
                at_work.append(_at_work(service, handler, host, kafka_host, on_failure))
            await kafka_host.start()
            if soft := soft_limit(settings.memory_soft_bytes):
                watch = MemoryWatch(soft, [one.worker.shrink for one in at_work])
                watching = asyncio.create_task(watch.run(), name="memory-watch")
                stack.callback(watching.cancel)
            yield host, at_work
        finally:
            abandoned = await asyncio.gather(*(one.worker.drain() for one in at_work))
            await kafka_host.stop()
            for one, count in zip(at_work, abandoned, strict=True):
                if count:
                    log.warning("%s: %d records were abandoned and will be done again", one.service.name, count)


def _at_work(
    service: Service, handler: Handler, host: ServiceHost, kafka_host: KafkaHost, on_failure: Callable[[], None]
) -> RunningService:
    """A service whose worker waits for the records of its subscription."""
    metrics = host.metrics.worker(service.name)
    worker = Worker(handler, host.publisher, service.window(host.settings), metrics, on_failure)
    keeper: ShareKeeper | None = None
    if isinstance(handler, StageHandler):
        keeper = ShareKeeper(worker, handler.share, kafka_host.partition_count)
    sink: Sink = keeper or worker
    subscription = kafka_host.subscribe(service.topics, f"medkg-{service.name}", sink)
    if keeper is not None:
        subscription.on_counted = keeper.recount
    worker.start(subscription)
    return RunningService(service, worker, subscription)


Beside = Callable[[ServiceHost], AbstractAsyncContextManager[str]]


async def run_until_stopped(
    services: Sequence[Service], settings: RuntimeSettings, kafka: KafkaSettings, beside: Beside | None = None
) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code, see :class:`Exit`.

    What does not answer at start is waited for; meanwhile the process is alive, not ready, and says why.

    ``beside``: what else the process serves, on the same host; it yields where it can be reached.
    """
    stop, failed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def fail() -> None:
        failed.set()
        stop.set()

    names = ", ".join(service.name for service in services) or "the gateway"
    start = Start(names, Patience(settings.start_wait_seconds), stop)
    async with AsyncExitStack() as stack:
        health: HealthServer | None = None
        if settings.http_port >= 0:
            probes = HealthServer(
                settings.http_host, settings.http_port, CollectorRegistry(), live=dict, ready=start.faults
            )
            health = stack.enter_context(probes)
        places = {"kafka": kafka.bootstrap, "blobs": settings.blob_location, "health": health.address if health else ""}
        try:
            host, at_work = await start.open(stack, lambda: running(services, settings, kafka, fail))
            if beside is not None:
                places["url"] = await start.open(stack, lambda: beside(host))
        except StoppedAtStart:
            log.info("stopped before %s was serving", names)
            return Exit.STOPPED
        if health is not None:
            health.watch(
                host.metrics.registry,
                live=lambda: liveness(at_work, settings.stall_seconds),
                ready=lambda: readiness(at_work, is_stopping=stop.is_set()),
            )
        log.info("serving %s", names, extra=places)
        await stop.wait()
        log.info("stopping %s", names)
    if any(isinstance(one.worker.failure, WorkerStopped) for one in at_work):
        return Exit.FAILING
    return Exit.DIED if failed.is_set() else Exit.STOPPED


def readiness(at_work: Sequence[RunningService], *, is_stopping: bool) -> dict[str, str]:
    """Why no work should be expected of this process; empty when all is well."""
    faults = {one.service.name: str(one.worker.failure) for one in at_work if one.worker.failure is not None}
    return faults | ({"stop": "the process is stopping"} if is_stopping else {})


def liveness(at_work: Sequence[RunningService], stall_seconds: float) -> dict[str, str]:
    """What is wrong with services that make no progress, by service; empty when all is well."""
    faults: dict[str, str] = {}
    for one in at_work:
        if not one.worker.is_healthy:
            faults[one.service.name] = f"a task died: {one.worker.failure!r}"
        elif (age := one.subscription.seconds_since_poll) > POLL_LIMIT_SECONDS:
            faults[one.service.name] = f"the consumer was not polled for {age:.0f} s"
        elif not one.service.is_patient and (idle := one.worker.seconds_without_progress) > stall_seconds:
            faults[one.service.name] = f"there is work, but nothing was finished for {idle:.0f} s"
    return faults


def serve(stage_type: StageType) -> None:
    """Run the service of one kind of stage as this process, with settings from the environment, until told to stop."""
    serve_services([stage_service(stage_type)])


def serve_batches(
    name: str,
    reads: Sequence[str],
    open_handler: Callable[[ServiceHost], AbstractAsyncContextManager[HandleBatch]],
) -> None:
    """Run a service that handles records in bulk as this process."""
    serve_services([batch_service(name, reads, open_handler)])


def serve_services(services: Sequence[Service]) -> NoReturn:
    """Run services as this process, until told to stop. What every ``medkg-…`` command does."""
    run_process(lambda settings, kafka: run_until_stopped(services, settings, kafka))


def run_process(main: Callable[[RuntimeSettings, KafkaSettings], Awaitable[int]]) -> NoReturn:
    """Read the environment, log as it says, run ``main`` and exit with its code, see :class:`Exit`."""
    _read_arguments()
    try:
        settings, kafka = from_environment(RuntimeSettings), from_environment(KafkaSettings)
    except MedkgError as error:  # how to log is not known either
        sys.stderr.write(f"medkg: {error.message}\n")
        raise SystemExit(Exit.NOT_STARTED) from error
    configure_logging(settings)
    try:
        code = run(main(settings, kafka))
    except MedkgError as error:
        log.critical(error.message, extra={"code": error.code})
        code = Exit.NO_GPU if isinstance(error, GpuNotAvailable) else Exit.NOT_STARTED
    raise SystemExit(code)


def _read_arguments() -> None:
    """A service takes none; ``--help`` says where its settings come from."""
    fields = RuntimeSettings.model_fields
    lines = [f"  {'MEDKG_' + name.upper():<24} {field.description}" for name, field in fields.items()]
    variables = "\n".join([f"  {'MEDKG_KAFKA_BOOTSTRAP':<24} HOST:PORT of Kafka.", *lines])
    argparse.ArgumentParser(
        description="A medkg service: reads its topic until SIGTERM, then drains. Settings come from the environment.",
        epilog=f"environment (all of it: docs/reference/settings.md):\n{variables}"
        "\n\nexample:\n  MEDKG_KAFKA_BOOTSTRAP=127.0.0.1:9092 medkg-chunk",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()


def run(main: Awaitable[int]) -> int:
    """Run the main coroutine of a process, on uvloop where there is one."""

    # What is imported stays: the collector need not look at it again, nor run for every few hundred messages.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    async def whole() -> int:
        return await main

    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return asyncio.run(whole())
    return uvloop.run(whole())
