"""What one document puts into a search store, checked and encoded, and which of two writes of it stays. Pure."""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import EmbeddingBatch, WriteOutcome
from medkg.contracts.errors import ContractError

DELETED: Final = ""  # the generation of a document that was taken out
_LABEL_CHARACTERS = 200
_LABELS = 32  # conditions or phases of one document, conditions with their terms of MeSH
_NOT_OF_A_PHASE = re.compile(r"[\s_.\-]+")
_PHASE = re.compile(r"(?P<early>early)?(?:phase)?(?P<number>[0-4]|i{1,3}|iv)(?P<part>[a-d])?")
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}
_ENCODER = msgspec.json.Encoder()


class SparseRow(msgspec.Struct, array_like=True):
    """The term weights of a passage as its row holds them."""

    terms: list[str]
    weights: list[float]


@dataclass(frozen=True, slots=True)
class Facets:
    """What passages of a document are filtered by, conditions as of :func:`label`, phases as of :func:`phases_in`."""

    source: str = ""
    year: int | None = None
    conditions: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    retracted: bool = False


class PassageRow(NamedTuple):
    """``ordinal`` is the place in the document, ``chunk`` the chunk in JSON without title and text."""

    chunk_id: str
    ordinal: int
    title: str
    section: str
    headings: tuple[str, ...]
    text: str
    chunk: bytes
    sparse: bytes
    vector: bytes
    postings: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """Everything one document puts into the store. ``rows`` has one entry for each passage."""

    doc_id: str
    generation: str
    revision: int
    job: str
    model: str
    dimension: int
    sparse_model: str
    rows: tuple[PassageRow, ...]
    facets: Facets = Facets()


def prepare(ctx: StageContext, batch: EmbeddingBatch) -> DocumentWrite:
    """What the stores take.

    Raises:
        ContractError: the vectors do not fit the passages, hold a value that is not finite, or are zeros.
    """
    count, dimension = len(batch.chunks), batch.dimension
    wrong = len(batch.dense) != 4 * count * dimension or len(batch.sparse) not in (0, count)
    if not wrong:
        vectors = np.frombuffer(batch.dense, dtype="<f4").reshape(count, dimension)
        wrong = not (np.isfinite(vectors).all() and vectors.any(axis=1).all())
    if wrong:
        raise ContractError(
            f"indexing document {ctx.doc_id}: {len(batch.dense)} bytes of vectors and {len(batch.sparse)} sparse "
            f"vectors do not make {count} usable ones of dimension {dimension} (model {batch.model})",
            doc_id=ctx.doc_id,
        )
    rows = []
    for number, chunk in enumerate(batch.chunks):
        sparse = batch.sparse[number] if batch.sparse else None
        terms, weights = (sparse.terms, sparse.weights) if sparse else ((), ())
        rows.append(
            PassageRow(
                chunk_id=chunk.chunk_id,
                ordinal=chunk.ordinal,
                title=chunk.title,
                section=" > ".join(chunk.section_path),
                headings=tuple(label(heading) for heading in chunk.section_path),
                text=chunk.text,
                chunk=_ENCODER.encode(msgspec.structs.replace(chunk, title="", text="")),
                sparse=_ENCODER.encode(SparseRow(list(terms), list(weights))),
                vector=batch.dense[4 * dimension * number : 4 * dimension * (number + 1)],
                postings=tuple(zip(terms, weights, strict=True)),
            )
        )
    return DocumentWrite(
        doc_id=ctx.doc_id,
        generation=ctx.content_key,
        revision=ctx.revision,
        job=ctx.correlation_id,
        model=batch.model,
        dimension=dimension,
        sparse_model=batch.sparse_model,
        rows=tuple(rows),
        facets=facets_of(batch.chunks[0].metadata) if batch.chunks else Facets(),
    )


def deletion(doc_id: str, revision: int, job: str) -> DocumentWrite:
    """The write that takes a document out; what stays of it is its place in the order."""
    return DocumentWrite(doc_id, DELETED, revision, job, "", 0, "", ())


def facets_of(metadata: Metadata) -> Facets:
    """What a document's passages are filtered by.

    ``condition`` (or ``conditions``) and ``phase`` hold one value, or several with ``|`` between them; phases also with
    ``/`` (``PHASE2/PHASE3``).
    """
    year = metadata.get("year")
    return Facets(
        source=str(metadata.get("source") or ""),
        year=year if isinstance(year, int) and not isinstance(year, bool) and abs(year) < 10_000 else None,
        conditions=_labels(metadata.get("conditions") or metadata.get("condition")),
        phases=phases_in(metadata.get("phase")),
        retracted=metadata.get("retracted") is True,
    )


def label(text: str) -> str:
    """How headings and conditions are compared: letter case and surplus white space aside."""
    return " ".join(text[: 4 * _LABEL_CHARACTERS].casefold().split())[:_LABEL_CHARACTERS]


def phases_in(value: object) -> tuple[str, ...]:
    """How phases are compared: ``PHASE2/PHASE3``, ``Phase II / Phase III`` and ``2|3`` are ``phase2``, ``phase3``."""
    return tuple(dict.fromkeys(map(_phase, _labels(value, "|/"))))


def _phase(name: str) -> str:
    bare = _NOT_OF_A_PHASE.sub("", name) or name
    found = _PHASE.fullmatch(bare)
    if found is None:
        return bare
    return f"{found['early'] or ''}phase{_ROMAN.get(found['number'], found['number'])}{found['part'] or ''}"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store holds of a document."""

    generation: str
    revision: int
    job: str


def decide(stored: Stored | None, write: DocumentWrite) -> WriteOutcome:
    """Whether a write changes the passages (WRITTEN) or not.

    A redelivery of the run that wrote what is there is WRITTEN again. Otherwise the later revision stays, and of two
    jobs admitted in the same microsecond the one with the greater id, so that every order of arrival ends the same.
    """
    if stored is None or (stored.generation == write.generation and stored.job == write.job):
        return WriteOutcome.WRITTEN
    if stored.revision > write.revision:
        return WriteOutcome.SUPERSEDED
    if stored.generation == write.generation:
        return WriteOutcome.UNCHANGED
    if stored.revision == write.revision and stored.job > write.job:
        return WriteOutcome.SUPERSEDED
    return WriteOutcome.WRITTEN


def _labels(value: object, separators: str = "|") -> tuple[str, ...]:
    if not isinstance(value, str):
        return ()
    for separator in separators:
        value = value.replace(separator, "\n")
    return tuple(dict.fromkeys(found for part in value.split("\n")[:_LABELS] if (found := label(part))))
