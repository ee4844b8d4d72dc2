"""Running a stage under its policy: a time limit, and short retries inside the window."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from random import SystemRandom
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_base

from medkg.contracts.context import StageContext
from medkg.contracts.errors import MedkgError, ResourceUnavailableError, StageCrashedError, StageTimeoutError
from medkg.contracts.topology import Backoff, Policy
from medkg.runtime.registry import OpenStage

_RANDOM = SystemRandom()
OnRetry = Callable[[MedkgError, int, float], None]


async def run_under_policy(
    opened: OpenStage,
    policy: Policy,
    executor: Executor,
    ctx: StageContext,
    value: object,
    on_retry: OnRetry,
) -> Any:
    """The output of a stage. ``on_retry`` hears of each further attempt: the error, the attempt, the wait in seconds.

    Raises:
        MedkgError: what the stage raised last; StageTimeoutError when it ran out of time, StageCrashedError when it
            raised something that is no MedkgError. ResourceUnavailableError is not retried here: the worker waits.
    """

    async def attempt() -> Any:
        return await _run_once(opened, policy, executor, ctx, value)

    try:
        return await attempt()  # most runs need no second one, and pay for no machinery
    except MedkgError as error:
        if not _is_worth_retrying(error):
            raise
        first = error

    def announce(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, MedkgError):
            on_retry(error, state.attempt_number + 1, state.next_action.sleep if state.next_action else 0.0)

    replayed = _Replay(first, attempt)
    retrying = AsyncRetrying(
        stop=stop_after_attempt(1 + policy.attempts),  # the first one, and as many retries
        wait=PolicyWait(policy),
        retry=retry_if_exception(_is_worth_retrying),
        before_sleep=announce,
        reraise=True,
    )
    return await retrying(replayed)


class PolicyWait(wait_base):
    """Seconds until the next attempt: by the policy's backoff, or longer where the peer said so (``Retry-After``)."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __call__(self, retry_state: RetryCallState) -> float:
        policy, done = self._policy, retry_state.attempt_number
        seconds = 0.0
        if policy.backoff is Backoff.LINEAR:
            seconds = policy.initial_seconds * done
        elif policy.backoff is Backoff.EXPONENTIAL:
            seconds = policy.initial_seconds * 2 ** (done - 1)
        seconds = min(seconds, policy.max_seconds)
        if policy.backoff is not Backoff.NONE:
            seconds += policy.jitter_seconds * _RANDOM.random()
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.retry_after_seconds if isinstance(error, MedkgError) else None
        return max(seconds, min(asked or 0.0, policy.max_seconds))


class _Replay:
    """Raises what the first attempt raised, then attempts again: tenacity counts from one."""

    def __init__(self, first: MedkgError, attempt: Callable[[], Awaitable[Any]]) -> None:
        self._first: MedkgError | None = first
        self._attempt = attempt

    async def __call__(self) -> Any:
        if self._first is not None:
            error, self._first = self._first, None
            raise error
        return await self._attempt()


async def _run_once(opened: OpenStage, policy: Policy, executor: Executor, ctx: StageContext, value: object) -> Any:
    limit = asyncio.timeout(policy.timeout_seconds if opened.is_async else None)
    try:
        async with limit:
            if opened.is_async:
                return await opened.stage.execute(ctx, value)
            return await _on_a_thread(opened, policy, executor, limit, ctx, value)
    except MedkgError:
        raise
    except Exception as error:
        if limit.expired():
            raise StageTimeoutError(
                f"running {opened.implementation.name}: no result within {policy.timeout_seconds} s"
            ) from error
        raise StageCrashedError(f"running {opened.implementation.name}: {type(error).__name__}: {error}") from error


async def _on_a_thread(
    opened: OpenStage, policy: Policy, executor: Executor, limit: asyncio.Timeout, ctx: StageContext, value: object
) -> Any:
    """Run a plain function. Its time counts from when a thread takes it: waiting for one is nobody's failure."""
    loop = asyncio.get_running_loop()
    begun: list[float] = []
    timer: asyncio.TimerHandle | None = None

    def work() -> Any:
        begun.append(time.monotonic())
        return opened.stage.execute(ctx, value)

    def look() -> None:  # cheaper than a word from the thread when it begins
        nonlocal timer
        left = policy.timeout_seconds - (time.monotonic() - begun[0] if begun else 0.0)
        if left > 0:
            timer = loop.call_later(left, look)
        else:
            limit.reschedule(loop.time())

    look()
    try:
        return await loop.run_in_executor(executor, work)
    finally:
        if timer is not None:
            timer.cancel()


def _is_worth_retrying(error: BaseException) -> bool:
    return isinstance(error, MedkgError) and error.retryable and not isinstance(error, ResourceUnavailableError)
