"""Asking the graph: what is known of an entity, and the text it was read from."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.storage.graph import CLAIMS, DOCUMENTS, ENTITIES, NAMES, PASSAGES, fold_name
from medkg.storage.graph_answers import EntityRef, GraphAnswer, GraphClaim, GraphCounts, GraphEntity, GraphEvidence
from medkg.storage.transactions import translated

MAX_LIMIT = 1_000
_CANDIDATES = 64  # entities a prefix may match before the best are chosen
_SAMPLE = 256  # documents that are asked for an entity's names; ids are hashes, so the first are a fair sample
_EVIDENCE = 20  # pieces of evidence shown for a claim
_EXCERPT_BEFORE, _EXCERPT_LENGTH = 200, 600  # characters of a passage shown around a mention
_LAST = "\U0010ffff"  # sorts after every continuation of a prefix under collation C


# A skip scan: one index probe for each distinct (name, entity), however many documents share it.
_MATCHING_NAMES = text("""
    WITH RECURSIVE walk AS (
        (SELECT folded, entity_id, 1 AS step FROM graph_names
         WHERE tenant_id = :tenant_id AND folded >= :first AND folded <= :last
         ORDER BY folded, entity_id LIMIT 1)
        UNION ALL
        SELECT next.folded, next.entity_id, walk.step + 1
        FROM walk CROSS JOIN LATERAL (
            SELECT folded, entity_id FROM graph_names
            WHERE tenant_id = :tenant_id AND folded <= :last
              AND (folded, entity_id) > (walk.folded, walk.entity_id)
            ORDER BY folded, entity_id LIMIT 1) AS next
        WHERE walk.step < :steps)
    SELECT DISTINCT entity_id FROM walk
""")

_DESCRIPTIONS = text("""
    SELECT e.entity_id, e.type, e.name, e.aliases, e.identifiers
    FROM unnest(CAST(:entity_ids AS text[])) AS wanted(entity_id)
    CROSS JOIN LATERAL (
        SELECT * FROM graph_entities g
        WHERE g.tenant_id = :tenant_id AND g.entity_id = wanted.entity_id COLLATE "C"
        ORDER BY g.doc_id LIMIT :sample) AS e
""")

_DOCUMENT_COUNTS = text("""
    SELECT entity_id, count(*) AS documents FROM graph_entities
    WHERE tenant_id = :tenant_id AND entity_id = ANY(CAST(:entity_ids AS text[]))
    GROUP BY entity_id
""")

# Claims about the entities and claims that name them as object, best first; a claim once, however many documents.
_CLAIM_IDS = text("""
    SELECT claim_id FROM (
        SELECT c.claim_id, c.confidence, c.predicate
        FROM unnest(CAST(:entity_ids AS text[])) AS wanted(entity_id)
        CROSS JOIN LATERAL (
            SELECT claim_id, confidence, predicate FROM graph_claims
            WHERE tenant_id = :tenant_id AND subject = wanted.entity_id COLLATE "C"
            ORDER BY confidence DESC, predicate, claim_id LIMIT :fetch) AS c
        UNION ALL
        SELECT c.claim_id, c.confidence, c.predicate
        FROM unnest(CAST(:entity_ids AS text[])) AS wanted(entity_id)
        CROSS JOIN LATERAL (
            SELECT claim_id, confidence, predicate FROM graph_claims
            WHERE tenant_id = :tenant_id AND object_entity = wanted.entity_id COLLATE "C" AND object_entity <> ''
            ORDER BY confidence DESC, predicate, claim_id LIMIT :fetch) AS c
    ) AS found
    GROUP BY claim_id ORDER BY max(confidence) DESC, min(predicate), claim_id LIMIT :limit
""")

_CLAIMS = text("""
    SELECT c.*
    FROM unnest(CAST(:claim_ids AS text[])) WITH ORDINALITY AS wanted(claim_id, place)
    CROSS JOIN LATERAL (
        SELECT claim_id, doc_id, subject, predicate, object_entity, object_value, qualifiers, confidence, method,
               evidence
        FROM graph_claims g
        WHERE g.tenant_id = :tenant_id AND g.claim_id = wanted.claim_id COLLATE "C"
        ORDER BY g.doc_id LIMIT :evidence) AS c
    ORDER BY wanted.place, c.doc_id
""")

_PASSAGES = text("""
    SELECT wanted.place, d.title, d.source, d.source_id, p.section_path, p.provenance,
           substring(p.text FROM greatest(wanted.start - :before, 0) + 1 FOR :length) AS text
    FROM unnest(CAST(:doc_ids AS text[]), CAST(:block_ids AS text[]), CAST(:starts AS int[]))
         WITH ORDINALITY AS wanted(doc_id, block_id, start, place)
    CROSS JOIN LATERAL (
        SELECT title, source, source_id FROM graph_documents
        WHERE tenant_id = :tenant_id AND doc_id = wanted.doc_id COLLATE "C" LIMIT 1) AS d
    LEFT JOIN LATERAL (
        SELECT section_path, provenance, text FROM graph_passages
        WHERE tenant_id = :tenant_id AND doc_id = wanted.doc_id COLLATE "C" AND block_id = wanted.block_id COLLATE "C"
        LIMIT 1) AS p ON true
