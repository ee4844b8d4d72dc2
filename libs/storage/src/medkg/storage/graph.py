"""The knowledge graph's tables: what each document contributes, and nothing that two documents share.

A row belongs to exactly one document of one tenant. What the graph says of an entity (its name, how many documents
speak of it) is worked out when it is read, from the rows of all documents that support it. So a document is replaced
whole by deleting its rows and writing new ones; an entity lives while one document supports it; the order in which
documents came cannot show; and two writers never wait for each other unless they write the same document. The price is
that a reader gathers rows: the indexes below keep that to a bounded number of probes.
"""

import unicodedata

from sqlalchemy import ARRAY, BigInteger, Column, Float, Index, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from medkg.storage.engine import METADATA

MAX_FOLDED_NAME = 256  # characters; a B-tree entry holds at most 2704 bytes

_EXACT = Text(collation="C")  # ids and folded names are compared by code point, on every machine alike


def fold_name(name: str) -> str:
    """The form under which a name is looked up: compatibility forms unified, no case, single spaces, bounded length."""
    folded = unicodedata.normalize("NFKC", name[: 4 * MAX_FOLDED_NAME].replace("\x00", " ")).casefold()
    return " ".join(folded.split())[:MAX_FOLDED_NAME].rstrip()


DOCUMENTS = Table(
    "graph_documents",
    METADATA,
    Column("tenant_id", _EXACT, nullable=False),
    Column("doc_id", _EXACT, nullable=False),
    Column("generation", _EXACT, nullable=False),  # content key of the rows that stand
    Column("revision", BigInteger, nullable=False),  # the highest revision that asked for this content
    Column("job_id", _EXACT, nullable=False),  # the job that wrote them
    Column("title", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "doc_id"),
    comment="One row a document: which generation of it the graph holds",
)

ENTITIES = Table(
    "graph_entities",
    METADATA,
    Column("tenant_id", _EXACT, nullable=False),
    Column("entity_id", _EXACT, nullable=False),
    Column("doc_id", _EXACT, nullable=False),
    Column("type", _EXACT, nullable=False),
    Column("name", _EXACT, nullable=False),
    Column("aliases", ARRAY(Text), nullable=False),
    Column("identifiers", JSONB, nullable=False),
    PrimaryKeyConstraint("tenant_id", "entity_id", "doc_id"),
    Index("graph_entities_by_document", "tenant_id", "doc_id"),
    comment="An entity as one document names it",
)

NAMES = Table(
    "graph_names",
    METADATA,
    Column("tenant_id", _EXACT, nullable=False),
    Column("folded", _EXACT, nullable=False),
    Column("entity_id", _EXACT, nullable=False),
    Column("doc_id", _EXACT, nullable=False),
    PrimaryKeyConstraint("tenant_id", "folded", "entity_id", "doc_id"),
    Index("graph_names_by_document", "tenant_id", "doc_id"),
    comment="Names and aliases as they are looked up",
)

CLAIMS = Table(
    "graph_claims",
    METADATA,
    Column("tenant_id", _EXACT, nullable=False),
    Column("claim_id", _EXACT, nullable=False),
    Column("doc_id", _EXACT, nullable=False),
    Column("subject", _EXACT, nullable=False),
    Column("predicate", _EXACT, nullable=False),
    Column("object_entity", _EXACT, nullable=False),
    Column("object_value", Text, nullable=False),
    Column("qualifiers", JSONB, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("method", Text, nullable=False),
    Column("evidence", JSONB, nullable=False),  # [{block_id, start, end, text}], the spans of this document
    PrimaryKeyConstraint("tenant_id", "claim_id", "doc_id"),
    Index("graph_claims_by_document", "tenant_id", "doc_id"),
    comment="A claim as one document supports it",
)
Index(
    "graph_claims_by_subject",
    CLAIMS.c.tenant_id,
    CLAIMS.c.subject,
    CLAIMS.c.confidence.desc(),
    CLAIMS.c.predicate,
    CLAIMS.c.claim_id,
)
Index(
    "graph_claims_by_object",
    CLAIMS.c.tenant_id,
    CLAIMS.c.object_entity,
    CLAIMS.c.confidence.desc(),
    CLAIMS.c.predicate,
    CLAIMS.c.claim_id,
    postgresql_where=CLAIMS.c.object_entity != "",
)

PASSAGES = Table(
    "graph_passages",
    METADATA,
    Column("tenant_id", _EXACT, nullable=False),
    Column("doc_id", _EXACT, nullable=False),
    Column("block_id", _EXACT, nullable=False),
    Column("section_path", ARRAY(Text), nullable=False),
    Column("text", Text, nullable=False),
    Column("provenance", JSONB, nullable=False),
    PrimaryKeyConstraint("tenant_id", "doc_id", "block_id"),
    comment="The blocks that evidence points into",
)
