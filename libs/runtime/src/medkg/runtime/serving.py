"""Serving: one or several services on one connection to Kafka, from start to a clean stop."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from medkg.contracts import topics
from medkg.contracts.stages import StageType
from medkg.runtime.blobs import open_blobs
from medkg.runtime.broker import KafkaHost, Sink, Subscription, ensure_topics, reach
from medkg.runtime.exits import Exit
from medkg.runtime.health import HealthServer
from medkg.runtime.memory import MemoryWatch, soft_limit
from medkg.runtime.metrics import Metrics
from medkg.runtime.resilience.shares import ShareKeeper
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.service import Service, ServiceHost
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.runtime.stage_handler import StageHandler
from medkg.runtime.starting import Patience, Start, StoppedAtStart
from medkg.runtime.topologies import PinnedTopologies, TopologyLoader, default_topologies_dir
from medkg.runtime.worker import Handler, Worker

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
