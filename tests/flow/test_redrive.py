"""A dead letter goes back, and its document and job end as if nothing had happened; a restart loses nothing."""

from pathlib import Path
from typing import Any

from tests.flow.test_pipelines import topology_folder

from medkg.contracts.cloudevents import Message
from medkg.contracts.messages import Position
from medkg.contracts.stages import StageType
from medkg.gateway.letter_desk import KafkaLetterDesk
from medkg.ledger.reconcile import Reconciler
from medkg.runtime.broker import TopicReader
from medkg.storage.ledger_answers import LetterQuery
from medkg.storage.ledger_reader import LedgerReader

GATED = """\
  - name: wait
    type: Gate
    depends_on: [parse]
    condition: {ledger_field: pdf_ir_ready, equals: true}
    resume_stage: chunk
    timeout: 0.2s
    on_timeout: fail
  - {name: chunk, type: ChunkStage, depends_on: [wait]}
"""


def record(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "a.txt").write_text("Sciatica without surgery.\n\nRest and time were enough.")
    return {"paths": [str(folder)]}


async def redrive(fleet: Any, letter: Any) -> str | None:
    async with TopicReader(fleet.host.kafka) as reader:
        desk = KafkaLetterDesk(reader, fleet.host.publisher, fleet.engine)
        topic: str | None = await desk.redrive(letter, "ann", "fixed")
        return topic


async def test_a_redriven_document_completes_and_its_job_ends_once_more(start_fleet: Any, tmp_path: Path) -> None:
    selection = record(tmp_path / "in")
    async with start_fleet(topologies=topology_folder(tmp_path, "gated", GATED)) as fleet:
        job_id = await fleet.submit(selection, pipeline="gated")
        assert (await fleet.ended(job_id)).state == "completed_with_failures"
        ledger = LedgerReader(fleet.engine)
        await fleet.until("SELECT * FROM dead_letters", lambda rows: len(rows) == 1, "the dead letter")
        letter = (await ledger.dead_letters())[0]
        assert (letter.stage, letter.code, letter.worker_version != "") == ("wait", "gate_condition_unmet", True)
        async with fleet.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE documents SET pdf_ir_ready = true")
        assert await redrive(fleet, letter) == "medkg.gate.v1"
        ended = await fleet.until(
            "SELECT * FROM jobs WHERE state = 'completed'", lambda rows: len(rows) == 1, "the job to complete"
        )
        assert (ended.documents, ended.completed, ended.failed, ended.redrives) == (1, 1, 0, 1)
        assert (await ledger.dead_letters(asked=LetterQuery(state="redriven")))[0].id == letter.id
        runs = await fleet.rows("SELECT stage, redrive, state FROM stage_runs WHERE doc_id <> '' ORDER BY 2, 1")
        assert ("wait", 0, "failed") in runs
        assert ("chunk", 1, "completed") in runs


async def test_a_poison_message_goes_back_byte_for_byte(start_fleet: Any) -> None:
    async with start_fleet() as fleet:
        value, headers = b"\x00poison", [("ce_id", b"x"), ("odd", b"\xff")]
        await fleet.host.publisher.publish([Message(StageType.CHUNK.topic, b"\xfe", value, headers)])
        await fleet.until("SELECT * FROM dead_letters", lambda rows: len(rows) == 1, "the dead letter")
        letter = (await LedgerReader(fleet.engine).dead_letters())[0]
        assert await redrive(fleet, letter) == StageType.CHUNK.topic
        await fleet.until("SELECT * FROM dead_letters", lambda rows: len(rows) == 2, "the second dead letter")
        later = next(one for one in await LedgerReader(fleet.engine).dead_letters() if one.state == "dead")
        async with TopicReader(fleet.host.kafka) as reader:
            again = await reader.one(Position(later.position.topic, later.position.partition, later.position.offset))
        assert again is not None
        assert (again.key, again.value, again.headers) == (b"\xfe", value, headers)


async def test_nothing_is_found_lost_after_an_undisturbed_run(start_fleet: Any, tmp_path: Path) -> None:
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit(record(tmp_path / "in")))
        assert job.state == "completed"
        found = await Reconciler(fleet.engine, fleet.host.kafka, fleet.host.publisher).run(
            older_than_seconds=0, apply=True
        )
        assert (found.findings, found.unended_runs) == ((), {})
        assert found.undecided == {}
