"""The door of the jobs topic: whatever comes, a submission or everything that is wrong with it."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.cloudevents import Headers
from medkg.contracts.ids import job_id_of
from medkg.contracts.jobs import MAX_FAULTS, MAX_JOB_EVENT_BYTES
from medkg.contracts.messages import EventType, JobRejected
from medkg.gate_router.door import Submitted, read_job_event
from medkg.runtime.records import Record

SUBMISSION = {"tenant_id": "clinic", "source": "files", "selection": {"paths": ["/data"]}}
ATTRIBUTES = {"specversion": "1.0", "id": "e-1", "source": "kcat", "type": EventType.JOB_SUBMITTED.value}
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]


def binary(
    value: object = SUBMISSION, changes: dict[str, str | None] | None = None, more: Headers | None = None
) -> Record:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    given = ATTRIBUTES | (changes or {})
    headers: Headers = [(f"ce_{name}", text.encode()) for name, text in given.items() if text is not None]
    return Record("medkg.jobs.v1", 1, 42, b"k", data, headers + (more or []))


def structured(changes: dict[str, Any] | None = None, *, value: bytes | None = None, without: str = "") -> Record:
    event: dict[str, Any] = ATTRIBUTES | {"data": SUBMISSION} | (changes or {})
    event.pop(without, None)
    data = json.dumps(event).encode() if value is None else value
    return Record("medkg.jobs.v1", 1, 42, None, data, list(STRUCTURED))


def faults(answer: Submitted) -> dict[str, str]:
    return {fault.pointer: fault.message for fault in answer.faults}


def check(record: Record) -> Submitted:
    """Read a record, and check what is promised of every answer."""
    answer = read_job_event(record)
    assert (answer.submission is None) == bool(answer.faults)
    assert len(answer.faults) <= MAX_FAULTS
    assert answer.job_id.isalnum()
    assert answer == read_job_event(record)  # the same on redelivery
    for text in (answer.event_id, answer.event_source, answer.tenant_id):
        assert text == "" or text.isprintable()
        text.encode()
    rejected = JobRejected(answer.job_id, answer.faults, answer.tenant_id, record.position)
    assert len(msgspec.json.encode(rejected)) < 800_000  # it has to fit into a message
    return answer


@pytest.mark.parametrize("record", [binary(), structured()], ids=["binary", "structured"])
def test_a_good_event_is_taken_in_either_mode(record: Record) -> None:
    answer = check(record)
    assert answer.faults == ()
    assert answer.submission is not None
    assert (answer.submission.tenant_id, answer.submission.selection) == ("clinic", {"paths": ["/data"]})
    assert (answer.job_id, answer.event_id, answer.event_source) == (job_id_of("kcat", "e-1"), "e-1", "kcat")


@pytest.mark.parametrize(
    "headers",
    [
        [(f"CE_{name.upper()}", text.encode()) for name, text in ATTRIBUTES.items()],
        [
            *((f"ce_{name}", text.encode()) for name, text in ATTRIBUTES.items()),
            ("content-type", b"application/json"),
            ("ce_time", b"\xff"),
            ("ce_", b""),
            ("other", None),
        ],
        [("Content-Type", None), *((f"ce_{name}", text.encode()) for name, text in ATTRIBUTES.items())],
    ],
)
def test_names_in_any_case_and_headers_of_no_concern_do_no_harm(headers: Headers) -> None:
    record = Record("medkg.jobs.v1", 1, 42, None, json.dumps(SUBMISSION).encode(), headers)
    assert check(record).submission is not None


def test_structured_data_may_come_in_base64() -> None:
    encoded = base64.b64encode(json.dumps(SUBMISSION).encode()).decode()
    assert check(structured({"data_base64": encoded}, without="data")).submission is not None
    wrong = check(structured({"data_base64": "%%%"}, without="data"))
    assert set(faults(wrong)) == {"/data"}


def test_text_beyond_ascii_does_not_grow_over_the_limit_in_structured_mode() -> None:
    paths = {"paths": ["/データ/" + "例" * 4_000] * 15}
    value = json.dumps(ATTRIBUTES | {"data": SUBMISSION | {"selection": paths}}, ensure_ascii=False).encode()
    assert MAX_JOB_EVENT_BYTES / 2 < len(value) < MAX_JOB_EVENT_BYTES
    assert check(structured(value=value)).submission is not None


def test_every_fault_of_attributes_and_data_is_named_at_once() -> None:
    wrong = {"tenant_id": "No!", "source": "filez", "selection": {}, "colour": "red"}
    answer = check(binary(wrong, {"specversion": "0.3", "type": "other", "id": None}))
    assert set(faults(answer)) == {
        "/headers/ce_specversion",
        "/headers/ce_id",
        "/headers/ce_type",
        "/tenant_id",
        "/source",
        "/colour",
    }
    answer = check(structured({"specversion": "0.3", "type": "other", "data": wrong}, without="id"))
    assert set(faults(answer)) == {
        "/specversion",
        "/id",
        "/type",
        "/data/tenant_id",
        "/data/source",
        "/data/colour",
    }


def test_the_source_of_the_event_and_the_source_of_the_job_are_told_apart() -> None:
    answer = check(structured({"source": "", "data": SUBMISSION | {"source": "filez"}}))
    assert faults(answer) == {"/source": "missing", "/data/source": "unknown source 'filez'"}


@pytest.mark.parametrize("value", [1, 1.5, True, [], ["kcat"], {}, {"a": 1}])
@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_an_attribute_that_is_no_text_is_named(name: str, value: object) -> None:
    assert faults(check(structured({name: value}))) == {f"/{name}": "expected text in UTF-8"}


@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_a_missing_attribute_is_named(name: str) -> None:
    for record in (binary(changes={name: None}), binary(changes={name: ""})):
        assert faults(check(record)) == {f"/headers/ce_{name}": "missing"}
    for record in (structured(without=name), structured({name: None}), structured({name: ""})):
        assert faults(check(record)) == {f"/{name}": "missing"}


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "\x7f", "\u200b", "\ud800", "x" * 1_025, "\u2028"])
@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_an_attribute_that_no_header_should_hold_is_refused_and_never_repeated(name: str, text: str) -> None:
    answer = check(structured({name: text}))
    assert faults(answer) == {f"/{name}": "expected at most 1024 printable characters"}
    if not any("\ud800" <= character <= "\udfff" for character in text):
        answer = check(binary(changes={name: text}))
        assert set(faults(answer)) == {f"/headers/ce_{name}"}


@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_an_attribute_that_is_not_utf8_is_refused(name: str) -> None:
    record = binary(changes={name: None}, more=[(f"ce_{name}", b"\xff\xfe")])
    assert faults(check(record)) == {f"/headers/ce_{name}": "expected text in UTF-8"}


@pytest.mark.parametrize("name", list(ATTRIBUTES))
@pytest.mark.parametrize("second", [b"kcat", b"1.0", b"other", b"\xff"])
def test_an_attribute_given_twice_is_refused(name: str, second: bytes) -> None:
    answer = check(binary(more=[(f"CE_{name}", second)]))
    assert faults(answer) == {f"/headers/ce_{name}": "given more than once"}


def test_a_field_given_twice_is_refused_in_structured_mode_too() -> None:
    value = structured().value.replace(b'"tenant_id"', b'"tenant_id": "other", "tenant_id"')
    assert faults(check(structured(value=value))) == {"": "the field 'tenant_id' is given more than once in one object"}


@pytest.mark.parametrize("content_type", ["application/cloudevents", "application/cloudevents-batch+json"])
def test_other_structured_formats_are_refused_by_name(content_type: str) -> None:
    record = Record("medkg.jobs.v1", 1, 42, None, b"[]", [("content-type", content_type.encode())])
    assert faults(check(record)) == {
        "/headers/content-type": f"{content_type!r} is not read; use application/cloudevents+json"
    }


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"{", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 40_000, "not JSON"),
        (b"9" * 5_000, "not JSON"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b"x" * (MAX_JOB_EVENT_BYTES + 1), "bytes are over the limit of 262144"),
    ],
)
def test_what_is_no_event_at_all_is_one_fault_in_structured_mode(value: bytes, says: str) -> None:
    answer = check(structured(value=value))
    assert [fault.pointer for fault in answer.faults] == [""]
    assert says in answer.faults[0].message


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (SUBMISSION | {"selection": {"paths": ["a\ud800"]}}, "/data/selection/paths/0"),
        (SUBMISSION | {"selection": {"paths": ["a\u0000"]}}, "/data/selection/paths/0"),
        (SUBMISSION | {"tenant_id": float("nan")}, "/data"),
        (SUBMISSION | {"tenant_id": 10**4_000}, "/data"),
        ("text", "/data"),
        (None, "/data"),
        ([], "/data"),
    ],
)
def test_data_that_cannot_be_stored_is_named_with_its_place(data: object, pointer: str) -> None:
    assert set(faults(check(structured({"data": data})))) == {pointer}


def test_data_that_is_nested_too_deep_is_refused() -> None:
    deep = b"[" * 900 + b"]" * 900
    value = structured({"data": "HERE"}).value.replace(b'"HERE"', deep)
    assert "/data" in faults(check(structured(value=value)))
    assert "" in faults(check(binary(b'{"a":' * 30 + b"1" + b"}" * 30)))


def test_the_tenant_of_a_faulty_event_is_known_where_it_is_a_name() -> None:
    assert check(binary(SUBMISSION | {"source": "filez"})).tenant_id == "clinic"
    assert check(structured({"data": SUBMISSION | {"source": "filez"}})).tenant_id == "clinic"
    for tenant in ("No!", "", 7, None, "x" * 64, "Clinic", "-a", "é"):
        assert check(binary(SUBMISSION | {"tenant_id": tenant})).tenant_id == ""


def test_an_event_without_identity_is_known_by_its_place() -> None:
    first = check(binary(changes={"id": None}))
    other = check(Record("medkg.jobs.v1", 1, 43, None, first.event_id.encode(), binary(changes={"id": None}).headers))
    assert first.job_id != other.job_id
    assert (first.event_id, first.event_source) == ("", "kcat")


def test_a_hostile_event_costs_no_more_than_its_size() -> None:
    names = ",".join(f'"{number:x}":0' for number in range(25_000))
    doubled = ("{" + names + "," + names + "}").encode()[:MAX_JOB_EVENT_BYTES]
    begun = time.perf_counter()
    check(structured(value=doubled))
    check(structured(value=b'{"data":{' + b'"a":1,' * 40_000 + b'"a":1}}'))
    check(binary(b'{"selection":{"paths":[' + b"{}," * 80_000 + b"{}]}}"))
    assert time.perf_counter() - begun < 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["ce_id", "ce_source", "CE_Type", "ce_specversion", "content-type", "ce_time", "ce_", "é", ""]
            ),
            st.none()
            | st.binary(max_size=30)
            | st.sampled_from([b"1.0", EventType.JOB_SUBMITTED.encode(), STRUCTURED[0][1], b"application/cloudevents"]),
        ),
        max_size=8,
    ),
)
def test_no_bytes_ever_raise(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    check(Record("medkg.jobs.v1", 1, 42, None, value, headers))  # type: ignore[arg-type]  # Kafka has headers of None


@given(
    st.dictionaries(st.sampled_from([*ATTRIBUTES, "data", "data_base64", "time"]), json_values),
    st.sampled_from(["", "tenant_id", "source", "selection"]),
    json_values,
)
def test_no_json_ever_raises_in_structured_mode(event: dict[str, Any], field: str, value: object) -> None:
    if field:
        event["data"] = SUBMISSION | {field: value}
    check(structured(value=json.dumps(ATTRIBUTES | event).encode()))


def bad_files(corpus: Path, pattern: str) -> list[Path]:
    found = sorted((corpus / "bad").glob(pattern))
    assert found
    return found


@pytest.mark.corpus
def test_every_file_of_a_json_parsers_nightmare_is_answered(corpus: Path) -> None:
    for path in bad_files(corpus, "JSONTestSuite/*/*.json"):
        data = path.read_bytes()
        assert check(binary(data)).submission is None, path
        assert check(structured(value=data)).submission is None, path
        inside = json.dumps(ATTRIBUTES).encode()[:-1] + b',"data":' + data + b"}"
        answer = check(structured(value=inside))
        assert answer.submission is None, path
        if path.name.startswith("n_") and len(data) < MAX_JOB_EVENT_BYTES:
            said = " ".join(fault.message for fault in check(binary(data)).faults)
            assert "not JSON" in said or "nested deeper" in said, path


@pytest.mark.corpus
def test_every_naughty_string_is_answered_wherever_it_stands(corpus: Path) -> None:
    strings = json.loads((corpus / "bad/blns/blns.json").read_text())
    assert len(strings) > 300
    for text in strings:
        for field in ("tenant_id", "source", "pipeline"):
            answer = check(binary(SUBMISSION | {field: text}))
            assert answer.submission is None or answer.faults == ()
        for name in ("id", "source"):
            check(structured({name: text}))
            check(binary(changes={name: text}))
        check(binary(SUBMISSION | {"selection": {"paths": [text]}}))
        check(binary(SUBMISSION | {text: text}))
