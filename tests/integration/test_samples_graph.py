"""The samples, read, extracted and written: the graph leads from an article to a trial and back."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.contracts.context import StageContext
from medkg.contracts.document import Extraction, RawPayload
from medkg.contracts.ids import content_digest, document_id
from medkg.contracts.media import CTG_STUDY, JATS
from medkg.contracts.stages import encode_artefact
from medkg.extract.dictionary import packaged_dictionary
from medkg.extract.stage import RegistryExtractor
from medkg.kg.stage import PostgresGraph
from medkg.parse.ctg import parse_study
from medkg.parse.jats import parse_article
from medkg.storage.engine import migrate, open_engine
from medkg.storage.graph_reader import GraphReader
from medkg.storage.graph_writer import GraphWriter

pytestmark = pytest.mark.postgres

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def payloads() -> Iterator[RawPayload]:
    for path in sorted(SAMPLES.glob("trials/*.json")):
        value = json.loads(path.read_text())
        for study in value if isinstance(value, list) else [value]:
            number = study["protocolSection"]["identificationModule"]["nctId"]
            yield RawPayload("files", number, CTG_STUDY, text=json.dumps(study))
    for path in sorted(SAMPLES.glob("articles/*.xml")):
        yield RawPayload("files", path.stem, JATS, text=path.read_text())


@pytest.fixture(scope="module")
def extractions() -> list[Extraction]:
    stage = RegistryExtractor(packaged_dictionary())
    found = []
    for payload in payloads():
        ctx = StageContext("default", document_id("default", payload.source, payload.source_id), "job")
        parse = parse_study if payload.media_type == CTG_STUDY else parse_article
        found.append(stage.execute(ctx, parse(ctx, payload)))
    return found


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(database_url)
    await migrate(engine)
    yield engine
    await engine.dispose()


async def write(engine: AsyncEngine, extractions: list[Extraction], tenant: str = "default") -> None:
    stage = PostgresGraph(GraphWriter(engine))
    for place, extraction in enumerate(extractions):
        key = content_digest(encode_artefact(extraction))
        ctx = StageContext(tenant, extraction.doc_id, f"job-{place}", content_key=key, revision=place)
        await stage.execute(ctx, extraction)


def test_every_condition_of_a_sample_trial_is_linked_to_mesh_or_has_a_name_of_its_own(
    extractions: list[Extraction],
) -> None:
    conditions = {
        claim.object_entity for e in extractions for claim in e.claims if claim.predicate == "investigates_condition"
    }
    assert len(extractions) == 20
    assert {"mesh:D003924", "mesh:D008881", "mesh:D007405", "mesh:D000086382", "mesh:D016403"} <= conditions
    assert sorted(c for c in conditions if not c.startswith("mesh:")) == [
        "name:condition:asthma in children",
        "name:condition:chronic migraine",
        "name:condition:eosinophilic asthma",
        "name:condition:episodic migraine",
    ]


async def test_the_graph_leads_from_a_condition_to_trials_and_articles(
    engine: AsyncEngine, extractions: list[Extraction]
) -> None:
    await write(engine, extractions)
    answer = await GraphReader(engine).find("default", "type 2 diabetes", limit=200)
    assert answer.entities[0].entity_id == "mesh:D003924"
    said = {(claim.subject.entity_id, claim.predicate) for claim in answer.claims}
    assert ("nct:NCT99000101", "investigates_condition") in said
    assert ("nct:NCT99000111", "investigates_condition") in said
    assert ("doi:10.55555/medkg.2024.001", "mentions") in said
    assert all(claim.evidence and claim.evidence[0].mention in claim.evidence[0].text for claim in answer.claims)


async def test_an_article_leads_to_the_trial_it_reports(engine: AsyncEngine, extractions: list[Extraction]) -> None:
    await write(engine, extractions)
    answer = await GraphReader(engine).find("default", "LANTERN")
    assert [entity.entity_id for entity in answer.entities] == ["nct:NCT99000101"]
    assert answer.entities[0].name == "Empagliflozin to Slow Kidney Decline in Adults With Type 2 Diabetes"
    citing = [claim.subject for claim in answer.claims if claim.predicate == "mentions_study"]
    assert [subject.entity_id for subject in citing] == ["doi:10.55555/medkg.2024.001"]


async def test_two_stores_of_the_same_samples_are_equal(engine: AsyncEngine, extractions: list[Extraction]) -> None:
    await write(engine, extractions, "forwards")
    await write(engine, Random(3).sample(extractions, len(extractions)), "shuffled")
    reader = GraphReader(engine)
    rows = await reader.export("forwards")
    assert len(rows) > 1_000
    assert rows == await reader.export("shuffled")
