"""A dead letter goes back as the message it was, in the next round, always by the same ids."""

import msgspec
import pytest

from medkg.contracts import topics
from medkg.contracts.cloudevents import read_envelope
from medkg.contracts.errors import ContractError, StageTimeoutError
from medkg.contracts.messages import REQUEST_DECODER, EventType, LetterDecision, PipelineRef, Position, StageRequest
from medkg.runtime.outcome import DEAD_LETTER_HEADER, dead_letter, failure_of, request_message
from medkg.runtime.records import Record
from medkg.runtime.redrive import Decided, dropped, redriven

REQUEST = StageRequest(
    job_id="j",
    tenant_id="t",
    stage="parse",
    pipeline=PipelineRef("auto", "1.0", "d"),
    revision=1,
    doc_id="d",
    attempt=3,
)
AT = Position("medkg.parse.v1", 2, 118)


def letter_of(request: StageRequest = REQUEST, value: bytes | None = None) -> Record:
    asked = request_message("medkg.parse.v1", request, "medkg/ingest")
    key = asked.key.encode() if isinstance(asked.key, str) else asked.key
    died = Record(AT.topic, AT.partition, AT.offset, key, value or asked.value, asked.headers)
    kept = dead_letter(died, failure_of(StageTimeoutError("too slow")), "worker-1", request)
    return Record(kept.topic, 0, 7, key, kept.value, kept.headers)


def decided(request: StageRequest = REQUEST, at: Position = AT) -> Decided:
    names = (request.job_id, request.tenant_id, request.doc_id, request.stage)
    return Decided(at, request.redrive, *names, actor="ann", reason="fixed")


POISON = Decided(AT, 0, "", "", "", "", "ann", "the producer was mended")


def test_a_request_goes_back_to_its_topic_as_the_first_attempt_of_the_next_round() -> None:
    letter = letter_of()
    back = redriven(letter, decided(), "medkg/gateway").message
    assert (back.topic, back.key) == ("medkg.parse.v1", letter.key)
    assert REQUEST_DECODER.decode(back.value) == msgspec.structs.replace(REQUEST, attempt=1, redrive=1)
    before, after = read_envelope(letter.headers), read_envelope(back.headers)
    assert after.id != before.id
    assert after.causationid == before.id
    assert (after.subject, after.partitionkey, after.traceparent) == (
        before.subject,
        before.partitionkey,
        before.traceparent,
    )
    assert DEAD_LETTER_HEADER not in dict(back.headers)


def test_redriving_again_gives_the_same_ids() -> None:
    first, again = (redriven(letter_of(), decided(), "medkg/gateway") for _ in range(2))
    assert dict(first.message.headers)["ce_id"] == dict(again.message.headers)["ce_id"]
    assert dict(first.event.headers)["ce_id"] == dict(again.event.headers)["ce_id"]
    later = msgspec.structs.replace(REQUEST, redrive=1)
    other = redriven(letter_of(later), decided(later), "medkg/gateway")
    assert dict(other.message.headers)["ce_id"] != dict(first.message.headers)["ce_id"]


def test_fields_of_a_newer_release_go_back_too() -> None:
    fields = msgspec.json.decode(msgspec.json.encode(REQUEST)) | {"of_tomorrow": {"x": [1.0, 12345678901234567890]}}
    back = redriven(letter_of(value=msgspec.json.encode(fields)), decided(), "medkg/gateway").message
    assert msgspec.json.decode(back.value)["of_tomorrow"] == {"x": [1.0, 12345678901234567890]}


def test_a_message_that_could_not_be_read_goes_back_byte_for_byte() -> None:
    died = Record(AT.topic, AT.partition, AT.offset, b"\xff", b"\xfe\x00{", [("x", b"\xfe"), ("y", b"")])
    kept = dead_letter(died, failure_of(ContractError("not UTF-8")), "worker-1")
    letter = Record(kept.topic, 0, 1, died.key, kept.value, kept.headers)
    back = redriven(letter, POISON, "medkg/gateway").message
    assert (back.topic, back.key, back.value, back.headers) == (died.topic, died.key, died.value, died.headers)


@pytest.mark.parametrize("topic", ["", topics.DEAD_LETTER])
def test_a_message_that_does_not_say_where_it_stood_cannot_go_back(topic: str) -> None:
    with pytest.raises(ContractError, match="does not say where its message came from; save it, or drop it"):
        redriven(letter_of(), POISON._replace(position=Position(topic, 0, 1)), "medkg/gateway")


def test_the_first_page_of_a_job_goes_back_to_the_router_that_made_it() -> None:
    page = msgspec.structs.replace(REQUEST, doc_id="", page=0, stage="ingest")
    back = redriven(letter_of(page), decided(page, Position(topics.DEAD_LETTER, 0, 3)), "medkg/gateway")
    assert back.message.topic == topics.GATE


def test_a_letter_that_holds_something_else_than_the_ledger_says_is_left_alone() -> None:
    with pytest.raises(ContractError, match="message of another document"):
        redriven(letter_of(), decided()._replace(doc_id="other"), "medkg/gateway")
    with pytest.raises(ContractError, match="its message is not the one of 'parse'"):
        redriven(letter_of(value=b"["), decided(), "medkg/gateway")


def test_the_event_says_who_why_and_what() -> None:
    page = msgspec.structs.replace(REQUEST, doc_id="", page=4)
    for event, kind in (
        (redriven(letter_of(page), decided(page), "medkg/gateway").event, EventType.LETTER_REDRIVEN),
        (dropped(decided(page), "medkg/gateway"), EventType.LETTER_DROPPED),
    ):
        envelope = read_envelope(event.headers)
        about = msgspec.json.decode(event.value, type=LetterDecision)
        assert (event.topic, envelope.type, envelope.correlationid) == (topics.LIFECYCLE, kind, "j")
        assert (about.position, about.actor, about.reason, about.stage) == (AT, "ann", "fixed", "parse")
        assert about.page == (4 if kind is EventType.LETTER_REDRIVEN else 0)
