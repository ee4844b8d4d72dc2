"""A batch says what its events say one by one, however they are read and merged."""

import json
import random
from typing import Any

import pytest
from tests.unit.ledger.histories import Event, history
from tests.unit.ledger.lifecycle import Job

from medkg.contracts.messages import PipelineRef
from medkg.storage.ledger_facts import Facts, facts_of
from medkg.storage.ledger_rows import DOCUMENT_FAILURES, DOCUMENT_ORIGINS, DOCUMENTS, JOBS, PAGES, STAGE_RUNS

TABLES = {
    "jobs": JOBS,
    "origins": DOCUMENT_ORIGINS,
    "documents": DOCUMENTS,
    "failures": DOCUMENT_FAILURES,
    "runs": STAGE_RUNS,
    "pages": PAGES,
}


def rows(facts: Facts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in (*TABLES, "gated")}


def one_by_one(events: list[Event]) -> dict[str, Any]:
    """Each event read alone, and merged by the declared rules."""
    merged: dict[str, Any] = {name: {} for name in TABLES} | {"gated": set()}
    for event in events:
        facts = facts_of([event])
        assert not facts.refused
        for name, table in TABLES.items():
            for key, row in getattr(facts, name).items():
                table.add_to(merged[name], key, row)
        merged["gated"] |= facts.gated
    return merged


@pytest.mark.parametrize("seed", range(12))
def test_events_merged_by_hand_give_the_rows_of_the_declared_rules(seed: int) -> None:
    events, rng = list(history(seed).events), random.Random(seed)
    events += rng.sample(events, len(events) // 3)
    for _ in range(3):
        rng.shuffle(events)
        assert rows(facts_of(events)) == one_by_one(events)


OTHER = PipelineRef("p", "9", "d")


@pytest.mark.parametrize("fields", [{"stage_type": "A"}, {"pipeline": OTHER}, {"revision": 9}, {"tenant_id": "zeta"}])
def test_events_of_one_document_that_disagree_are_merged_by_the_rules_too(fields: dict[str, Any]) -> None:
    job = Job()
    events = [job.completed(1, "parse"), job.started(1, "parse", **fields), job.started(1, "parse")]
    events += [job.failed(1, "parse", **fields), job.completed(1, "parse", reused=True, **fields)]
    rng = random.Random(0)
    for _ in range(5):
        rng.shuffle(events)
        assert rows(facts_of(events)) == one_by_one(events)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_attributes_and_blanks_between_them_change_nothing(seed: int) -> None:
    events = history(seed).events
    spaced = [(envelope, json.dumps(json.loads(data), indent=1).encode()) for envelope, data in events]
    turned = [
        (envelope, json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode())
        for envelope, data in events
    ]
    expected = rows(facts_of(events))
    assert rows(facts_of(spaced)) == expected
    assert rows(facts_of(turned)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b'{"job_id":"a","doc_id":"b"}',
        b'{"job_id":"a","tenant_id":"t","stage":"s","stage_type":"x","pipeline":{"name":"n","doc_id":"b"}}',
        b'["job_id","doc_id":"b"]',
        b'{"job_id":"a","tenant_id":"t","stage":"s","stage_type":"x","pipeline":{"name":"n","version":"1","digest":"d"},'
        b'"revision":1,"doc_id":"b"',
    ],
)
def test_an_event_that_breaks_off_or_nests_is_refused(data: bytes) -> None:
    envelope, _ = Job().started(1)
    facts = facts_of([(envelope, data)])
    assert [item.index for item in facts.refused] == [0]
    assert not facts.documents
    assert not facts.runs
