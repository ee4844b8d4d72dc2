"""Ledgers of before: their rows come in, whatever they lack, as often as somebody tries."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.fixtures_postgres import NewDatabase
from tests.unit.ledger.lifecycle import Job
from tests.unit.ledger.test_ledger_fields_and_letters import rows
from tests.unit.ledger.test_ledger_projection import rows_of

from medkg.contracts.errors import ContractError
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.ledger_import import fill_in, import_rows, rows_of_file, rows_of_table
from medkg.storage.ledger_old_rows import UNFINISHED, pipeline_of, read_row
from medkg.storage.ledger_projection import project
from medkg.storage.ledger_reader import LedgerReader

OLD = [
    {"doc_id": "d1", "source": "unpaywall", "status": "completed", "stage": "kg"},
    {"id": "d2", "source": "files", "metadata": {"pdf_url": "https://x.org/a.pdf"}, "status": "failed", "error": "404"},
    {"document_id": 3, "source": "clinicaltrials", "status": "indexed", "updated_at": "2024-05-01T10:00:00"},
    {"doc_id": "d4", "source": "core", "stage": "pdf_gate", "pdf_downloaded": True, "pdf_ir_ready": 1},
    {
        "doc_id": "d5",
        "source": "pmc-fulltext",
        "tenant": "onco",
        "status": "skipped",
        "retry_count_per_stage": {"a": 2},
    },
    {"doc_id": "d6", "pipeline_name": "my-own", "pipeline_version": "2.1", "status": "done", "of_yore": [1]},
]


def write(path: Path, given: Sequence[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in given))
    return path


async def bring_in(engine: Engine, path: Path, *, until: int | None = None) -> list[str]:
    """Import a file; with ``until``, be killed after so many lines of progress."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == until:
            raise KeyboardInterrupt

    await import_rows(engine, rows_of_file(path), "old", say)
    return said


async def documents(engine: Engine) -> dict[str, Any]:
    return {row.doc_id: row for row in await rows(engine, "documents")}


async def test_old_rows_come_in_with_what_they_lack_inferred(engine: Engine, tmp_path: Path) -> None:
    assert await bring_in(engine, write(tmp_path / "old.jsonl", OLD)) == ["6 rows: 6 imported, 0 failed"]
    found = await documents(engine)
    assert {name: (row.pipeline_name, row.state) for name, row in found.items()} == {
        "d1": ("pdf-two-phase", "completed"),
        "d2": ("pdf-two-phase", "failed"),
        "3": ("auto", "completed"),
        "d4": ("pdf-two-phase", "failed"),
        "d5": ("pdf-two-phase", "skipped"),
        "d6": ("my-own", "completed"),
    }
    assert found["d6"].pipeline_version == "2.1"
    told = await LedgerReader(engine).document(found["d1"].tenant_id, found["d1"].job_id, "d1")
    assert told is not None
    assert told.current_stage == "kg"
    assert (found["d4"].pdf_downloaded, found["d4"].pdf_ir_ready, found["d4"].post_pdf_started) == (True, True, False)
    assert found["d4"].failure_code == UNFINISHED
    assert (found["d5"].tenant_id, found["d5"].retry_count_per_stage) == ("onco", {"a": 2})
    assert (found["d2"].failure_message, found["d2"].uri) == ("404", "https://x.org/a.pdf")
    jobs = await rows(engine, "jobs")
    assert {job.source for job in jobs} == {"import"}
    assert all(job.state.startswith("completed") for job in jobs)  # nothing of it takes a tenant's room
    assert sum(job.documents for job in jobs) == len(OLD)


@pytest.mark.parametrize(
    ("source", "pdf_url", "expected"),
    [
        *((source, "", "pdf-two-phase") for source in ("pmc-fulltext", "unpaywall", "core")),
        ("files", "https://x.org/a", "pdf-two-phase"),
        ("files", "", "auto"),
        ("clinicaltrials", "", "auto"),
        ("", "", "auto"),
    ],
)
def test_the_pipeline_is_inferred_from_the_source_and_the_pdf(source: str, pdf_url: str, expected: str) -> None:
    assert pipeline_of(source, pdf_url) == expected
    assert read_row({"doc_id": "d", "source": source, "pdf_url": pdf_url}).pipeline_name == expected


async def test_importing_twice_is_importing_once(engine: Engine, tmp_path: Path) -> None:
    path = write(tmp_path / "old.jsonl", OLD)
    await bring_in(engine, path)
    first = await rows_of(engine)
    await bring_in(engine, path)
    assert await rows_of(engine) == first


