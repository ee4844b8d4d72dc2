"""The ledger service: what is true of every job and document."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medkg.contracts import topics
from medkg.ledger.projector import Projector
from medkg.runtime.service import HandleBatch, ServiceHost, batch_service, serve_services
from medkg.storage.engine import migrate, open_engine
from medkg.storage.transactions import translated


@asynccontextmanager
async def open_projector(host: ServiceHost) -> AsyncIterator[HandleBatch]:
    """The handler of the lifecycle and dead-letter topics."""
    engine = open_engine(host.database_url)
    try:
        async with translated("starting the ledger service"):
            await migrate(engine)
        yield Projector(engine, host.metrics.registry).handle
    finally:
        await engine.dispose()


SERVICE = batch_service("ledger", (topics.LIFECYCLE, topics.DEAD_LETTER), open_projector)


def main() -> None:
    """Entry point of ``medkg-ledger`` and ``python -m medkg.ledger``."""
    serve_services([SERVICE])
