"""What is published about a request: identities, traces, reasons."""

from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.stage_kit import event, header, kind_of, record, request, topology

from medkg.contracts.cloudevents import read_envelope
from medkg.contracts.errors import MedkgError, PayloadMalformedError, SourceRateLimitedError
from medkg.contracts.messages import Failure
from medkg.runtime.outcome import Narrator, failure_of, request_id, request_message

PINNED = topology()


def narrator(**fields: Any) -> Narrator:
    envelope = read_envelope(record(request(PINNED)).headers)
    return Narrator("worker-1", "medkg/parse", "ParseStage", envelope, request(PINNED, **fields))


def test_the_id_of_a_request_is_made_of_what_makes_it_another_one() -> None:
    base = request(PINNED)
    others = [
        msgspec.structs.replace(base, **change)
        for change in (
            {"job_id": "j2"},
            {"doc_id": "d2"},
            {"page": 1},
            {"stage": "chunk"},
            {"arrived_from": "x"},
            {"attempt": 2},
        )
    ]
    ids = [request_id(one) for one in (base, *others)]
    assert all(one != other for one, other in combinations(ids, 2))
    same = msgspec.structs.replace(base, metadata={"year": 1}, artefacts={}, tenant_id="other")
    assert request_id(same) == request_id(base)


def test_a_page_is_kept_with_its_job_and_a_document_by_itself() -> None:
    document = request_message("topic", request(PINNED), "medkg/test")
    page = request_message("topic", request(PINNED, doc_id="", page=3), "medkg/test")
    assert (document.key, page.key) == ("doc-1", "job-1")
    assert (header(document, "ce_subject"), header(page, "ce_subject")) == ("job-1/doc-1", "job-1/page-3")
    for item in (document, page):
        envelope = read_envelope(item.headers)
        assert (envelope.correlationid, envelope.partitionkey) == ("job-1", item.key)
        assert envelope.traceparent[36:52] == envelope.id[:16]


def test_every_kind_of_event_about_every_attempt_has_an_id_of_its_own() -> None:
    failure = Failure("stage_timeout", "slow")
    one = narrator()
    events = [
        one.started(),
        one.retrying(failure, 2, 0.5),
        one.retrying(failure, 3, 1.0),
        one.failed(failure, record(b"x"), 1.0)[1],
        *one.ended(PINNED),
        narrator(attempt=2).started(),
        narrator(doc_id="", page=1).started(),
    ]
    assert len({header(item, "ce_id") for item in events}) == len(events)
    assert [kind_of(item) for item in events[:5]] == [
        "stage.started",
        "stage.retrying",
        "stage.retrying",
        "stage.failed",
        "stage.completed",
    ]
    assert event(events[1]).backoff_ms == 500.0
    assert all(event(item).worker == "worker-1" for item in events)


def test_a_document_that_leaves_its_pipeline_has_reached_all_ends() -> None:
    (ended,) = narrator().ended(PINNED)
    about = event(ended)
    assert (about.finished_leaves, about.leaves, about.reused) == (("chunk",), 1, True)


def test_a_failure_keeps_the_chain_of_its_causes_within_bounds() -> None:
    error: BaseException = ValueError("x" * 10_000)
    for number in range(20):
        outer = RuntimeError(f"level {number}")
        outer.__cause__ = error
        error = outer
    top = PayloadMalformedError("y" * 10_000)
    top.__cause__ = error
    failure = failure_of(top)
    assert len(failure.causes) == 8
    assert failure.causes[0] == "RuntimeError: level 19"
    assert len(failure.message) == 2_000
    assert len(msgspec.json.encode(failure)) < 10_000


def test_a_failure_says_whether_another_attempt_may_help() -> None:
    assert failure_of(SourceRateLimitedError("429")) == Failure("source_rate_limited", "429", retryable=True)
    assert failure_of(PayloadMalformedError("bad")) == Failure("payload_malformed", "bad", "rejected")


def test_what_was_being_handled_when_it_failed_is_a_cause_too() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise PayloadMalformedError("outer") from None
    except MedkgError as error:
        assert failure_of(error).causes == ("KeyError: 'inner'",)


@given(st.text(st.characters()))
def test_any_text_of_an_error_can_be_written(text: str) -> None:
    error = PayloadMalformedError(text)
    error.__cause__ = ValueError(text)
    msgspec.json.encode(failure_of(error))


@pytest.mark.parametrize("surrogate", ["\ud800", "\udfff"])
def test_half_of_a_surrogate_pair_is_shown_as_an_escape(surrogate: str) -> None:
    assert failure_of(PayloadMalformedError(f"a{surrogate}")).message == f"a\\u{ord(surrogate):04x}"
