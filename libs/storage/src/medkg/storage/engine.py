"""One way to a PostgreSQL: the engine, the shared table registry, and an idempotent migration."""

import inspect
import ssl

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import URL, MetaData, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.storage.transactions import sqlstate, translated

Engine = AsyncEngine  # what services hold of the database: they import no SQLAlchemy themselves

METADATA = MetaData()  # tables of ledger.py, waits.py and graph.py register here

_SCHEMES = {"postgresql", "postgres", "postgresql+asyncpg"}
_OPTIONS = {*inspect.signature(asyncpg.connect).parameters, "prepared_statement_cache_size"}
_CONNECT_SECONDS = 15  # a server that takes longer would be of no use either
# Classes of SQLSTATE by which a server that is there refuses us: authorisation, no such database, no privilege.
_REFUSALS = ("28", "3D", "42501")


def open_engine(database_url: str, *, pool_size: int = 5, schema: str = "") -> AsyncEngine:
    """An engine for ``postgresql://…``. Connects on first use, and tests a pooled connection before handing it out.

    ``schema``: all tables are looked for there, and nowhere else.

    JIT is off: medkg's statements are short, and compiling one costs more than it saves.

    Raises:
        ConfigurationError: not such a URL, or one with options that nobody knows.
    """
    return create_async_engine(
        _parsed(database_url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        hide_parameters=True,  # an error message reaches logs and dead letters: it names no document's text
        connect_args={
            "timeout": _CONNECT_SECONDS,
            "server_settings": {"jit": "off", "application_name": "medkg"}
            | ({"search_path": schema} if schema else {}),
        },
    )


def _parsed(database_url: str) -> URL:
    """The URL, checked. No fault quotes it: there may be a password in it."""
    scheme, separator, rest = database_url.partition("://")
    if scheme not in _SCHEMES or not separator:
        found = f"{scheme[:40]}://…" if separator else "something else"
        raise ConfigurationError(f"opening the database: expected postgresql://…, found {found} (MEDKG_DATABASE_URL)")
    try:
        url = make_url(f"postgresql+asyncpg://{rest}")
    except (ArgumentError, ValueError):  # its text has the URL in it
        raise ConfigurationError(
            "opening the database: this is no URL; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with what is "
            "special in a password percent-encoded"
        ) from None
    if unknown := sorted(set(url.query) - _OPTIONS):
        raise ConfigurationError(
            f"opening the database: {', '.join(unknown)[:80]}: no such option; for TLS write ?ssl=require"
        )
    return url


def place_of(engine: AsyncEngine) -> str:
    """Which database it is, for people: HOST:PORT/DATABASE, or the folder of a socket. Without user and password."""
    url = engine.url
    host = url.host or url.query.get("host") or "localhost"
    return f"{host if isinstance(host, str) else ','.join(host)}:{url.port or 5432}/{url.database or ''}"


async def migrate(engine: AsyncEngine) -> tuple[str, ...]:
    """Bring the tables to the state of today (:mod:`medkg.storage.migrations`). Returns what was done, in words.

    Safe to run at every start, by several processes at once; where nothing is to be done it costs one look.
    """
    from medkg.storage import graph, ledger, operators, parsed_files, signals, waits  # noqa: F401  registers the tables
    from medkg.storage.migrations import migrated

    return await migrated(engine, METADATA)


async def prepare(engine: AsyncEngine, doing: str) -> tuple[str, ...]:
    """:func:`migrate`, as everybody does who starts: ``doing`` begins what there is to say if it cannot be.

    Raises:
        ResourceUnavailableError: the server is away, is starting, or has no room: it may answer later.
        ConfigurationError: it is there and refuses us: password, role, database, privilege or certificate.
    """
    doing = f"{doing} on PostgreSQL at {place_of(engine)}"
    try:
        async with translated(doing):
            return await migrate(engine)
    except DBAPIError as error:
        if sqlstate(error).startswith(_REFUSALS):
            raise _refused(doing, error.orig or error) from error
        raise
    except ResourceUnavailableError as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise _refused(doing, error.__cause__) from error
        raise


def _refused(doing: str, reason: BaseException) -> ConfigurationError:
    return ConfigurationError(f"{doing}: it refuses us: {reason}; mend MEDKG_DATABASE_URL, or what it may do there")
