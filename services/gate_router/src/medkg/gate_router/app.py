"""The gate-router: the one place where anything waits."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.gate_router.admission import SOURCE, Admitter
from medkg.gate_router.files import Files
from medkg.gate_router.parking import Parker
from medkg.gate_router.pipelines import Pipelines
from medkg.gate_router.release import Releaser
from medkg.gate_router.rooms import Rooms
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.artefacts import Artefacts
from medkg.runtime.broker import Groups
from medkg.runtime.process import serve_services
from medkg.runtime.records import Record
from medkg.runtime.service import HandleBatch, ServiceHost, batch_service
from medkg.runtime.settings import from_environment
from medkg.runtime.sources import known_selections
from medkg.storage.engine import Engine, open_engine, prepare
from medkg.storage.ledger import CHANNEL
from medkg.storage.ledger_reader import LedgerReader
from medkg.storage.notices import listen
from medkg.storage.parsed_files import all_parsed
from medkg.storage.transactions import translated
from medkg.storage.waits import Waits


@asynccontextmanager
async def open_router(host: ServiceHost) -> AsyncIterator[HandleBatch]:
    """The handler of job events and arrivals, with a releaser at work beside it."""
    settings = from_environment(RouterSettings)
    engine = open_engine(host.database_url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        await prepare(engine, "starting the gate-router")
        groups = Groups(host.kafka)
        stack.callback(groups.close)
        admitter, parker, releaser = _parts(host, settings, engine, groups)
        releasing = asyncio.create_task(releaser.run(), name="releaser")
        listening = asyncio.create_task(listen(engine, CHANNEL, releaser.heard), name="listener")
        stack.push_async_callback(_cancel, releasing, listening)

        async def handle(records: Sequence[Record]) -> list[Message]:
            for task in (releasing, listening):
                if task.done():  # they run until they are cancelled: an end is a bug, and the router's too
                    task.result()
            jobs = [record for record in records if record.topic == topics.JOBS]
            arrivals = [record for record in records if record.topic == topics.GATE]
            async with translated("admitting and parking"):
                return await admitter.admit(jobs) + await parker.park(arrivals)

        yield handle


def _parts(
    host: ServiceHost, settings: RouterSettings, engine: Engine, groups: Groups
) -> tuple[Admitter, Parker, Releaser]:
    """The parts of a router, put together."""
    waits, worker = Waits(engine), host.settings.worker_id
    pinned = Pipelines(host.pinned, LedgerReader(engine).topology)
    files = Files(engine, Artefacts(host.blobs, host.settings.inline_bytes), SOURCE)
    releaser = Releaser(
        waits,
        pinned,
        host.publisher,
        settings,
        worker,
        SOURCE,
        rooms=Rooms(groups.lags, settings.topic_documents),
        files=files,
        parsed=partial(all_parsed, engine),
    )
    admitter = Admitter(
        waits,
        host.topologies,
        pinned,
        settings.page_documents,
        selections=known_selections(),
        parked=releaser.parked,
    )
    parker = Parker(waits, pinned, worker, SOURCE, settings.page_documents, files, releaser.parked)
    return admitter, parker, releaser


SERVICE = batch_service("gate-router", (topics.JOBS, topics.GATE), open_router)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Entry point of ``medkg-gate-router`` and ``python -m medkg.gate_router``."""
    serve_services([SERVICE])
