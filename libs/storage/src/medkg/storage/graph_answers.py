"""What the graph answers: entities, claims about them, and the passages these were read from."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class EntityRef:
    entity_id: str
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class GraphEntity:
    """An entity as its documents together name it: as most of them do; on a tie, the first in code point order."""

    entity_id: str
    type: str
    name: str
    aliases: tuple[str, ...]
    identifiers: dict[str, str]
    documents: int


@dataclass(frozen=True, slots=True)
class GraphEvidence:
    """Where a claim was read. ``text`` is the passage around the mention."""

    doc_id: str
    title: str
    source: str
    source_id: str
    section_path: tuple[str, ...]
    text: str
    mention: str
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GraphClaim:
    claim_id: str
    subject: EntityRef
    predicate: str
    object: EntityRef | None
    value: str | None
    qualifiers: dict[str, str]
    confidence: float
    method: str
    evidence: tuple[GraphEvidence, ...]


@dataclass(frozen=True, slots=True)
class GraphAnswer:
    query: str
    entities: tuple[GraphEntity, ...]
    claims: tuple[GraphClaim, ...]


@dataclass(frozen=True, slots=True)
class GraphCounts:
    documents: int
    entities: int
    claims: int
