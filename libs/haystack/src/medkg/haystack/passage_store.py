"""Writing to the embedded search store: one SQLite database for each tenant and index holds all that is searched.

Passages, full-text rows, vectors, term weights and the generation of their document change in one transaction, so that
a document is in all of them or in none, whatever dies when. FAISS segments (:mod:`medkg.haystack.segments`) are
derived.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import MedkgError, PipelineConfigError, ResourceUnavailableError
from medkg.haystack.passage_database import open_for_writing
from medkg.haystack.sqlite_errors import sqlite_failure
from medkg.haystack.writes import DocumentWrite, Facets, SparseRow, Stored, decide


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
        return cls(path, open_for_writing(path))

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
                (i, write.doc_id, r.ordinal, _headings_text(r.headings), r.title, r.section, r.text, r.chunk, r.sparse)
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


def _headings_text(headings: Sequence[str]) -> str:
    """Each heading between line ends: one that is looked for is found whole, and in the index of no other."""
    return "".join(f"\n{heading}" for heading in headings) + "\n"


def _labels(doc_id: str, facets: Facets) -> list[tuple[str, str, str]]:
    kinds = (("condition", facets.conditions), ("phase", facets.phases))
    return [(doc_id, kind, value) for kind, values in kinds for value in values]


def _model_name(store: dict[str, str]) -> str:
    return f"{store['model']} (dimension {store['dimension']}, sparse {store.get('sparse_model') or 'none'})"
