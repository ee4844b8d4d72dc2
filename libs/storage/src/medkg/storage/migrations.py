"""What has changed about the tables since the first release, and how a database is brought to the state of today.

Three steps, in one transaction under a lock: tables that are missing are made; the numbered migrations that the
database has not seen are run; columns and indexes that are declared and missing are added. So a column that is merely
new needs no migration; what changes a key, a generated column or the rows that are there does. Every statement can be
run again.

A database that has seen all of it answers with one look: :func:`migrate` costs a service that starts a round trip.
"""

from dataclasses import dataclass

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from medkg.contracts.ids import content_digest
from medkg.storage.transactions import sqlstate

_LOCK = 0x6D65646B67  # "medkg": two services that start together must not both change the tables
_UNDEFINED_TABLE = "42P01"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. ``statements`` are run in order, and change nothing where they have been run before."""

    number: int
    name: str
    statements: tuple[str, ...]


MIGRATIONS = (
    Migration(
        1,
        "failures by round: a dead letter can be redriven",
        (
            *(
                f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS failure_order bigint, "
                "ADD COLUMN IF NOT EXISTS failures text[] COLLATE \"C\" NOT NULL DEFAULT '{}', "
                "ADD COLUMN IF NOT EXISTS redriven text[] COLLATE \"C\" NOT NULL DEFAULT '{}'"
                for table in ("documents", "pages")
            ),
            "UPDATE documents SET failure_order = 0, failures = ARRAY[failure_stage || '#0'] "
            "WHERE failure_at IS NOT NULL AND failure_order IS NULL",
            "UPDATE pages SET failure_order = 0, failures = ARRAY[coalesce("
            "(SELECT r.stage FROM stage_runs r WHERE r.job_id = pages.job_id AND r.doc_id = '' "
            "AND r.page = pages.number ORDER BY r.stage LIMIT 1), 'ingest') || '#0'] "
            "WHERE failure_at IS NOT NULL AND failure_order IS NULL",
            "ALTER TABLE documents DROP COLUMN IF EXISTS state",  # generated: made anew from the failures
            "ALTER TABLE pages DROP COLUMN IF EXISTS state",
            "ALTER TABLE stage_runs ADD COLUMN IF NOT EXISTS redrive bigint NOT NULL DEFAULT '0'",
            "ALTER TABLE stage_runs DROP CONSTRAINT IF EXISTS stage_runs_pkey, "
            "ADD PRIMARY KEY (job_id, doc_id, page, stage, attempt, redrive)",
            "ALTER TABLE dead_letters ALTER COLUMN dead_at DROP NOT NULL",
            "UPDATE dead_letters SET dead_letter_id = dead_letter_id || '~' || "
            "left(md5(job_id || '/' || doc_id || '/0'), 8) WHERE job_id <> '' AND strpos(dead_letter_id, '~') = 0",
        ),
    ),
    Migration(
        2,
        "where a document is follows from its runs",  # so that an old ledger equals one that is rebuilt
        (
            "UPDATE documents d SET last_event_at = p.done_at, first_event_at = p.done_at, current_stage = r.stage, "
            "stage_rank = 1 FROM pages p, LATERAL (SELECT stage FROM stage_runs WHERE job_id = p.job_id "
            "AND doc_id = '' AND page = p.number ORDER BY stage LIMIT 1) r "
            "WHERE p.job_id = d.job_id AND p.number = d.page_number AND p.is_done AND d.redriven = '{}' "
            "AND (d.last_event_at, d.current_stage) IS DISTINCT FROM (p.done_at, r.stage)",
            "UPDATE documents SET last_event_at = NULL, first_event_at = NULL, current_stage = '', stage_rank = 0 "
            "WHERE page_number IS NULL AND redriven = '{}' AND last_event_at IS NOT NULL AND EXISTS ("
            "SELECT 1 FROM stage_runs r WHERE r.job_id = documents.job_id AND r.doc_id = documents.doc_id)",
        ),
    ),
)
LATEST = MIGRATIONS[-1].number

_SCHEMA = Table(
    "schema_version",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),  # of all declarations: what is merely new has no number
)
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


async def migrated(engine: AsyncEngine, metadata: MetaData) -> tuple[str, ...]:
    """Bring the database to what ``metadata`` declares. Returns what was done, in words; nothing when nothing was.

    Safe to run at every start, by several processes at once. A database that a newer release has migrated is left
    alone.
    """
    digest = declared(metadata)
    if await _stands_at(engine) == (LATEST, digest):
        return ()
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        return await connection.run_sync(_bring_up_to_date, metadata, digest)


def declared(metadata: MetaData) -> str:
    """The SHA-256 of all declarations: it changes when any column does."""
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    said = [str(CreateTable(table).compile(dialect=_DIALECT)) for table in tables]
    said += sorted(str(CreateIndex(index).compile(dialect=_DIALECT)) for table in tables for index in table.indexes)
    return content_digest("\n".join(said).encode())


async def _stands_at(engine: AsyncEngine) -> tuple[int, str] | None:
    try:
        async with engine.connect() as connection:
            found = (await connection.execute(_SCHEMA.select().order_by(_SCHEMA.c.number.desc()))).first()
    except DBAPIError as error:
        if sqlstate(error) != _UNDEFINED_TABLE:
            raise
        return None
    return (found.number, found.digest) if found else None


def _bring_up_to_date(connection: Connection, metadata: MetaData, digest: str) -> tuple[str, ...]:
    is_fresh = not inspect(connection).has_table("jobs")
    _SCHEMA.create(connection, checkfirst=True)
    found = connection.execute(_SCHEMA.select().order_by(_SCHEMA.c.number.desc())).first()
    if found is not None and (found.number > LATEST or (found.number, found.digest) == (LATEST, digest)):
        return ()
    done = [] if not is_fresh else ["made all tables"]
    metadata.create_all(connection)
    for migration in MIGRATIONS if not is_fresh else ():
        if found is None or migration.number > found.number:
            for statement in migration.statements:
                connection.exec_driver_sql(statement)
            done.append(f"migration {migration.number}: {migration.name}")
    done += _add_missing(connection, metadata)
    connection.execute(_SCHEMA.delete())
    connection.execute(_SCHEMA.insert().values(number=LATEST, digest=digest))
    return tuple(done)


def _add_missing(connection: Connection, metadata: MetaData) -> list[str]:
    """Add the columns and indexes that are declared and not there."""
    done: list[str] = []
    seen = inspect(connection)
    for table in metadata.sorted_tables:
        there = {column["name"] for column in seen.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                made = CreateColumn(column).compile(dialect=_DIALECT)
                connection.exec_driver_sql(f'ALTER TABLE "{table.name}" ADD COLUMN {made}')
                done.append(f"added {table.name}.{column.name}")
        known = {index["name"] for index in seen.get_indexes(table.name)}
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in known:
                index.create(connection)
                done.append(f"added the index {index.name}")
    return done
