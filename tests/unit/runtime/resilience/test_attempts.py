"""A stage under its policy: how long it may take, how often it is tried, how long is waited in between."""

import asyncio
import threading
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.stage_kit import Told, ToldOnAThread, guard, open_stage

from medkg.contracts.context import StageContext
from medkg.contracts.errors import (
    ContentError,
    MedkgError,
    ResourceUnavailableError,
    SourceRateLimitedError,
    SourceUnavailableError,
    StageCrashedError,
    StageTimeoutError,
)
from medkg.contracts.topology import Policy
from medkg.runtime.resilience.attempts import run_under_policy
from medkg.runtime.resilience.threads import StageThreads

CTX = StageContext("clinic", "doc-1", "job-1")
Heard = list[tuple[str, int, float]]


def policy(**fields: Any) -> Policy:
    return Policy.model_validate({"jitter_seconds": 0, "initial_seconds": 1, "max_seconds": 10} | fields)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []

    async def sleep(waited: float, result: object = None) -> None:
        seconds.append(waited)

    monkeypatch.setattr("asyncio.sleep", sleep)
    return seconds


async def run(stage: Any, rule: Policy, heard: Heard | None = None, *, threads: int = 1) -> Any:
    def on_retry(error: MedkgError, attempt: int, seconds: float) -> None:
        if heard is not None:
            heard.append((error.code, attempt, seconds))

    with closing(StageThreads(threads, "test")) as pool:
        return await run_under_policy(
            open_stage(stage), guard(rule), pool, CTX, "input", on_retry, park_seconds=float("inf")
        )


@pytest.mark.parametrize("kind", [Told, ToldOnAThread])
async def test_what_works_is_run_once(kind: type[Told], slept: list[float]) -> None:
    heard: Heard = []
    stage = kind(lambda ctx, value: (ctx.doc_id, value))
    assert await run(stage, policy(), heard) == ("doc-1", "input")
    assert (len(stage.calls), heard, slept) == (1, [], [])


@pytest.mark.parametrize(
    ("rule", "waits"),
    [
        ({"backoff": "exponential", "attempts": 6}, [1, 2, 4, 8, 10, 10]),
        ({"backoff": "linear", "attempts": 4, "max_seconds": 3}, [1, 2, 3, 3]),
        ({"backoff": "none", "attempts": 2}, [0, 0]),
        ({"attempts": 1}, [1]),
    ],
)
async def test_it_is_tried_again_as_often_and_as_late_as_the_policy_says(
    rule: dict[str, Any], waits: list[float], slept: list[float]
) -> None:
    heard: Heard = []
    stage = Told(lambda ctx, value: value, raises=[SourceUnavailableError("503") for _ in range(20)])
    with pytest.raises(SourceUnavailableError):
        await run(stage, policy(**rule), heard)
    assert len(stage.calls) == 1 + rule["attempts"]
    assert slept == waits
    assert heard == [("source_unavailable", number, wait) for number, wait in enumerate(waits, start=2)]


async def test_the_last_attempt_may_succeed() -> None:
    stage = Told(lambda ctx, value: "done", raises=[SourceUnavailableError("503") for _ in range(3)])
    assert await run(stage, policy(attempts=3)) == "done"


