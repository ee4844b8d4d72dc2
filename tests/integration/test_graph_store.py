"""The knowledge graph on a real PostgreSQL: what documents say together, whatever order and company they come in."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.contracts.context import StageContext
from medkg.contracts.document import (
    Claim,
    Entity,
    EvidencePassage,
    Extraction,
    Mention,
    Provenance,
    TextSpan,
    WriteOutcome,
)
from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.contracts.ids import stable_id
from medkg.contracts.implementation import Host
from medkg.kg.app import POSTGRES, PostgresOptions
from medkg.kg.stage import PostgresGraph
from medkg.storage.engine import migrate, open_engine
from medkg.storage.graph_answers import GraphAnswer
from medkg.storage.graph_reader import GraphReader
from medkg.storage.graph_writer import MAX_ID_LENGTH, GraphWriter

pytestmark = pytest.mark.postgres

ASTHMA = Entity("mesh:D001249", "condition", "Asthma", aliases=("Bronchial Asthma",), identifiers={"mesh": "D001249"})
DUPILUMAB = Entity("mesh:C582203", "intervention", "dupilumab")
NASTY = [
    "'; DROP TABLE graph_claims; --",
    "%",
    "_",
    "\\",
    "a\x00b",
    "\U0001d4b3 \u202e\u202c",
    "{}",
    ":x $1 ?",
    '"',
    "{{7*7}}",
]


class NoBlobs:
    """A blob store that nothing is ever asked of."""

    async def get(self, key: str) -> bytes | None:
        raise AssertionError(key)

    async def put(self, key: str, data: bytes) -> None:
        raise AssertionError(key)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(database_url, pool_size=4)
    await migrate(engine)
    yield engine
    await engine.dispose()


def study(number: int, *entities: Entity, title: str = "") -> Extraction:
    """A trial that investigates the given entities; every claim is read from one block."""
    nct = f"NCT{number:08d}"
    subject = Entity(f"nct:{nct}", "study", title or f"Trial {number}", identifiers={"nct": nct})
    sentence = f"Trial {number} looks at " + ", ".join(entity.name for entity in entities)

    def claim(entity: Entity) -> Claim:
        start = sentence.index(entity.name)
        span = TextSpan("b1", start, start + len(entity.name))
        return Claim(
            claim_id=stable_id("claim", subject.entity_id, "investigates_condition", entity.entity_id),
            subject=subject.entity_id,
            predicate="investigates_condition",
            object_entity=entity.entity_id,
            evidence=(Mention(span, entity.name),),
            method="registry",
        )

    return Extraction(
        doc_id=stable_id("doc", nct),
        title=subject.name,
        source="files",
        source_id=nct,
        entities=(subject, *entities),
        claims=tuple(claim(entity) for entity in entities),
        passages={"b1": EvidencePassage(("Conditions",), sentence, Provenance(record=nct, path="/a/0"))},
    )


def context(
    extraction: Extraction, *, job: str = "job-1", revision: int = 1, tenant: str = "default", key: str = ""
) -> StageContext:
    return StageContext(
        tenant_id=tenant,
        doc_id=extraction.doc_id,
        correlation_id=job,
        content_key=key or stable_id(repr(extraction)),
        revision=revision,
    )


async def write(engine: AsyncEngine, extraction: Extraction, **how: str | int) -> WriteOutcome:
    stage = PostgresGraph(GraphWriter(engine))
    return (await stage.execute(context(extraction, **how), extraction)).outcome  # type: ignore[arg-type]  # keywords


async def test_a_claim_leads_back_to_the_passage_it_was_read_from(engine: AsyncEngine) -> None:
    await write(engine, study(1, ASTHMA))
    answer = await GraphReader(engine).find("default", "asthma")
    assert [(e.entity_id, e.name, e.aliases, e.documents) for e in answer.entities] == [
        ("mesh:D001249", "Asthma", ("Bronchial Asthma",), 1)
    ]
    (claim,) = answer.claims
    assert (claim.subject.name, claim.predicate) == ("Trial 1", "investigates_condition")
    assert claim.object is not None and claim.object.name == "Asthma"
    (evidence,) = claim.evidence
    assert (evidence.mention, evidence.text) == ("Asthma", "Trial 1 looks at Asthma")
    assert (evidence.source_id, evidence.section_path) == ("NCT00000001", ("Conditions",))
    assert evidence.provenance == {"record": "NCT00000001", "path": "/a/0"}


async def test_an_entity_is_found_by_id_name_alias_or_beginning_in_any_case(engine: AsyncEngine) -> None:
    await write(engine, study(1, ASTHMA))
    reader = GraphReader(engine)
    for query in ("mesh:D001249", "ASTHMA", "bronchial  asthma", "Bronch", "asth"):
        assert "mesh:D001249" in [e.entity_id for e in (await reader.find("default", query)).entities], query
    assert (await reader.find("default", "sthma")).entities == ()
    assert (await reader.find("default", "")).entities == ()


async def test_exact_matches_come_before_beginnings_and_alone_bring_claims(engine: AsyncEngine) -> None:
    await write(
        engine, study(1, ASTHMA, Entity("name:condition:asthma in children", "condition", "Asthma in Children"))
    )
    await write(engine, study(2, Entity("name:condition:asthma in children", "condition", "Asthma in Children")))
    answer = await GraphReader(engine).find("default", "Asthma")
    assert [e.name for e in answer.entities] == ["Asthma", "Asthma in Children"]
    assert {claim.object.entity_id for claim in answer.claims if claim.object} == {"mesh:D001249"}
    assert len((await GraphReader(engine).find("default", "Asth")).claims) == 3, (
        "no exact match: about all that begin so"
    )


async def test_a_replaced_document_takes_its_own_entities_with_it_and_leaves_shared_ones(engine: AsyncEngine) -> None:
    await write(engine, study(1, ASTHMA, DUPILUMAB))
    await write(engine, study(2, ASTHMA))
    await write(engine, study(1, ASTHMA), revision=2, job="job-2")
    reader = GraphReader(engine)
    assert (await reader.find("default", "dupilumab")).entities == ()
    assert (await reader.find("default", "asthma")).entities[0].documents == 2
    counts = await reader.counts("default")
    assert (counts.documents, counts.entities, counts.claims) == (2, 3, 2)


async def test_the_order_of_documents_does_not_show(engine: AsyncEngine) -> None:
    documents = [study(n, Entity("mesh:D001249", "condition", name)) for n, name in enumerate(["Asthma", "asthma"] * 3)]
    exports = []
    for seed in range(3):
        tenant = f"tenant-{seed}"
        for n, extraction in enumerate(random.Random(seed).sample(documents, len(documents))):
            await write(engine, extraction, tenant=tenant, job=f"job-{seed}-{n}", revision=n)
        reader = GraphReader(engine)
        exports.append((await reader.export(tenant), (await reader.find(tenant, "asthma")).entities))
        assert exports[-1][1][0].name == "Asthma", "three against three: the first in code point order"
    assert exports[0] == exports[1] == exports[2]


async def test_an_entity_is_called_what_most_documents_call_it(engine: AsyncEngine) -> None:
    for n, name in enumerate(["asthma", "asthma", "Asthma"]):
        await write(engine, study(n, Entity("mesh:D001249", "condition", name)))
    (entity,) = (await GraphReader(engine).find("default", "asthma")).entities
    assert (entity.name, entity.aliases) == ("asthma", ("Asthma",))


async def test_a_study_that_others_only_cite_by_number_is_called_by_its_title(engine: AsyncEngine) -> None:
    number = "NCT00000001"
    for n in range(2, 6):
        await write(engine, study(n, Entity(f"nct:{number}", "study", number, identifiers={"nct": number})))
    (entity,) = (await GraphReader(engine).find("default", number)).entities
    assert entity.name == number
    await write(engine, study(1, ASTHMA, title="Zonal asthma"))
    (entity,) = (await GraphReader(engine).find("default", number)).entities
    assert (entity.name, entity.aliases, entity.documents) == ("Zonal asthma", (number,), 5)


async def test_a_redelivery_writes_the_same_rows_and_says_so_again(engine: AsyncEngine) -> None:
    assert await write(engine, study(1, ASTHMA)) is WriteOutcome.WRITTEN
    before = await GraphReader(engine).export("default")
    assert await write(engine, study(1, ASTHMA)) is WriteOutcome.WRITTEN
    assert await GraphReader(engine).export("default") == before


async def test_the_same_content_from_another_job_is_unchanged_and_guards_against_older_ones(
    engine: AsyncEngine,
) -> None:
    await write(engine, study(1, ASTHMA), revision=1)
    assert await write(engine, study(1, ASTHMA), job="job-3", revision=3) is WriteOutcome.UNCHANGED
    assert await write(engine, study(1, DUPILUMAB), job="job-2", revision=2) is WriteOutcome.SUPERSEDED
    assert (await GraphReader(engine).find("default", "dupilumab")).entities == ()


async def test_an_older_revision_never_replaces_a_newer_one(engine: AsyncEngine) -> None:
    await write(engine, study(1, ASTHMA), job="job-2", revision=2)
    assert await write(engine, study(1, DUPILUMAB), job="job-1", revision=1) is WriteOutcome.SUPERSEDED
    assert (await GraphReader(engine).find("default", "asthma")).entities[0].documents == 1


async def test_concurrent_writers_of_shared_entities_all_finish_with_one_result(
    engine: AsyncEngine, database_url: str
) -> None:
    pool = [Entity(f"mesh:D{n:06d}", "condition", f"Condition {n}") for n in range(12)]
    chance = random.Random(7)
    work = [
        (study(n, *chance.sample(pool, 6)), f"job-{revision}", revision) for n in range(12) for revision in range(1, 4)
    ]
    work *= 2  # each is delivered twice
    chance.shuffle(work)
    other = open_engine(database_url, pool_size=4)
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(
                    write((engine, other)[place % 2], extraction, job=job, revision=revision)
                    for place, (extraction, job, revision) in enumerate(work)
                )
            )
    finally:
        await other.dispose()
    for extraction, job, revision in sorted(work, key=lambda item: item[2]):
        await write(engine, extraction, job=job, revision=revision, tenant="alone")
    reader = GraphReader(engine)
    assert await reader.export("default") == await reader.export("alone")


async def test_tenants_see_nothing_of_each_other(engine: AsyncEngine) -> None:
    """The same documents and ids, said differently before and after: whatever leaks changes an answer."""
    reader = GraphReader(engine)
    other = Entity("mesh:D001249", "disease", "A different name", ("Asthma", "Bronze"), {"x": "y"})

    async def answers() -> list[GraphAnswer]:
        queries = ("asthma", "mesh:D001249", "nct:NCT00000001", "trial 1", "bron", "a")
        return [await reader.find("ours", query, limit) for query in queries for limit in (1, 50)]

    async def theirs(revision: int) -> None:
        for number in range(1, 5):
            extraction = study(number, other, DUPILUMAB, title=f"Other {number}")
            await write(engine, extraction, tenant="a", job=f"job-{revision}", revision=revision, key=f"k{revision}")

    await theirs(1)
    await write(engine, study(1, ASTHMA), tenant="ours")
    await write(engine, study(2, ASTHMA), tenant="ours")
    before, counts, exported = await answers(), await reader.counts("ours"), await reader.export("ours")
    evidence = [piece for answer in before for claim in answer.claims for piece in claim.evidence]
    assert {(piece.title, piece.text) for piece in evidence} == {
        ("Trial 1", "Trial 1 looks at Asthma"),
        ("Trial 2", "Trial 2 looks at Asthma"),
    }
    assert {entity.name for answer in before for entity in answer.entities} == {"Asthma", "Trial 1"}

    await theirs(2)
    assert await answers() == before
    assert await reader.counts("ours") == counts
    assert await reader.export("ours") == exported
    assert (await reader.find("ours", "dupilumab")).entities == ()
    assert (await reader.counts("nobody")).documents == 0


@pytest.mark.parametrize("name", NASTY)
async def test_hostile_names_are_only_names(engine: AsyncEngine, name: str) -> None:
    await write(engine, study(1, Entity("name:condition:x", "condition", name, aliases=(name * 2,)), title=name))
    await write(engine, study(2, ASTHMA))
    answer = await GraphReader(engine).find("default", name)
    assert "name:condition:x" in [e.entity_id for e in answer.entities]
    assert "mesh:D001249" not in [e.entity_id for e in answer.entities]
    assert answer.entities[0].name == name.replace("\x00", "\N{REPLACEMENT CHARACTER}")


async def test_a_very_long_name_is_kept_whole_and_found_by_its_beginning(engine: AsyncEngine) -> None:
    long = "é" * 100_000
    await write(engine, study(1, Entity("name:condition:long", "condition", long)))
    assert (await GraphReader(engine).find("default", "É" * 50)).entities[0].name == long
    assert (await GraphReader(engine).find("default", long)).entities[0].name == long


async def test_an_id_over_the_bound_is_refused_and_nothing_is_written(engine: AsyncEngine) -> None:
    with pytest.raises(ContractError, match="513 characters"):
        await write(engine, study(1, Entity("x" * (MAX_ID_LENGTH + 1), "condition", "Long")))
    assert await GraphReader(engine).export("default") == []


async def test_a_span_that_ends_before_it_begins_is_refused_and_nothing_is_written(engine: AsyncEngine) -> None:
    extraction = study(1, ASTHMA)
    wrong = (Mention(TextSpan("b1", 5, 3), "x"),)
    claims = tuple(msgspec.structs.replace(claim, evidence=wrong) for claim in extraction.claims)
    with pytest.raises(ContractError, match="characters 5 to 3"):
        await write(engine, msgspec.structs.replace(extraction, claims=claims))
    assert await GraphReader(engine).export("default") == []


async def test_an_end_of_a_claim_that_no_document_describes_is_shown_by_its_id(engine: AsyncEngine) -> None:
    extraction = study(1, ASTHMA)
    await write(engine, msgspec.structs.replace(extraction, entities=extraction.entities[:1]))
    (claim,) = (await GraphReader(engine).find("default", "trial 1")).claims
    assert claim.object is not None
    assert (claim.object.name, claim.object.type) == ("mesh:D001249", "unknown")


async def test_an_entity_without_claims_is_still_found(engine: AsyncEngine) -> None:
    await write(engine, msgspec.structs.replace(study(1, ASTHMA), claims=()))
    answer = await GraphReader(engine).find("default", "asthma")
    assert (len(answer.entities), answer.claims) == (1, ())


async def test_an_extraction_that_repeats_an_entity_keeps_the_first(engine: AsyncEngine) -> None:
    await write(engine, study(1, ASTHMA, Entity("mesh:D001249", "condition", "Asthma")))
    (entity,) = (await GraphReader(engine).find("default", "asthma")).entities
    assert entity.aliases == ("Bronchial Asthma",)


async def test_a_long_passage_is_shown_as_an_excerpt_around_the_mention(engine: AsyncEngine) -> None:
    extraction = study(1, ASTHMA)
    words = "word " * 1_000
    passage = EvidencePassage(("Body",), words + "Asthma " + words, Provenance(record="r"))
    claim = extraction.claims[0]
    far = Claim(
        claim.claim_id,
        claim.subject,
        claim.predicate,
        (Mention(TextSpan("b1", len(words), len(words) + 6), "Asthma"),),
        claim.object_entity,
    )
    moved = Extraction(extraction.doc_id, "t", "files", "x", extraction.entities, (far,), {"b1": passage})
    await write(engine, moved)
    (evidence,) = (await GraphReader(engine).find("default", "asthma")).claims[0].evidence
    assert len(evidence.text) < 700
    assert "word Asthma word" in evidence.text
    assert evidence.text.startswith("… word") and evidence.text.endswith("word …")


async def test_an_answer_is_no_longer_than_asked(engine: AsyncEngine) -> None:
    for n in range(8):
        await write(engine, study(n, ASTHMA))
    answer = await GraphReader(engine).find("default", "asthma", limit=5)
    assert len(answer.claims) == 5
    assert answer.entities[0].documents == 8
    assert len((await GraphReader(engine).find("default", "trial", limit=3)).entities) == 3


async def test_the_stage_opens_on_an_empty_database_and_makes_its_tables(database_url: str, tmp_path: Path) -> None:
    host = Host(tmp_path, NoBlobs(), database_url)
    async with POSTGRES.open(PostgresOptions(), host) as stage, POSTGRES.open(PostgresOptions(), host) as again:
        first = await stage.execute(context(study(1, ASTHMA)), study(1, ASTHMA))
        second = await again.execute(context(study(1, ASTHMA), job="job-2", revision=2), study(1, ASTHMA))
    assert (first.outcome, second.outcome) == (WriteOutcome.WRITTEN, WriteOutcome.UNCHANGED)


async def test_a_broken_transaction_leaves_the_old_contribution_whole(engine: AsyncEngine) -> None:
    await write(engine, study(1, ASTHMA))
    before = await GraphReader(engine).export("default")
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE graph_claims ADD CONSTRAINT no_more CHECK (doc_id = '') NOT VALID"))
    with pytest.raises(Exception, match="no_more"):
        await write(engine, study(1, DUPILUMAB), job="job-2", revision=2)
    assert await GraphReader(engine).export("default") == before


async def test_a_database_that_is_gone_asks_for_another_try(engine: AsyncEngine, database_url: str) -> None:
    nobody = open_engine(database_url.replace("host=", "host=%2Fnowhere"))
    with pytest.raises(ResourceUnavailableError, match="writing document"):
        await write(nobody, study(1, ASTHMA))
    with pytest.raises(ResourceUnavailableError, match="asking the graph"):
        await GraphReader(nobody).find("default", "asthma")
    await nobody.dispose()


async def test_an_error_of_the_database_does_not_repeat_the_documents_text(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE graph_claims ADD CONSTRAINT no_more CHECK (doc_id = '') NOT VALID"))
    secret = Entity("name:condition:secret", "condition", "the patient's own words")
    with pytest.raises(Exception, match="no_more") as caught:
        await write(engine, study(1, secret))
    assert "own words" not in str(caught.value)