""")

_COUNTS = text("""
    SELECT (SELECT count(*) FROM graph_documents WHERE tenant_id = :tenant_id),
           (SELECT count(DISTINCT entity_id) FROM graph_entities WHERE tenant_id = :tenant_id),
           (SELECT count(DISTINCT claim_id) FROM graph_claims WHERE tenant_id = :tenant_id)
""")


class GraphReader:
    """Questions to the graph of one tenant at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, tenant_id: str, query: str, limit: int = 50) -> GraphAnswer:
        """What is known of the entities that ``query`` names: an entity id, or a name or alias in any case.

        Exact matches come first, then names that begin with the query; within each, what more documents speak of.
        The claims, at most ``limit`` of them, are about the exact matches, or where there is none about all that is
        listed; the surest first. An unknown name gives an empty answer. The work is bounded by ``limit``.

        Raises:
            ResourceUnavailableError: the database does not answer.
        """
        limit = max(1, min(limit, MAX_LIMIT))
        query = query.replace("\x00", " ")
        async with self._snapshot("asking the graph") as connection:
            exact, matching = await _matches(connection, tenant_id, query)
            entities = await _entities(connection, tenant_id, matching)
            entities.sort(key=lambda e: (e.entity_id not in exact, -e.documents, e.name, e.entity_id))
            entities = entities[:limit]
            listed = [e.entity_id for e in entities]
            asked = [entity_id for entity_id in listed if entity_id in exact] or listed
            claims = await _claims(connection, tenant_id, asked, limit)
        return GraphAnswer(query=query, entities=tuple(entities), claims=tuple(claims))

    async def counts(self, tenant_id: str) -> GraphCounts:
        """How many documents, distinct entities and distinct claims a tenant's graph holds. Reads every row."""
        async with self._snapshot("counting the graph") as connection:
            documents, entities, claims = (await connection.execute(_COUNTS, {"tenant_id": tenant_id})).one()
        return GraphCounts(documents, entities, claims)

    async def export(self, tenant_id: str) -> list[tuple[Any, ...]]:
        """All that a tenant's graph holds, sorted, without the jobs and revisions that wrote it.

        Two stores that were given the same documents, in whatever order and by whatever jobs, export the same rows.
        The whole graph comes into memory: for comparing stores, not for serving.
        """
        rows: list[tuple[Any, ...]] = []
        async with self._snapshot("exporting the graph") as connection:
            for table in (DOCUMENTS, ENTITIES, NAMES, CLAIMS, PASSAGES):
                columns = [c for c in table.columns if c.name not in {"tenant_id", "revision", "job_id"}]
                statement = select(*columns).where(table.c.tenant_id == tenant_id).order_by(*table.primary_key.columns)
                rows.extend((table.name, *row) for row in await connection.execute(statement))
        return rows

    @asynccontextmanager
    async def _snapshot(self, doing: str) -> AsyncIterator[AsyncConnection]:
        """One view of the store for a whole answer: a document replaced meanwhile shows as before or as after."""
        async with translated(doing), self._engine.connect() as connection:
            yield await connection.execution_options(isolation_level="REPEATABLE READ")


async def _matches(connection: AsyncConnection, tenant_id: str, query: str) -> tuple[set[str], set[str]]:
    """(exact matches, all matches), as entity ids."""
    folded = fold_name(query)
    exact = {query.strip()}
    if not folded:
        return exact, exact
    exact |= await _names_between(connection, tenant_id, folded, folded)
    return exact, exact | await _names_between(connection, tenant_id, folded, folded + _LAST)


async def _names_between(connection: AsyncConnection, tenant_id: str, first: str, last: str) -> set[str]:
    parameters = {"tenant_id": tenant_id, "first": first, "last": last, "steps": _CANDIDATES}
    return {row.entity_id for row in await connection.execute(_MATCHING_NAMES, parameters)}


async def _entities(connection: AsyncConnection, tenant_id: str, entity_ids: Iterable[str]) -> list[GraphEntity]:
    wanted = {"tenant_id": tenant_id, "entity_ids": sorted(entity_ids)}
    documents = {row.entity_id: row.documents for row in await connection.execute(_DOCUMENT_COUNTS, wanted)}
    found = await _descriptions(connection, tenant_id, documents)
    return [_merged(entity_id, rows, documents[entity_id]) for entity_id, rows in found.items()]


async def _descriptions(
    connection: AsyncConnection, tenant_id: str, entity_ids: Iterable[str]
) -> dict[str, list[Row[Any]]]:
    """How documents describe each entity; without an entry where none does."""
    found: dict[str, list[Row[Any]]] = {}
    parameters = {"tenant_id": tenant_id, "entity_ids": sorted(entity_ids), "sample": _SAMPLE}
    for row in await connection.execute(_DESCRIPTIONS, parameters):
        found.setdefault(row.entity_id, []).append(row)
    return found