async def test_it_is_the_last_error_that_counts() -> None:
    stage = Told(lambda ctx, value: value, raises=[SourceUnavailableError("503"), ContentError("refused")])
    with pytest.raises(ContentError, match="refused"):
        await run(stage, policy(attempts=3))
    assert len(stage.calls) == 2


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (None, 1.0),
        (0.0, 1.0),
        (-5.0, 1.0),
        (0.5, 1.0),
        (7.0, 7.0),
        (600.0, 600.0),
        (3_600.0, 3_600.0),
        (float("inf"), 3_600.0),
    ],
)
async def test_a_peer_may_ask_for_a_longer_wait_than_the_policys_longest_up_to_an_hour(
    asked: float | None, waited: float, slept: list[float]
) -> None:
    error = SourceRateLimitedError("429", retry_after_seconds=asked)
    await run(Told(lambda ctx, value: value, raises=[error]), policy())
    assert slept == [waited]


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.sampled_from(["none", "linear", "exponential"]),
    st.integers(1, 10),
    st.floats(0.1, 10),
    st.floats(10, 300),
    st.floats(0, 5),
)
async def test_no_wait_is_longer_than_the_longest_and_the_jitter(
    backoff: str, tries: int, initial: float, longest: float, jitter: float
) -> None:
    rule = Policy.model_validate(
        {
            "backoff": backoff,
            "attempts": tries,
            "initial_seconds": initial,
            "max_seconds": longest,
            "jitter_seconds": jitter,
        }
    )
    heard: Heard = []
    stage = Told(lambda ctx, value: value, raises=[SourceUnavailableError("503") for _ in range(20)])
    with pytest.raises(SourceUnavailableError):
        await run(stage, rule, heard)
    waits = [seconds for _, _, seconds in heard]
    assert len(waits) == tries
    assert all(0 <= wait <= longest + jitter for wait in waits)
    if backoff == "none":
        assert waits == [0.0] * tries
    else:
        assert waits[0] >= initial


@pytest.mark.parametrize("error", [ContentError("bad"), ResourceUnavailableError("no index")])
async def test_a_permanent_error_and_a_missing_resource_are_not_tried_again(
    error: MedkgError, slept: list[float]
) -> None:
    stage = Told(lambda ctx, value: value, raises=[error])
    with pytest.raises(type(error)):
        await run(stage, policy())
    assert (len(stage.calls), slept) == (1, [])


@pytest.mark.parametrize("kind", [Told, ToldOnAThread])
@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("of its own"), AssertionError(), OSError("disk")])
async def test_what_is_no_error_of_ours_is_a_crash_and_not_tried_again(kind: type[Told], error: Exception) -> None:
    stage = kind(lambda ctx, value: value, raises=[error])
    with pytest.raises(StageCrashedError, match=f"running told: {type(error).__name__}") as caught:
        await run(stage, policy())
    assert repr(caught.value.__cause__) == repr(error)  # a thread pool makes a new one of some
    assert len(stage.calls) == 1


async def test_a_coroutine_that_takes_too_long_is_stopped_and_tried_again() -> None:
    ended = []

    class Slow:
        async def execute(self, ctx: StageContext, value: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(ctx.doc_id)

    rule = policy(attempts=1).model_copy(update={"timeout_seconds": 0.01})
    with pytest.raises(StageTimeoutError, match=r"no result within 0.01 s"):
        await run(Slow(), rule)
    assert ended == ["doc-1", "doc-1"]


async def test_waiting_for_a_free_thread_is_not_counted_as_work() -> None:
    """Sixteen documents for four threads: the last must not run out of time before it has begun."""
    let_go = threading.Event()

    class Blocking:
        def execute(self, ctx: StageContext, value: object) -> object:
            if value == "first":
                let_go.wait(10)
            return value

    opened = open_stage(Blocking())
    patient = policy()
    hasty = policy().model_copy(update={"timeout_seconds": 0.05})
    retried: list[int] = []
    with closing(StageThreads(1, "test")) as pool:
        first = asyncio.create_task(run_under_policy(opened, guard(patient), pool, CTX, "first", lambda *_: None))
        second = asyncio.create_task(
            run_under_policy(opened, guard(hasty), pool, CTX, "second", lambda *_: retried.append(1))
        )
        await asyncio.wait([second], timeout=0.2)
        assert not retried
        let_go.set()
        assert [await first, await second] == ["first", "second"]


async def test_a_run_that_is_cancelled_ends_at_once() -> None:
    class Endless:
        async def execute(self, ctx: StageContext, value: object) -> None:
            await asyncio.Event().wait()

    task = asyncio.create_task(run(Endless(), policy()))
    for _ in range(3):
        await asyncio.get_running_loop().run_in_executor(None, int)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
