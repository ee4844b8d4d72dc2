"""The whole fleet, or a part of it, in one process: ``medkg up``.

Every service is its own consumer group, exactly as when it is a process of its own. What is embedded and what is not is
said at start, and never swapped silently.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from medkg.contracts.errors import ConfigurationError, MedkgError
from medkg.contracts.stages import StageType
from medkg.gate_router.app import SERVICE as GATE_ROUTER
from medkg.gateway.app import serving_gateway
from medkg.ledger.app import SERVICE as LEDGER
from medkg.ledger.reconcile import Reconciler
from medkg.local.embedded_broker import embedded_broker, in_process_settings
from medkg.local.embedded_postgres import embedded_postgres
from medkg.local.folder import claimed, remove_note, write_note
from medkg.mineru.app import SERVICE as MINERU
from medkg.runtime.health import HealthServer
from medkg.runtime.logs import configure_logging
from medkg.runtime.process import run
from medkg.runtime.service import Service, ServiceHost, stage_service
from medkg.runtime.serving import RunningService, liveness, running
from medkg.runtime.settings import KafkaSettings, RuntimeSettings
from medkg.storage.engine import open_engine, prepare
from medkg.storage.transactions import translated

EMBEDDED = "embedded"
GATEWAY = "gateway"

_STAGES = [stage for stage in StageType if stage is not StageType.GATE]  # a gate is the gate-router's
SERVICES: Mapping[str, Service] = {
    **{stage.service: stage_service(stage) for stage in _STAGES},
    "gate-router": GATE_ROUTER,
    "ledger": LEDGER,
    MINERU.name: MINERU,
}
SERVICE_NAMES = (*SERVICES, GATEWAY)
MINERU_URL = "MEDKG_MINERU_URL"


# The in-process broker drops a partition's oldest messages above 5 MB, read or not. So many documents of a tenant, each
# message with at most an artefact of 16 kB inside, stay under that even if they all share a partition.
_IN_PROCESS_BOUNDS = {
    "MEDKG_ROUTER_TENANT_DOCUMENTS": "200",
    "MEDKG_ROUTER_PAGE_DOCUMENTS": "50",
    "MEDKG_ROUTER_TOPIC_DOCUMENTS": "200",
}


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What ``medkg up`` was asked for. No ``services`` means all of them, no ``database_url`` the embedded server."""

    data_dir: Path
    broker: str = EMBEDDED
    services: tuple[str, ...] = ()
    gateway_port: int = 8750
    database_url: str = ""
    files_roots: tuple[Path, ...] = ()
    topologies_dir: Path | None = None


def run_fleet(options: FleetOptions) -> int:
    """Run until Ctrl-C or SIGTERM, then drain. Returns the exit code: 0 clean, 1 a service died, 2 no start."""
    try:
        with claimed(options.data_dir):
            return run(_serve(options))
    except MedkgError as error:
        print(f"medkg up: {error.message}", file=sys.stderr)
        return 2


