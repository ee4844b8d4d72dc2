"""What a document's row says already is not written again; rows and answers are the same for it."""

import random
from typing import Any

import pytest
from sqlalchemy import text
from tests.unit.ledger.histories import Event, history, shuffled_batches
from tests.unit.ledger.lifecycle import Job, doc_id, job_id
from tests.unit.ledger.test_ledger_projection import assert_same, forget, rows_of

from medkg.contracts.errors import ResourceUnavailableError
from medkg.storage.engine import Engine, open_engine
from medkg.storage.ledger_facts import Facts, facts_of
from medkg.storage.ledger_memory import DocumentMemory
from medkg.storage.ledger_projection import project

KEY = (job_id(), doc_id(1))


def said(*events: Event) -> Facts:
    return facts_of(events)


def remembering(*events: Event, limit: int = 100) -> DocumentMemory:
    memory, facts = DocumentMemory(limit), said(*events)
    memory.committed(facts.origins, facts.documents)
    return memory


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("limit", [0, 1_000])
async def test_rows_are_the_same_with_a_memory_of_any_size(engine: Engine, seed: int, limit: int) -> None:
    told, rng = history(seed), random.Random(seed)
    await project(engine, told.events)
    expected = await rows_of(engine)
    await forget(engine)
    memory = DocumentMemory(limit)
    for batch in shuffled_batches(told.events, rng):
        await project(engine, batch, memory)
    assert_same(await rows_of(engine), expected)


def test_a_document_of_a_page_is_known_and_its_next_start_is_no_news() -> None:
    job = Job()
    memory = remembering(job.page(0, 1, is_last=True))
    assert memory.news(said(job.started(1)).documents) == {}
    assert memory.news(said(job.started(2)).documents).keys() == {(job_id(), doc_id(2))}


def test_work_is_news_once_and_a_reached_end_is_news_again() -> None:
    job = Job()
    memory = remembering(job.page(0, 1), job.completed(1, "parse"))
    assert memory.news(said(job.completed(1, "parse"), job.completed(1, "parse", reused=True)).documents) == {}
    ended = said(job.completed(1, finished_leaves=("kg",), leaves=1)).documents
    assert memory.news(ended).keys() == {KEY}
    memory.committed({}, ended)
    assert memory.news(ended) == {}


@pytest.mark.parametrize("other", [{"tenant_id": "zeta"}, {"leaves": 9}, {"finished_leaves": ("other",)}])
def test_what_differs_in_anything_is_news(other: dict[str, Any]) -> None:
    memory = remembering(Job().page(0, 1), Job().completed(1, "parse"))
    tenant = other.pop("tenant_id", "default")
    assert memory.news(said(Job(tenant_id=tenant).completed(1, "parse", **other)).documents).keys() == {KEY}


def test_a_retry_is_news_until_a_higher_one_is_known() -> None:
    job = Job()
    memory = remembering(job.retrying(1, attempt=3))
    assert memory.news(said(job.retrying(1, attempt=2)).documents) == {}
    assert memory.news(said(job.retrying(1, attempt=4)).documents).keys() == {KEY}


def test_the_oldest_are_forgotten_and_written_once_more() -> None:
    job = Job()
    memory = DocumentMemory(10)
    for number in range(40):
        facts = said(job.started(number))
        memory.committed(facts.origins, facts.documents)
    assert memory.news(said(job.started(39)).documents) == {}
    assert memory.news(said(job.started(0)).documents) != {}


async def test_what_was_not_committed_is_not_remembered(engine: Engine) -> None:
    memory, job = DocumentMemory(), Job()
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(ResourceUnavailableError):
        await project(away, [job.started(1)], memory)
    await away.dispose()
    await project(engine, [job.started(1)], memory)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT doc_id FROM documents"))).scalars().all() == [doc_id(1)]


async def test_a_document_that_goes_from_stage_to_stage_leaves_its_row_as_it_is(engine: Engine) -> None:
    memory, job = DocumentMemory(), Job()
    await project(engine, [job.page(0, 1, is_last=True), job.completed(1, "parse")], memory)
    async with engine.connect() as connection:
        before = (await connection.execute(text("SELECT ctid, xmin, * FROM documents"))).all()
    await project(engine, [job.started(1, "kg"), job.retrying(2), job.completed(1, "check")], memory)
    async with engine.connect() as connection:
        after = (
            await connection.execute(
                text("SELECT ctid, xmin, * FROM documents WHERE doc_id = :doc"), {"doc": doc_id(1)}
            )
        ).all()
    assert after == before
