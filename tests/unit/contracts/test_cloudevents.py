"""Our envelope against the ``cloudevents`` package, in both directions."""

import json

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.cloudevents import (
    Cause,
    Envelope,
    Headers,
    message,
    now,
    now_header,
    read_brief,
    read_cause,
    read_envelope,
    schema_uri,
    trace_parent,
)
from medkg.contracts.errors import ContractError

REQUIRED = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"t"), ("ce_source", b"s")]

# CloudEvents 1.0.2, "Type System": any Unicode but control characters, half surrogate pairs and non-characters
_TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=30)
_ENVELOPES = st.builds(
    Envelope,
    id=_TEXT,
    type=_TEXT,
    source=_TEXT,
    time=st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z"),
    subject=_TEXT | st.just(""),
    dataschema=st.just("") | st.just("urn:medkg:schema:stage-request:v1"),
    partitionkey=_TEXT,
    correlationid=_TEXT | st.just(""),
    causationid=_TEXT | st.just(""),
    tenantid=_TEXT | st.just(""),
    traceparent=st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    dataref=st.just("") | st.just("s3://bucket/key"),
    expirytime=st.just("") | st.just("2026-11-21T00:00:00Z"),
)


@given(_ENVELOPES)
def test_what_we_write_the_package_reads(envelope: Envelope) -> None:
    written = message("topic", envelope, b'{"a": 1}')
    event = from_binary_event(KafkaMessage(headers=dict(written.headers), key=written.key, value=written.value))

    assert event.get_id() == envelope.id
    assert event.get_type() == envelope.type
    assert event.get_source() == envelope.source
    assert event.get_specversion() == "1.0"
    assert event.get_datacontenttype() == "application/json"
    assert (event.get_subject() or "") == envelope.subject
    assert (event.get_dataschema() or "") == envelope.dataschema
    assert event.get_data() == {"a": 1}
    for name in ("partitionkey", "tenantid", "correlationid", "causationid", "traceparent", "dataref", "expirytime"):
        assert (event.get_extension(name) or "") == getattr(envelope, name)


@given(_ENVELOPES)
def test_what_the_package_writes_we_read(envelope: Envelope) -> None:
    written = message("topic", envelope, b"{}")
    event = from_binary_event(KafkaMessage(headers=dict(written.headers), key=written.key, value=written.value))
    again = to_binary_event(event)
    found = read_envelope(list(again.headers.items()))

    assert {name: getattr(found, name) for name in Envelope.__struct_fields__ if name != "time"} == {
        name: getattr(envelope, name) for name in Envelope.__struct_fields__ if name != "time"
    }
    assert again.key == envelope.partitionkey


def test_an_event_of_another_client_is_read() -> None:
    event = CloudEvent(
        {"type": "org.medicalkg.job.submitted", "source": "/me", "id": "7", "priority": "high"}, {"x": 1}
    )
    written = to_binary_event(event)
    found = read_envelope(list(written.headers.items()))

    assert (found.id, found.type, found.source) == ("7", "org.medicalkg.job.submitted", "/me")
    assert json.loads(written.value) == {"x": 1}


@given(_ENVELOPES)
def test_an_envelope_survives_its_headers(envelope: Envelope) -> None:
    assert read_envelope(envelope.headers()) == envelope


@pytest.mark.parametrize("missing", ["ce_specversion", "ce_id", "ce_type", "ce_source"])
def test_a_missing_attribute_is_named(missing: str) -> None:
    with pytest.raises(ContractError, match=f"{missing} missing"):
        read_envelope([header for header in REQUIRED if header[0] != missing])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (("ce_id", b"\xff"), "'ce_id' is not UTF-8"),
        (("ce_subject", b"a\x00b"), "'ce_subject' holds control characters"),
        (("ce_id", b"a\x1fb"), "control characters"),  # the separator of our ids
        (("ce_subject", "a\x85b".encode()), "control characters"),
        (("ce_specversion", b"0.3"), "ce_specversion is '0.3'"),
    ],
)
def test_a_hostile_attribute_is_refused(header: tuple[str, bytes], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        read_envelope([*REQUIRED, header])


def test_no_headers_are_no_event() -> None:
    with pytest.raises(ContractError, match="ce_specversion, ce_id, ce_type, ce_source missing"):
        read_envelope(None)


def test_text_of_every_script_is_welcome() -> None:
    subject = "試験 إختبار 🧪"
    assert read_envelope([*REQUIRED, ("ce_subject", subject.encode())]).subject == subject


def test_times_schemas_and_traces_have_the_forms_of_their_standards() -> None:
    assert now().endswith("Z")
    assert len(now()) == len("2026-11-21T00:00:00.000Z")
    assert schema_uri("stage-event") == "urn:medkg:schema:stage-event:v1"
    assert trace_parent("a" * 40, "b" * 40) == f"00-{'a' * 32}-{'b' * 16}-01"


_NAMES = ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", "ce_traceparent", "content-type"]
_VALUES = st.sampled_from([b"1.0", b"1", b"", b"2.0", b"\xff", b"a\x00b", "ä".encode(), b"a\x85"]) | st.binary(
    max_size=4
)


@given(st.lists(st.tuples(st.sampled_from(_NAMES), _VALUES), max_size=10), st.booleans())
def test_the_short_readings_say_what_the_whole_one_says(drawn: Headers, is_sound: bool) -> None:
    headers = [*(REQUIRED if is_sound else []), *drawn]
    try:
        whole = read_envelope(headers)
    except ContractError:
        return  # they may pass over a fault in what they do not read
    assert read_cause(headers) == Cause(whole.id, whole.traceparent)
    brief = read_brief(headers)
    assert (brief.id, brief.type, brief.source) == (whole.id, whole.type, whole.source)
    assert (brief.time, brief.subject) == (whole.time, whole.subject)


@given(st.sampled_from(_NAMES[:4] + _NAMES[6:7]), st.sampled_from([b"\xff", b"a\x00b", b"a\x1f"]))
def test_the_short_readings_refuse_what_is_wrong_with_what_they_read(name: str, value: bytes) -> None:
    headers = [header for header in REQUIRED if header[0] != name] + [(name, value)]
    if name in {"ce_id", "ce_traceparent"}:
        with pytest.raises(ContractError):
            read_cause(headers)
    if name in {"ce_id", "ce_type", "ce_source"}:
        with pytest.raises(ContractError):
            read_brief(headers)


def test_the_header_of_the_time_is_the_time() -> None:
    before, (name, value), after = now(), now_header(), now()
    assert name == "ce_time"
    assert before <= value.decode() <= after
