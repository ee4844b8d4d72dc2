"""Plain functions on threads: their time ends, whatever they do."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from medkg.contracts.errors import ContentError, StageTimeoutError
from medkg.runtime.metrics import Metrics
from medkg.runtime.resilience import threads as threads_module
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.resilience.threads import Interrupted, StageThreads


@pytest.fixture
def pool() -> Iterator[StageThreads]:
    with closing(StageThreads(2, "test", grace_seconds=0.1)) as made:
        yield made


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"never happened: {what}")
        await asyncio.sleep(0.005)


async def test_what_a_function_returns_or_raises_comes_back(pool: StageThreads) -> None:
    assert await pool.run(lambda: threading.current_thread().name, 5) in {"test-1", "test-2"}
    with pytest.raises(ContentError, match="bad"):
        await pool.run(_raises(ContentError("bad")), 5)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await pool.run(_raises(StopIteration(3)), 5)


async def test_a_loop_that_never_ends_is_interrupted_and_cleans_up(pool: StageThreads) -> None:
    ended = threading.Event()

    def endless() -> None:
        try:
            while True:
                pass
        finally:
            ended.set()

    with pytest.raises(StageTimeoutError, match=r"no result within 0.05 s; it was interrupted"):
        await pool.run(endless, 0.05)
    assert ended.is_set()
    assert pool.given_up == 0
    assert await asyncio.gather(*(pool.run(lambda: 1, 5) for _ in range(4))) == [1] * 4  # both threads are well


async def test_an_except_of_all_exceptions_does_not_hold_the_interruption_up(pool: StageThreads) -> None:
    def stubborn() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:  # noqa: BLE001  what stages do
                pass

    with pytest.raises(StageTimeoutError, match="it was interrupted"):
        await pool.run(stubborn, 0.05)


async def test_whoever_swallows_the_interruption_is_interrupted_again() -> None:
    swallowed: list[int] = []

    def swallowing() -> None:
        while True:
            try:
                while True:
                    pass
            except Interrupted:
                swallowed.append(1)
                if len(swallowed) == 2:
                    raise

    with closing(StageThreads(1, "test", grace_seconds=30)) as pool, pytest.raises(StageTimeoutError):
        await pool.run(swallowing, 0.05)
    assert len(swallowed) == 2


async def test_a_call_that_does_not_return_is_given_up_and_its_thread_replaced() -> None:
    let_go, metrics = threading.Event(), Metrics()
    counter = metrics.resilience("parse").threads_given_up
    with closing(StageThreads(1, "test", grace_seconds=0.05, given_up=counter)) as pool:
        try:
            with pytest.raises(StageTimeoutError, match="nor can it be interrupted"):
                await pool.run(lambda: let_go.wait(30), 0.05)
            assert pool.given_up == 1
            assert await pool.run(lambda: "the next document", 5) == "the next document"
        finally:
            let_go.set()
        await until(lambda: pool.given_up == 0, "it has ended by itself at last")
    assert metrics.registry.get_sample_value("medkg_threads_given_up_total", {"service": "parse"}) == 1


async def test_too_many_threads_given_up_stop_the_worker() -> None:
    let_go = threading.Event()
    with closing(StageThreads(1, "parse", grace_seconds=0.02, max_given_up=2)) as pool:
        try:
            for _ in range(2):
                with pytest.raises(StageTimeoutError):
                    await pool.run(lambda: let_go.wait(30), 0.02)
            with pytest.raises(WorkerStopped, match=r"parse: 3 threads run code that cannot be interrupted"):
                await pool.run(lambda: let_go.wait(30), 0.02)
        finally:
            let_go.set()


async def test_time_counts_from_when_a_thread_takes_it() -> None:
    let_go = threading.Event()
    with closing(StageThreads(1, "test")) as pool:
        first = asyncio.create_task(pool.run(lambda: let_go.wait(10), 10))
        second = asyncio.create_task(pool.run(lambda: "done", 0.05))
        await asyncio.wait([second], timeout=0.2)
        assert not second.done()
        let_go.set()
        assert await second == "done"
        await first


async def test_a_cancelled_run_is_interrupted_and_one_not_begun_never_begins() -> None:
    begun, ended, never = threading.Event(), threading.Event(), threading.Event()

    def endless() -> None:
        begun.set()
        try:
            while True:
                pass
        finally:
            ended.set()

    with closing(StageThreads(1, "test")) as pool:
        running = asyncio.create_task(pool.run(endless, 60))
        waiting = asyncio.create_task(pool.run(never.set, 60))
        await until(begun.is_set, "it has begun")
        waiting.cancel()
        running.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        await until(ended.is_set, "it is interrupted")
        assert await pool.run(lambda: "well", 5) == "well"
        assert not never.is_set()


async def test_an_interruption_never_strikes_the_next_document(pool: StageThreads) -> None:
    """Work that ends about when its time does: some are too late, and none of them harms its successor."""
    late = 0
    for number in range(300):
        ends = time.monotonic() + 0.001 + (number % 20) * 0.00005

        def work(ends: float = ends) -> str:
            while time.monotonic() < ends:
                pass
            return "done"

        try:
            assert await pool.run(work, 0.0012) == "done"
        except StageTimeoutError:
            late += 1
        assert await pool.run(lambda: sum(range(100)), 5) == 4_950
    assert len(pool._threads) == 2
    assert all(thread.is_alive() for thread in pool._threads)


async def test_there_is_room_beside_long_work_and_never_for_more_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads_module, "_LONG_SECONDS", 0.05)
    let_go = threading.Event()
    begun: list[int] = []

    def long(number: int) -> Callable[[], object]:
        def run() -> object:
            begun.append(number)
            return let_go.wait(10)

        return run

    with closing(StageThreads(1, "test", at_most=2)) as pool:
        first = asyncio.create_task(pool.run(long(1), 10))
        await until(lambda: begun == [1], "the first has begun")
        assert await pool.run(lambda: "beside it", 10) == "beside it"
        second = asyncio.create_task(pool.run(long(2), 10))
        await until(lambda: begun == [1, 2], "the second has begun")
        third = asyncio.create_task(pool.run(long(3), 10))
        await asyncio.sleep(0.2)
        assert begun == [1, 2]
        let_go.set()
        assert all(await asyncio.gather(first, second, third))


@pytest.mark.parametrize("is_slow", [False, True])
async def test_who_waits_is_let_in_when_the_work_before_turns_out_long(
    monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    monkeypatch.setattr(threads_module, "_LONG_SECONDS", 0.05)
    let_go = threading.Event()
    with closing(StageThreads(1, "test", at_most=4)) as pool:
        pool._is_slow = is_slow  # then nothing is handed over ahead
        long = asyncio.create_task(pool.run(lambda: let_go.wait(10), 10))
        assert await pool.run(lambda: "let in", 10) == "let in"
        let_go.set()
        assert await long


async def test_closing_waits_for_nobody() -> None:
    let_go = threading.Event()
    pool = StageThreads(2, "test")
    task = asyncio.create_task(pool.run(lambda: let_go.wait(10), 10))
    await asyncio.sleep(0)
    begun = time.monotonic()
    pool.close()
    assert time.monotonic() - begun < 1
    let_go.set()
    await asyncio.wait([task], timeout=5)


def _raises(error: BaseException) -> Callable[[], Any]:
    def work() -> None:
        raise error

    return work


async def test_a_tenant_with_one_piece_of_work_does_not_wait_for_all_of_another(pool: StageThreads) -> None:
    order: list[str] = []
    held = threading.Event()

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            held.wait(5)
            order.append(name)

        return run

    large = [asyncio.create_task(pool.run(work(f"large-{number}"), 10, "large")) for number in range(20)]
    await asyncio.sleep(0)
    small = asyncio.create_task(pool.run(work("small"), 10, "small"))
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(small, *large)
    # Two threads had one each and took the next that was handed over; after those the small tenant has its turn.
    assert order.index("small") <= 5
    assert len(order) == 21


async def test_work_that_is_cancelled_while_it_waits_takes_no_thread(pool: StageThreads) -> None:
    held, ran = threading.Event(), []
    first = [asyncio.create_task(pool.run(lambda: held.wait(5), 10)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(pool.run(lambda: ran.append(1), 10)) for _ in range(50)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    held.set()
    await asyncio.gather(*first)
    assert await pool.run(lambda: "well", 5) == "well"
    assert ran == []
