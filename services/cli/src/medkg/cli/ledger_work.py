"""What the commands of `medkg ledger` do, with database and Kafka."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medkg.contracts.errors import ConfigurationError
from medkg.ledger.orphans import Orphans, orphans
from medkg.ledger.rebuild import Rebuilt, rebuild
from medkg.ledger.reconcile import Finding, Reconciler, Report
from medkg.runtime.blobs import open_blobs
from medkg.runtime.broker import Publisher
from medkg.runtime.settings import KafkaSettings, RuntimeSettings, from_environment
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.ledger_import import Progress, fill_in, import_rows, rows_of_file, rows_of_table
from medkg.storage.transactions import translated

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Old:
    """Another ledger: a file, or (with ``table``) the URL of a database. ``origin`` names its jobs."""

    source: str
    table: str | None
    origin: str


def migrate_ledger(database_url: str, say: Say) -> tuple[tuple[str, ...], Progress]:
    """Migrate the tables, then fill in what rows lack; what was migrated, and how many rows were filled in."""

    async def work(engine: Engine) -> tuple[tuple[str, ...], Progress]:
        done = await _migrated(engine)
        for words in done:
            say(words)
        return done, await fill_in(engine, say)

    return _with_engine(database_url, work)


def import_ledger(database_url: str, old: Old, say: Say) -> Progress:
    """Bring the rows of another ledger in."""
    rows = rows_of_table(old.source, old.table) if old.table is not None else rows_of_file(Path(old.source))

    async def work(engine: Engine) -> Progress:
        await _migrated(engine)
        return await import_rows(engine, rows, old.origin, say)

    return _with_engine(database_url, work)


def rebuild_ledger(database_url: str, broker: str, *, is_check: bool, allow_loss: bool) -> Rebuilt:
    """Make the ledger once more from its topics; compare, or put it in the place of the one in use."""

    async def work(engine: Engine) -> Rebuilt:
        await _migrated(engine)
        return await rebuild(engine, database_url, _kafka(broker), is_check=is_check, allow_loss=allow_loss)

    return _with_engine(database_url, work)


def reconcile_ledger(
    database_url: str, broker: str, *, older_than_seconds: float, apply: bool, say: Callable[[Finding], None]
) -> Report:
    """Find what is lost, and (``apply``) send it on its way again."""

    async def work(engine: Engine) -> Report:
        await _migrated(engine)
        kafka = _kafka(broker)
        publisher = Publisher(kafka)
        try:
            run = Reconciler(engine, kafka, publisher).run
            return await run(older_than_seconds=older_than_seconds, apply=apply, say=say)
        finally:
            await publisher.close()

    return _with_engine(database_url, work)


def orphaned_artefacts(database_url: str, broker: str, blobs_url: str, *, grace_seconds: float, apply: bool) -> Orphans:
    """Find artefacts that nobody refers to, and (``apply``) remove them."""

    async def work(engine: Engine) -> Orphans:
        await _migrated(engine)
        settings = from_environment(RuntimeSettings)
        blobs = open_blobs(blobs_url or settings.blob_location, endpoint=settings.blobs_endpoint)
        return await orphans(engine, _kafka(broker), blobs, grace_seconds=grace_seconds, apply=apply)

    return _with_engine(database_url, work)


async def _migrated(engine: Engine) -> tuple[str, ...]:
    async with translated("migrating the ledger"):
        return await migrate(engine)


def _with_engine(database_url: str, work: Callable[[Engine], Awaitable[T]]) -> T:
    async def whole() -> T:
        engine = open_engine(database_url)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    try:
        open_engine(database_url)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return asyncio.run(whole())


def _kafka(broker: str) -> KafkaSettings:
    settings = from_environment(KafkaSettings)
    return settings.model_copy(update={"bootstrap": broker}) if broker else settings
