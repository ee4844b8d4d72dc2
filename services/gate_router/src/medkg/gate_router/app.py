"""The gate-router: the one place where anything waits."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.gate_router.admission import SOURCE, Admitter
from medkg.gate_router.parking import Parker
from medkg.gate_router.release import Releaser
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.records import Record
from medkg.runtime.service import HandleBatch, ServiceHost, batch_service, serve_services
from medkg.runtime.settings import from_environment
from medkg.runtime.sources import known_selections
from medkg.storage.engine import migrate, open_engine
from medkg.storage.ledger import CHANNEL
from medkg.storage.notices import listen
from medkg.storage.transactions import translated
from medkg.storage.waits import Waits


@asynccontextmanager
async def open_router(host: ServiceHost) -> AsyncIterator[HandleBatch]:
    """The handler of job events and arrivals, with a releaser at work beside it."""
    settings = from_environment(RouterSettings)
    engine = open_engine(host.database_url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        async with translated("starting the gate-router"):
            await migrate(engine)
        waits = Waits(engine)
        worker = host.settings.worker_id
        admitter = Admitter(waits, host.topologies, host.pinned, settings.page_documents, selections=known_selections())
        parker = Parker(waits, host.pinned, worker, SOURCE, settings.page_documents)
        releaser = Releaser(waits, host.pinned, host.publisher, settings, worker, SOURCE)
        releasing = asyncio.create_task(releaser.run(), name="releaser")
        listening = asyncio.create_task(listen(engine, CHANNEL, releaser.wake), name="listener")
        stack.push_async_callback(_cancel, releasing, listening)

        async def handle(records: Sequence[Record]) -> list[Message]:
            for task in (releasing, listening):
                if task.done():  # they run until they are cancelled: an end is a bug, and the router's too
                    task.result()
            jobs = [record for record in records if record.topic == topics.JOBS]
            arrivals = [record for record in records if record.topic == topics.GATE]
            async with translated("admitting and parking"):
                messages = await admitter.admit(jobs) + await parker.park(arrivals)
            releaser.wake()
            return messages

        yield handle


SERVICE = batch_service("gate-router", (topics.JOBS, topics.GATE), open_router)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Entry point of ``medkg-gate-router`` and ``python -m medkg.gate_router``."""
    serve_services([SERVICE])
