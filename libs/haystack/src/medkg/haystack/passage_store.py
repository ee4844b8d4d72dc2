"""The embedded search store: one SQLite database for each tenant and index holds everything that is searched.

Passages, full-text rows, vectors, term weights and the generation of their document change in one transaction, so that
a document is in all of them or in none, whatever dies when. FAISS segments (:mod:`medkg.haystack.segments`) are
derived.
"""

import fcntl
import hashlib
import re
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import ConfigurationError, MedkgError, PipelineConfigError, ResourceUnavailableError
from medkg.haystack.sqlite_errors import sqlite_failure
from medkg.haystack.writes import DocumentWrite, Facets, SparseRow, Stored, decide, prepare

__all__ = [
    "DEFAULT_INDEX",
    "DocumentWrite",
    "PassageStore",
    "Stored",
    "check_version",
    "decide",
    "prepare",
    "store_path",
]

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


class PassageStore:
    """A writer's connection. Not for two threads at once; any number of them, in any processes, may be open."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> "PassageStore":
        """Opens the database, or makes it.

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
                # FULL: a document counts as done once its commit returned, so that must outlive a power failure
                connection.executescript(
                    "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -16000;"
                )
                check_version(connection, path)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ResourceUnavailableError(f"opening the search index {path}: {error}") from error
        return cls(path, connection)

    def close(self) -> None:
        self._connection.close()

    def write(self, writes: Sequence[DocumentWrite]) -> list[WriteOutcome | MedkgError]:
        """Writes documents in one transaction; one that can never be written is left out alone, its outcome an error.

        Raises:
            ResourceUnavailableError: nothing was written, or not all: another writer held the database for too long, or
                the disk is full. All may be written again.
        """
        try:
            with self._transaction():
                return [self._write(write) for write in writes]
        except sqlite3.Error as error:
            failure = sqlite_failure(f"writing {len(writes)} documents to the search index {self.path}", error)
            failure.__cause__ = error
        if isinstance(failure, ResourceUnavailableError):
            raise failure
        return [failure] if len(writes) == 1 else [outcome for write in writes for outcome in self.write([write])]

    def stored(self, doc_id: str) -> Stored | None:
        """What there is of a document, and what ordered it there."""
        row = self._connection.execute(
            "SELECT generation, revision, job FROM documents WHERE doc_id = ?", (doc_id,)
        ).fetchone()
        return Stored(*row) if row else None

    def forget(self, doc_ids: Sequence[str]) -> None:
        """Removes documents and their place in the order: an older write of one would be taken for a new one.

        Raises:
            ResourceUnavailableError: nothing was removed.
        """
        try:
            with self._transaction():
                for doc_id in doc_ids:
                    self._delete(doc_id)
                    self._connection.execute("DELETE FROM documents WHERE doc_id = ?", (doc_id,))
        except sqlite3.Error as error:
            raise sqlite_failure(f"removing documents from {self.path}", error) from error

    def document_revisions(self) -> list[tuple[str, int]]:
        """Every document that there is a word of, with its revision."""
        return self._connection.execute("SELECT doc_id, revision FROM documents ORDER BY doc_id").fetchall()

    def counts(self) -> tuple[int, int]:
        """How many documents have passages, and how many passages these have."""
        row = self._connection.execute(
            "SELECT count(*), coalesce(sum(passages), 0) FROM documents WHERE passages > 0"
        ).fetchone()
        return int(row[0]), int(row[1])

    def rebuild(self) -> None:
        """Makes full-text rows and postings anew from the passages, in one transaction.

        Raises:
            ResourceUnavailableError: nothing was changed.
        """
        decode = msgspec.json.Decoder(SparseRow).decode
        try:
            with self._transaction():
                self._connection.execute("INSERT INTO lexical (lexical) VALUES ('rebuild')")
                self._connection.execute("DELETE FROM postings")
                rows = self._connection.execute("SELECT id, sparse FROM passages")
                for passage_id, sparse in rows:
                    row = decode(sparse)
                    postings = [(t, passage_id, w) for t, w in zip(row.terms, row.weights, strict=True)]
                    self._connection.executemany("INSERT INTO postings VALUES (?, ?, ?)", postings)
        except sqlite3.Error as error:
            raise sqlite_failure(f"rebuilding the search index {self.path}", error) from error

    def tidy(self) -> None:
        """Merges the full-text index and gives free pages back to the disk; others wait meanwhile."""
        self._connection.execute("INSERT INTO lexical (lexical) VALUES ('optimize')")
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def last_id(self) -> int:
        """The highest passage id ever given out."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").fetchone()
        return row[0] if row else 0

    def check_lexical(self) -> None:
        """Raises sqlite3.DatabaseError where the full-text index is not that of the passages."""
        self._connection.execute("INSERT INTO lexical (lexical, rank) VALUES ('integrity-check', 1)")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _write(self, write: DocumentWrite) -> WriteOutcome | PipelineConfigError:
        stored = self.stored(write.doc_id)
        outcome = decide(stored, write)
        if outcome is WriteOutcome.UNCHANGED:
            # the passages are now also those of the later job: an older one that comes late must not replace them
            self._connection.execute(
                "UPDATE documents SET revision = ? WHERE doc_id = ?", (write.revision, write.doc_id)
            )
        already_there = stored is not None and stored.generation == write.generation
        if outcome is not WriteOutcome.WRITTEN or already_there:
            return outcome
        if write.rows and (refusal := self._claim_model(write)):
            return refusal
        self._delete(write.doc_id)
        self._insert(write)
        return outcome

    def _claim_model(self, write: DocumentWrite) -> PipelineConfigError | None:
        wanted = {"model": write.model, "dimension": str(write.dimension), "sparse_model": write.sparse_model}
        found = dict(self._connection.execute("SELECT key, value FROM store"))
        if {key: found.get(key) for key in wanted} == wanted:
            return None
        if "model" in found and self._connection.execute("SELECT 1 FROM passages LIMIT 1").fetchone():
            return PipelineConfigError(
                f"indexing document {write.doc_id} into {self.path.stem!r}: the index holds vectors of "
                f"{_model_name(found)}, these are of {_model_name(wanted)}, and the two cannot be compared; give the "
                "index stage another index (`with: {index: NAME}`) and submit the sources again, or keep the old model",
                doc_id=write.doc_id,
            )
        self._connection.executemany("INSERT OR REPLACE INTO store VALUES (?, ?)", wanted.items())
        return None

    def _delete(self, doc_id: str) -> None:
        old = self._connection.execute(
            "SELECT id, title, section, text, sparse FROM passages WHERE doc_id = ?", (doc_id,)
        ).fetchall()
        if not old:
            return
        # a full-text index without a copy of its texts is told what it indexed
        self._connection.executemany(
            "INSERT INTO lexical (lexical, rowid, title, section, text) VALUES ('delete', ?, ?, ?, ?)",
            [row[:4] for row in old],
        )
        for passage_id, *_, sparse in old:
            terms = msgspec.json.decode(sparse, type=SparseRow).terms
            self._connection.executemany(
                "DELETE FROM postings WHERE term = ? AND id = ?", [(term, passage_id) for term in terms]
            )
        self._connection.execute("DELETE FROM labels WHERE doc_id = ?", (doc_id,))
        ids = [(row[0],) for row in old]
        self._connection.executemany("DELETE FROM vectors WHERE id = ?", ids)
        self._connection.execute("DELETE FROM passages WHERE doc_id = ?", (doc_id,))

    def _insert(self, write: DocumentWrite) -> None:
        first = self.last_id() + 1
        numbered = list(enumerate(write.rows, first))
        execute_many = self._connection.executemany
        execute_many(
            "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (i, write.doc_id, r.ordinal, headings_text(r.headings), r.title, r.section, r.text, r.chunk, r.sparse)
                for i, r in numbered
            ],
        )
        execute_many(
            "INSERT INTO lexical (rowid, title, section, text) VALUES (?, ?, ?, ?)",
            [(i, r.title, r.section, r.text) for i, r in numbered],
        )
        execute_many("INSERT INTO vectors VALUES (?, ?)", [(i, r.vector) for i, r in numbered])
        postings = sorted((term, i, weight) for i, r in numbered for term, weight in r.postings)
        execute_many("INSERT INTO postings VALUES (?, ?, ?)", postings)
        facets = write.facets
        self._connection.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(write.doc_id, write.generation, write.revision, write.job, len(write.rows)),
                *(facets.source, facets.year, facets.retracted),
            ),
        )
        execute_many("INSERT INTO labels VALUES (?, ?, ?)", _labels(write.doc_id, facets))


def headings_text(headings: Sequence[str]) -> str:
    """Each heading between line ends: one that is looked for is found whole, and in the index of no other."""
    return "".join(f"\n{heading}" for heading in headings) + "\n"


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


def _labels(doc_id: str, facets: Facets) -> list[tuple[str, str, str]]:
    kinds = (("condition", facets.conditions), ("phase", facets.phases))
    return [(doc_id, kind, value) for kind, values in kinds for value in values]


def _model_name(store: dict[str, str]) -> str:
    return f"{store['model']} (dimension {store['dimension']}, sparse {store.get('sparse_model') or 'none'})"
