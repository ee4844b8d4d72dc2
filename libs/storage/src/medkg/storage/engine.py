"""One way to a PostgreSQL: the engine, the shared table registry, and an idempotent migration."""

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

Engine = AsyncEngine  # what services hold of the database: they import no SQLAlchemy themselves

METADATA = MetaData()  # tables of ledger.py, waits.py and graph.py register here


def open_engine(database_url: str, *, pool_size: int = 5, schema: str = "") -> AsyncEngine:
    """An engine for ``postgresql://…``. Connects on first use, and tests a pooled connection before handing it out.

    ``schema``: all tables are looked for there, and nowhere else.

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
        connect_args={
            "server_settings": {"jit": "off", "application_name": "medkg"} | ({"search_path": schema} if schema else {})
        },
    )


async def migrate(engine: AsyncEngine) -> tuple[str, ...]:
    """Bring the tables to the state of today (:mod:`medkg.storage.migrations`). Returns what was done, in words.

    Safe to run at every start, by several processes at once; where nothing is to be done it costs one look.
    """
    from medkg.storage import graph, ledger, operators, parsed_files, signals, waits  # noqa: F401  registers the tables
    from medkg.storage.migrations import migrated

    return await migrated(engine, METADATA)
