"""Files that were read (PDFs, mostly): the document each became, and who waits for it.

A file is known by tenant and SHA-256. Whoever waits for one says so (:func:`want`) before asking a parser; a parser
that has read it says so once (:func:`file_parsed`, :func:`file_failed`), and the ledger of everybody who waits for it
says so from then on. Both orders end the same: what was read before it is wanted is ready at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, DateTime, Table, Text, func, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.storage.engine import METADATA
from medkg.storage.ledger_projection import notify
from medkg.storage.transactions import in_transaction

PARSED_FILES = Table(
    "parsed_files",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("parser", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("document_key", Text, nullable=False, server_default=""),
    Column("document_sha256", Text, nullable=False, server_default=""),
    Column("document_bytes", BigInteger, nullable=False, server_default="0"),
    Column("failure_code", Text, nullable=False, server_default=""),
    Column("failure_message", Text, nullable=False, server_default=""),
    Column("parsed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

FILE_WAITERS = Table(
    "file_waiters",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("doc_id", Text, primary_key=True),
    Column("wanted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What a parser made of a file: the document (where it lies in the blob store), or why there is none."""

    tenant_id: str
    sha256: str
    parser: str
    version: str
    document_key: str = ""
    document_sha256: str = ""
    document_bytes: int = 0
    failure_code: str = ""
    failure_message: str = ""

    @property
    def is_ready(self) -> bool:
        return self.document_key != ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A document of a job that waits for a file."""

    tenant_id: str
    sha256: str
    job_id: str
    doc_id: str


async def want(engine: AsyncEngine, wanted: Sequence[Wanted]) -> dict[tuple[str, str], ParsedFile]:
    """Note who waits for which file; those whose file has been read are ready from now on.

    Returns what is known of these files, by tenant and SHA-256. Those that are not in it, or only with a failure, have
    to be asked for.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """
    if not wanted:
        return {}
    columns = {name: [getattr(item, name) for item in wanted] for name in Wanted.__slots__}
    files = {name: columns[name] for name in ("tenant_id", "sha256")}

    async def write(connection: AsyncConnection) -> dict[tuple[str, str], ParsedFile]:
        await _lock(connection, zip(files["tenant_id"], files["sha256"], strict=True))
        await connection.execute(_WANT, columns)
        known = {(row.tenant_id, row.sha256): _parsed(row) for row in await connection.execute(_KNOWN, files)}
        for found in known.values():
            if found.is_ready:
                await _signal(connection, found, "pdf_ir_ready")
        return known

    return await in_transaction(engine, "waiting for files", write)


async def file_parsed(engine: AsyncEngine, parsed: ParsedFile) -> int:
    """A file has been read: everybody who waits for it is ready. Returns how many are. May be said again.

    Raises:
        ValueError: it names no document.
        ResourceUnavailableError: the database does not answer.
    """
    if not parsed.is_ready:
        raise ValueError(f"recording the document of file {parsed.sha256}: no document_key is given")
    return await _settle(engine, parsed, "pdf_ir_ready")


async def file_failed(engine: AsyncEngine, failed: ParsedFile) -> int:
    """A file cannot be read: everybody who waits for it is told. Returns how many are. May be said again.

    A document that another parser made of the file stays; so does this failure beside it.

    Raises:
        ValueError: it names no reason.
        ResourceUnavailableError: the database does not answer.
    """
    if not failed.failure_code:
        raise ValueError(f"recording why file {failed.sha256} cannot be read: no failure_code is given")
    return await _settle(engine, failed, "pdf_ir_failed")


async def find_parsed(
    engine: AsyncEngine, tenant_id: str, sha256: str, *, parser: str = "", version: str = ""
) -> ParsedFile | None:
    """The document of a file, of any parser or of this one; where there are several, the one that was made last.

    A failure is found where there is no document.
    """
    values = {"tenant_id": [tenant_id], "sha256": [sha256]}

    async def read(connection: AsyncConnection) -> ParsedFile | None:
        rows = await connection.execute(_ALL_KNOWN, values)
        fitting = (row for row in rows if parser in {"", row.parser} and version in {"", row.version})
        row = next(fitting, None)
        return None if row is None else _parsed(row)

    return await in_transaction(engine, "looking for a parsed file", read)


async def all_parsed(engine: AsyncEngine, files: Sequence[tuple[str, str]]) -> dict[tuple[str, str], ParsedFile]:
    """What is known of these files (tenant and SHA-256), as :func:`find_parsed` finds it for one."""
    if not files:
        return {}
    tenants, digests = zip(*sorted(set(files)), strict=True)

    async def read(connection: AsyncConnection) -> dict[tuple[str, str], ParsedFile]:
        rows = await connection.execute(_KNOWN, {"tenant_id": list(tenants), "sha256": list(digests)})
        return {(row.tenant_id, row.sha256): _parsed(row) for row in rows}

    return await in_transaction(engine, "looking for parsed files", read)


async def _settle(engine: AsyncEngine, parsed: ParsedFile, field: str) -> int:
    values = {name: getattr(parsed, name) for name in ParsedFile.__slots__}

    async def write(connection: AsyncConnection) -> int:
        await _lock(connection, [(parsed.tenant_id, parsed.sha256)])
        await connection.execute(_RECORD, values)
        return await _signal(connection, parsed, field)

    return await in_transaction(engine, f"setting {field}", write)


async def _lock(connection: AsyncConnection, files: "Sequence[tuple[str, str]] | zip[tuple[str, str]]") -> None:
    """Whoever wants a file and whoever has read it come one after the other: the later one sees the earlier."""
    names = sorted({f"{tenant}/{sha256}" for tenant, sha256 in files})
    await connection.execute(_LOCK, {"names": names})


async def _signal(connection: AsyncConnection, parsed: ParsedFile, field: str) -> int:
    statement = _READY if field == "pdf_ir_ready" else _FAILED
    rows = (await connection.execute(statement, {"tenant_id": parsed.tenant_id, "sha256": parsed.sha256})).all()
    await notify(connection, (), ((row.job_id, row.doc_id) for row in rows))
    return len(rows)


def _parsed(row: object) -> ParsedFile:
    return ParsedFile(**{name: getattr(row, name) for name in ParsedFile.__slots__})


_LOCK = text("""
SELECT pg_advisory_xact_lock(hashtextextended(name, 0))
FROM (SELECT name FROM unnest(CAST(:names AS text[])) AS n (name) ORDER BY name) AS names""")

_WANT = text("""
INSERT INTO file_waiters (tenant_id, sha256, job_id, doc_id)
SELECT DISTINCT * FROM unnest(CAST(:tenant_id AS text[]), CAST(:sha256 AS text[]), CAST(:job_id AS text[]),
                              CAST(:doc_id AS text[]))
