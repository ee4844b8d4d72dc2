"""The handler of a stage: what follows a request, whatever becomes of it."""

import asyncio
import threading
import time
from typing import Any

import msgspec
import pytest
from tests.unit.runtime.stage_kit import (
    PATIENT,
    STAGES,
    Told,
    ToldOnAThread,
    asked,
    bench,
    counted,
    document_of,
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
from medkg.contracts.document import Document, IndexReceipt, QualityReport, WriteOutcome
from medkg.contracts.errors import (
    ContractError,
    PayloadMalformedError,
    ResourceUnavailableError,
    SourceUnavailableError,
)
from medkg.contracts.messages import Artefact, DeadLetter, Position
from medkg.contracts.stages import StageType, encode_artefact
from medkg.runtime.blobs import open_blobs

PARSE = StageType.PARSE


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []

    async def sleep(seconds: float, result: object = None) -> None:
        slept.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    return slept


def letter(item: Message) -> DeadLetter:
    return msgspec.json.decode(header(item, "medkg_dead_letter"), type=DeadLetter)


async def test_a_document_goes_on_to_the_next_stage_and_the_ledger_hears_of_it() -> None:
    pinned = topology()
    async with bench(PARSE, Told(document_of), pinned) as at:
        following, completed = await at.handle(record(request(pinned)))

        assert [kind_of(item) for item in at.said] == ["stage.started"]
    assert (following.topic, following.key, kind_of(following)) == ("medkg.chunk.v1", "doc-1", "stage.requested")
    wanted = asked(following)
    assert (wanted.stage, wanted.doc_id, wanted.tenant_id, wanted.arrived_from) == ("chunk", "doc-1", "clinic", "parse")
    assert set(wanted.artefacts) == {"document"}  # nothing after it reads the payload
    assert wanted.metadata == {"kind": "text", "words": 3}
    assert header(following, "ce_causationid") == "request-1"
    assert header(following, "ce_traceparent")[3:35] == "0af7651916cd43dd8448eb211c80319c"

    about = event(completed)
    assert (completed.topic, kind_of(completed)) == (topics.LIFECYCLE, "stage.completed")
    assert (about.stage, about.next, about.finished_leaves, about.leaves, about.reused) == (
        "parse",
        ("chunk",),
        (),
        1,
        False,
    )
    assert all(not artefact.is_inline for artefact in about.artefacts)


async def test_a_redelivered_request_gives_the_same_messages_byte_for_byte() -> None:
    pinned = topology()
    answers = []
    for _ in range(2):
        async with bench(PARSE, Told(document_of), pinned) as at:
            given = await at.handle(record(request(pinned)))
            answers.append([without_time(item) for item in [*at.said, given[0]]])
            ids = [header(item, "ce_id") for item in given]
        answers[-1].append(ids)  # type: ignore[arg-type]  # the duration of the event differs, its id does not
    assert answers[0] == answers[1]


async def test_another_attempt_document_or_stage_gives_other_ids() -> None:
    pinned = topology()
    ids = set()
    async with bench(PARSE, Told(document_of), pinned) as at:
        for change in ({}, {"attempt": 2}, {"doc_id": "doc-2"}, {"job_id": "job-2"}, {"page": 3}):
            for item in await at.handle(record(request(pinned, **change))):
                ids.add(header(item, "ce_id"))
        ids |= {header(item, "ce_id") for item in at.said}
    # The next request of a document does not depend on the attempt or the page that led to it.
    assert len(ids) == 5 * 2 + 3


async def test_work_done_before_is_found_and_not_done_again() -> None:
    pinned = topology()
    blobs = open_blobs("memory:")
    stage = Told(document_of)
    answers = []
    for _ in range(2):
        async with bench(PARSE, stage, pinned, blobs=blobs) as at:
            answers.append(await at.handle(record(request(pinned))))
            assert counted(at.metrics, "medkg_stage_runs_total", {"stage": "parse", "outcome": "reused"}) == len(
                answers
            ) - len(stage.calls)
    assert len(stage.calls) == 1
    assert without_time(answers[0][0]) == without_time(answers[1][0])
    assert [event(answer[1]).reused for answer in answers] == [False, True]
    assert event(answers[1][1]).metadata == {"kind": "text", "words": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"tenant_id": "other"},
        {"doc_id": "doc-2"},
        {"metadata": {"year": 2020}},
        {"artefacts": {"payload": inline("payload", payload("Other text"))}},
    ],
    ids=["tenant", "document", "metadata", "input"],
)
async def test_anything_that_could_make_a_difference_is_computed_anew(change: dict[str, Any]) -> None:
    pinned = topology()
    stage = Told(document_of)
    async with bench(PARSE, stage, pinned) as at:
        await at.handle(record(request(pinned)), record(request(pinned, **change)))
    assert len(stage.calls) == 2


