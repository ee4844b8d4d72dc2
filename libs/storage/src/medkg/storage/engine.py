"""One way to a PostgreSQL: the engine, the shared table registry, and an idempotent migration."""

import inspect
import socket
import ssl
import time
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import URL, MetaData, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError
from medkg.storage.transactions import sqlstate, translated

Engine = AsyncEngine  # what services hold of the database: they import no SQLAlchemy themselves

METADATA = MetaData()  # tables of ledger.py, waits.py and graph.py register here

_SCHEMES = {"postgresql", "postgres", "postgresql+asyncpg"}
_OPTIONS = {*inspect.signature(asyncpg.connect).parameters, "prepared_statement_cache_size"}
_CONNECT_SECONDS = 15  # a server that takes longer would be of no use either
_FRESH_SECONDS = 1.0  # a connection that was used so lately is taken to be there
_USED_AT = "medkg_used_at"
SILENCE_SECONDS = 20  # of a network through which nothing passes; statements may take as long as they like
# Classes of SQLSTATE by which a server that is there refuses us: authorisation, no such database, no privilege.
_REFUSALS = ("28", "3D", "42501")


class WatchedConnection(asyncpg.Connection):  # type: ignore[misc]  # it has no types
    """Ends when its network has been silent for too long.

    A connection may be lost without a word (a firewall that forgot it, a machine that is gone), and who waits for an
    answer would wait for a quarter of an hour, or for ever. The kernels of both ends are asked, not PostgreSQL: it may
    be busy with a long statement.
    """

    def __init__(self, protocol: Any, transport: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(protocol, transport, *args, **kwargs)
        wire = transport.get_extra_info("socket")
        if wire.family in (socket.AF_INET, socket.AF_INET6):
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, SILENCE_SECONDS // 2))
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, SILENCE_SECONDS // 4))
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1_000)


def open_engine(database_url: str, *, pool_size: int = 5, schema: str = "") -> AsyncEngine:
    """An engine for ``postgresql://…``. Connects on first use.

    A pooled connection that was idle for a while is tested before it is handed out; one that was in use a moment ago is
    not, as the test takes three of the six round trips of a short transaction.

    ``schema``: all tables are looked for there, and nowhere else.

    JIT is off: medkg's statements are short, and compiling one costs more than it saves.

    Raises:
        ConfigurationError: not such a URL, or one with options that nobody knows.
    """
    engine = create_async_engine(
        _parsed(database_url),
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,  # an error message reaches logs and dead letters: it names no document's text
        connect_args={
            "timeout": _CONNECT_SECONDS,
            "connection_class": WatchedConnection,
            "server_settings": {"jit": "off", "application_name": "medkg"}
            | ({"search_path": schema} if schema else {}),
        },
    )
    _test_the_idle(engine)
    return engine


def _test_the_idle(engine: AsyncEngine) -> None:
    dialect = engine.dialect

    def checked_in(connection: Any, record: Any) -> None:
        record.info[_USED_AT] = time.monotonic()

    def checked_out(connection: Any, record: Any, _: Any) -> None:
        used_at = record.info.get(_USED_AT)
        if used_at is None or time.monotonic() - used_at < _FRESH_SECONDS:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the pool opens another, and hands out none of the others

    event.listen(engine.sync_engine, "checkin", checked_in)
    event.listen(engine.sync_engine, "checkout", checked_out)


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
