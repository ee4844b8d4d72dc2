"""The kg stage without a database: what it passes on, and what it refuses."""

from pathlib import Path

import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import Claim, Entity, Extraction, Mention, TextSpan, WriteOutcome
from medkg.contracts.errors import ConfigurationError, ContractError
from medkg.contracts.implementation import Host
from medkg.contracts.stages import StageType
from medkg.kg.app import POSTGRES, PostgresOptions
from medkg.kg.stage import PostgresGraph
from medkg.storage.graph_writer import Generation, GraphWriter

EXTRACTION = Extraction(
    "doc-1",
    "A Trial",
    "files",
    "NCT99000101",
    (Entity("nct:NCT99000101", "study", "A Trial"),),
    (Claim("c1", "nct:NCT99000101", "has_phase", (Mention(TextSpan("b", 0, 7), "Phase 3"),), object_value="Phase 3"),),
)


class FakeWriter(GraphWriter):
    """Remembers what it was asked to write, and answers as told."""

    def __init__(self, outcome: WriteOutcome) -> None:
        self.outcome = outcome
        self.asked: list[tuple[str, Generation, Extraction]] = []

    async def write(self, tenant_id: str, asked: Generation, extraction: Extraction) -> WriteOutcome:
        self.asked.append((tenant_id, asked, extraction))
        return self.outcome


class NoBlobs:
    """A blob store that nothing is ever asked of."""

    async def get(self, key: str) -> bytes | None:
        raise AssertionError(key)

    async def put(self, key: str, data: bytes) -> None:
        raise AssertionError(key)


def context(doc_id: str = "doc-1", content_key: str = "key-1") -> StageContext:
    return StageContext("tenant-1", doc_id, "job-1", content_key=content_key, revision=7)


@pytest.mark.parametrize("outcome", list(WriteOutcome))
async def test_the_receipt_names_the_generation_the_counts_and_the_outcome(outcome: WriteOutcome) -> None:
    writer = FakeWriter(outcome)
    receipt = await PostgresGraph(writer).execute(context(), EXTRACTION)
    assert writer.asked == [("tenant-1", Generation("key-1", 7, "job-1"), EXTRACTION)]
    assert (receipt.graph, receipt.generation) == ("postgres", "key-1")
    assert (receipt.entities, receipt.claims, receipt.outcome) == (1, 1, outcome)


@pytest.mark.parametrize(("doc_id", "key"), [("doc-1", ""), ("doc-2", "key-1")])
async def test_a_context_that_does_not_fit_the_extraction_is_refused_before_the_store(doc_id: str, key: str) -> None:
    writer = FakeWriter(WriteOutcome.WRITTEN)
    with pytest.raises(ContractError, match=f"writing document {doc_id}"):
        await PostgresGraph(writer).execute(context(doc_id, key), EXTRACTION)
    assert writer.asked == []


async def test_without_a_database_the_stage_does_not_open_and_says_which_variable_to_set(tmp_path: Path) -> None:
    host = Host(tmp_path, NoBlobs())
    with pytest.raises(ConfigurationError, match="MEDKG_DATABASE_URL"):
        async with POSTGRES.open(PostgresOptions(), host):
            pass


def test_the_implementation_is_the_default_of_its_kind() -> None:
    assert (POSTGRES.stage_type, POSTGRES.name, POSTGRES.is_default) == (StageType.KG, "postgres", True)
