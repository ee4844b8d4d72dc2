"""A page of a source: one message a document, the next page to the gate, and a report of all of it."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.stage_kit import (
    STAGES,
    Told,
    asked,
    bench,
    event,
    header,
    inline,
    kind_of,
    payload,
    record,
    request,
    topology,
    without_time,
)

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.document import AdapterRequest, IngestPage, RefusedRecord
from medkg.contracts.errors import SourceGoneError
from medkg.contracts.ids import document_id
from medkg.contracts.messages import DeadLetter, PageReport, StageRequest
from medkg.contracts.stages import StageType
from medkg.contracts.topology import Topology
from medkg.runtime.fan_out import first_page

INGEST = StageType.INGEST
SELECTION: dict[str, object] = {"paths": ["/data"]}


def page_request(pinned: Topology, **fields: Any) -> StageRequest:
    bare = request(pinned, "ingest", doc_id="", artefacts={})
    return msgspec.structs.replace(first_page(bare, "files", SELECTION, limit=10), **fields)


async def read_page(page: IngestPage, pinned: Topology | None = None, **fields: Any) -> list[Message]:
    chosen = pinned or topology()
    async with bench(INGEST, Told(lambda ctx, wanted: page), chosen, **fields) as at:
        return await at.handle(record(page_request(chosen, page=4)))


def report_of(item: Message) -> PageReport:
    about = event(item)
    assert (kind_of(item), about.stage, about.doc_id) == ("stage.completed", "ingest", "")
    assert about.page is not None
    return about.page


def doc(source_id: str) -> str:
    return document_id("clinic", "files", source_id)


async def test_every_record_becomes_a_document_of_its_own() -> None:
    payloads = (payload("one", "a"), payload("two", "b", metadata={"year": 2020}, uri="file:///b"))
    first, second, completed = await read_page(IngestPage(payloads, total=2))
    assert [item.key for item in (first, second)] == [doc("a"), doc("b")]
    assert {item.topic for item in (first, second)} == {"medkg.parse.v1"}
    wanted = asked(second)
    assert (wanted.stage, wanted.doc_id, wanted.page, wanted.arrived_from) == ("parse", doc("b"), 0, "ingest")
    assert wanted.metadata == {"source": "files", "source_id": "b", "year": 2020}
    report = report_of(completed)
    assert (report.number, report.is_last, report.total, report.refused) == (4, True, 2, ())
    assert [(d.doc_id, d.source_id, d.uri) for d in report.documents] == [
        (doc("a"), "a", ""),
        (doc("b"), "b", "file:///b"),
    ]
    # every document has a trace of its own, and knows the page it came from
    traces = {header(item, "ce_traceparent")[3:35] for item in (first, second, completed)}
    assert len(traces) == 3
    assert header(first, "ce_causationid") == "request-1"


async def test_a_record_that_occurs_twice_is_one_document_and_the_last_one_counts() -> None:
    payloads = (payload("old", "a"), payload("other", "b"), payload("new", "a"))
    first, second, completed = await read_page(IngestPage(payloads))
    taken = asked(first).artefacts["payload"].inline
    assert not isinstance(taken, msgspec.UnsetType)
    assert (msgspec.json.decode(taken)["text"], asked(second).doc_id) == ("new", doc("b"))
    assert len(report_of(completed).documents) == 2


async def test_a_redelivered_page_gives_the_same_messages() -> None:
    page = IngestPage((payload("one", "a"),), "cursor-2", (RefusedRecord("b", "", "payload_malformed", "bad"),))
    answers = [await read_page(page) for _ in range(2)]
    first, again = ([without_time(item) for item in answer[:-1]] for answer in answers)
    assert first == again
    assert header(answers[0][-1], "ce_id") == header(answers[1][-1], "ce_id")
    assert report_of(answers[0][-1]) == report_of(answers[1][-1])


async def test_the_next_page_waits_at_the_gate_with_the_cursor_of_this_one() -> None:
    pinned = topology()
    *_, following, completed = await read_page(IngestPage((payload(),), "cursor-2"), pinned)
    wanted = asked(following)
    assert (following.topic, following.key) == (topics.GATE, "job-1")
    assert (wanted.stage, wanted.doc_id, wanted.page, wanted.attempt) == ("ingest", "", 5, 1)
    assert header(following, "ce_subject") == "job-1/page-5"
    about = wanted.artefacts["request"].inline
    assert not isinstance(about, msgspec.UnsetType)
    assert msgspec.json.decode(about, type=AdapterRequest) == AdapterRequest("files", SELECTION, "cursor-2", 10)
    assert not report_of(completed).is_last
    assert not [item for item in await read_page(IngestPage((payload(),)), pinned) if item.topic == topics.GATE]


async def test_records_that_were_refused_are_reported_as_rejected() -> None:
    refused = RefusedRecord("bad.json", "file:///bad.json", "payload_malformed", "line 3: not JSON")
    (completed,) = await read_page(IngestPage((), refused=(refused,)))
    (told,) = report_of(completed).refused
    assert (told.doc_id, told.source_id, told.uri) == (doc("bad.json"), "bad.json", "file:///bad.json")
    assert (told.failure.code, told.failure.message, told.failure.disposition) == (
        "payload_malformed",
        "line 3: not JSON",
        "rejected",
    )


async def test_a_record_that_nothing_can_encode_is_refused_and_the_page_goes_on() -> None:
    payloads = (payload("half \ud800", "a"), payload("sound", "b"))
    refused = RefusedRecord("caf\udce9.txt", "file:///caf\udce9.txt", "payload_malformed", "caf\udce9.txt")
    following, completed = await read_page(IngestPage(payloads, refused=(refused,)))
    assert asked(following).doc_id == doc("b")
    report = report_of(completed)
    assert [d.source_id for d in report.documents] == ["b"]
    assert [(r.source_id, r.failure.code) for r in report.refused] == [
        ("caf\\udce9.txt", "payload_malformed"),
        ("a", "payload_malformed"),
    ]


async def test_an_empty_page_is_reported() -> None:
    (completed,) = await read_page(IngestPage(()))
    assert report_of(completed) == PageReport(4, is_last=True)


async def test_large_records_go_by_claim_check_and_are_stored_once() -> None:
    large = payload("x" * 20_000, "a")
    first, again = [(await read_page(IngestPage((large,))))[0] for _ in range(2)]
    made = asked(first).artefacts["payload"]
    assert (made.is_inline, made.key) == (False, f"payloads/clinic/{made.sha256[:2]}/{made.sha256}")
    assert asked(again).artefacts["payload"] == made
    small = asked((await read_page(IngestPage((payload(),))))[0]).artefacts["payload"]
    assert (small.is_inline, small.is_stored) == (True, False)


async def test_a_document_that_is_passed_over_to_the_end_is_told_to_have_ended() -> None:
    stages = [STAGES[0], STAGES[1] | {"when": {"field": "kind", "equals": "trial"}}]
    pinned = topology(stages)
    payloads = (payload("one", "a", metadata={"kind": "trial"}), payload("two", "b", metadata={"kind": "article"}))
    following, passed, completed = await read_page(IngestPage(payloads), pinned)
    assert asked(following).doc_id == doc("a")
    about = event(passed)
    assert (kind_of(passed), about.doc_id, about.stage) == ("stage.completed", doc("b"), "ingest")
    assert (about.skipped, about.finished_leaves, about.leaves) == (("parse",), ("parse",), 1)
    assert header(passed, "ce_id") != header(completed, "ce_id")
    assert (passed.key, header(passed, "ce_subject")) == (doc("b"), f"job-1/{doc('b')}")
    assert len(report_of(completed).documents) == 2


async def test_a_pipeline_that_only_ingests_ends_with_every_document_done() -> None:
    pinned = topology(STAGES[:1])
    first, second, completed = await read_page(IngestPage((payload("1", "a"), payload("2", "b"))), pinned)
    assert [event(item).finished_leaves for item in (first, second)] == [("ingest",), ("ingest",)]
    assert len({header(item, "ce_id") for item in (first, second, completed)}) == 3


async def test_a_page_that_cannot_be_read_fails_as_a_page() -> None:
    pinned = topology()
    async with bench(INGEST, Told(lambda ctx, wanted: None, raises=[SourceGoneError("404")]), pinned) as at:
        dead, failed = await at.handle(record(page_request(pinned, page=2)))
    about = msgspec.json.decode(header(dead, "medkg_dead_letter"), type=DeadLetter)
    assert (about.failure.code, about.doc_id) == ("source_gone", "")
    assert (kind_of(failed), header(failed, "ce_subject")) == ("stage.failed", "job-1/page-2")


async def test_a_page_is_read_anew_every_time() -> None:
    pinned = topology()
    stage = Told(lambda ctx, wanted: IngestPage(()))
    async with bench(INGEST, stage, pinned) as at:
        for _ in range(2):
            await at.handle(record(page_request(pinned)))
    assert len(stage.calls) == 2
    assert stage.calls[0][1] == AdapterRequest("files", SELECTION, limit=10)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.text(max_size=5)), max_size=12), st.sampled_from(["", "next"]))
async def test_whatever_a_page_holds_every_record_is_accounted_for_once(
    given_records: list[tuple[str, str]], cursor: str
) -> None:
    page = IngestPage(tuple(payload(text, source_id) for source_id, text in given_records), cursor)
    *following, completed = await read_page(page)
    names = {source_id for source_id, _ in given_records}
    documents = [item for item in following if item.topic == "medkg.parse.v1"]
    report = report_of(completed)
    told = [*(d.source_id for d in report.documents), *(r.source_id for r in report.refused)]
    assert sorted(set(told)) == sorted(names)
    assert len(documents) == len(report.documents)
    assert len({header(item, "ce_id") for item in following}) == len(following) == len(documents) + bool(cursor)


def test_the_first_page_carries_what_the_job_selects() -> None:
    pinned = topology()
    made = page_request(pinned)
    assert made.artefacts["request"] == inline("request", AdapterRequest("files", SELECTION, limit=10))
    assert (made.page, made.doc_id) == (0, "")
