"""The gateway: HTTP over the ledger, the index, the graph and the door."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn

from medkg.contracts import topics
from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.gateway.http import create_app
from medkg.gateway.letter_desk import KafkaLetterDesk
from medkg.gateway.parts import About, Parts
from medkg.gateway.searching import SearchSettings, opened_search
from medkg.gateway.settings import GatewaySettings
from medkg.gateway.waiting_desk import Breakers, FleetWaitingDesk
from medkg.runtime.broker import Groups, Publisher, TopicReader, job_event
from medkg.runtime.broker.table import TopicTable
from medkg.runtime.process import run_process
from medkg.runtime.service import ServiceHost
from medkg.runtime.serving import run_until_stopped
from medkg.runtime.settings import from_environment
from medkg.runtime.sources import known_selections
from medkg.storage.engine import open_engine, prepare
from medkg.storage.graph_reader import GraphReader
from medkg.storage.ledger_reader import LedgerReader

EVENT_SOURCE = "medkg-gateway"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class KafkaJobs:
    """Publishes job events through the process' producer."""

    publisher: Publisher

    async def publish(self, submission: bytes, event_id: str) -> str:
        job_id, event = job_event(submission, source=EVENT_SOURCE, event_id=event_id)
        refused = await self.publisher.publish([event])
        if refused:
            raise ResourceUnavailableError(f"publishing the job event: {refused[0]}")
        return job_id


@asynccontextmanager
async def serving_gateway(
    host: ServiceHost, *, port: int | None = None, services: Sequence[str] = ()
) -> AsyncIterator[str]:
    """The gateway at work in this process; yields its URL. ``port`` overrules the setting.

    ``services`` are the names of those that are at work in this process, for ``/v1/status``.

    Raises:
        ConfigurationError: the address is taken, or no database is named.
        ResourceUnavailableError: the database does not answer.
    """
    settings = from_environment(GatewaySettings)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port if port is None else port))
        engine = open_engine(host.database_url)
        stack.push_async_callback(engine.dispose)
        asked = from_environment(SearchSettings)
        search = await stack.enter_async_context(opened_search(asked, host.settings.data_dir))
        reader = await stack.enter_async_context(TopicReader(host.kafka))
        groups, breakers = Groups(host.kafka), Breakers()
        stack.callback(groups.close)
        stack.push_async_callback(TopicTable(host.kafka, topics.BREAKERS, breakers.hear).aclose)
        await prepare(engine, "starting the gateway")
        parts = Parts(
            publisher=KafkaJobs(host.publisher),
            ledger=LedgerReader(engine),
            letters=KafkaLetterDesk(reader, host.publisher, engine),
            search=search,
            graph=GraphReader(engine),
            pipelines=host.topologies,
            registry=host.metrics.registry,
            about=About(host.kafka.bootstrap, tuple(services), {"data": str(host.settings.data_dir)}),
            admission_seconds=settings.admission_seconds,
            max_body_bytes=settings.max_body_bytes,
            selections=known_selections(),
            host_names=_names_of(settings.host),
            waiting=FleetWaitingDesk(engine, groups, breakers.of),
        )
        config = uvicorn.Config(
            create_app(parts),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=max(1, round(host.settings.drain_seconds)),
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="gateway")
        try:
            yield "http://{}:{}".format(*listener.getsockname()[:2])
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Leaves the signals to the process: it stops everything in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ConfigurationError(
            f"listening on {host}:{port}: {error.strerror}; name another port (MEDKG_GATEWAY_PORT, --port)"
        ) from error


def _names_of(address: str) -> frozenset[str] | None:
    """How clients may call a gateway that listens on an address: one on loopback only as this machine calls itself."""
    return _LOOPBACK | {address} if address in _LOOPBACK or address.startswith("127.") else None


def main() -> None:
    """Entry point of ``medkg-gateway`` and ``python -m medkg.gateway``."""
    beside = partial(serving_gateway, services=["gateway"])
    run_process(lambda settings, kafka: run_until_stopped([], settings, kafka, beside))
