"""Whole pipelines, from a job event on Kafka to the index and the graph."""

from pathlib import Path
from typing import Any

import pytest

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.stages import StageType
from medkg.storage.ledger_fields import set_field

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SELECTION = {"paths": [str(SAMPLES / "trials"), str(SAMPLES / "articles")]}


def counts(job: Any) -> dict[str, int]:
    names = ("documents", "completed", "skipped", "failed", "rejected")
    return {name: getattr(job, name) for name in names}


async def test_samples_end_as_passages_that_can_be_searched_and_facts_that_can_be_walked(start_fleet: Any) -> None:
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit(SELECTION))
        assert job.state == "completed"
        assert job.documents >= 20
        assert counts(job) == {
            "documents": job.documents,
            "completed": job.documents,
            "skipped": 0,
            "failed": 0,
            "rejected": 0,
        }
        facts = await fleet.graph()
        assert facts
        async with fleet.search() as search:
            answer = await search.search("default", "heart failure hospitalisation with an SGLT2 inhibitor", 5)
            assert answer.hits
            assert answer.hits[0].text


async def test_unchanged_content_is_skipped_the_second_time_and_the_stores_stay_as_they_were(start_fleet: Any) -> None:
    async with start_fleet() as fleet:
        first = await fleet.ended(await fleet.submit(SELECTION))
        before = await fleet.graph()
        second = await fleet.ended(await fleet.submit(SELECTION))

        assert second.state == "completed"
        assert counts(second) == counts(first) | {"completed": 0, "skipped": first.documents}
        assert await fleet.graph() == before


async def test_a_record_that_cannot_be_read_is_recorded_and_holds_nobody_up(start_fleet: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.txt").write_text("Metformin in pregnancy\n\n" + "Metformin lowers glucose in women. " * 10)
    (folder / "bad.json").write_text('{"protocolSection": ')
    (folder / "empty.txt").write_text("")
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit({"paths": [str(folder)]}))
        assert job.state == "completed_with_failures"
        assert (job.documents, job.completed, job.rejected) == (3, 1, 2)
        refused = await fleet.rows("SELECT failure_code, failure_message FROM documents WHERE state = 'rejected'")
        assert all(row.failure_code and row.failure_message for row in refused)


async def test_a_bad_job_event_is_rejected_with_every_fault_and_stops_nothing(start_fleet: Any, tmp_path: Path) -> None:
    async with start_fleet() as fleet:
        wrong = await fleet.submit({"paths": []}, tenant="No Such Tenant!", pipeline="no-such")
        headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"t"), ("ce_type", b"other")]
        await fleet.host.publisher.publish(
            [Message(topics.JOBS, "k", b"not json", headers), Message(topics.JOBS, "k", b"\xff\x00", [])]
        )
        good = await fleet.ended(await fleet.submit(SELECTION))
        assert good.state == "completed"

        rejections = {row.job_id: row.faults for row in await fleet.rows("SELECT job_id, faults FROM rejections")}
        assert len(rejections) == 3
        for pointer in ("/tenant_id", "/selection/paths"):
            assert pointer in rejections[wrong]


async def test_an_undecodable_message_on_a_stage_topic_is_kept_as_a_dead_letter(start_fleet: Any) -> None:
    async with start_fleet() as fleet:
        poison = Message(StageType.CHUNK.topic, "k", b"\x00poison", [("ce_id", b"x")])
        await fleet.host.publisher.publish([poison])
        job = await fleet.ended(await fleet.submit(SELECTION))
        assert job.state == "completed"
        letter = await fleet.until(
            "SELECT code, topic FROM dead_letters", lambda rows: len(rows) == 1, "the dead letter"
        )
        assert letter.code == "contract_violated"
        assert letter.topic.endswith(StageType.CHUNK.topic)


TOPOLOGY = """
version: "1.0"
name: {name}
stages:
  - {{name: ingest, type: IngestStage}}
  - {{name: parse, type: ParseStage, depends_on: [ingest]}}
{rest}
"""


def topology_folder(tmp_path: Path, name: str, rest: str) -> Path:
    folder = tmp_path / "topologies"
    folder.mkdir()
    shipped = SAMPLES.parent / "topologies"
    for file in ("resilience.yaml", "auto.yaml"):
        (folder / file).write_text((shipped / file).read_text())
    (folder / f"{name}.yaml").write_text(TOPOLOGY.format(name=name, rest=rest))
    return folder