@pytest.mark.parametrize("fields", [{"version": "2"}, {"name": "other"}])
async def test_another_version_of_an_implementation_computes_anew(fields: dict[str, Any]) -> None:
    pinned, blobs, stage = topology(), open_blobs("memory:"), Told(document_of)
    for more in ({}, fields):
        async with bench(PARSE, stage, pinned, blobs=blobs, **more) as at:
            await at.handle(record(request(pinned)))
    assert len(stage.calls) == 2


@pytest.mark.parametrize("broken", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"doc_id": "\xff"}'])
@pytest.mark.parametrize("inline_bytes", [16_384, 0], ids=["inline", "stored"])
async def test_a_broken_artefact_is_made_again_and_replaced(broken: bytes, inline_bytes: int) -> None:
    pinned, blobs, stage = topology(), open_blobs("memory:"), Told(document_of)
    async with bench(PARSE, stage, pinned, blobs=blobs, inline_bytes=inline_bytes) as at:
        first = await at.handle(record(request(pinned)))
        made = asked(first[0]).artefacts["document"]
        await blobs.replace(made.key, broken)
        again = await at.handle(record(request(pinned)))
        third = await at.handle(record(request(pinned)))
        stored = await blobs.get(made.key)
    assert len(stage.calls) == 2
    assert without_time(again[0]) == without_time(first[0])
    assert event(third[1]).reused
    assert stored is not None
    assert msgspec.json.decode(stored, type=Document).doc_id == "doc-1"


async def test_a_stage_that_is_not_memoised_leaves_the_store_alone() -> None:
    pinned, stage = topology(), Told(document_of)
    async with bench(PARSE, stage, pinned, memoised=False) as at:
        for _ in range(2):
            following, _ = await at.handle(record(request(pinned)))
    made = asked(following).artefacts["document"]
    assert (len(stage.calls), made.is_inline, made.is_stored) == (2, True, False)


async def test_small_artefacts_travel_inline_and_large_ones_by_reference() -> None:
    pinned = topology()
    small, large = payload("x"), payload("x" * 20_000)
    async with bench(PARSE, Told(document_of), pinned) as at:
        for taken, is_inline in ((small, True), (large, False)):
            following, _ = await at.handle(record(request(pinned, artefacts={"payload": inline("payload", taken)})))
            made = asked(following).artefacts["document"]
            assert (made.is_inline, made.is_stored) == (is_inline, True)
            stored = await at.blobs.get(made.key)
            assert stored is not None
            assert (len(stored), len(following.value) < 2_000 + 20_000 * is_inline) == (made.size_bytes, True)


async def test_what_only_later_stages_read_is_carried_as_a_reference() -> None:
    stages = [
        *STAGES[:2],
        {"name": "quality", "type": "ValidateStage", "depends_on": ["parse"]},
        {"name": "chunk", "type": "ChunkStage", "depends_on": ["quality"]},
        {"name": "embed", "type": "EmbedStage", "depends_on": ["chunk"]},
        {"name": "extract", "type": "ExtractStage", "depends_on": ["embed"]},
    ]
    pinned = topology(stages)
    async with bench(PARSE, Told(document_of), pinned) as at:
        to_quality = asked((await at.handle(record(request(pinned))))[0])
    assert to_quality.artefacts["document"].is_inline
    async with bench(StageType.CHUNK, Told(lambda ctx, value: []), pinned) as at:
        wanted = request(pinned, "chunk", artefacts=to_quality.artefacts)
        to_embed = asked((await at.handle(record(wanted)))[0])
    assert to_embed.artefacts["chunks"].is_inline
    carried = to_embed.artefacts["document"]
    assert (carried.is_inline, carried.key) == (False, to_quality.artefacts["document"].key)


