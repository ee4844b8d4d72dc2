"""What a store holds, written out to be compared, and whether it agrees with itself."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from medkg.contracts.document import Chunk, SparseVector
from medkg.haystack.graphs import SegmentKind
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.segments import load_segment, open_for_reading, read_manifest, segment_folder
from medkg.haystack.writes import SparseRow

# what must come out as zero, and what it means if it does not
_COUNTS = (
    ("passages without a vector", "passages WHERE id NOT IN (SELECT id FROM vectors)"),
    ("vectors without a passage", "vectors WHERE id NOT IN (SELECT id FROM passages)"),
    ("postings without a passage", "postings WHERE id NOT IN (SELECT id FROM passages)"),
    ("passages without a full-text row", "passages WHERE id NOT IN (SELECT id FROM lexical_docsize)"),
    ("full-text rows without a passage", "lexical_docsize WHERE id NOT IN (SELECT id FROM passages)"),
    ("labels without a document", "labels WHERE doc_id NOT IN (SELECT doc_id FROM documents)"),
    ("passages without a document", "passages WHERE doc_id NOT IN (SELECT doc_id FROM documents)"),
    (
        "documents with another number of passages than they were written with",
        "documents WHERE passages != (SELECT count(*) FROM passages p WHERE p.doc_id = documents.doc_id)",
    ),
)


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """One passage as it is stored: whole, but for the job and the time that brought it."""

    doc_id: str
    generation: str
    chunk: Chunk
    model: str
    vector: bytes
    sparse_model: str
    sparse: SparseVector


def export(store: Path) -> list[StoredPassage]:
    """All passages, sorted by document and place in it. Two stores with the same content give equal lists."""
    decode_chunk, decode_sparse = msgspec.json.Decoder(Chunk).decode, msgspec.json.Decoder(SparseRow).decode
    with closing(open_for_reading(store)) as connection:
        connection.execute("BEGIN")
        facts = dict(connection.execute("SELECT key, value FROM store"))
        rows = connection.execute(
            "SELECT d.doc_id, d.generation, p.title, p.text, p.chunk, p.sparse, v.vector "
            "FROM documents d JOIN passages p USING (doc_id) JOIN vectors v USING (id)"
        )
        passages = []
        for doc_id, generation, title, text, chunk, sparse, vector in rows:
            weights = decode_sparse(sparse)
            passages.append(
                StoredPassage(
                    doc_id=doc_id,
                    generation=generation,
                    chunk=msgspec.structs.replace(decode_chunk(chunk), title=title, text=text),
                    model=facts["model"],
                    vector=vector,
                    sparse_model=facts["sparse_model"],
                    sparse=SparseVector(tuple(weights.terms), tuple(weights.weights)),
                )
            )
    return sorted(passages, key=lambda p: (p.doc_id, p.chunk.ordinal, p.chunk.chunk_id))


def problems(store: Path) -> list[str]:
    """What is wrong with a store, in words. Reads all of it, and waits for writers."""
    found: list[str] = []
    with closing(open_for_reading(store)) as connection:
        connection.execute("BEGIN")
        found += [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA quick_check") if row[0] != "ok"]
        for meaning, condition in _COUNTS:
            (count,) = connection.execute(f"SELECT count(*) FROM {condition}").fetchone()  # noqa: S608  constants above
            if count:
                found.append(f"{count} {meaning}")
        found += _wrong_postings(connection)
        found += _wrong_segments(connection, store)
    writer = PassageStore.open(store)
    try:
        writer.check_lexical()
    except sqlite3.DatabaseError as error:
        found.append(f"full-text index: {error}")
    finally:
        writer.close()
    return found


def _wrong_postings(connection: sqlite3.Connection) -> Iterator[str]:
    decode = msgspec.json.Decoder(SparseRow).decode
    expected = sum(len(decode(row[0]).terms) for row in connection.execute("SELECT sparse FROM passages"))
    (there,) = connection.execute("SELECT count(*) FROM postings").fetchone()
    if expected != there:
        yield f"{there} postings where the passages have {expected} terms"


def _wrong_segments(connection: sqlite3.Connection, store: Path) -> Iterator[str]:
    (store_id,) = connection.execute("SELECT value FROM store WHERE key = 'store_id'").fetchone()
    folder = segment_folder(store)
    manifest = read_manifest(folder, store_id)
    for segment in manifest.segments if manifest else ():
        try:
            index = load_segment(folder, segment)
        except (OSError, RuntimeError, ValueError) as error:  # what FAISS and NumPy raise
            yield f"segment {segment.file} cannot be read: {error}"
            continue
        if segment.kind is SegmentKind.IVF:
            index.index.make_direct_map()
        held = dict(zip(index.ids.tolist(), range(segment.rows), strict=True))
        rows = connection.execute(
            "SELECT id, vector FROM vectors WHERE id > ? AND id <= ?", (segment.after, segment.last_id)
        )
        for passage, vector in rows:
            if passage not in held:
                yield f"passage {passage} is missing from segment {segment.file}"
            elif not np.array_equal(index.index.reconstruct(held[passage]), np.frombuffer(vector, dtype="<f4")):
                yield f"segment {segment.file} holds another vector of passage {passage}"
