"""The ledger service: what is true of every job and document."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.ledger.projector import Projector
from medkg.ledger.reconcile import Reconciler
from medkg.ledger.schedule import Schedule
from medkg.ledger.settings import LedgerSettings
from medkg.runtime.process import serve_services
from medkg.runtime.records import Record
from medkg.runtime.service import HandleBatch, ServiceHost, batch_service
from medkg.runtime.settings import from_environment
from medkg.storage.engine import open_engine, prepare


@asynccontextmanager
async def open_projector(host: ServiceHost) -> AsyncIterator[HandleBatch]:
    """The handler of the lifecycle and dead-letter topics."""
    engine = open_engine(host.database_url)
    try:
        await prepare(engine, "starting the ledger service")
        reconciler = Reconciler(engine, host.kafka, host.publisher)
        schedule = Schedule(reconciler, from_environment(LedgerSettings), host.metrics.registry)
        looking = asyncio.create_task(schedule.run(), name="reconciler")
        projector = Projector(engine, host.metrics.registry)

        async def handle(records: Sequence[Record]) -> list[Message]:
            if looking.done() and not looking.cancelled():
                looking.result()  # it runs until it is cancelled: an end by a fault is a bug, and the ledger's too
            return await projector.handle(records)

        try:
            yield handle
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    finally:
        await engine.dispose()


SERVICE = batch_service("ledger", (topics.LIFECYCLE, topics.DEAD_LETTER), open_projector, batch_records=5_000)


def main() -> None:
    """Entry point of ``medkg-ledger`` and ``python -m medkg.ledger``."""
    serve_services([SERVICE])
