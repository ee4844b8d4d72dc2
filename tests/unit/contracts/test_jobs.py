"""The door: whatever comes, the answer is a submission or a list of faults that can be stored and sent."""

import json
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.jobs import MAX_FAULTS, MAX_JOB_EVENT_BYTES, MAX_SHOWN, JobSubmission, check_submission
from medkg.contracts.messages import Fault, JobRejected

GOOD = {"tenant_id": "clinic", "source": "files", "selection": {"paths": ["/data/*.json"]}}

OTHER_DIGITS = "NCT" + "\u0661" * 8


def check(value: object) -> tuple[JobSubmission | None, dict[str, str]]:
    submission, faults = check_submission(json.dumps(value).encode())
    return submission, {fault.pointer: fault.message for fault in faults}


def assert_answer(data: bytes) -> tuple[JobSubmission | None, tuple[Fault, ...]]:
    """Check bytes, and that the answer keeps what is promised of every answer."""
    submission, faults = check_submission(data)
    assert (submission is None) == bool(faults)
    assert len(faults) <= MAX_FAULTS
    for text in (part for fault in faults for part in (fault.pointer, fault.message, fault.hint)):
        assert len(text) <= MAX_SHOWN * 6  # escapes are longer than what they stand for
        assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text)
    msgspec.json.encode(JobRejected(job_id="0", faults=faults))
    if submission is not None:
        submission.model_dump_json().encode()
        assert "\0" not in json.dumps(submission.selection, ensure_ascii=False)
    return submission, faults


def test_a_good_submission_is_taken() -> None:
    submission, faults = check(GOOD)

    assert faults == {}
    assert submission == JobSubmission(tenant_id="clinic", source="files", selection={"paths": ["/data/*.json"]})


def test_every_fault_is_named_with_its_pointer() -> None:
    _, faults = check(
        {
            "tenant_id": "Clinic 1",
            "source": "clinicaltrials",
            "selection": {"ids": ["NCT00000001", "NCT1"], "limit": 0, "a/b~c": 1},
            "pipeline": "../auto",
            "colour": "red",
        }
    )
    assert set(faults) == {
        "/tenant_id",
        "/pipeline",
        "/colour",
        "/selection/ids/1",
        "/selection/limit",
        "/selection/a~1b~0c",
    }


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"tenant_id": None}, "/tenant_id"),
        ({"tenant_id": "a\n"}, "/tenant_id"),
        ({"source": "filez"}, "/source"),
        ({"source": ["files"]}, "/source"),
        ({"selection": []}, "/selection"),
        ({"selection": {"paths": []}}, "/selection/paths"),
        ({"selection": {"paths": "x"}}, "/selection/paths"),
        ({"selection": {"paths": ["a\u0000b"]}}, "/selection/paths/0"),
        ({"selection": {"paths": ["a\nb"]}}, "/selection/paths/0"),
        ({"source": "clinicaltrials", "selection": {}}, "/selection"),
        ({"source": "clinicaltrials", "selection": {"query": "  "}}, "/selection"),
        ({"source": "clinicaltrials", "selection": {"ids": ["NCT00000001"], "query": "x"}}, "/selection"),
        ({"source": "clinicaltrials", "selection": {"ids": [OTHER_DIGITS]}}, "/selection/ids/0"),
        ({"source": "clinicaltrials", "selection": {"query": "a\u0000b"}}, "/selection/query"),
        ({"source": "clinicaltrials", "selection": {"query": "x", "limit": "3"}}, "/selection/limit"),
        ({"source": "clinicaltrials", "selection": {"query": "x", "limit": True}}, "/selection/limit"),
        ({"pipeline_version": "1.0"}, ""),
        ({"pipeline": "auto", "pipeline_version": "1"}, "/pipeline_version"),
        ({"kind": "pages"}, "/kind"),
    ],
)  # fmt: skip
def test_a_fault_stands_where_it_is(changes: dict[str, object], pointer: str) -> None:
    submission, faults = check(GOOD | changes)

    assert submission is None
    assert list(faults) == [pointer]