async def test_an_input_by_reference_is_opened_and_checked() -> None:
    pinned, stage = topology(), Told(document_of)
    data = encode_artefact(payload())
    async with bench(PARSE, stage, pinned) as at:
        by_reference = msgspec.structs.replace(
            inline("payload", payload()), inline=msgspec.UNSET, key="payloads/clinic/aa/bb"
        )
        wanted = record(request(pinned, artefacts={"payload": by_reference}))
        gone, _ = await at.handle(wanted)
        await at.blobs.put("payloads/clinic/aa/bb", data + b" ")
        altered, _ = await at.handle(wanted)
        await at.blobs.replace("payloads/clinic/aa/bb", data)
        following, _ = await at.handle(wanted)
    assert "nothing is stored under" in letter(gone).failure.message
    assert "not what was stored" in letter(altered).failure.message
    assert asked(following).stage == "chunk"
    assert len(stage.calls) == 1


async def test_a_failure_that_may_pass_is_tried_again_with_growing_waits(waits: list[float]) -> None:
    pinned = topology()
    stage = Told(document_of, raises=[SourceUnavailableError("reading it: 503")] * 2)
    async with bench(PARSE, stage, pinned) as at:
        following, _ = await at.handle(record(request(pinned)))
        said = [(kind_of(item), event(item).attempt, event(item).backoff_ms) for item in at.said]
        assert counted(at.metrics, "medkg_stage_retries_total", {"stage": "parse", "code": "source_unavailable"}) == 2.0
    assert asked(following).stage == "chunk"
    assert waits == [1.0, 2.0]
    assert said == [("stage.started", 1, 0.0), ("stage.retrying", 2, 1000.0), ("stage.retrying", 3, 2000.0)]


async def test_a_failure_that_does_not_pass_becomes_a_dead_letter_after_all_attempts(waits: list[float]) -> None:
    pinned = topology()
    stage = Told(document_of, raises=[SourceUnavailableError("reading it: 503")] * 9)
    async with bench(PARSE, stage, pinned) as at:
        dead, failed = await at.handle(record(request(pinned)))
    assert len(stage.calls) == 1 + PATIENT.attempts
    assert waits == [1.0, 2.0, 3.0]  # never above max_seconds
    assert letter(dead).failure.code == event(failed).failure.code == "source_unavailable"  # type: ignore[union-attr]  # it has one
    assert letter(dead).failure.retryable


async def test_a_permanent_failure_becomes_a_dead_letter_at_once_with_the_message_as_it_was(waits: list[float]) -> None:
    pinned = topology()
    error = PayloadMalformedError("parsing a.txt: not text")
    error.__cause__ = ValueError("line 3")
    error.__cause__.__cause__ = OSError("disk")
    stage = Told(document_of, raises=[error])
    taken = record(request(pinned), key=b"\xff\x00key", offset=41)
    taken.headers.append(("x-other", b"\xfe\x00kept"))
    taken.headers.append(("x-none", None))  # type: ignore[arg-type]  # Kafka has such headers
    async with bench(PARSE, stage, pinned) as at:
        dead, failed = await at.handle(taken)
        assert counted(at.metrics, "medkg_dead_letters_total", {"stage": "parse", "code": "payload_malformed"}) == 1.0
        assert counted(at.metrics, "medkg_stage_runs_total", {"stage": "parse", "outcome": "rejected"}) == 1.0
    assert (len(stage.calls), waits) == (1, [])
    assert (dead.topic, dead.key, dead.value) == (topics.DEAD_LETTER, b"\xff\x00key", taken.value)
    assert dead.headers[:-1] == taken.headers
    about = letter(dead)
    assert about.position == Position("medkg.parse.v1", 2, 41)
    assert (about.job_id, about.tenant_id, about.doc_id, about.stage, about.attempt, about.worker) == (
        "job-1",
        "clinic",
        "doc-1",
        "parse",
        1,
        "worker-1",
    )
    assert (about.failure.code, about.failure.disposition) == ("payload_malformed", "rejected")
    assert about.failure.causes == ("ValueError: line 3", "OSError: disk")
    told = event(failed)
    assert (kind_of(failed), told.failure, told.position) == ("stage.failed", about.failure, about.position)


