"""The ledger once more, beside the one in use: made from the topic, compared with it, put in its place.

The second one stands in a schema of its own (:data:`SCHEMA`) of the same database. What was never an event is carried
over: gate fields that a service or an operator set, and jobs that were imported.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from medkg.storage import ledger
from medkg.storage.engine import METADATA, Engine, open_engine
from medkg.storage.transactions import translated

SCHEMA = "medkg_rebuild"
IMPORTED = "import"  # the source of jobs that no event tells of
TABLES: tuple[Table, ...] = (
    ledger.JOBS,
    ledger.JOB_STAGES,
    ledger.PAGES,
    ledger.DOCUMENTS,
    ledger.STAGE_RUNS,
    ledger.TOPOLOGIES,
    ledger.REJECTIONS,
    ledger.DEAD_LETTERS,
)
_OF_JOBS = (ledger.JOBS, ledger.JOB_STAGES, ledger.PAGES, ledger.DOCUMENTS, ledger.STAGE_RUNS)
_DIRECT = ("pdf_downloaded", "pdf_ir_ready", "pdf_ir_failed", "post_pdf_started")
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows of one table that only one of the two ledgers has; ``examples`` are keys of some of them."""

    table: str
    only_in_use: int
    only_rebuilt: int
    examples: tuple[str, ...]


@asynccontextmanager
async def second_ledger(engine: Engine, database_url: str) -> AsyncIterator[Engine]:
    """An engine on an empty second ledger, which is gone again when the block is left.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """
    async with translated("making a second ledger"), engine.begin() as connection:
        await connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{SCHEMA}" CASCADE')
        await connection.exec_driver_sql(f'CREATE SCHEMA "{SCHEMA}"')
    second = open_engine(database_url, schema=SCHEMA)
    try:
        async with translated("making a second ledger"), second.begin() as connection:
            await connection.run_sync(METADATA.create_all, tables=list(TABLES))
        yield second
    finally:
        await second.dispose()
        async with translated("removing the second ledger"), engine.begin() as connection:
            await connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{SCHEMA}" CASCADE')


async def compare(engine: Engine) -> tuple[Difference, ...]:
    """How the ledger in use and the second one differ, once what was never an event is carried over to the second.

    Columns that tell how a row came to be (``…_before``) are left out.
    """
    async with translated("comparing the ledgers"), engine.begin() as connection:
        await _carry_over(connection)
        found = [await _difference(connection, table) for table in TABLES]
    return tuple(one for one in found if one.only_in_use or one.only_rebuilt)


async def jobs_only_in_use(engine: Engine) -> int:
    """Jobs that the topic no longer tells of, and that a swap would lose."""
    async with translated("comparing the ledgers"), engine.begin() as connection:
        await _carry_over(connection)
        statement = (
            f'SELECT count(*) FROM jobs j WHERE NOT EXISTS (SELECT 1 FROM "{SCHEMA}".jobs r WHERE r.job_id = j.job_id)'  # noqa: S608  constants
        )
        return int(await connection.scalar(text(statement)) or 0)


async def swap(engine: Engine, catch_up: Callable[[], Awaitable[None]]) -> None:
    """Put the rows of the second ledger in the place of those in use, in one transaction.

    While nobody can write to the one in use, ``catch_up`` is called: it projects into the second what was published
    meanwhile. So a ledger service may be at work: what it has projected by then is in the topic, and what it projects
    afterwards comes on top.
    """
    names = ", ".join(table.name for table in TABLES)
    async with translated("putting the rebuilt ledger in place"), engine.begin() as connection:
        await connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
        await catch_up()
        await _carry_over(connection)
        await connection.exec_driver_sql(f"TRUNCATE {names}")
        for table in TABLES:
            columns = _columns(table, is_written=True)
            await connection.exec_driver_sql(
                f'INSERT INTO {table.name} ({columns}) SELECT {columns} FROM "{SCHEMA}".{table.name}'  # noqa: S608  constants
            )


async def _carry_over(connection: AsyncConnection) -> None:
    for table in _OF_JOBS:
        columns = _columns(table, is_written=True)
        await connection.exec_driver_sql(
            f'INSERT INTO "{SCHEMA}".{table.name} ({columns}) SELECT {columns} FROM {table.name} '  # noqa: S608  constants
            f"WHERE job_id IN (SELECT job_id FROM jobs WHERE source = '{IMPORTED}') ON CONFLICT DO NOTHING"
        )
    keys = "job_id, doc_id, tenant_id"
    await connection.exec_driver_sql(
        f'INSERT INTO "{SCHEMA}".documents ({keys}) SELECT {keys} FROM documents WHERE NOT is_known '  # noqa: S608  constants
        "ON CONFLICT DO NOTHING"
    )
    sets = ", ".join(f"{name} = r.{name} OR d.{name}" for name in _DIRECT)
    differs = " OR ".join(f"(d.{name} AND NOT r.{name})" for name in _DIRECT)
    await connection.exec_driver_sql(
        f'UPDATE "{SCHEMA}".documents r SET {sets} FROM documents d '  # noqa: S608  constants
        f"WHERE d.job_id = r.job_id AND d.doc_id = r.doc_id AND ({differs})"
    )


async def _difference(connection: AsyncConnection, table: Table) -> Difference:
    columns = _columns(table, is_written=False)
    key = " || '/' || ".join(f'CAST("{column.name}" AS text)' for column in table.primary_key.columns)
    sides = (f"SELECT {columns} FROM {table.name}", f'SELECT {columns} FROM "{SCHEMA}".{table.name}')  # noqa: S608  constants
    counts: list[int] = []
    examples: list[str] = []
    for first, second in (sides, sides[::-1]):
        only = f"({first} EXCEPT ALL {second}) AS only_there"
        counts.append(int(await connection.scalar(text(f"SELECT count(*) FROM {only}")) or 0))  # noqa: S608  constants
        if counts[-1]:
            rows = await connection.execute(text(f"SELECT {key} FROM {only} ORDER BY 1 LIMIT {_EXAMPLES}"))  # noqa: S608  constants
            examples += [str(row[0]) for row in rows]
    return Difference(table.name, counts[0], counts[1], tuple(dict.fromkeys(examples)))


def _columns(table: Table, *, is_written: bool) -> str:
    """The columns that are written, or those that say something."""
    wanted = [
        column.name
        for column in table.columns
        if (column.computed is None if is_written else not column.name.endswith("_before"))
    ]
    return ", ".join(f'"{name}"' for name in wanted)
