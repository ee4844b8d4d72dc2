"""One breaker, and several replicas of it, on a clock of the test's own."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.resilience.clock import in_virtual_time

from medkg.contracts.errors import (
    ContentError,
    GpuOutOfMemory,
    MedkgError,
    PipelineConfigError,
    ResourceUnavailableError,
    SourceRateLimitedError,
    SourceUnavailableError,
    StageCrashedError,
    StageTimeoutError,
)
from medkg.contracts.messages import BreakerChange, BreakerState
from medkg.contracts.topology import Breaker as BreakerRule
from medkg.runtime.resilience.breaker import TAKEOVER_SECONDS, Breaker, BreakerOpen

RULE = BreakerRule(failures=3, reset_seconds=60)
DOWN = SourceUnavailableError("503")


def made(tell: Callable[[BreakerChange], None] = lambda change: None, worker: str = "a") -> Breaker:
    wall = asyncio.get_running_loop().time
    return Breaker("embed.openai/gpu-bound", RULE, worker, tell, probe_seconds=10, wall=wall)


def fail(breaker: Breaker, times: int = 3, error: MedkgError = DOWN) -> None:
    for _ in range(times):
        breaker.ended(breaker.admit(), error)


def is_refused(breaker: Breaker) -> bool:
    try:
        breaker.ended(breaker.admit(), asyncio.CancelledError())
    except BreakerOpen:
        return True
    return False


def test_failures_in_a_row_open_it_and_a_success_in_between_does_not_count_them_together() -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker, 2)
        breaker.ended(breaker.admit(), None)
        fail(breaker, 2)
        assert breaker.is_closed
        fail(breaker, 1)
        assert not breaker.is_closed
        with pytest.raises(BreakerOpen, match=r"failed 3 times in a row and is left alone for 60 s more"):
            breaker.admit()

    in_virtual_time(main())


@pytest.mark.parametrize("error", [DOWN, ResourceUnavailableError("x"), StageTimeoutError("x"), GpuOutOfMemory("x")])
def test_what_speaks_against_a_peer_counts(error: MedkgError) -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker, 3, error)
        assert not breaker.is_closed

    in_virtual_time(main())


@pytest.mark.parametrize(
    "error",
    [ContentError("x"), StageCrashedError("x"), PipelineConfigError("x"), SourceRateLimitedError("429"), ValueError()],
)
def test_what_speaks_against_a_document_does_not_count_and_makes_good_for_nothing(error: MedkgError) -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker, 2)
        fail(breaker, 20, error)
        assert breaker.is_closed
        fail(breaker, 1)
        assert not breaker.is_closed

    in_virtual_time(main())


def test_half_open_lets_one_through_and_its_success_lets_everybody_in() -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker)
        await asyncio.sleep(59)
        assert is_refused(breaker)
        await asyncio.sleep(1.1)
        turn = breaker.admit()
        assert turn.is_probe
        assert [is_refused(breaker) for _ in range(5)] == [True] * 5
        await asyncio.sleep(11)
        assert is_refused(breaker)  # one that takes longer than it should is still the only one
        breaker.ended(turn, None)
        assert breaker.is_closed
        assert not is_refused(breaker)

    in_virtual_time(main())


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker)
        for _ in range(3):
            await asyncio.sleep(60.1)
            breaker.ended(breaker.admit(), DOWN)
            assert is_refused(breaker)
            assert breaker.seconds_left == pytest.approx(60, abs=0.01)

    in_virtual_time(main())


@pytest.mark.parametrize("error", [ContentError("its own fault"), asyncio.CancelledError()])
def test_a_probe_that_says_nothing_leaves_its_place_to_the_next_one(error: BaseException) -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker)
        await asyncio.sleep(60.1)
        breaker.ended(breaker.admit(), error)
        assert not breaker.is_closed
        assert breaker.admit().is_probe

    in_virtual_time(main())


def test_a_run_that_began_before_it_opened_neither_closes_nor_prolongs_it() -> None:
    async def main() -> None:
        breaker = made()
        good, bad = breaker.admit(), breaker.admit()
        fail(breaker)
        await asyncio.sleep(30)
        breaker.ended(good, None)
        breaker.ended(bad, DOWN)
        assert not breaker.is_closed
        assert breaker.seconds_left == pytest.approx(30, abs=0.01)

    in_virtual_time(main())


def test_who_waits_is_woken_when_it_may_be_probed_and_waits_on_while_somebody_else_probes() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        breaker = made()
        fail(breaker)
        begun = loop.time()
        await breaker.wait()
        assert loop.time() - begun == pytest.approx(60, abs=0.01)
        turn = breaker.admit()
        waiting = asyncio.create_task(breaker.wait())
        await asyncio.sleep(5)
        assert not waiting.done()
        breaker.ended(turn, None)
        await waiting
        assert loop.time() - begun == pytest.approx(65, abs=0.01)

    in_virtual_time(main())


def test_a_rule_that_is_gone_lets_everybody_go() -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker)
        waiting = asyncio.create_task(breaker.wait())
        await asyncio.sleep(1)
        breaker.dissolve()
        await asyncio.wait_for(waiting, 1)
        assert breaker.is_closed

    in_virtual_time(main())


def test_a_changed_rule_counts_from_then_on_and_never_prolongs_what_is_open() -> None:
    async def main() -> None:
        breaker = made()
        fail(breaker)
        breaker.change(BreakerRule(failures=5, reset_seconds=30), 10)
        assert breaker.seconds_left == pytest.approx(30, abs=0.01)
        breaker.change(BreakerRule(failures=5, reset_seconds=600), 10)
        assert breaker.seconds_left == pytest.approx(30, abs=0.01)
        await asyncio.sleep(30.1)
        breaker.ended(breaker.admit(), None)
        fail(breaker, 4)
        assert breaker.is_closed
        fail(breaker, 1)
        assert not breaker.is_closed

    in_virtual_time(main())


# several replicas


class Fleet:
    """Replicas of one breaker, with a log between them that each reads whole and in order, itself included."""

    def __init__(self, *workers: str) -> None:
        self.log: list[BreakerChange] = []
        self.replicas = {worker: made(self.log.append, worker) for worker in workers}
        self.read = dict.fromkeys(workers, 0)

    def deliver(self, worker: str, count: int = 1_000) -> None:
        for change in self.log[self.read[worker] :][:count]:
            self.replicas[worker].adopt(change)
            self.read[worker] += 1

    def deliver_all(self) -> None:
        for worker in self.replicas:
            self.deliver(worker)


def test_what_one_replica_finds_out_all_of_them_know() -> None:
    async def main() -> None:
        fleet = Fleet("a", "b", "c")
        a, b, c = fleet.replicas.values()
        fail(a)
        fleet.deliver_all()
        assert all(is_refused(replica) for replica in (a, b, c))
        await asyncio.sleep(60.1)
        assert is_refused(b)  # the one that opened it looks first
        turn = a.admit()
        fleet.deliver_all()
        await asyncio.sleep(8)
        assert is_refused(b)  # and has the time that a run may take
        a.ended(turn, None)
        fleet.deliver_all()
        assert all(replica.is_closed for replica in (a, b, c))

    in_virtual_time(main())


def test_another_replica_looks_when_nothing_is_heard_of_the_one_that_opened_it() -> None:
    async def main() -> None:
        fleet = Fleet("a", "b", "c")
        a, b, c = fleet.replicas.values()
        fail(a)
        fleet.deliver_all()  # and then a is gone
        await asyncio.sleep(60 + TAKEOVER_SECONDS - 0.1)
        assert is_refused(b)
        assert is_refused(c)
        await asyncio.sleep(3.2)
        turn = b.admit()
        fleet.deliver("c")
        assert is_refused(c)
        b.ended(turn, None)
        fleet.deliver("c")
        assert c.is_closed

    in_virtual_time(main())


def test_a_replica_that_comes_later_adopts_what_stands_in_the_log() -> None:
    async def main() -> None:
        fleet = Fleet("a")
        fail(fleet.replicas["a"])
        await asyncio.sleep(20)
        late = made(worker="z")
        for change in fleet.log:
            late.adopt(change)
        assert is_refused(late)
        assert late.seconds_left == pytest.approx(40 + TAKEOVER_SECONDS, abs=3.1)
        await asyncio.sleep(3_600)
        later = made(worker="y")
        later.adopt(fleet.log[-1])
        await asyncio.sleep(6.1)
        assert later.admit().is_probe  # nobody has closed it: the first one looks

    in_virtual_time(main())


def test_a_far_future_from_a_wrong_clock_is_bounded_by_the_rule() -> None:
    async def main() -> None:
        breaker = made()
        breaker.adopt(BreakerChange(breaker.name, BreakerState.OPEN, 10**15, "z", until_ms=10**15))
        assert breaker.seconds_left <= 60 + TAKEOVER_SECONDS + 3

    in_virtual_time(main())


Steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["fail", "succeed", "read"]), st.floats(0, 40)), max_size=40
)


@settings(deadline=None)  # a busy machine is no failure
@given(Steps)
def test_replicas_come_to_the_same_state_whatever_happens_and_however_late_they_hear(
    steps: list[tuple[str, str, float]],
) -> None:
    async def main() -> None:
        fleet = Fleet("a", "b", "c")
        for worker, what, pause in steps:
            await asyncio.sleep(pause)
            replica = fleet.replicas[worker]
            if what == "read":
                fleet.deliver(worker, 1)
                continue
            try:
                turn = replica.admit()
            except BreakerOpen:
                continue
            replica.ended(turn, DOWN if what == "fail" else None)
        fleet.deliver_all()
        assert len({replica.is_closed for replica in fleet.replicas.values()}) == 1

    in_virtual_time(main())


def test_a_change_names_the_breaker_its_state_and_until_when() -> None:
    async def main() -> None:
        told: list[BreakerChange] = []
        breaker = made(told.append)
        fail(breaker)
        await asyncio.sleep(60.5)
        breaker.ended(breaker.admit(), None)
        assert [change.state for change in told] == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]
        assert [change.until_ms - 1_000_000 for change in told[:2]] == pytest.approx([60_000, 70_500], abs=5)
        assert told[2].until_ms == 0
        assert [change.revision for change in told] == sorted({change.revision for change in told})

    in_virtual_time(main())