async def test_a_dead_letter_that_dies_again_has_one_reason() -> None:
    pinned = topology()
    taken = record(request(pinned))
    async with bench(PARSE, Told(document_of, raises=[PayloadMalformedError("bad")] * 2), pinned) as at:
        dead, _ = await at.handle(taken)
        again, _ = await at.handle(record(request(pinned), headers=dead.headers, offset=99))
    assert [name for name, _ in again.headers].count("medkg_dead_letter") == 1
    assert letter(again).position.offset == 99


async def test_a_key_that_is_not_there_is_not_there_in_the_dead_letter() -> None:
    pinned = topology()
    async with bench(PARSE, Told(document_of, raises=[PayloadMalformedError("bad")]), pinned) as at:
        dead, _ = await at.handle(record(request(pinned), key=None))
    assert dead.key is None


@pytest.mark.parametrize("kind", [Told, ToldOnAThread])
async def test_a_store_that_does_not_answer_is_the_workers_to_wait_for(kind: type[Told], waits: list[float]) -> None:
    pinned = topology()
    stage = kind(document_of, raises=[ResourceUnavailableError("writing: no index")])
    async with bench(PARSE, stage, pinned) as at:
        with pytest.raises(ResourceUnavailableError, match="no index"):
            await at.handle(record(request(pinned)))
        following, _ = await at.handle(record(request(pinned)))
    assert waits == []
    assert asked(following).stage == "chunk"


async def test_a_stage_that_crashes_is_a_dead_letter_with_its_cause_and_no_retry() -> None:
    pinned = topology()
    stage = ToldOnAThread(document_of, raises=[ZeroDivisionError("division by zero")])
    async with bench(PARSE, stage, pinned) as at:
        dead, _ = await at.handle(record(request(pinned)))
    assert len(stage.calls) == 1
    assert letter(dead).failure.code == "stage_crashed"
    assert letter(dead).failure.causes == ("ZeroDivisionError: division by zero",)


@pytest.mark.parametrize(("in_python", "at_once"), [(True, 1), (False, 2)])
async def test_of_a_stage_that_computes_in_python_one_document_at_a_time_is_worked_on(
    in_python: bool, at_once: int
) -> None:
    under_way, most = 0, 0
    both = threading.Barrier(at_once)

    def work(ctx: Any, taken: Any) -> Document:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        both.wait(5)
        time.sleep(0.01)
        under_way -= 1
        return document_of(ctx, taken)

    pinned = topology()
    async with bench(PARSE, ToldOnAThread(work), pinned, in_python=in_python) as at:
        given = [record(request(pinned, doc_id=f"d{number}")) for number in range(4)]
        await asyncio.gather(*(at.handle(one) for one in given))
    assert most == at_once


async def test_text_that_nothing_can_encode_fails_its_document_and_no_other() -> None:
    pinned = topology()
    outputs = iter(["half \ud800 of a pair", "sound"])

    def work(ctx: Any, taken: Any) -> Document:
        return Document(ctx.doc_id, "files", "a", "text", next(outputs), ())

    async with bench(PARSE, Told(work), pinned) as at:
        dead, _, following, _ = await at.handle(record(request(pinned)), record(request(pinned, doc_id="doc-2")))
    assert letter(dead).failure.code == "contract_violated"
    assert "cannot be written as JSON" in letter(dead).failure.message
    assert asked(following).doc_id == "doc-2"


async def test_a_failure_that_quotes_what_nothing_can_encode_is_told_all_the_same() -> None:
    pinned = topology()
    error = PayloadMalformedError("reading caf\udce9.txt: bad")
    error.__cause__ = OSError("caf\udce9.txt")
    async with bench(PARSE, Told(document_of, raises=[error]), pinned) as at:
        dead, _ = await at.handle(record(request(pinned)))
    assert letter(dead).failure.message == "reading caf\\udce9.txt: bad"
    assert letter(dead).failure.causes == ("OSError: caf\\udce9.txt",)