def _merged(entity_id: str, rows: Sequence[Row[Any]], documents: int) -> GraphEntity:
    ref = _ref(entity_id, rows)
    values: dict[str, list[str]] = {}
    for row in rows:
        for scheme, value in row.identifiers.items():
            values.setdefault(scheme, []).append(value)
    return GraphEntity(
        entity_id=entity_id,
        type=ref.type,
        name=ref.name,
        aliases=tuple(sorted({alias for row in rows for alias in (row.name, *row.aliases)} - {ref.name})),
        identifiers={scheme: most_supported(values[scheme]) for scheme in sorted(values)},
        documents=documents,
    )


def _ref(entity_id: str, rows: Sequence[Row[Any]]) -> EntityRef:
    if not rows:
        return EntityRef(entity_id, "unknown", entity_id)
    numbers = {value for row in rows for value in row.identifiers.values()}
    # a document that only cites a study knows its number: any other name says more
    name = most_supported([row.name for row in rows if row.name not in numbers] or [row.name for row in rows])
    return EntityRef(entity_id, most_supported(row.type for row in rows), name)


def most_supported(values: Iterable[str]) -> str:
    """The most frequent value; of equally frequent ones the first in code point order. Order does not matter."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return min(counts, key=lambda value: (-counts[value], value))


async def _claims(
    connection: AsyncConnection, tenant_id: str, entity_ids: Sequence[str], limit: int
) -> list[GraphClaim]:
    if not entity_ids:
        return []
    # a claim that several documents support fills several rows of the index: look a little further than asked
    parameters = {"tenant_id": tenant_id, "entity_ids": list(entity_ids), "limit": limit, "fetch": 4 * limit}
    claim_ids = [row.claim_id for row in await connection.execute(_CLAIM_IDS, parameters)]
    if not claim_ids:
        return []
    parameters = {"tenant_id": tenant_id, "claim_ids": claim_ids, "evidence": _EVIDENCE}
    supports: dict[str, list[Row[Any]]] = {}
    for row in await connection.execute(_CLAIMS, parameters):
        supports.setdefault(row.claim_id, []).append(row)
    spans = {
        claim_id: [(row.doc_id, m) for row in rows for m in row.evidence][:_EVIDENCE]
        for claim_id, rows in supports.items()
    }
    evidence = iter(await _evidence(connection, tenant_id, [span for found in spans.values() for span in found]))
    ends = {row.subject for rows in supports.values() for row in rows}
    ends |= {row.object_entity for rows in supports.values() for row in rows if row.object_entity}
    described = await _descriptions(connection, tenant_id, ends)
    refs = {entity_id: _ref(entity_id, described.get(entity_id, ())) for entity_id in ends}
    return [
        _claim(rows[0], refs, tuple(next(evidence) for _ in spans[claim_id])) for claim_id, rows in supports.items()
    ]


def _claim(first: Row[Any], refs: dict[str, EntityRef], evidence: tuple[GraphEvidence, ...]) -> GraphClaim:
    return GraphClaim(
        claim_id=first.claim_id,
        subject=refs[first.subject],
        predicate=first.predicate,
        object=refs[first.object_entity] if first.object_entity else None,
        value=None if first.object_entity else first.object_value,
        qualifiers=first.qualifiers,
        confidence=first.confidence,
        method=first.method,
        evidence=evidence,
    )


async def _evidence(
    connection: AsyncConnection, tenant_id: str, spans: Sequence[tuple[str, dict[str, Any]]]
) -> list[GraphEvidence]:
    """The evidence for each span, in the same order."""
    parameters = {
        "tenant_id": tenant_id,
        "doc_ids": [doc_id for doc_id, _ in spans],
        "block_ids": [mention["block_id"] for _, mention in spans],
        "starts": [mention["start"] for _, mention in spans],
        "before": _EXCERPT_BEFORE,
        "length": _EXCERPT_LENGTH,
    }
    found = {row.place: row for row in await connection.execute(_PASSAGES, parameters)}
    return [
        GraphEvidence(
            doc_id=doc_id,
            title=found[place].title,
            source=found[place].source,
            source_id=found[place].source_id,
            section_path=tuple(found[place].section_path or ()),
            text=_excerpt(found[place].text or mention["text"], mention["start"]),
            mention=mention["text"],
            provenance=found[place].provenance or {},
        )
        for place, (doc_id, mention) in enumerate(spans, start=1)
    ]


def _excerpt(text: str, start: int) -> str:
    """Whole words only, with an ellipsis where the passage goes on."""
    is_cut_before, is_cut_after = start > _EXCERPT_BEFORE, len(text) == _EXCERPT_LENGTH
    if is_cut_before and " " in text[:_EXCERPT_BEFORE]:
        text = text.partition(" ")[2]
    if is_cut_after and " " in text[_EXCERPT_BEFORE:]:
        text = text.rpartition(" ")[0]
    return ("… " if is_cut_before else "") + text + (" …" if is_cut_after else "")