def test_an_unknown_source_is_met_with_the_known_ones() -> None:
    _, faults = check_submission(json.dumps(GOOD | {"source": "filez"}).encode())
    assert faults == (Fault("/source", "unknown source 'filez'", "did you mean 'files'?"),)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"null", "expected a JSON object, found null"),
        (b"[]", "found an array"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "a number is too large"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "a number of 5000 digits is too long"),
        (b'{"a": "\xff"}', "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "nested deeper than 16 levels"),
        (b"[" * 200_000, "nested deeper than 16 levels"),
        (b" " * (MAX_JOB_EVENT_BYTES + 1), "over the limit"),
    ],
)
def test_what_is_no_job_at_all_has_one_fault(data: bytes, words: str) -> None:
    submission, faults = assert_answer(data)

    assert submission is None
    assert len(faults) == 1
    assert faults[0].pointer == ""
    assert words in faults[0].message


def test_a_field_given_twice_is_a_fault() -> None:
    _, faults = assert_answer(b'{"tenant_id": "a", "tenant_id": "b", "source": "files", "selection": {"paths": ["x"]}}')
    assert faults == (Fault("", "the field 'tenant_id' is given more than once in one object"),)


def test_half_surrogate_pairs_are_named_and_escaped() -> None:
    data = rb'{"tenant_id": "a", "source": "files", "selection": {"paths": ["\ud800"]}, "\udfff\u0000": 1}'
    _, faults = assert_answer(data)

    assert {fault.pointer for fault in faults} == {"/selection/paths/0", r"/\udfff\u0000"}


HOSTILE = {
    "many unknown fields": b"{" + b",".join(b'"k%d":1' % n for n in range(22_000)) + b"}",
    "the same field again and again": b"{" + b",".join([b'"k":1'] * 40_000) + b"}",
    "a long name over many faults": (
        b'{"selection":{"' + b"x" * 100_000 + b'":[' + b",".join([b'"\\u0000"'] * 16_000) + b"]}}"
    ),
    "many wrong ids": json.dumps(GOOD | {"source": "clinicaltrials", "selection": {"ids": ["x"] * 10_000}}).encode(),
    "deep and wide": b'{"a":[' + b",".join([b"[[[[[[[[[]]]]]]]]]"] * 12_000) + b"]}",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_events_of_full_size_take_bounded_time_and_make_a_small_answer(data: bytes) -> None:
    assert len(data) <= MAX_JOB_EVENT_BYTES
    began = time.perf_counter()
    _, faults = assert_answer(data)

    assert time.perf_counter() - began < 5  # a fraction of a second alone
    assert len(msgspec.json.encode(faults)) < 400_000  # fits into a message


@given(st.binary(max_size=400))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert_answer(data)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_FIELDS = st.sampled_from(["tenant_id", "source", "selection", "pipeline", "pipeline_version", "kind", "paths", "x"])


@given(st.dictionaries(_FIELDS, _VALUES))
def test_any_object_has_an_answer(changes: dict[str, object]) -> None:
    assert_answer(json.dumps(changes).encode())
    assert_answer(json.dumps(GOOD | changes).encode())


@given(st.text(max_size=60))
def test_any_text_in_any_field_has_an_answer(text: str) -> None:
    for field in GOOD:
        assert_answer(json.dumps(GOOD | {field: text}).encode())
    assert_answer(json.dumps(GOOD | {"selection": {"paths": [text]}}).encode())
    assert_answer(json.dumps(GOOD | {text: text}).encode())


@pytest.mark.corpus
def test_json_that_must_fail_is_refused_and_all_other_json_has_an_answer(corpus: Path) -> None:
    files = sorted((corpus / "bad/JSONTestSuite/test_parsing").glob("*.json"))
    assert len(files) > 100
    for file in files:
        data = file.read_bytes()
        submission, faults = assert_answer(data)
        assert submission is None
        if file.name.startswith("n_"):
            assert len(faults) == 1, file.name
        # the same text inside of a job: a broken part breaks the whole
        inside = b'{"tenant_id": "a", "source": "files", "selection": {"paths": ["x"]}, "kind": ' + data + b"}"
        assert assert_answer(inside)[0] is None, file.name


@pytest.mark.corpus
def test_naughty_strings_have_an_answer_wherever_they_stand(corpus: Path) -> None:
    strings = json.loads((corpus / "bad/blns/blns.json").read_text(encoding="utf-8"))
    assert len(strings) > 400
    for text in strings:
        for changes in (
            {"tenant_id": text},
            {"source": text},
            {"pipeline": text},
            {"selection": {"paths": [text]}},
            {"source": "clinicaltrials", "selection": {"query": text}},
            {"source": "clinicaltrials", "selection": {"ids": [text]}},
            {text: 1},
            {"selection": {text: 1}},
        ):
            assert_answer(json.dumps(GOOD | changes).encode())
        assert_answer(text.encode("utf-8", "surrogatepass"))
