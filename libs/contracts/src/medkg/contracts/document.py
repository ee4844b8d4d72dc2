"""The intermediate representation: what every source is turned into, and what stages hand to each other.

All positions are character offsets into the text of one block, ``[start, end)``, counted in Unicode code points. A
block knows where in the source record it came from, so that whatever is made of it (a passage, a mention, a claim)
leads back.
"""

from enum import StrEnum

import msgspec

from medkg.contracts.context import Metadata


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a block stands in its source record.

    ``path`` is a JSON Pointer (RFC 6901) in JSON records, an absolute XPath in XML and a range ``char=START,END``
    (RFC 5147) in plain text; ``page`` counts from 1 and ``box`` is (x0, y0, x1, y1) in PDF points from the top left
    corner of the page.
    """

    record: str
    path: str = ""
    page: int | None = None
    box: tuple[float, float, float, float] | None = None


class BlockKind(StrEnum):
    PARAGRAPH = "paragraph"
    LIST_ITEM = "list_item"
    TABLE = "table"
    CAPTION = "caption"
    EQUATION = "equation"
    FIELD = "field"  # one value of a registry record; `role` names the field
    REFERENCE = "reference"  # an entry of the bibliography


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of running text, one table, or one field of a registry record.

    ``role`` names what a field means (``condition``, ``intervention``, ``phase``, ``lead_sponsor``,
    ``primary_outcome``, ``condition_mesh`` …); ``attributes`` are its qualifiers (``{"type": "DRUG"}``, ``{"mesh_id":
    "D003920"}``). ``rows`` are a table's cells, header rows first; its ``text`` is the same table as lines.
    """

    block_id: str
    text: str
    provenance: Provenance
    kind: BlockKind = BlockKind.PARAGRAPH
    role: str = ""
    attributes: dict[str, str] = {}
    rows: tuple[tuple[str, ...], ...] = ()
    header_rows: int = 0


class SectionKind(StrEnum):
    BODY = "body"
    ABSTRACT = "abstract"
    REGISTRY = "registry"  # fields of a registry record
    TERMS = "terms"  # controlled vocabulary attached to the record: for extraction, not for passages
    REFERENCES = "references"  # the bibliography: kept apart from the body
    BACK = "back"  # acknowledgements, funding, competing interests


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """A headed part of a document. ``path`` is the chain of headings from the top, this one last."""

    section_id: str
    path: tuple[str, ...]
    blocks: tuple[Block, ...]
    kind: SectionKind = SectionKind.BODY

    @property
    def title(self) -> str:
        return self.path[-1] if self.path else ""


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source record, read: sections in reading order.

    ``kind`` is ``trial``, ``article`` or ``text``. ``identifiers`` maps a scheme to a value (``nct``, ``doi``,
    ``pmid``, ``pmcid``). ``metadata`` holds small facts to filter and route by (``year``, ``phase``, ``retracted``
    …).
    """

    doc_id: str
    source: str
    source_id: str
    kind: str
    title: str
    sections: tuple[Section, ...]
    identifiers: dict[str, str] = {}
    metadata: Metadata = {}
    language: str = ""

    def blocks(self) -> list[Block]:
        """All blocks in reading order."""
        return [block for section in self.sections for block in section.blocks]


class RawPayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record as its source gave it. Text formats come in ``text``, binary ones in ``data``."""

    source: str
    source_id: str
    media_type: str
    text: str = ""
    data: bytes = b""
    uri: str = ""  # where it was read: a file path, with `#/3` for the fourth record of an array, or a URL
    metadata: Metadata = {}


class AdapterRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an ingest stage is asked for: one page of a source. ``cursor`` is what the page before said comes next."""

    source: str
    selection: dict[str, object]
    cursor: str = ""
    limit: int = 100


class RefusedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record that could not be read at all; the rest of its page goes on."""

    source_id: str
    uri: str
    code: str
    message: str


class IngestPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of records. An empty ``next_cursor`` means that there is no further page."""

    payloads: tuple[RawPayload, ...]
    next_cursor: str = ""
    refused: tuple[RefusedRecord, ...] = ()
    total: int | None = None  # records in the whole selection, where the source says so


class QualityReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was measured of a document, by name. A document that must not go on raises QualityError instead."""

    measures: dict[str, float]
    warnings: tuple[str, ...] = ()


