"""The promise of the ledger: the same set of events gives the same rows, in whatever order and batches they come."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text
from tests.unit.ledger.histories import Event, History, history, shuffled_batches

from medkg.storage.engine import Engine
from medkg.storage.ledger_projection import project

TABLES = ("jobs", "job_stages", "pages", "documents", "stage_runs", "rejections", "topologies", "dead_letters")
SEEDS = range(4)
Rows = dict[str, list[dict[str, Any]]]


async def rows_of(engine: Engine) -> Rows:
    """All that the ledger says, but for the columns that tell how it came to be."""
    found: Rows = {}
    async with engine.connect() as connection:
        for table in TABLES:
            rows = (await connection.execute(text(f"SELECT * FROM {table}"))).mappings()
            bare = [{name: row[name] for name in row if not name.endswith("_before")} for row in rows]
            found[table] = sorted(bare, key=repr)
    return found


async def forget(engine: Engine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {', '.join(TABLES)}"))


async def project_all(engine: Engine, batches: Sequence[Sequence[Event]]) -> None:
    for batch in batches:
        result = await project(engine, batch)
        assert not result.refused


def assert_same(found: Rows, expected: Rows) -> None:
    for table in TABLES:
        assert found[table] == expected[table], table


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_rows_do_not_depend_on_order_batches_or_repetition(engine: Engine, seed: int) -> None:
    told = history(seed)
    await project_all(engine, [told.events])
    expected = await rows_of(engine)
    rng = random.Random(seed)
    for _ in range(4):
        await forget(engine)
        await project_all(engine, shuffled_batches(told.events, rng))
        assert_same(await rows_of(engine), expected)
    await forget(engine)
    await project_all(engine, [[event] for event in reversed(told.events)])
    assert_same(await rows_of(engine), expected)


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_projectors_at_once_make_the_same_rows_as_one(engine: Engine, seed: int) -> None:
    told = history(seed)
    await project_all(engine, [told.events])
    expected = await rows_of(engine)
    rng = random.Random(seed)
    for _ in range(3):
        await forget(engine)
        # after a rebalance both have some of the same events
        split = [[event for event in told.events if rng.random() < 0.6] for _ in range(2)]
        rest = [event for event in told.events if not any(event in half for half in split)]
        halves = [split[0] + rest, split[1]]
        await asyncio.gather(*(project_all(engine, shuffled_batches(half, rng)) for half in halves))
        assert_same(await rows_of(engine), expected)


@pytest.mark.parametrize("seed", range(8))
async def test_states_and_counts_are_those_that_the_jobs_came_to(engine: Engine, seed: int) -> None:
    told = history(seed)
    await project_all(engine, shuffled_batches(told.events, random.Random(seed)))
    rows = await rows_of(engine)
    assert_true(rows, told)


def assert_true(rows: Rows, told: History) -> None:
    jobs = {row["job_id"]: row for row in rows["jobs"]}
    for job in told.jobs:
        row = jobs.pop(job.job_id)
        documents = {doc["doc_id"]: doc["state"] for doc in rows["documents"] if doc["job_id"] == job.job_id}
        pages = {page["number"]: page["state"] for page in rows["pages"] if page["job_id"] == job.job_id}
        assert documents == job.documents
        assert pages == job.pages
        assert {name: row[name] for name in job.counts} == job.counts
        assert row["state"] == job.state
        assert row["redrives"] == job.redrives
        assert row["tenant_id"] == job.tenant_id
        if row["state"].startswith("completed"):
            ended = row["completed"] + row["skipped"] + row["failed"] + row["rejected"]
            assert row["documents"] == ended
    assert not jobs


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_counters_of_every_stage_are_those_of_its_runs(engine: Engine, seed: int) -> None:
    told = history(seed)
    await project_all(engine, shuffled_batches(told.events, random.Random(seed)))
    rows = await rows_of(engine)
    counted: dict[tuple[str, str], dict[str, int]] = {}
    names = ("started", "retrying", "completed", "reused", "failed", "duration_us")
    for run in rows["stage_runs"]:
        counts = counted.setdefault((run["job_id"], run["stage"]), dict.fromkeys(names, 0))
        counts["started"] += 1
        if run["state"] != "started":
            counts[run["state"]] += 1
        if run["state"] == "completed":
            counts["duration_us"] += run["duration_us"]
    found = {(row["job_id"], row["stage"]): {name: row[name] for name in names} for row in rows["job_stages"]}
    assert found == counted
