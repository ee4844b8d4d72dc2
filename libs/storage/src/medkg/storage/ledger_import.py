"""Bringing rows of another ledger into this one, and filling in what rows of this one lack, in batches.

Each batch is a transaction of its own, and merging a row twice changes nothing: what was broken off is begun again.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from medkg.contracts.errors import ContractError
from medkg.storage.engine import Engine, open_engine
from medkg.storage.ledger_old_rows import Event, OldRow, events_of, job_of, pipeline_of, read_row
from medkg.storage.ledger_projection import project
from medkg.storage.transactions import in_transaction, sqlstate, translated

BATCH = 100
MAX_LINE_BYTES = 1_048_576
_NAMED = 10  # rows that failed which an error names
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(?:\.[A-Za-z_][A-Za-z0-9_]{0,62})?")

Say = Callable[[str], None]
Rows = AsyncIterator[tuple[str, object]]  # where it stands, and the row: an object, or the fault of one


@dataclass(slots=True)
class Progress:
    """How far a run has come. ``failed`` are rows with the reason, by where they stand."""

    rows: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def line(self, what: str) -> str:
        return f"{self.rows} rows: {self.done} {what}, {len(self.failed)} failed"

    def raise_if_failed(self, doing: str) -> None:
        """Say which rows failed.

        Raises:
            ContractError: any did.
        """
        if not self.failed:
            return
        named = "; ".join(f"{where}: {reason}" for where, reason in list(self.failed.items())[:_NAMED])
        more = f"; and {len(self.failed) - _NAMED} more" if len(self.failed) > _NAMED else ""
        raise ContractError(f"{doing}: {len(self.failed)} of {self.rows} rows failed: {named}{more}")


async def import_rows(engine: Engine, rows: Rows, origin: str, say: Say) -> Progress:
    """Bring rows in, a line every :data:`BATCH` of them. ``origin`` names where they come from, and so their jobs.

    Raises:
        ContractError: rows failed; it names them, and all others are in.
        ResourceUnavailableError: the database does not answer; run it again.
    """
    progress, batch = Progress(), list[tuple[str, object]]()
    async for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            await _import_batch(engine, batch, origin, progress)
            say(progress.line("imported"))
            batch = []
    if batch:
        await _import_batch(engine, batch, origin, progress)
        say(progress.line("imported"))
    progress.raise_if_failed("importing the ledger")
    return progress


async def rows_of_file(path: Path) -> Rows:
    """The lines of a file, each of which is a JSON object."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                yield f"line {number}", ValueError(f"it is longer than {MAX_LINE_BYTES} bytes")
            elif line.strip():
                yield f"line {number}", _decoded(line)


async def rows_of_table(database_url: str, table: str) -> Rows:
    """The rows of a table of another database, in the order of its first column.

    Raises:
        ContractError: not the name of a table, or there is none of that name.
        ResourceUnavailableError: that database does not answer.
    """
    if not _TABLE.fullmatch(table):
        raise ContractError(f"reading the old ledger: {table!r} is not the name of a table")
    quoted = ".".join(f'"{part}"' for part in table.split("."))
    engine = open_engine(database_url, pool_size=1)
    try:
        async with translated("reading the old ledger"), engine.connect() as connection:
            statement = text(f"SELECT CAST(to_jsonb(old) AS text) FROM {quoted} AS old ORDER BY 1")  # noqa: S608  quoted, and only letters
            number = 0
            async for row in await connection.stream(statement):
                number += 1
                yield f"row {number}", _decoded(str(row[0]).encode())
    except DBAPIError as error:
        if sqlstate(error) == "42P01":
            raise ContractError(f"reading the old ledger: there is no table {table}; --table names it") from error
        raise
    finally:
        await engine.dispose()