async def test_a_document_waits_at_a_gate_until_the_ledger_says_so(start_fleet: Any, tmp_path: Path) -> None:
    folder = topology_folder(
        tmp_path,
        "gated",
        """
  - {name: wait_for_pdf, type: Gate, condition: {ledger_field: pdf_ir_ready}, resume_stage: chunk, timeout: 60}
  - {name: chunk, type: ChunkStage, depends_on: [wait_for_pdf]}
""",
    )
    async with start_fleet(topologies=folder) as fleet:
        selection = {"paths": [str(next((SAMPLES / "articles").glob("*.xml")))]}
        job_id = await fleet.submit(selection, pipeline="gated")
        parked = await fleet.until("SELECT * FROM waits WHERE kind = 'gate'", lambda rows: len(rows) == 1, "parked")
        assert parked.state == "waiting"
        await set_field(fleet.engine, "default", job_id, parked.doc_id, "pdf_ir_ready", True)
        job = await fleet.ended(job_id)
        assert job.completed == 1


async def test_a_gate_that_runs_out_of_patience_fails_its_document(start_fleet: Any, tmp_path: Path) -> None:
    folder = topology_folder(
        tmp_path,
        "impatient",
        """
  - {name: wait_for_pdf, type: Gate, condition: {ledger_field: pdf_ir_ready}, resume_stage: chunk, timeout: 1}
  - {name: chunk, type: ChunkStage, depends_on: [wait_for_pdf]}
""",
    )
    async with start_fleet(topologies=folder) as fleet:
        selection = {"paths": [str(next((SAMPLES / "articles").glob("*.xml")))]}
        job = await fleet.ended(await fleet.submit(selection, pipeline="impatient"))
        assert (job.state, job.failed) == ("completed_with_failures", 1)
        row = (await fleet.rows("SELECT failure_code, failure_stage FROM documents"))[0]
        assert tuple(row) == ("gate_condition_unmet", "wait_for_pdf")


async def test_branches_meet_at_a_join_once(start_fleet: Any, tmp_path: Path) -> None:
    folder = topology_folder(
        tmp_path,
        "branched",
        """
  - {name: chunk, type: ChunkStage, depends_on: [parse]}
  - {name: embed, type: EmbedStage, depends_on: [chunk]}
  - {name: index, type: IndexStage, depends_on: [embed]}
  - {name: extract, type: ExtractStage, depends_on: [parse]}
  - {name: kg, type: KGStage, depends_on: [index, extract]}
""",
    )
    async with start_fleet(topologies=folder) as fleet:
        job = await fleet.ended(await fleet.submit(SELECTION, pipeline="branched"))
        assert (job.state, job.completed) == ("completed", job.documents)
        runs = await fleet.rows("SELECT doc_id, count(*) FROM stage_runs WHERE stage = 'kg' GROUP BY 1")
        assert len(runs) == job.documents
        assert await fleet.graph()


async def test_pages_of_a_source_wait_while_a_tenant_has_no_room(
    start_fleet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDKG_ROUTER_TENANT_DOCUMENTS", "10")
    monkeypatch.setenv("MEDKG_ROUTER_PAGE_DOCUMENTS", "5")
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03}.txt").write_text(f"Note {number}\n\nPatient {number} was given aspirin every morning.")
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit({"paths": [str(folder)]}))
        assert (job.documents, job.completed) == (60, 60)
        pages = await fleet.rows("SELECT number FROM pages ORDER BY number")
        assert len(pages) == 12


async def test_an_implementation_that_is_not_installed_fails_its_documents_with_the_reason(
    start_fleet: Any, tmp_path: Path
) -> None:
    folder = topology_folder(
        tmp_path, "wishful", "  - {name: chunk, type: ChunkStage, uses: no-such, depends_on: [parse]}"
    )
    async with start_fleet(topologies=folder) as fleet:
        selection = {"paths": [str(next((SAMPLES / "articles").glob("*.xml")))]}
        job = await fleet.ended(await fleet.submit(selection, pipeline="wishful"))
        assert (job.state, job.failed) == ("completed_with_failures", 1)
        letter = await fleet.until("SELECT code, message FROM dead_letters", lambda rows: len(rows) == 1, "dead letter")
        assert letter.code == "pipeline_config_invalid"
        assert "'no-such' is not installed" in letter.message