async def test_ten_thousand_rows_come_in_twice_and_after_a_kill_midway(
    engine: Engine, new_database: NewDatabase, tmp_path: Path
) -> None:
    sources = ("unpaywall", "clinicaltrials", "core", "files")
    states = ("completed", "failed", "skipped", "parsing")
    given = [
        {"doc_id": f"d{n}", "source": sources[n % 4], "status": states[n // 4 % 4], "pdf_downloaded": n % 3 == 0}
        for n in range(10_000)
    ]
    path = write(tmp_path / "old.jsonl", given)
    with pytest.raises(KeyboardInterrupt):
        await bring_in(engine, path, until=37)
    assert len(await documents(engine)) == 3_700
    said = await bring_in(engine, path)
    assert len(said) == 100
    assert said[-1] == "10000 rows: 10000 imported, 0 failed"
    after_a_kill = await rows_of(engine)
    async with new_database() as url:
        other = open_engine(url)
        await migrate(other)
        await bring_in(other, path)
        assert await rows_of(other) == after_a_kill
        await other.dispose()
    by_pipeline = {row.pipeline_name: 0 for row in (await documents(engine)).values()}
    for row in (await documents(engine)).values():
        by_pipeline[row.pipeline_name] += 1
    assert by_pipeline == {"pdf-two-phase": 5_000, "auto": 5_000}


BAD = [
    ('{"doc_id": ', "it is not JSON"),
    ("[1]", "expected an object, found list"),
    ({"source": "core"}, "it names no document"),
    ({"doc_id": "a b"}, "is not a name"),
    ({"doc_id": "x", "pdf_downloaded": "maybe"}, "pdf_downloaded is neither true nor false"),
    ({"doc_id": "x", "retry_count_per_stage": {"a": -1}}, "is not a number of retries"),
    ({"doc_id": "x", "updated_at": "yesterday"}, "is not an RFC 3339 time"),
    ({"doc_id": "x", "updated_at": "0001-01-01T00:00:00+14:00"}, "is out of range"),
    ({"doc_id": ["x"]}, "doc_id is list, not text"),
    ('{"doc_id": "x", "uri": "' + "u" * 1_100_000 + '"}', "longer than 1048576 bytes"),
    ("[" * 100_000, "it is not JSON"),
]


async def test_rows_that_cannot_be_read_are_named_at_the_end_and_all_others_are_in(
    engine: Engine, tmp_path: Path
) -> None:
    path = write(tmp_path / "old.jsonl", [OLD[0], *(row for row, _ in BAD), OLD[5]])
    with pytest.raises(ContractError) as raised:
        await bring_in(engine, path)
    message = raised.value.message
    assert f"{len(BAD)} of {len(BAD) + 2} rows failed: line 2: it is not JSON" in message
    for number, (_, reason) in enumerate(BAD[:10], start=2):
        assert f"line {number}: " in message
        assert reason in message
    assert "and 1 more" in message
    assert set(await documents(engine)) == {"d1", "d6"}


async def test_the_table_of_another_database_comes_in_like_a_file(engine: Engine, new_database: NewDatabase) -> None:
    async with new_database() as url:
        other = open_engine(url)
        async with other.begin() as connection:
            await connection.execute(text("CREATE TABLE ledger (doc_id text, source text, status text, odd bytea)"))
            await connection.execute(
                text("INSERT INTO ledger VALUES ('d1', 'core', 'done', '\\x00'), ('d2', '', '', '')")
            )
        await other.dispose()
        await import_rows(engine, rows_of_table(url, "ledger"), "old", lambda _: None)
        for table in ("nowhere", 'x"; DROP TABLE jobs; --'):
            with pytest.raises(ContractError, match=r"no table nowhere|not the name of a table"):
                await import_rows(engine, rows_of_table(url, table), "old", lambda _: None)
    assert {name: row.pipeline_name for name, row in (await documents(engine)).items()} == {
        "d1": "pdf-two-phase",
        "d2": "auto",
    }


async def without_pipelines(engine: Engine, number: int) -> None:
    """Rows of this ledger as a release left them that knew nothing of pipelines."""
    async with engine.begin() as connection:
        await connection.execute(
            text("""
            INSERT INTO jobs (job_id, tenant_id, source, pipeline_name, first_event_at, last_event_at)
            VALUES ('a', 't', 'core', '', now(), now()), ('b', 't', 'files', 'mine', now(), now())""")
        )
        await connection.execute(
            text("""
            INSERT INTO documents (job_id, doc_id, tenant_id, is_known, uri)
            SELECT CASE WHEN n % 2 = 0 THEN 'a' WHEN n % 3 = 0 THEN 'c' ELSE 'b' END, 'd' || n, 't', true,
                   CASE WHEN n % 9 = 0 THEN 'https://x.org/a.PDF?x' ELSE 'file:///x' END
            FROM generate_series(1, :number) AS n"""),
            {"number": number},
        )


async def test_documents_without_a_pipeline_get_the_one_of_their_job_or_of_their_source(engine: Engine) -> None:
    await without_pipelines(engine, 250)
    said: list[str] = []
    await fill_in(engine, said.append)
    assert said == [f"{n} rows: {n} filled in, 0 failed" for n in (100, 200, 250)]
    found = await rows(engine, "documents")
    expected = {"a": {"pdf-two-phase"}, "b": {"mine"}, "c": {"auto", "pdf-two-phase"}}
    assert {job: {row.pipeline_name for row in found if row.job_id == job} for job in expected} == expected
    said.clear()
    await fill_in(engine, said.append)
    assert said == []


async def test_filling_in_goes_on_after_a_kill_and_names_the_rows_that_fail(engine: Engine) -> None:
    await without_pipelines(engine, 250)

    def die(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await fill_in(engine, die)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE documents ADD CONSTRAINT odd CHECK (doc_id <> 'd249') NOT VALID"))
    with pytest.raises(ContractError, match=r"1 of 150 rows failed: document d249 of job c: .*violates check"):
        await fill_in(engine, lambda _: None)
    bare = [row.doc_id for row in await rows(engine, "documents") if not row.pipeline_name]
    assert bare == ["d249"]


async def test_rows_that_events_have_made_are_left_as_they_are(engine: Engine) -> None:
    await project(engine, [Job().page(0, 1), Job().completed(1)])
    before = await rows_of(engine)
    await asyncio.gather(*(fill_in(engine, lambda _: None) for _ in range(2)))
    assert await rows_of(engine) == before
