"""An extraction in the making: entities and claims are merged as they are found, and every claim has evidence."""

from dataclasses import dataclass, field

from medkg.contracts.document import (
    Block,
    Claim,
    Document,
    Entity,
    EvidencePassage,
    Extraction,
    Mention,
    Section,
    TextSpan,
)
from medkg.contracts.errors import PayloadTooLargeError
from medkg.contracts.ids import stable_id

MAX_EVIDENCE = 20  # spans kept for one claim; the first ones in reading order
MAX_MENTIONS = 50  # spans kept for one entity
MAX_ALIASES = 50  # other names kept for one entity
MAX_CLAIMS = 20_000  # of one document; the largest real registry records stay under a thousand
QUALIFIER_SEPARATOR = " | "


@dataclass(slots=True)
class _EntityDraft:
    type: str
    name: str
    aliases: dict[str, str] = field(default_factory=dict)  # by their form without case
    identifiers: dict[str, str] = field(default_factory=dict)
    mentions: dict[Mention, None] = field(default_factory=dict)


@dataclass(slots=True)
class _ClaimDraft:
    subject: str
    predicate: str
    object_entity: str
    object_value: str
    method: str
    confidence: float
    qualifiers: dict[str, dict[str, None]] = field(default_factory=dict)
    evidence: dict[Mention, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Characters of a block that is a part of a section: where something was read."""

    section: Section
    block: Block
    start: int
    end: int

    @classmethod
    def whole(cls, section: Section, block: Block) -> "Place":
        return cls(section, block, 0, len(block.text))

    @property
    def mention(self) -> Mention:
        return Mention(TextSpan(self.block.block_id, self.start, self.end), self.block.text[self.start : self.end])


class Draft:
    """Collects what a document says. The same calls in the same order give the same extraction, to the byte."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._entities: dict[str, _EntityDraft] = {}
        self._claims: dict[tuple[str, str, str, str], _ClaimDraft] = {}
        self._passages: dict[str, EvidencePassage] = {}

    def entity(self, entity_id: str, kind: str, name: str, *, identifiers: dict[str, str] | None = None) -> str:
        """Note an entity; the first call gives it its type and name. Returns the id."""
        entity = self._entities.get(entity_id)
        if entity is None:
            entity = self._entities[entity_id] = _EntityDraft(kind, name)
        entity.identifiers |= identifiers or {}
        return entity_id

    def alias(self, entity_id: str, alias: str) -> None:
        """Note another name of an entity; one that differs in case only is none."""
        entity = self._entities[entity_id]
        folded = alias.casefold()
        if folded != entity.name.casefold() and len(entity.aliases) < MAX_ALIASES:
            entity.aliases.setdefault(folded, alias)

    def mention(self, entity_id: str, place: Place) -> None:
        """Note where a text names an entity."""
        mentions = self._entities[entity_id].mentions
        if len(mentions) < MAX_MENTIONS:
            mentions[place.mention] = None

    def claim(
        self,
        subject: str,
        predicate: str,
        place: Place,
        *,
        object_entity: str = "",
        object_value: str = "",
        qualifiers: dict[str, str] | None = None,
        method: str,
        confidence: float = 1.0,
    ) -> None:
        """Note a claim; one that was noted before gains this place as evidence, and the surer reading stays.

        Raises:
            PayloadTooLargeError: the document makes more than MAX_CLAIMS claims.
        """
        key = (subject, predicate, object_entity, object_value)
        claim = self._claims.get(key)
        if claim is None:
            if len(self._claims) == MAX_CLAIMS:
                raise PayloadTooLargeError(
                    f"extracting from {self._document.source_id}: more than {MAX_CLAIMS} claims; split the record"
                )
            claim = self._claims[key] = _ClaimDraft(*key, method=method, confidence=confidence)
        elif confidence > claim.confidence:
            claim.method, claim.confidence = method, confidence
        for name, value in (qualifiers or {}).items():
            claim.qualifiers.setdefault(name, {})[value] = None
        if len(claim.evidence) < MAX_EVIDENCE:
            claim.evidence[place.mention] = None
            block = place.block
            self._passages[block.block_id] = EvidencePassage(place.section.path, block.text, block.provenance)

    def extraction(self) -> Extraction:
        """All that was noted, in the order in which it was."""
        document = self._document
        return Extraction(
            doc_id=document.doc_id,
            title=document.title,
            source=document.source,
            source_id=document.source_id,
            entities=tuple(
                Entity(
                    entity_id=entity_id,
                    type=entity.type,
                    name=entity.name,
                    aliases=tuple(entity.aliases.values()),
                    identifiers=dict(sorted(entity.identifiers.items())),
                    mentions=tuple(entity.mentions),
                )
                for entity_id, entity in self._entities.items()
            ),
            claims=tuple(
                Claim(
                    claim_id=stable_id("claim", *key),
                    subject=claim.subject,
                    predicate=claim.predicate,
                    evidence=tuple(claim.evidence),
                    object_entity=claim.object_entity,
                    object_value=claim.object_value,
                    qualifiers={
                        name: QUALIFIER_SEPARATOR.join(values) for name, values in sorted(claim.qualifiers.items())
                    },
                    confidence=claim.confidence,
                    method=claim.method,
                )
                for key, claim in self._claims.items()
            ),
            passages=self._passages,
        )
