"""Large inputs take their turn, and the window follows the memory that is left."""

import asyncio
import ctypes
import logging
import platform
import subprocess
import sys

import pytest

from medkg.runtime.memory import ByteBudget, MemoryWatch, resident_bytes, soft_limit, trim


async def held(budget: ByteBudget, size: int, release: asyncio.Event, opened: list[int]) -> None:
    async with budget.hold(size):
        opened.append(size)
        await release.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_inputs_over_the_budget_wait_until_others_are_closed() -> None:
    budget, opened = ByteBudget(100), list[int]()
    first, second = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(held(budget, 60, first, opened))
        group.create_task(held(budget, 50, second, opened))
        await settle()
        assert opened == [60]
        first.set()
        await settle()
        assert opened == [60, 50]
        assert budget.open_bytes == 50
        second.set()
    assert budget.open_bytes == 0


async def test_an_input_larger_than_the_whole_budget_is_opened_alone() -> None:
    budget, opened, release = ByteBudget(100), list[int](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(held(budget, 5_000, release, opened))
        group.create_task(held(budget, 1, release, opened))
        await settle()
        assert opened == [5_000]
        release.set()
    assert opened == [5_000, 1]


async def test_small_inputs_do_not_overtake_a_large_one_for_ever() -> None:
    budget, opened, release = ByteBudget(100), list[int](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(held(budget, 60, release, opened))
        group.create_task(held(budget, 100, release, opened))
        group.create_task(held(budget, 10, release, opened))
        await settle()
        assert opened == [60]
        release.set()
    assert opened == [60, 100, 10]


async def test_whoever_stops_waiting_takes_nothing_with_it() -> None:
    budget, opened, release = ByteBudget(100), list[int](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(held(budget, 100, release, opened))
        gives_up = group.create_task(held(budget, 100, release, opened))
        group.create_task(held(budget, 10, release, opened))
        await settle()
        gives_up.cancel()
        await settle()
        release.set()
    assert opened == [100, 10]
    assert budget.open_bytes == 0


def test_the_window_halves_over_the_soft_limit_and_grows_back_below_it(caplog: pytest.LogCaptureFixture) -> None:
    used, told = [50], list[float]()
    watch = MemoryWatch(100, [told.append], lambda: used[0])
    with caplog.at_level(logging.WARNING):
        for now in (50, 120, 120, 95, 80, 80, 80):
            used[0] = now
            watch.look()
    assert told == [0.5, 0.25, 0.5, 1.0]
    assert [message.split(": ")[2].split(" to ")[0] for message in caplog.messages] == [
        "the window shrinks",
        "the window shrinks",
        "the window grows back",
        "the window grows back",
    ]


def test_the_window_never_shrinks_to_nothing() -> None:
    told: list[float] = []
    watch = MemoryWatch(1, [told.append], lambda: 2)
    for _ in range(100):
        watch.look()
    assert told[-1] > 0
    assert len(told) == 10


def test_a_configured_limit_counts_and_zero_is_none() -> None:
    assert soft_limit(5_000_000) == 5_000_000
    assert soft_limit(0) == 0


def test_a_process_knows_what_it_occupies() -> None:
    assert resident_bytes() > 1_000_000


def test_what_is_free_but_kept_by_the_allocator_is_given_back_and_shrinks_no_window() -> None:
    used, shares, given_back = [150], list[float](), list[int]()

    def give_back() -> None:
        given_back.append(used[0])
        used[0] -= 60

    watch = MemoryWatch(100, [shares.append], used=lambda: used[0], give_back=give_back)
    watch.look()  # 90 of it are free
    assert (given_back, shares) == ([150], [])
    watch.look()  # under the limit: nothing to do
    assert (given_back, shares) == ([150], [])
    used[0] = 200
    watch.look()
    assert (given_back, shares) == ([150, 200], [0.5])
    used[0] = 95  # neither over the limit nor far enough below it: look whether some of it is free
    watch.look()
    assert (given_back[2:], shares) == ([95], [0.5, 1.0])


def test_memory_that_large_inputs_took_is_given_back_to_the_system() -> None:
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc keeps, and gives back")
    pieces = [bytes(2_000) for _ in range(30_000)]
    last = bytes(2_000)  # on top of the heap: nothing under it is given back by itself
    full = resident_bytes()
    pieces.clear()
    trim()
    assert full - resident_bytes() > 40_000_000
    assert last


_ARENAS = """
import ctypes, sys, threading
from medkg.runtime.memory import limit_arenas
if sys.argv[1:]:
    limit_arenas()
libc = ctypes.CDLL(None)
together = threading.Barrier(8)
def take():
    together.wait()
    for _ in range(200):
        libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="another C library than glibc")
def test_threads_share_two_arenas() -> None:
    def arenas(*argv: str) -> int:
        done = subprocess.run([sys.executable, "-c", _ARENAS, *argv], capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    assert arenas("limited") <= 2 < arenas()
