"""Branches that meet, branches that fail, and retries that wait, in a whole fleet."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, message
from medkg.contracts.messages import EventType, PipelineRef, StageRequest, encode
from medkg.storage.operators import Action, decide

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
SELECTION = {"paths": [str(SAMPLES / "trials"), str(SAMPLES / "articles")]}
ONE = {"paths": [str(next((SAMPLES / "articles").glob("*.xml")))]}

BRANCHES = """
version: "1.0"
name: branched
stages:
  - {{name: ingest, type: IngestStage}}
  - {{name: parse, type: ParseStage, depends_on: [ingest]}}
  - {{name: chunk, type: ChunkStage, depends_on: [parse]{fault}}}
  - {{name: embed, type: EmbedStage, depends_on: [chunk]}}
  - {{name: extract, type: ExtractStage, depends_on: [parse]}}
  - {{name: kg, type: KGStage, depends_on: [embed, extract]{tolerates}}}
"""


def folder_with(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "topologies"
    folder.mkdir()
    for name in ("resilience.yaml", "auto.yaml"):
        (folder / name).write_text((ROOT / "topologies" / name).read_text())
    (folder / "branched.yaml").write_text(text)
    return folder


async def test_the_shipped_topology_with_two_branches_runs_each_stage_once_and_fills_both_stores(
    start_fleet: Any,
) -> None:
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit(SELECTION, pipeline="side-by-side"))
        assert (job.state, job.completed) == ("completed", job.documents)
        assert job.documents >= 20
        runs = await fleet.rows("SELECT stage, count(*) AS runs FROM stage_runs WHERE doc_id <> '' GROUP BY stage")
        assert {row.stage: row.runs for row in runs} == dict.fromkeys(
            ("parse", "ir_validation", "chunk", "embed", "index", "extract", "kg"), job.documents
        )
        assert await fleet.graph()
        async with fleet.search() as search:
            assert (await search.search("default", "sciatica without surgery", 3)).hits


async def test_both_branches_give_the_same_graph_as_one_line_of_stages(start_fleet: Any, tmp_path: Path) -> None:
    async with start_fleet() as fleet:
        await fleet.ended(await fleet.submit(ONE, pipeline="auto", tenant="line"))
        await fleet.ended(await fleet.submit(ONE, pipeline="side-by-side", tenant="branches"))
        in_line, in_branches = await fleet.graph("line"), await fleet.graph("branches")
        assert len(in_line) == len(in_branches) > 0


FAULT = ", uses: no-such"


async def test_a_branch_that_fails_ends_the_wait_at_the_join_with_its_reason(start_fleet: Any, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, BRANCHES.format(fault=FAULT, tolerates=""))
    async with start_fleet(topologies=folder) as fleet:
        job = await fleet.ended(await fleet.submit(ONE, pipeline="branched"))
        assert (job.state, job.failed) == ("completed_with_failures", 1)
        ended = await fleet.until(
            "SELECT * FROM waits WHERE kind = 'join'",
            lambda rows: len(rows) == 1 and rows[0].state == "released",
            "the join to end",
        )
        assert ended.reason == "branch failed: chunk: pipeline_config_invalid"
        assert not await fleet.rows("SELECT 1 FROM stage_runs WHERE stage = 'kg'")


async def test_a_failure_that_the_join_tolerates_lets_the_document_go_on_without_that_branch(
    start_fleet: Any, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path, BRANCHES.format(fault=FAULT, tolerates=", tolerates: [embed]"))
    async with start_fleet(topologies=folder) as fleet:
        job = await fleet.ended(await fleet.submit(ONE, pipeline="branched"))
        assert (job.state, job.failed, job.completed) == ("completed", 0, 1)
        assert await fleet.graph()
        await fleet.until("SELECT 1 FROM dead_letters", lambda rows: len(rows) == 1, "the failure, kept all the same")


async def test_a_join_that_an_operator_releases_goes_on_without_what_is_missing(
    start_fleet: Any, tmp_path: Path
) -> None:
    gated = """
version: "1.0"
name: branched
stages:
  - {name: ingest, type: IngestStage}
  - {name: parse, type: ParseStage, depends_on: [ingest]}
  - {name: hold, type: Gate, condition: {ledger_field: pdf_downloaded}, resume_stage: chunk, depends_on: [parse]}
  - {name: chunk, type: ChunkStage, depends_on: [hold]}
  - {name: extract, type: ExtractStage, depends_on: [parse]}
  - {name: kg, type: KGStage, depends_on: [chunk, extract]}
"""
    async with start_fleet(topologies=folder_with(tmp_path, gated)) as fleet:
        job_id = await fleet.submit(ONE, pipeline="branched")
        held = "SELECT wait_id, kind FROM waits WHERE state = 'waiting' ORDER BY kind"
        await fleet.until(held, lambda rows: [row.kind for row in rows] == ["gate", "join"], "both to wait")
        await decide(fleet.engine, "default", Action.RELEASE, who="ann", why="enough", job_id=job_id, stage="kg")
        await fleet.until("SELECT 1 FROM stage_runs WHERE stage = 'kg'", bool, "kg to run")


async def test_a_retry_that_waits_comes_back_to_its_stage_on_time(start_fleet: Any, tmp_path: Path) -> None:
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit(ONE))
        (doc,) = await fleet.rows("SELECT doc_id, pipeline_digest AS digest FROM documents JOIN jobs USING (job_id)")
        due = int((time.time() + 0.4) * 1_000)
        request = StageRequest(
            job_id=job.job_id,
            tenant_id="default",
            doc_id=doc.doc_id,
            stage="parse",
            pipeline=PipelineRef("auto", "1.0", doc.digest),
            revision=job.revision,
            attempt=2,
            not_before_ms=due,
        )
        envelope = Envelope(id="r", type=EventType.STAGE_REQUESTED, source="test", partitionkey=doc.doc_id)
        await fleet.host.publisher.publish([message(topics.GATE, envelope, encode(request))])
        run = await fleet.until("SELECT * FROM stage_runs WHERE stage = 'parse' AND attempt = 2", bool, "the retry")
        begun = run.started_at or run.finished_at - timedelta(microseconds=run.duration_us)  # quick ones tell no start
        assert begun.timestamp() * 1_000 >= due - 5