async def _serve(options: FleetOptions) -> int:
    stop, failed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def fail() -> None:
        failed.set()
        stop.set()

    async with fleet(options, fail) as started:
        print(started.description, flush=True)
        await stop.wait()
        print("stopping: what is under way is finished first", flush=True)
    print("stopped", flush=True)
    return 1 if failed.is_set() else 0


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet at work."""

    host: ServiceHost
    at_work: Sequence[RunningService]
    gateway_url: str
    description: str


@asynccontextmanager
async def fleet(options: FleetOptions, on_failure: Callable[[], None]) -> AsyncIterator[Fleet]:
    """A fleet at work until the block is left.

    Raises:
        ConfigurationError: an unknown service, or settings that cannot work.
        ResourceUnavailableError: the broker or the database does not answer.
    """
    chosen = chosen_services(options.services)
    is_in_process = options.broker == EMBEDDED
    if is_in_process and not set(chosen) >= set(chosen_services(())):
        raise ConfigurationError(
            "starting a part of the fleet: the embedded broker lives in this process only; "
            "name a real one with --broker HOST:PORT, or leave --services out"
        )
    async with AsyncExitStack() as stack:
        data_dir = options.data_dir.absolute()
        if is_in_process:
            for name, value in _IN_PROCESS_BOUNDS.items():
                os.environ.setdefault(name, value)
        os.environ["MEDKG_INGEST_FILES_ROOTS"] = os.pathsep.join(map(str, options.files_roots or (Path("/"),)))
        database_url = options.database_url or await stack.enter_async_context(embedded_postgres(data_dir / "postgres"))
        bootstrap = stack.enter_context(embedded_broker()) if is_in_process else options.broker
        settings = RuntimeSettings(
            data_dir=data_dir,
            database_url=SecretStr(database_url),
            topologies_dir=options.topologies_dir,
            log_format="json",
        )
        configure_logging(settings, file=data_dir / "fleet.log")
        kafka = _kafka_settings(bootstrap, is_in_process=is_in_process)
        await _prepare_database(database_url, is_in_process=is_in_process)
        services = [SERVICES[name] for name in chosen if name != GATEWAY]
        host, at_work = await stack.enter_async_context(running(services, settings, kafka, on_failure))
        health = HealthServer(
            settings.http_host,
            max(settings.http_port, 0),
            host.metrics.registry,
            live=lambda: liveness(at_work, settings.stall_seconds),
            ready=dict,
        )
        stack.enter_context(health)
        gateway_url = ""
        if GATEWAY in chosen:
            gateway_url = await stack.enter_async_context(
                serving_gateway(host, port=options.gateway_port, services=chosen)
            )
        stack.callback(remove_note, data_dir)
        write_note(
            data_dir,
            gateway_url=gateway_url,
            broker=bootstrap,
            services=list(chosen),
            database_url="" if options.database_url else database_url,
            blobs_url=settings.blob_location,
            is_in_process=is_in_process,
        )
        yield Fleet(host, at_work, gateway_url, _describe(options, chosen, bootstrap, gateway_url, health.address))


def chosen_services(names: Sequence[str]) -> tuple[str, ...]:
    """What is started when these are named; none named: all that have what they need.

    Raises:
        ConfigurationError: one of them is unknown.
    """
    unknown = [name for name in names if name not in SERVICE_NAMES]
    if unknown:
        raise ConfigurationError(
            f"starting services: {', '.join(unknown)} unknown; there are: {', '.join(SERVICE_NAMES)}"
        )
    without = () if os.environ.get(MINERU_URL) else (MINERU.name,)  # which has nobody to ask
    return tuple(names) or tuple(name for name in SERVICE_NAMES if name not in without)


def _kafka_settings(bootstrap: str, *, is_in_process: bool) -> KafkaSettings:
    return in_process_settings(bootstrap) if is_in_process else KafkaSettings(bootstrap=bootstrap)


async def _prepare_database(database_url: str, *, is_in_process: bool) -> None:
    engine = open_engine(database_url)
    try:
        await prepare(engine, "preparing the database")
        if is_in_process:  # the broker of the last run took its messages with it
            async with translated("preparing the database"):
                await Reconciler(engine, None).run(older_than_seconds=0, apply=True)
    finally:
        await engine.dispose()


def _describe(options: FleetOptions, chosen: Sequence[str], bootstrap: str, gateway_url: str, health: str) -> str:
    roots = ", ".join(map(str, options.files_roots)) or "any file that this user can read (restrict with --files-root)"
    broker = f"in-process cluster at {bootstrap} (memory only)" if options.broker == EMBEDDED else bootstrap
    database = "embedded PostgreSQL" if not options.database_url else "PostgreSQL as given"
    lines = {
        "services": ", ".join(chosen),
        "broker": broker,
        "ledger, graph": f"{database}, {options.data_dir / 'postgres'}" if not options.database_url else database,
        "index": f"SQLite FTS5 + FAISS, {options.data_dir / 'index'}",
        "blobs": str(options.data_dir / "blobs"),
        "files": roots,
        "log": str(options.data_dir / "fleet.log"),
        "health": f"http://{health}/health/live, /metrics",
        "gateway": gateway_url or "not here",
    }
    width = max(map(len, lines))
    return "\n".join(["medkg is up", *(f"  {name:<{width}}  {value}" for name, value in lines.items())])
