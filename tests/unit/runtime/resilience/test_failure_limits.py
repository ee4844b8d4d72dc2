"""A worker that fails document after document stops before it has drained its topic into the dead letters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkg.contracts.errors import (
    ContentError,
    ContractError,
    GpuNotAvailable,
    PayloadMalformedError,
    PipelineConfigError,
    StageCrashedError,
)
from medkg.runtime.resilience.failure_limits import LEAST, WINDOW, FailureLimits, FailureRule
from medkg.runtime.resilience.stopping import WorkerStopped

CRASH = StageCrashedError("running sections: ValueError: no such key")


def limits(run: int = 100, ratio: float = 0.5) -> FailureLimits:
    return FailureLimits(FailureRule(run, ratio), "chunk")


def test_so_many_failures_in_a_row_are_dead_letters_and_the_next_one_stops_the_worker() -> None:
    made = limits(run=100, ratio=0)
    for _ in range(100):
        made.failed(CRASH)
    with pytest.raises(WorkerStopped) as stopped:
        made.failed(CRASH)
    said = str(stopped.value)
    assert "chunk stops: 101 documents in a row have failed (MEDKG_DEAD_LETTER_RUN=100)" in said
    assert "the newest: stage_crashed: running sections: ValueError: no such key" in said
    assert "redrive the dead letters" in said
    assert stopped.value.__cause__ is CRASH


def test_one_success_begins_the_row_anew() -> None:
    made = limits(run=3, ratio=0)
    for _ in range(20):
        for _ in range(3):
            made.failed(CRASH)
        made.succeeded()


def test_a_ratio_that_is_too_high_stops_the_worker_once_there_are_enough_documents() -> None:
    made = limits(run=0, ratio=0.5)
    for number in range(LEAST - 1):
        if number % 10:
            made.failed(CRASH)
        else:
            made.succeeded()
    with pytest.raises(
        WorkerStopped, match=r"180 of the last 200 documents have failed \(MEDKG_DEAD_LETTER_RATIO=0.5\)"
    ):
        made.failed(CRASH)


@pytest.mark.parametrize("error", [ContentError("x"), PayloadMalformedError("x")])
def test_rejections_never_stop_it(error: ContentError) -> None:
    made = limits(run=3, ratio=0.01)
    for _ in range(5_000):
        made.failed(error)


@pytest.mark.parametrize("error", [PipelineConfigError("x"), GpuNotAvailable("x")])
def test_the_fault_of_one_pipeline_does_not_stop_it_for_everybody_else(error: PipelineConfigError) -> None:
    made = limits(run=3, ratio=0.01)
    for _ in range(5_000):
        made.failed(error)


def test_messages_that_cannot_be_read_count() -> None:
    made = limits(run=3)
    for _ in range(3):
        made.failed(ContractError("no CloudEvent"))
    with pytest.raises(WorkerStopped):
        made.failed(ContractError("no CloudEvent"))


def test_without_limits_nothing_stops_it() -> None:
    made = limits(run=0, ratio=0)
    for _ in range(3_000):
        made.failed(CRASH)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.booleans(), max_size=3 * WINDOW), st.floats(0.01, 1))
def test_it_stops_exactly_when_the_newest_documents_say_so(outcomes: list[bool], ratio: float) -> None:
    made, seen = limits(run=0, ratio=ratio), []
    for is_failure in outcomes:
        seen.append(is_failure)
        newest = seen[-WINDOW:]
        is_due = is_failure and len(newest) >= LEAST and sum(newest) > ratio * len(newest)
        try:
            made.failed(CRASH) if is_failure else made.succeeded()
        except WorkerStopped:
            assert is_due
            return
        assert not is_due
