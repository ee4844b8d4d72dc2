"""A database of any release becomes the one of today, at any start, by any number of processes at once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.fixtures_postgres import NewDatabase

from medkg.contracts.ids import letter_id
from medkg.storage import migrations
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.ledger_reader import LedgerReader

FIRST_RELEASE = Path(__file__).with_name("first_release.sql")

# A job of the first release: a document that is done, one that failed at parse, and a page that could not be read.
_ROWS = """
INSERT INTO jobs (job_id, tenant_id, max_page, pages_done, pages_failed, documents, completed, failed,
                  first_event_at, last_event_at) VALUES ('j', 'default', 1, 1, 1, 2, 1, 1, now(), now());
INSERT INTO documents (job_id, doc_id, tenant_id, is_known, did_work, leaves, finished_leaves)
  VALUES ('j', 'done', 'default', true, true, 1, '{kg}');
INSERT INTO documents (job_id, doc_id, tenant_id, is_known, leaves, failure_at, failure_stage, failure_code,
                       failure_disposition) VALUES ('j', 'dead', 'default', true, 1, now(), 'parse', 'c', 'rejected');
INSERT INTO pages (job_id, number, is_done) VALUES ('j', 0, true);
INSERT INTO pages (job_id, number, failure_at, failure_code) VALUES ('j', 1, now(), 'source_gone');
INSERT INTO stage_runs (job_id, doc_id, page, stage, attempt, outcome) VALUES ('j', '', 1, 'fetch', 1, 0);
INSERT INTO dead_letters (dead_letter_id, job_id, tenant_id, stage, topic, partition, "offset", dead_at)
  VALUES ('t/0/1', 'j', 'default', 'parse', 't', 0, 1, now())
"""


async def run(engine: Engine, script: str) -> None:
    async with engine.begin() as connection:
        for statement in script.split(";\n"):
            if statement.strip():
                await connection.exec_driver_sql(statement)


async def rows(engine: Engine, statement: str) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(text(statement))).all())


async def shape_of(engine: Engine) -> dict[str, list[Any]]:
    """Columns, generated expressions, keys and indexes, whatever the order in which they were made."""
    return {
        "columns": await rows(
            engine,
            "SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default, generation_expression, "
            "collation_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
        ),
        "indexes": await rows(
            engine, "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2"
        ),
    }


async def test_a_database_of_the_first_release_becomes_the_one_that_is_made_today(
    bare: Engine, new_database: NewDatabase
) -> None:
    await run(bare, FIRST_RELEASE.read_text())
    done = await migrate(bare)
    assert done[0].startswith("migration 1: ")
    async with new_database() as url:
        fresh = open_engine(url)
        assert await migrate(fresh) == ("made all tables",)
        expected = await shape_of(fresh)
        await fresh.dispose()
    found = await shape_of(bare)
    for what, rows_of_today in expected.items():
        assert found[what] == rows_of_today, what


async def test_what_the_first_release_wrote_says_the_same_afterwards(bare: Engine) -> None:
    await run(bare, FIRST_RELEASE.read_text())
    await run(bare, _ROWS)
    before = await rows(bare, "SELECT doc_id, state FROM documents ORDER BY 1")
    await migrate(bare)
    assert await rows(bare, "SELECT doc_id, state FROM documents ORDER BY 1") == before
    assert before == [("dead", "rejected"), ("done", "completed")]
    assert await rows(bare, "SELECT number, state, failures FROM pages ORDER BY 1") == [
        (0, "done", []),
        (1, "failed", ["fetch#0"]),
    ]
    assert await rows(bare, "SELECT state FROM jobs") == [("completed_with_failures",)]
    letters = await LedgerReader(bare).dead_letters()
    assert [(letter.id, letter.state, letter.letter) for letter in letters] == [
        (letter_id("t", 0, 1, "j"), "dead", None)
    ]


_MOVED = """
INSERT INTO jobs (job_id, tenant_id, max_page, documents, first_event_at, last_event_at)
  VALUES ('j', 'default', 0, 2, now(), now());