async def test_a_bug_of_our_own_is_recorded_and_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = topology()

    def broken(*_: object) -> None:
        raise KeyError("route")

    async with bench(PARSE, Told(document_of), pinned) as at:
        monkeypatch.setattr("medkg.runtime.outcome.route_after", broken)
        dead, _ = await at.handle(record(request(pinned)))
    assert letter(dead).failure.code == "stage_crashed"
    assert letter(dead).failure.causes == ("KeyError: 'route'",)


async def test_an_output_of_another_kind_is_refused() -> None:
    pinned = topology()
    async with bench(PARSE, Told(lambda ctx, value: QualityReport({})), pinned) as at:
        dead, _ = await at.handle(record(request(pinned)))
    assert letter(dead).failure.message == "running told: returned QualityReport, expected Document"


GOOD = msgspec.json.encode(request(topology()))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"\x00poison",
        b'{"job_id": 1}',
        GOOD[:-1],
        GOOD.replace(b'"doc-1"', b'"\xff"'),
        GOOD.replace(b'"doc-1"', b'"doc\\u0000"'),
        GOOD.replace(b'"clinic"', b'"../../etc"'),
        GOOD.replace(b'"clinic"', b'"a b"'),
        GOOD.replace(b'"job-1"', b'"' + b"x" * 201 + b'"'),
        GOOD.replace(b'"job-1"', b'""'),
        GOOD[:-1] + b',"page":-1}',
        GOOD[:-1] + b',"attempt":99999999999999999999}',
        GOOD[:-1] + b',"arrived_from":"a\\nb"}',
        GOOD[:-1] + b',"future":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
async def test_what_is_no_request_becomes_a_dead_letter_without_an_event(value: bytes) -> None:
    pinned = topology()
    async with bench(PARSE, Told(document_of), pinned) as at:
        (dead,) = await at.handle(record(value))
        assert at.said == []
        assert counted(at.metrics, "medkg_dead_letters_total", {"stage": "", "code": "contract_violated"}) == 1.0
    assert (dead.topic, dead.value) == (topics.DEAD_LETTER, value)
    assert (letter(dead).failure.code, letter(dead).job_id) == ("contract_violated", "")


@pytest.mark.parametrize("headers", [[], [("ce_id", b"1")], [("ce_id", b"\xff")], [("ce_specversion", b"0.3")]])
async def test_what_is_no_event_becomes_a_dead_letter(headers: list[tuple[str, bytes]]) -> None:
    pinned = topology()
    async with bench(PARSE, Told(document_of), pinned) as at:
        (dead,) = await at.handle(record(request(pinned), headers=headers))
    assert letter(dead).failure.code == "contract_violated"


async def test_a_field_of_a_newer_worker_is_passed_over() -> None:
    pinned = topology()
    async with bench(PARSE, Told(document_of), pinned) as at:
        newer = msgspec.json.encode(request(pinned))[:-1] + b',"colour":"red"}'
        following, _ = await at.handle(record(newer))
    assert asked(following).stage == "chunk"


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"stage": "nowhere"}, "pipeline_config_invalid", "has no ParseStage of that name"),
        ({"stage": "chunk"}, "pipeline_config_invalid", "has no ParseStage of that name"),
        ({"artefacts": {}}, "contract_violated", "carries no 'payload'"),
        (
            {"artefacts": {"payload": Artefact("payload", "", 1, inline=msgspec.Raw(b"[]"))}},
            "contract_violated",
            "reading payload of job-1/doc-1",
        ),
        (
            {"artefacts": {"payload": Artefact("payload", "", 1, key="../../etc/passwd")}},
            "contract_violated",
            "is not a key",
        ),
    ],
)
async def test_a_request_that_makes_no_sense_here_is_a_dead_letter_that_says_why(
    change: dict[str, Any], code: str, says: str
) -> None:
    pinned = topology()
    async with bench(PARSE, Told(document_of), pinned) as at:
        dead, failed = await at.handle(record(request(pinned, **change)))
    assert letter(dead).failure.code == code
    assert says in letter(dead).failure.message
    assert kind_of(failed) == "stage.failed"


async def test_a_policy_that_is_gone_is_named_with_those_that_are_known() -> None:
    stages = [STAGES[0], STAGES[1] | {"policy": "gone"}, STAGES[2]]
    pinned = topology(stages)
    async with bench(PARSE, Told(document_of), pinned) as at:
        dead, _ = await at.handle(record(request(pinned)))
    assert "'gone' is not in resilience.yaml (known: default)" in letter(dead).failure.message