ON CONFLICT DO NOTHING""")

_FOUND = """
SELECT {distinct} p.* FROM parsed_files p
JOIN (SELECT DISTINCT * FROM unnest(CAST(:tenant_id AS text[]), CAST(:sha256 AS text[])) AS u (tenant_id, sha256)) AS w
  USING (tenant_id, sha256)
ORDER BY p.tenant_id, p.sha256, p.document_key = '', p.parsed_at DESC"""
_ALL_KNOWN = text(_FOUND.format(distinct=""))
_KNOWN = text(_FOUND.format(distinct="DISTINCT ON (p.tenant_id, p.sha256)"))

_RECORD = text("""
INSERT INTO parsed_files (tenant_id, sha256, parser, version, document_key, document_sha256, document_bytes,
                          failure_code, failure_message)
VALUES (:tenant_id, :sha256, :parser, :version, :document_key, :document_sha256, :document_bytes,
        :failure_code, :failure_message)
ON CONFLICT (tenant_id, sha256, parser, version) DO UPDATE
SET document_key = excluded.document_key, document_sha256 = excluded.document_sha256,
    document_bytes = excluded.document_bytes, failure_code = excluded.failure_code,
    failure_message = excluded.failure_message, parsed_at = excluded.parsed_at
WHERE parsed_files.document_key = '' OR excluded.document_key <> ''""")  # a late failure undoes no document

_SIGNAL = """
INSERT INTO documents AS old (job_id, doc_id, tenant_id, {field})
SELECT job_id, doc_id, tenant_id, true FROM file_waiters
WHERE tenant_id = :tenant_id AND sha256 = :sha256 ORDER BY job_id, doc_id
ON CONFLICT (job_id, doc_id) DO UPDATE SET {change}
WHERE old.tenant_id = excluded.tenant_id AND NOT old.{field}
RETURNING job_id, doc_id"""
_READY = text(_SIGNAL.format(field="pdf_ir_ready", change="pdf_ir_ready = true, pdf_ir_failed = false"))
_FAILED = text(_SIGNAL.format(field="pdf_ir_failed", change="pdf_ir_failed = true"))
