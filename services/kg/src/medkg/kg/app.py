"""The kg service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType


class PostgresOptions(Options):
    """Settings of ``kg.postgres``. The database is the process's own: MEDKG_DATABASE_URL."""

    pool_size: int = Field(5, ge=1, le=100, description="connections kept open to PostgreSQL")


@asynccontextmanager
async def _open(options: PostgresOptions, host: Host) -> AsyncIterator[object]:
    from medkg.kg.stage import PostgresGraph
    from medkg.storage.engine import open_engine, prepare
    from medkg.storage.graph_writer import GraphWriter

    if not host.database_url:
        raise ConfigurationError("opening kg.postgres: no database is named; set MEDKG_DATABASE_URL=postgresql://…")
    engine = open_engine(host.database_url, pool_size=options.pool_size)
    try:
        await prepare(engine, "opening kg.postgres")
        yield PostgresGraph(GraphWriter(engine))
    finally:
        await engine.dispose()


POSTGRES = StageImplementation(
    stage_type=StageType.KG,
    name="postgres",
    version="1",
    options=PostgresOptions,
    open=_open,
    memoised=False,  # the receipt says what this job did to the store
    is_default=True,
)


def main() -> None:
    """Entry point of ``medkg-kg`` and ``python -m medkg.kg``."""
    from medkg.runtime.process import serve

    serve(StageType.KG)