async def test_a_topology_that_is_not_there_yet_is_waited_for() -> None:
    other = topology(version="2.0")
    async with bench(PARSE, Told(document_of), topology()) as at:
        with pytest.raises(ResourceUnavailableError, match="same blob store"):
            await at.handle(record(request(other)))


async def test_stages_whose_condition_does_not_hold_are_passed_over_and_reported() -> None:
    stages = [*STAGES[:2], STAGES[2] | {"when": {"field": "words", "at_least": 10}}]
    pinned = topology(stages)
    async with bench(PARSE, Told(document_of), pinned) as at:
        (completed,) = await at.handle(record(request(pinned)))
    about = event(completed)
    assert (about.next, about.skipped, about.finished_leaves, about.leaves) == ((), ("chunk",), ("chunk",), 1)


async def test_the_last_stage_of_a_branch_reports_the_end_it_reached() -> None:
    stages = [
        *STAGES,
        {"name": "extract", "type": "ExtractStage", "depends_on": ["parse"]},
    ]
    pinned = topology(stages)
    async with bench(PARSE, Told(document_of), pinned) as at:
        first, second, completed = await at.handle(record(request(pinned)))
        assert (first.topic, second.topic) == ("medkg.chunk.v1", "medkg.extract.v1")
        assert (event(completed).next, event(completed).leaves) == (("chunk", "extract"), 2)
        chunked = asked(first)
    async with bench(StageType.CHUNK, Told(lambda ctx, value: []), pinned) as at:
        (completed,) = await at.handle(record(chunked))
    assert (event(completed).finished_leaves, event(completed).leaves) == (("chunk",), 2)


@pytest.mark.parametrize("outcome", list(WriteOutcome))
async def test_a_sink_that_had_nothing_to_write_says_so(outcome: WriteOutcome) -> None:
    stages = [
        *STAGES,
        {"name": "embed", "type": "EmbedStage", "depends_on": ["chunk"]},
        {"name": "index", "type": "IndexStage", "depends_on": ["embed"]},
    ]
    pinned = topology(stages)
    stage = Told(lambda ctx, value: IndexReceipt("test", ctx.content_key, 0, outcome))
    embeddings = inline("embeddings", {"chunks": [], "model": "m", "dimension": 0, "dense": ""})
    async with bench(StageType.INDEX, stage, pinned) as at:
        for _ in range(2):  # a sink is asked every time: it knows best what it holds
            (completed,) = await at.handle(record(request(pinned, "index", artefacts={"embeddings": embeddings})))
            assert event(completed).reused == (outcome is not WriteOutcome.WRITTEN)
    assert len(stage.calls) == 2
    ctx = stage.calls[0][0]
    assert ctx == stage.calls[1][0]
    assert (len(ctx.content_key), ctx.revision, ctx.correlation_id) == (32, 1_700_000_000_000_000, "job-1")


async def test_results_that_kafka_refuses_are_told_as_a_failure() -> None:
    pinned = topology()
    async with bench(PARSE, Told(document_of), pinned) as at:
        error = ContractError("publishing the results: too large")
        dead, failed, unread = at.handler.refuse([record(request(pinned)), record(b"?")], error)
    assert letter(dead).failure.message == error.message
    assert event(failed).failure == letter(dead).failure
    assert letter(unread).failure.code == "contract_violated"


async def test_many_documents_run_at_the_same_time() -> None:
    pinned = topology()
    together = asyncio.Event()
    arrived = []

    class Meeting:
        async def execute(self, ctx: Any, taken: Any) -> Document:
            arrived.append(ctx.doc_id)
            if len(arrived) == 3:
                together.set()
            await together.wait()
            return document_of(ctx, taken)

    async with bench(PARSE, Meeting(), pinned) as at, asyncio.timeout(5):
        answers = await asyncio.gather(*(at.handle(record(request(pinned, doc_id=f"doc-{n}"))) for n in range(3)))
    assert [asked(answer[0]).doc_id for answer in answers] == ["doc-0", "doc-1", "doc-2"]
