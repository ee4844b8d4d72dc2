"""What a stage handler publishes when a document is parked, held up, or one failure too many."""

import time

import pytest
from tests.unit.runtime.stage_kit import (
    PATIENT,
    Told,
    asked,
    bench,
    counted,
    document_of,
    event,
    header,
    kind_of,
    record,
    request,
    topology,
)

from medkg.contracts import topics
from medkg.contracts.errors import (
    PayloadMalformedError,
    ResourceUnavailableError,
    SourceRateLimitedError,
    SourceUnavailableError,
)
from medkg.contracts.stages import StageType
from medkg.runtime.resilience.breaker import BreakerOpen
from medkg.runtime.resilience.failure_limits import FailureRule
from medkg.runtime.resilience.stopping import WorkerStopped

PARSE = StageType.PARSE


async def test_a_long_wait_is_spent_at_the_router_and_the_ledger_hears_of_it() -> None:
    pinned = topology()
    stage = Told(document_of, raises=[SourceRateLimitedError("429", retry_after_seconds=90)])
    async with bench(PARSE, stage, pinned) as at:
        parked, retrying = await at.handle(record(request(pinned)))
        retries = counted(at.metrics, "medkg_stage_retries_total", {"stage": "parse", "code": "source_rate_limited"})
        failures = counted(at.metrics, "medkg_dead_letters_total", {"stage": "parse", "code": "source_rate_limited"})
    wanted = asked(parked)
    assert (parked.topic, parked.key, kind_of(parked)) == (topics.GATE, "doc-1", "stage.requested")
    assert (wanted.stage, wanted.attempt, set(wanted.artefacts)) == ("parse", 2, {"payload"})
    assert wanted.not_before_ms / 1_000 - time.time() == pytest.approx(90, abs=5)
    about = event(retrying)
    assert (kind_of(retrying), about.attempt, about.backoff_ms) == ("stage.retrying", 2, 90_000.0)
    assert header(retrying, "ce_errorcode") == "org.medicalkg.error.source_rate_limited"
    assert (len(stage.calls), retries, failures) == (1, 1, 0)


async def test_a_document_that_comes_back_goes_on_counting_where_it_was() -> None:
    pinned = topology()
    stage = Told(document_of, raises=[SourceRateLimitedError("429", retry_after_seconds=90) for _ in range(99)])
    wanted = request(pinned)
    async with bench(PARSE, stage, pinned) as at:
        for attempt in range(2, 2 + PATIENT.attempts):
            wanted = asked((await at.handle(record(wanted)))[0])
            assert wanted.attempt == attempt
        letter, failed = await at.handle(record(wanted))
    assert (letter.topic, kind_of(failed), event(failed).attempt) == (topics.DEAD_LETTER, "stage.failed", 4)
    assert len(stage.calls) == 1 + PATIENT.attempts


async def test_a_redelivered_request_is_parked_under_the_same_ids() -> None:
    pinned, ids = topology(), []
    for _ in range(2):
        stage = Told(document_of, raises=[SourceRateLimitedError("429", retry_after_seconds=90)])
        async with bench(PARSE, stage, pinned) as at:
            ids.append([header(item, "ce_id") for item in await at.handle(record(request(pinned)))])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


async def test_attempts_are_kept_while_a_resource_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float, result: object = None) -> None:
        """Nobody sleeps."""

    monkeypatch.setattr("asyncio.sleep", sleep)
    pinned = topology()
    down, away = SourceUnavailableError("503"), ResourceUnavailableError("no index")
    stage = Told(document_of, raises=[down, away, down, away, down, down, down])
    async with bench(PARSE, stage, pinned) as at:
        for _ in range(2):
            with pytest.raises(ResourceUnavailableError):
                await at.handle(record(request(pinned)))
        letter, _ = await at.handle(record(request(pinned)))
        assert not at.handler._resumed
    assert letter.topic == topics.DEAD_LETTER
    assert len(stage.calls) == 1 + PATIENT.attempts + 2  # the two that met no resource count for nothing


async def test_an_open_breaker_is_handed_to_the_worker_and_nothing_is_published() -> None:
    policy = PATIENT.model_validate(
        PATIENT.model_dump() | {"attempts": 1, "breaker": {"failures": 3, "reset_seconds": 30}, "backoff": "none"}
    )
    pinned = topology()
    stage = Told(document_of, raises=[SourceUnavailableError("503") for _ in range(3)])
    async with bench(PARSE, stage, pinned, policy=policy) as at:
        await at.handle(record(request(pinned)))
        for _ in range(5):
            with pytest.raises(BreakerOpen):
                await at.handle(record(request(pinned, doc_id="doc-2")))
    assert len(stage.calls) == 3


async def test_one_failure_too_many_stops_the_worker_before_it_becomes_a_dead_letter() -> None:
    pinned = topology()
    stage = Told(document_of, raises=[ZeroDivisionError("a bad release") for _ in range(99)])
    async with bench(PARSE, stage, pinned, limits=FailureRule(run=3, ratio=0)) as at:
        for _ in range(3):
            letter, _ = await at.handle(record(request(pinned)))
            assert letter.topic == topics.DEAD_LETTER
        with pytest.raises(WorkerStopped, match="a bad release"):
            await at.handle(record(request(pinned)))
        assert counted(at.metrics, "medkg_dead_letters_total", {"stage": "parse", "code": "stage_crashed"}) == 3


async def test_unreadable_messages_stop_it_too_and_rejected_documents_do_not() -> None:
    pinned = topology()
    stage = Told(document_of, raises=[PayloadMalformedError("not text") for _ in range(50)])
    async with bench(PARSE, stage, pinned, limits=FailureRule(run=3, ratio=0.5)) as at:
        for _ in range(50):
            await at.handle(record(request(pinned)))
        for _ in range(3):
            await at.handle(record(b"no request"))
        with pytest.raises(WorkerStopped):
            await at.handle(record(b"no request"))
