"""The database of the embedded search store: where it lies, its tables, and how it is opened by a writer."""

import fcntl
import hashlib
import re
import sqlite3
import uuid
from pathlib import Path
from typing import Final

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError

SCHEMA_VERSION: Final = 2
DEFAULT_INDEX: Final = "passages"
_BUSY_SECONDS = 30.0  # how long a writer waits for another one
_SCHEMA = """
CREATE TABLE store (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    doc_id TEXT PRIMARY KEY, generation TEXT NOT NULL, revision INTEGER NOT NULL, job TEXT NOT NULL,
    passages INTEGER NOT NULL, source TEXT NOT NULL, year INTEGER, retracted INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE labels (doc_id TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (doc_id, kind, value))
    WITHOUT ROWID;
-- AUTOINCREMENT: an id is never used again, so that a derived segment can say which ids it covers
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, doc_id TEXT NOT NULL, ordinal INTEGER NOT NULL, headings TEXT NOT NULL,
    title TEXT NOT NULL, section TEXT NOT NULL, text TEXT NOT NULL, chunk BLOB NOT NULL, sparse BLOB NOT NULL
);
CREATE INDEX passages_by_document ON passages (doc_id, ordinal);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE postings (term TEXT NOT NULL, id INTEGER NOT NULL, weight REAL NOT NULL, PRIMARY KEY (term, id))
    WITHOUT ROWID;
CREATE VIRTUAL TABLE lexical USING fts5 (
    title, section, text, content='passages', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2'
);
"""
# came after version 2 and is made in stores that have none, a second for 100,000 passages: without it a filter by
# section reads every passage. A medkg that does not know of it keeps it up to date all the same
_INDEX_OF_HEADINGS = "CREATE INDEX IF NOT EXISTS passages_by_heading ON passages (doc_id, headings)"
_INDEX_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def store_path(data_dir: Path, tenant_id: str, index: str = DEFAULT_INDEX) -> Path:
    """Where the database of a tenant's index lies; no tenant id leads out of ``data_dir`` or to another tenant's.

    Raises:
        ConfigurationError: the tenant id is empty, or the index name is not lower case letters, digits and hyphens.
    """
    if not tenant_id or not _INDEX_NAME.fullmatch(index):
        raise ConfigurationError(
            f"opening index {index!r} of tenant {tenant_id!r}: a tenant id must not be empty, an index name "
            "consists of lower case letters, digits and hyphens"
        )
    readable = re.sub(r"[^a-z0-9]+", "-", tenant_id.lower())[:32].strip("-")
    digest = hashlib.blake2b(tenant_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return data_dir / "index" / f"{readable}-{digest}" / f"{index}.sqlite"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection to the database, which is made where there is none.

    Raises:
        ConfigurationError: it was made by another version of medkg.
        ResourceUnavailableError: the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with (path.parent / f"{path.stem}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # turning WAL on does not wait for others as other statements do
                _create(connection)
                check_version(connection, path)
                connection.execute(_INDEX_OF_HEADINGS)
            # FULL: a document counts as done once its commit returned, so that must outlive a power failure
            connection.executescript(
                "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -16000;"
            )
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise ResourceUnavailableError(f"opening the search index {path}: {error}") from error
    return connection


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Raises ConfigurationError for a database that this code does not understand."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"opening the search index {path}: it has schema {version}, this medkg reads schema {SCHEMA_VERSION}; "
            "move the file away and submit the sources again"
        )


def _create(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone() != (0,):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    # the store id tells this database from one made later under the same name, for whatever is derived from it
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} INSERT INTO store VALUES ('store_id', '{uuid.uuid4().hex}'); "  # noqa: S608  hex
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )
