"""Writing a document's contribution to the graph: whole, once, and never an older one over a newer one."""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.contracts.document import Extraction, Mention, WriteOutcome
from medkg.contracts.errors import ContractError
from medkg.storage.graph import fold_name
from medkg.storage.transactions import in_transaction

MAX_OFFSET = 2**31 - 1  # PostgreSQL counts the characters of a text in 32 bits
MAX_ID_LENGTH = 512  # characters of an entity, claim or block id, a type or a predicate: they stand in indexes

# Takes the document's row lock and reads what stands, in one round trip; a new document gets a row without generation.
_CLAIM_DOCUMENT = text("""
    INSERT INTO graph_documents (tenant_id, doc_id, generation, revision, job_id, title, source, source_id)
    VALUES (:tenant_id, :doc_id, '', -1, '', '', '', '')
    ON CONFLICT (tenant_id, doc_id) DO UPDATE SET doc_id = graph_documents.doc_id
    RETURNING generation, revision, job_id
""")

_RAISE_REVISION = text("""
    UPDATE graph_documents SET revision = :revision
    WHERE tenant_id = :tenant_id AND doc_id = :doc_id AND revision < :revision
""")

_DELETE_CONTRIBUTION = text("""
    WITH entities AS (DELETE FROM graph_entities WHERE tenant_id = :tenant_id AND doc_id = :doc_id),
         names AS (DELETE FROM graph_names WHERE tenant_id = :tenant_id AND doc_id = :doc_id),
         claims AS (DELETE FROM graph_claims WHERE tenant_id = :tenant_id AND doc_id = :doc_id)
    DELETE FROM graph_passages WHERE tenant_id = :tenant_id AND doc_id = :doc_id
""")

# ON CONFLICT: an extraction that lists an id twice keeps the first, whatever extractor made it.
_INSERT_CONTRIBUTION = text("""
    WITH given AS (
        SELECT CAST(:tenant_id AS text) AS tenant, CAST(:doc_id AS text) AS doc,
               CAST(:contribution AS json) AS document),
    entities AS (
        INSERT INTO graph_entities (tenant_id, doc_id, entity_id, type, name, aliases, identifiers)
        SELECT tenant, doc, e.* FROM given, json_to_recordset(document -> 'entities')
            AS e(entity_id text, type text, name text, aliases text[], identifiers jsonb)
        ON CONFLICT DO NOTHING),
    names AS (
        INSERT INTO graph_names (tenant_id, doc_id, entity_id, folded)
        SELECT tenant, doc, n.* FROM given, json_to_recordset(document -> 'names')
            AS n(entity_id text, folded text)
        ON CONFLICT DO NOTHING),
    claims AS (
        INSERT INTO graph_claims (tenant_id, doc_id, claim_id, subject, predicate, object_entity, object_value,
                                  qualifiers, confidence, method, evidence)
        SELECT tenant, doc, c.* FROM given, json_to_recordset(document -> 'claims')
            AS c(claim_id text, subject text, predicate text, object_entity text, object_value text,
                 qualifiers jsonb, confidence float, method text, evidence jsonb)
        ON CONFLICT DO NOTHING),
    passages AS (
        INSERT INTO graph_passages (tenant_id, doc_id, block_id, section_path, text, provenance)
        SELECT tenant, doc, p.* FROM given, json_to_recordset(document -> 'passages')
            AS p(block_id text, section_path text[], text text, provenance jsonb)
        ON CONFLICT DO NOTHING)
    UPDATE graph_documents
    SET generation = :generation, revision = :revision, job_id = :job_id,
        title = document ->> 'title', source = document ->> 'source', source_id = document ->> 'source_id'
    FROM given WHERE tenant_id = tenant AND doc_id = doc
""")


@dataclass(frozen=True, slots=True)
class Generation:
    """Which content of a document stands in the graph, and who asked for it."""

    generation: str
    revision: int
    job_id: str


def decide(stored: Generation | None, asked: Generation) -> WriteOutcome:
    """What a write must do, given what stands. Whatever order writes arrive in, the same one stands in the end.

    A redelivery to the job that wrote is answered as the first time. Otherwise the higher revision stays; among equal
    revisions of different jobs the greater generation stays, so that a tie has one end.
    """
    if stored is None:
        return WriteOutcome.WRITTEN
    if stored.generation == asked.generation and stored.job_id == asked.job_id:
        return WriteOutcome.WRITTEN
    if stored.revision > asked.revision:
        return WriteOutcome.SUPERSEDED
    if stored.generation == asked.generation:
        return WriteOutcome.UNCHANGED
    is_tie = stored.revision == asked.revision and stored.job_id != asked.job_id
    return WriteOutcome.SUPERSEDED if is_tie and stored.generation > asked.generation else WriteOutcome.WRITTEN


class GraphWriter:
    """Replaces documents' contributions. Safe for any number of writers, in one process or many."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def write(self, tenant_id: str, asked: Generation, extraction: Extraction) -> WriteOutcome:
        """Make the graph hold this extraction as its document's contribution, unless a later one stands. Idempotent.

        One transaction of four statements at most: readers see the old contribution or the new one, never a mixture.

        Raises:
            ContractError: an id of the extraction is empty or longer than MAX_ID_LENGTH, or a span is not one.
            ResourceUnavailableError: the database does not answer; the same write may be tried again.
        """

        async def replace(connection: AsyncConnection) -> WriteOutcome:
            return await _replace(connection, tenant_id, asked, extraction)

        return await in_transaction(self._engine, f"writing document {extraction.doc_id} to the graph", replace)


async def _replace(
    connection: AsyncConnection, tenant_id: str, asked: Generation, extraction: Extraction
) -> WriteOutcome:
    key = {"tenant_id": tenant_id, "doc_id": extraction.doc_id}
    row = (await connection.execute(_CLAIM_DOCUMENT, key)).one()
    stored = Generation(*row) if row.revision >= 0 else None
    outcome = decide(stored, asked)
    if outcome is WriteOutcome.UNCHANGED:
        await connection.execute(_RAISE_REVISION, key | {"revision": asked.revision})
    elif outcome is WriteOutcome.WRITTEN and (stored is None or stored.generation != asked.generation):
        if stored is not None:
            await connection.execute(_DELETE_CONTRIBUTION, key)
        await connection.execute(
            _INSERT_CONTRIBUTION,
            key
            | {
                "contribution": _contribution(extraction),
                "generation": asked.generation,
                "revision": asked.revision,
                "job_id": asked.job_id,
            },
        )
    return outcome


def _contribution(extraction: Extraction) -> str:
    """All rows of a document as one JSON value: one parameter, whatever the number of rows."""
    rows: dict[str, Any] = {
        "title": extraction.title,
        "source": extraction.source,
        "source_id": extraction.source_id,
        "entities": [
            {
                "entity_id": _bounded(entity.entity_id, "entity id"),
                "type": _bounded(entity.type, "entity type"),
                "name": entity.name,
                "aliases": entity.aliases,
                "identifiers": entity.identifiers,
            }
            for entity in extraction.entities
        ],
        "names": [
            {"entity_id": entity.entity_id, "folded": folded}
            for entity in extraction.entities
            for folded in sorted({fold_name(name) for name in (entity.name, *entity.aliases)} - {""})
        ],
        "claims": [
            {
                "claim_id": _bounded(claim.claim_id, "claim id"),
                "subject": _bounded(claim.subject, "subject"),
                "predicate": _bounded(claim.predicate, "predicate"),
                "object_entity": claim.object_entity and _bounded(claim.object_entity, "object"),
                "object_value": claim.object_value,
                "qualifiers": claim.qualifiers,
                "confidence": claim.confidence,
                "method": claim.method,
                "evidence": [_evidence(mention) for mention in claim.evidence],
            }
            for claim in extraction.claims
        ],
        "passages": [
            {
                "block_id": _bounded(block_id, "block id"),
                "section_path": passage.section_path,
                "text": passage.text,
                "provenance": passage.provenance,
            }
            for block_id, passage in extraction.passages.items()
        ],
    }
    encoded = msgspec.json.encode(rows)
    if b"\\u0000" in encoded:  # PostgreSQL stores no NUL; the replacement is one character too, so offsets hold
        encoded = msgspec.json.encode(_without_nul(msgspec.to_builtins(rows)))
    return encoded.decode()


def _evidence(mention: Mention) -> dict[str, Any]:
    span = mention.span
    if not 0 <= span.start <= span.end <= MAX_OFFSET:
        raise ContractError(f"writing to the graph: characters {span.start} to {span.end} of a block are no span")
    return {"block_id": span.block_id, "start": span.start, "end": span.end, "text": mention.text}


def _bounded(identifier: str, what: str) -> str:
    if 0 < len(identifier) <= MAX_ID_LENGTH:
        return identifier
    found = "an empty one" if not identifier else f"{len(identifier)} characters"
    raise ContractError(f"writing to the graph: {what} of 1 to {MAX_ID_LENGTH} characters expected, found {found}")


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list | tuple):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value
