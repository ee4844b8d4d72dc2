"""One way to a PostgreSQL: the engine, the shared table registry, and an idempotent migration."""

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

Engine = AsyncEngine  # what services hold of the database: they import no SQLAlchemy themselves

METADATA = MetaData()  # tables of ledger.py, waits.py and graph.py register here

_MIGRATION_LOCK = 0x6D65646B67  # "medkg": two services that start together must not both create the tables


def open_engine(database_url: str, *, pool_size: int = 5) -> AsyncEngine:
    """An engine for ``postgresql://…``. Connects on first use, and tests a pooled connection before handing it out.

    JIT is off: medkg's statements are short, and compiling one costs more than it saves.
    """
    scheme, _, rest = database_url.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise ValueError(f"opening the database: expected postgresql://…, found {scheme}://…")
    return create_async_engine(
        f"postgresql+asyncpg://{rest}",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        hide_parameters=True,  # an error message reaches logs and dead letters: it names no document's text
        connect_args={"server_settings": {"jit": "off", "application_name": "medkg"}},
    )


async def migrate(engine: AsyncEngine) -> None:
    """Create what is missing. Safe to run at every start, by several processes at once."""
    from medkg.storage import graph, ledger, waits  # noqa: F401  registers the tables

    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        await connection.run_sync(METADATA.create_all)