class TextSpan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Characters ``[start, end)`` of one block's text."""

    block_id: str
    start: int
    end: int


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A passage: what is embedded, indexed and shown. Never crosses a section.

    ``spans`` are the parts of blocks it is made of, in order; ``page`` and ``box`` come from the first one that has
    them.
    """

    chunk_id: str
    doc_id: str
    ordinal: int  # 0-based, in reading order
    text: str
    section_path: tuple[str, ...]
    spans: tuple[TextSpan, ...]
    token_count: int
    title: str = ""
    provenance: Provenance | None = None
    metadata: Metadata = {}


class SparseVector(msgspec.Struct, frozen=True):
    """Term weights; ``terms`` are unique and sorted, ``weights`` positive."""

    terms: tuple[str, ...]
    weights: tuple[float, ...]


class EmbeddingBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """The passages of one document with their vectors.

    ``dense`` is a row-major matrix of little-endian float32, shape ``(len(chunks), dimension)``, base64 on the wire.
    ``model`` names the model and its revision: vectors of different models never share an index. ``sparse_model`` does
    the same for the term weights; empty where there are none.
    """

    chunks: tuple[Chunk, ...]
    model: str
    dimension: int
    dense: bytes
    sparse: tuple[SparseVector, ...] = ()
    truncated: int = 0  # passages of which the model saw only the beginning
    sparse_model: str = ""


class WriteOutcome(StrEnum):
    WRITTEN = "written"
    UNCHANGED = "unchanged"  # an earlier job already wrote exactly this
    SUPERSEDED = "superseded"  # a later job has written since; nothing was changed


class IndexReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the index stage did. ``generation`` is the content key under which the passages are visible."""

    index: str
    generation: str
    passages: int
    outcome: WriteOutcome = WriteOutcome.WRITTEN


class Mention(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a text names an entity."""

    span: TextSpan
    text: str


class Entity(msgspec.Struct, frozen=True, omit_defaults=True):
    """A thing the document speaks of. ``entity_id`` (``mesh:D003920``, ``nct:NCT01339377``) is the same everywhere."""

    entity_id: str
    type: str
    name: str
    aliases: tuple[str, ...] = ()
    identifiers: dict[str, str] = {}
    mentions: tuple[Mention, ...] = ()


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """A statement of the document: subject, predicate, and an entity or a literal as object.

    ``evidence`` is never empty: every claim leads back to the text it was read from. ``method`` names what read it
    (``registry``, ``dictionary``, a model).
    """

    claim_id: str
    subject: str
    predicate: str
    evidence: tuple[Mention, ...]
    object_entity: str = ""
    object_value: str = ""
    qualifiers: dict[str, str] = {}
    confidence: float = 1.0
    method: str = ""


class Extraction(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything extracted from one document, with the context a reader of the graph needs."""

    doc_id: str
    title: str
    source: str
    source_id: str
    entities: tuple[Entity, ...]
    claims: tuple[Claim, ...]
    # block id -> section path and the block's text, for the blocks that evidence points into
    passages: dict[str, "EvidencePassage"] = {}


class EvidencePassage(msgspec.Struct, frozen=True, omit_defaults=True):
    section_path: tuple[str, ...]
    text: str
    provenance: Provenance


class GraphWriteReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the kg stage did."""

    graph: str
    generation: str
    entities: int
    claims: int
    outcome: WriteOutcome = WriteOutcome.WRITTEN


class FileLocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place where a source says that the file of a document may be had.

    ``licence`` as the source names it; ``version`` is ``publishedVersion``, ``acceptedVersion`` or
    ``submittedVersion``.
    """

    url: str
    licence: str = ""
    version: str = ""


class FileLocations(msgspec.Struct, frozen=True, omit_defaults=True):
    """The text of a payload of the type :data:`medkg.contracts.media.FILE_LOCATIONS`: where to look, best first."""

    locations: tuple[FileLocation, ...]


class DeclinedLocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A location that was tried before and did not give the file. ``code`` is that of an error of medkg."""

    url: str
    code: str
    reason: str


class StoredFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file in the blob store, under its own hash.

    ``uri`` is where it came from in the end, after redirects. ``outcome`` is ``unchanged`` where nothing had to be
    fetched. ``declined`` are the locations that were tried first, in order, each with its reason.
    """

    key: str
    sha256: str
    media_type: str
    size_bytes: int
    uri: str = ""
    licence: str = ""
    outcome: WriteOutcome = WriteOutcome.WRITTEN
    declined: tuple[DeclinedLocation, ...] = ()