INSERT INTO pages (job_id, number, is_done, done_at) VALUES ('j', 0, true, '2026-01-01T00:00:00Z');
INSERT INTO documents (job_id, doc_id, tenant_id, is_known, page_number, first_event_at, last_event_at, stage_rank,
                       current_stage)
  VALUES ('j', 'of a page', 'default', true, 0, '2026-01-01T00:00:00Z', '2026-01-01T00:00:09Z', 3, 'parse');
INSERT INTO documents (job_id, doc_id, tenant_id, is_known, first_event_at, last_event_at, stage_rank, current_stage)
  VALUES ('j', 'of none', 'default', true, '2026-01-01T00:00:02Z', '2026-01-01T00:00:02Z', 9, 'kg');
INSERT INTO stage_runs (job_id, doc_id, page, stage, attempt, stage_type, started_at, outcome, finished_at) VALUES
  ('j', '', 0, 'fetch', 1, 'IngestStage', '2025-12-31T00:00:00Z', 1, '2026-01-01T00:00:00Z'),
  ('j', 'of a page', 0, 'parse', 1, 'ParseStage', '2026-01-01T00:00:08Z', 1, '2026-01-01T00:00:09Z'),
  ('j', 'of none', 0, 'kg', 1, 'KGStage', '2026-01-01T00:00:02Z', NULL, NULL)
"""


async def test_documents_of_before_are_where_they_were_though_their_rows_no_longer_say_so(bare: Engine) -> None:
    await run(bare, FIRST_RELEASE.read_text())
    await run(bare, _MOVED)
    await migrate(bare)
    told = [await LedgerReader(bare).document("default", "j", doc_id) for doc_id in ("of a page", "of none")]
    assert [document and document.current_stage for document in told] == ["parse", "kg"]
    kept = await rows(
        bare, "SELECT current_stage, stage_rank, last_event_at = first_event_at FROM documents ORDER BY 1"
    )
    assert kept == [("", 0, None), ("fetch", 1, True)]


async def test_a_migration_that_was_broken_off_is_done_again_from_the_beginning(
    bare: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(bare, FIRST_RELEASE.read_text())
    await run(bare, _ROWS)

    def die(*_: Any) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(migrations, "_add_missing", die)
        with pytest.raises(KeyboardInterrupt):
            await migrate(bare)
    assert await rows(bare, "SELECT doc_id, state FROM documents ORDER BY 1") == [
        ("dead", "rejected"),
        ("done", "completed"),
    ]
    assert (await migrate(bare))[0].startswith("migration 1")


async def test_every_statement_of_a_migration_can_be_run_again(bare: Engine) -> None:
    await run(bare, FIRST_RELEASE.read_text())
    await run(bare, _ROWS)
    await migrate(bare)
    expected = await shape_of(bare)
    await run(bare, "DELETE FROM schema_version")  # as if the mark had been lost
    assert await migrate(bare)
    assert await shape_of(bare) == expected
    assert await rows(bare, "SELECT state FROM documents ORDER BY doc_id") == [("rejected",), ("completed",)]


async def test_several_services_that_start_at_once_migrate_once(bare: Engine) -> None:
    await run(bare, FIRST_RELEASE.read_text())
    done = await asyncio.gather(*(migrate(bare) for _ in range(4)))
    assert len([words for words in done if words]) == 1
    assert await migrate(bare) == ()


async def test_a_database_of_a_newer_release_is_left_alone(bare: Engine) -> None:
    await migrate(bare)
    await run(bare, "UPDATE schema_version SET number = number + 1, digest = 'of tomorrow'")
    await run(bare, "ALTER TABLE jobs DROP COLUMN redrives")
    assert await migrate(bare) == ()


async def test_a_column_that_is_merely_new_is_added_with_what_it_says_by_default(bare: Engine) -> None:
    await migrate(bare)
    await run(bare, "ALTER TABLE jobs DROP COLUMN redrives;\nDROP INDEX jobs_by_tenant")
    await run(bare, "UPDATE schema_version SET digest = 'of yesterday'")
    assert await migrate(bare) == ("added jobs.redrives", "added the index jobs_by_tenant")
