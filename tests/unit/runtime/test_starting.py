"""A start that waits: for what, for how long, and who may break it off."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import ConfigurationError, MedkgError, ResourceUnavailableError
from medkg.runtime.starting import Patience, Start, StoppedAtStart

AWAY = ResourceUnavailableError("reaching PostgreSQL at db:5432: refused; is it up?")
QUICK = Patience(first_seconds=0.001, most_seconds=0.002)


class Opened:
    """Something that is away for a number of attempts. ``open`` counts what was opened and not closed again."""

    def __init__(self, *faults: MedkgError) -> None:
        self.faults = list(faults)
        self.attempts = 0
        self.open = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        self.attempts += 1
        self.open += 1
        try:
            if self.faults:
                raise self.faults.pop(0)
            yield "at work"
        finally:
            self.open -= 1


def start(patience: Patience = QUICK, stop: asyncio.Event | None = None) -> Start:
    return Start("ledger", patience, stop or asyncio.Event())


async def entered(started: Start, opened: Callable[[], AbstractAsyncContextManager[str]]) -> str:
    async with AsyncExitStack() as stack:
        return await started.open(stack, opened)


async def test_what_is_away_is_waited_for_with_a_line_for_each_attempt(caplog: pytest.LogCaptureFixture) -> None:
    opened, started = Opened(AWAY, AWAY, AWAY), start()
    with caplog.at_level(logging.INFO):
        async with AsyncExitStack() as stack:
            assert await started.open(stack, opened) == "at work"
            assert opened.open == 1
    assert opened.open == 0
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    for number, record in enumerate(warnings, 1):
        assert "ledger cannot start yet: reaching PostgreSQL at db:5432: refused; is it up?" in record.getMessage()
        assert "next attempt in" in record.getMessage()
        assert (record.__dict__["attempt"], record.__dict__["code"]) == (number, "resource_unavailable")
    assert "ledger: it answers, after" in caplog.text


async def test_a_probe_is_told_what_is_waited_for() -> None:
    started = start()
    told: list[dict[str, str]] = []

    opened = Opened(AWAY)

    def asked() -> AbstractAsyncContextManager[str]:
        told.append(started.faults())
        return opened()

    await entered(started, asked)
    assert [one["start"] for one in told] == [
        "ledger not serving yet; waiting: nothing yet",
        "ledger not serving yet; waiting: reaching PostgreSQL at db:5432: refused; is it up?",
    ]


async def test_a_setting_that_cannot_work_is_not_waited_for() -> None:
    opened = Opened(AWAY, ConfigurationError("it refuses us: password authentication failed"), AWAY)
    with pytest.raises(ConfigurationError, match="password"):
        await entered(start(), opened)
    assert (opened.attempts, opened.open) == (2, 0)


async def test_the_wait_ends_where_it_is_bounded_and_says_by_what() -> None:
    opened = Opened(*[AWAY] * 10_000)
    with pytest.raises(
        ResourceUnavailableError, match=r"refused; is it up\?; given up after .*MEDKG_START_WAIT_SECONDS"
    ):
        await entered(start(Patience(0.05, first_seconds=0.001, most_seconds=0.002)), opened)
    assert 1 < opened.attempts < 10_000


async def test_a_stop_breaks_off_a_pause_at_once() -> None:
    stop = asyncio.Event()
    opened = Opened(AWAY)
    task = asyncio.create_task(entered(start(Patience(first_seconds=3_600, most_seconds=3_600), stop), opened))
    async with asyncio.timeout(5):
        while not opened.attempts:
            await asyncio.sleep(0)
        stop.set()
        with pytest.raises(StoppedAtStart):
            await task


async def test_a_stop_breaks_off_an_attempt_that_hangs_and_closes_what_it_had_opened() -> None:
    stop, closed = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def hanging() -> AsyncIterator[str]:
        try:
            stop.set()
            await asyncio.Event().wait()  # a server that takes connections and says nothing
            yield ""
        finally:
            closed.set()

    async with asyncio.timeout(5):
        with pytest.raises(StoppedAtStart):
            await entered(start(stop=stop), hanging)
    assert closed.is_set()


async def test_a_stop_that_came_before_is_obeyed() -> None:
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(StoppedAtStart):
        await entered(start(stop=stop), Opened(*[AWAY] * 100))


async def test_a_stop_after_the_start_does_not_touch_what_is_at_work() -> None:
    stop, opened = asyncio.Event(), Opened()
    async with AsyncExitStack() as stack:
        await start(stop=stop).open(stack, opened)
        stop.set()
        await asyncio.sleep(0.01)
        assert opened.open == 1


async def test_a_timeout_inside_an_attempt_is_not_taken_for_a_stop() -> None:
    @asynccontextmanager
    async def slow() -> AsyncIterator[str]:
        raise TimeoutError("of its own")
        yield ""

    with pytest.raises(TimeoutError, match="of its own"):
        await entered(start(), slow)


@given(st.integers(1, 10_000), st.floats(0.01, 5), st.floats(5, 60))
def test_pauses_grow_and_stay_under_the_longest(attempt: int, first: float, most: float) -> None:
    patience = Patience(first_seconds=first, most_seconds=most)
    pause = patience.pause_seconds(attempt)
    assert 0 < pause <= most
    assert pause <= first * 2.0 ** min(attempt - 1, 32)
    assert pause >= 0.7 * min(most, first)