async def fill_in(engine: Engine, say: Say) -> Progress:
    """Give documents that name no pipeline the one of their job, or else the one that their source and PDF imply.

    Raises:
        ContractError: rows failed; it names them, and all others are filled in.
        ResourceUnavailableError: the database does not answer; run it again.
    """
    progress, after = Progress(), ("", "")
    while True:
        async with translated("filling in the ledger"), engine.connect() as connection:
            rows = (await connection.execute(_BARE, {"job": after[0], "doc": after[1], "limit": BATCH})).all()
        if not rows:
            break
        after = (rows[-1].job_id, rows[-1].doc_id)
        progress.rows += len(rows)
        filled = [_filled(row) for row in rows]
        try:
            await in_transaction(engine, "filling in the ledger", lambda c, f=filled: c.execute(_FILL, f))  # type: ignore[misc]  # the list of this round
            progress.done += len(rows)
        except DBAPIError:
            await _fill_one_by_one(engine, filled, progress)
        say(progress.line("filled in"))
    progress.raise_if_failed("filling in the ledger")
    return progress


async def _fill_one_by_one(engine: Engine, filled: Sequence[dict[str, str]], progress: Progress) -> None:
    for one in filled:
        try:
            await in_transaction(engine, "filling in the ledger", lambda c, o=one: c.execute(_FILL, o))  # type: ignore[misc]  # as above
            progress.done += 1
        except DBAPIError as error:
            progress.failed[f"document {one['doc_id']} of job {one['job_id']}"] = str(error.orig)


def _filled(row: Any) -> dict[str, str]:
    name = row.job_pipeline or pipeline_of(row.source or "", "", row.uri)
    return {"job_id": row.job_id, "doc_id": row.doc_id, "name": name, "version": row.job_version or "1.0"}


async def _import_batch(engine: Engine, batch: Sequence[tuple[str, object]], origin: str, progress: Progress) -> None:
    events: list[Event] = []
    origins: list[str] = []  # of each event, the row it comes from
    ready: list[tuple[str, OldRow]] = []
    for where, given in batch:
        progress.rows += 1
        try:
            if isinstance(given, ValueError):
                raise given
            row = read_row(given)
        except ValueError as error:
            progress.failed[where] = str(error)
            continue
        for event in events_of(row, origin):
            events.append(event)
            origins.append(where)
        ready.append((where, row))
    result = await project(engine, events)
    for refused in result.refused:
        progress.failed[origins[refused.index]] = refused.reason
    good = [row for where, row in ready if where not in progress.failed]
    await _set_flags(engine, good, origin)
    progress.done += len(good)


async def _set_flags(engine: Engine, rows: Sequence[OldRow], origin: str) -> None:
    """The gate fields that no event sets."""
    for name in ("pdf_ir_ready", "pdf_ir_failed"):
        flagged = [row for row in rows if name in row.flags]
        if not flagged:
            continue
        keys = {"jobs": [job_of(origin, row.tenant_id, row.pipeline) for row in flagged]}
        keys["documents"] = [row.doc_id for row in flagged]
        statement = text(f"""
            UPDATE documents d SET {name} = true
            FROM unnest(CAST(:jobs AS text[]), CAST(:documents AS text[])) AS k (job_id, doc_id)
            WHERE d.job_id = k.job_id AND d.doc_id = k.doc_id AND NOT d.{name}""")  # noqa: S608  the name is one of two

        async def write(connection: AsyncConnection, statement: Any = statement, keys: Any = keys) -> None:
            await connection.execute(statement, keys)

        await in_transaction(engine, "importing the ledger", write)


def _decoded(line: bytes) -> object:
    try:
        return msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return ValueError(f"it is not JSON: {error}")


_BARE = text("""
SELECT d.job_id, d.doc_id, d.uri, j.source, j.pipeline_name AS job_pipeline, j.pipeline_version AS job_version
FROM documents d LEFT JOIN jobs j USING (job_id)
WHERE d.is_known AND d.pipeline_name = '' AND (d.job_id, d.doc_id) > (:job, :doc)
ORDER BY d.job_id, d.doc_id LIMIT :limit""")
_FILL = text("""
UPDATE documents SET pipeline_name = :name, pipeline_version = :version
WHERE job_id = :job_id AND doc_id = :doc_id AND pipeline_name = ''""")
