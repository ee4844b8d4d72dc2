"""Running a stage under its policy: guarded, within its time, and again where that can help.

Waits up to a threshold are slept through in the window. A longer one is handed up as :class:`Parked`: the document then
waits at the gate-router and its place in the window is free.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Token
from functools import partial
from types import coroutine
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from medkg.contracts.context import StageContext
from medkg.contracts.errors import MedkgError, ResourceUnavailableError, StageCrashedError, StageTimeoutError
from medkg.runtime.registry import OpenStage
from medkg.runtime.resilience.backoff import PolicyWait
from medkg.runtime.resilience.breaker import BreakerOpen
from medkg.runtime.resilience.guards import Guard
from medkg.runtime.resilience.peers import CURRENT, Run
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.resilience.threads import StageThreads

MAX_FREE_PROBES = 10  # of one document: one that breaks its peer each time would otherwise be tried for ever

OnRetry = Callable[[MedkgError, int, float], None]


class Parked(Exception):
    """To be run again in ``seconds``, as ``attempt``. The same attempt as before means that none is used up."""

    def __init__(self, error: MedkgError, attempt: int, seconds: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.attempt = attempt
        self.seconds = seconds


class Attempt:
    """How far a document has come: the attempt it is at, and how often it was a probe in vain."""

    __slots__ = ("number", "probes")

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.probes = 0


async def run_under_policy(
    opened: OpenStage,
    guard: Guard,
    threads: StageThreads,
    ctx: StageContext,
    value: object,
    on_retry: OnRetry,
    *,
    at: Attempt | None = None,
    park_seconds: float = 5.0,
) -> Any:
    """The output of a stage. ``on_retry`` hears of each further attempt: the error, the attempt, the wait in seconds.

    ``at`` says which attempt this is; it is moved on, and still right when ResourceUnavailableError is raised and the
    same document is run again later.

    Raises:
        Parked: the next attempt is due after more than ``park_seconds``, or a peer is left alone until then.
        MedkgError: what the stage raised last; StageTimeoutError when it ran out of time, StageCrashedError when it
            raised something that is no MedkgError. ResourceUnavailableError is not retried here: the worker waits;
            BreakerOpen among them says how long.
        WorkerStopped: this process cannot go on.
    """
    try:
        if guard.is_plain and not guard.calls_peers:
            return await _run_once(opened, guard, threads, ctx, value)  # most need no more than this
        return await _run_guarded(opened, guard, threads, ctx, value, at or Attempt())
    except MedkgError as error:
        if not _is_worth_retrying(error):
            raise
        first = error
    at = at or Attempt()
    policy, before = guard.policy, at.number - 1

    async def attempt() -> Any:
        return await _run_guarded(opened, guard, threads, ctx, value, at)

    def announce(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(error, MedkgError):
            return
        at.number = before + state.attempt_number + 1
        seconds = state.next_action.sleep if state.next_action else 0.0
        if seconds > park_seconds:
            raise Parked(error, at.number, seconds) from error
        on_retry(error, at.number, seconds)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(1 + policy.attempts - before),  # the first one, and as many retries
        wait=PolicyWait(policy, before),
        retry=retry_if_exception(_is_worth_retrying),
        before_sleep=announce,
        reraise=True,
    )
    return await retrying(_Replay(first, attempt))


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


async def _run_guarded(
    opened: OpenStage, guard: Guard, threads: StageThreads, ctx: StageContext, value: object, at: Attempt
) -> Any:
    run = Run(guard) if guard.calls_peers else None
    work = partial(_run_once, opened, guard, threads, ctx, value, run)
    try:
        return await guard.run(work, may_probe_again=at.probes < MAX_FREE_PROBES)
    except BreakerOpen as error:
        if error.is_of_peer:
            raise Parked(error, at.number, error.seconds_until_tried) from error
        if error.was_probed:
            at.probes += 1
        raise


async def _run_once(
    opened: OpenStage,
    guard: Guard,
    threads: StageThreads,
    ctx: StageContext,
    value: object,
    run: Run | None = None,
) -> Any:
    limit: asyncio.Timeout | None = None
    token: Token[Run | None] | None = CURRENT.set(run) if run is not None else None
    seconds = guard.policy.timeout_seconds
    try:
        if not opened.is_async:
            return await threads.run(partial(opened.stage.execute, ctx, value), seconds, ctx.tenant_id)
        running = opened.stage.execute(ctx, value)
        try:
            awaited = running.send(None)
        except StopIteration as returned:  # it waited for nothing: no clock was needed, and setting one costs 5 us
            return returned.value
        async with asyncio.timeout(seconds) as limit:
            if run is not None:
                run.timed_by(limit)
            return await _continued(running, awaited)
    except (MedkgError, WorkerStopped):
        raise
    except Exception as error:
        if limit is not None and limit.expired():
            raise StageTimeoutError(f"running {opened.implementation.name}: no result within {seconds} s") from error
        raise StageCrashedError(f"running {opened.implementation.name}: {type(error).__name__}: {error}") from error
    finally:
        if token is not None:
            CURRENT.reset(token)


@coroutine
def _continued(running: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    """The rest of a coroutine that waits for ``awaited`` already, in the task that began it."""
    while True:
        try:
            answer = yield awaited
        except BaseException as error:  # noqa: BLE001  handed on as it came, a cancellation too
            step = partial(running.throw, error)
        else:
            step = partial(running.send, answer)
        try:
            awaited = step()
        except StopIteration as returned:
            return returned.value


def _is_worth_retrying(error: BaseException) -> bool:
    return isinstance(error, MedkgError) and error.retryable and not isinstance(error, ResourceUnavailableError)
