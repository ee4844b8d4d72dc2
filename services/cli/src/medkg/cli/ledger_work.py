"""What the commands of `medkg ledger` do, with database and Kafka."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medkg.cli.fleet_stores import Stores
from medkg.ledger.orphans import Orphans, orphans
from medkg.ledger.rebuild import Rebuilt, rebuild
from medkg.ledger.reconcile import Finding, Reconciler, Report
from medkg.local.embedded_broker import in_process_settings
from medkg.runtime.blobs import open_blobs
from medkg.runtime.broker import Publisher
from medkg.runtime.settings import KafkaSettings, RuntimeSettings, from_environment
from medkg.storage.engine import Engine, open_engine, prepare
from medkg.storage.ledger_import import Progress, fill_in, import_rows, rows_of_file, rows_of_table

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Old:
    """Another ledger: a file, or (with ``table``) the URL of a database. ``origin`` names its jobs."""

    source: str
    table: str | None
    origin: str


def migrate_ledger(stores: Stores, say: Say) -> tuple[tuple[str, ...], Progress]:
    """Migrate the tables, then fill in what rows lack; what was migrated, and how many rows were filled in."""

    async def work(engine: Engine) -> tuple[tuple[str, ...], Progress]:
        done = await _migrated(engine)
        for words in done:
            say(words)
        return done, await fill_in(engine, say)

    return _with_engine(stores, work)


def import_ledger(stores: Stores, old: Old, say: Say) -> Progress:
    """Bring the rows of another ledger in."""
    rows = rows_of_table(old.source, old.table) if old.table is not None else rows_of_file(Path(old.source))

    async def work(engine: Engine) -> Progress:
        await _migrated(engine)
        return await import_rows(engine, rows, old.origin, say)

    return _with_engine(stores, work)


def rebuild_ledger(stores: Stores, *, is_check: bool, allow_loss: bool) -> Rebuilt:
    """Make the ledger once more from its topics; compare, or put it in the place of the one in use."""

    async def work(engine: Engine) -> Rebuilt:
        await _migrated(engine)
        return await rebuild(engine, stores.database_url, _kafka(stores), is_check=is_check, allow_loss=allow_loss)

    return _with_engine(stores, work)


def reconcile_ledger(
    stores: Stores, *, older_than_seconds: float, apply: bool, say: Callable[[Finding], None]
) -> Report:
    """Find what is lost, and (``apply``) send it on its way again."""

    async def work(engine: Engine) -> Report:
        await _migrated(engine)
        kafka = _kafka(stores)
        publisher = Publisher(kafka)
        try:
            run = Reconciler(engine, kafka, publisher).run
            return await run(older_than_seconds=older_than_seconds, apply=apply, say=say)
        finally:
            await publisher.close()

    return _with_engine(stores, work)


def orphaned_artefacts(stores: Stores, *, grace_seconds: float, apply: bool) -> Orphans:
    """Find artefacts that nobody refers to, and (``apply``) remove them."""

    async def work(engine: Engine) -> Orphans:
        await _migrated(engine)
        settings = from_environment(RuntimeSettings)
        blobs = open_blobs(stores.blobs_url or settings.blob_location, endpoint=settings.blobs_endpoint)
        return await orphans(engine, _kafka(stores), blobs, grace_seconds=grace_seconds, apply=apply)

    return _with_engine(stores, work)


async def _migrated(engine: Engine) -> tuple[str, ...]:
    return await prepare(engine, "migrating the ledger")


def _with_engine(stores: Stores, work: Callable[[Engine], Awaitable[T]]) -> T:
    async def whole() -> T:
        engine = open_engine(stores.database_url)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(whole())


def _kafka(stores: Stores) -> KafkaSettings:
    if stores.is_in_process:
        return in_process_settings(stores.broker)
    settings = from_environment(KafkaSettings)
    return settings.model_copy(update={"bootstrap": stores.broker}) if stores.broker else settings
