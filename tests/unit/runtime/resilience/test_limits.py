"""Rates that hold for the fleet, on a clock of the test's own."""

import asyncio
import threading
from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.resilience.clock import in_virtual_time

from medkg.runtime.records import Partition, Record
from medkg.runtime.resilience.limits import RateLimit, Share
from medkg.runtime.resilience.shares import ShareKeeper

EVER = 1e-6  # what a float may lose


def most_in_any(window: float, moments: list[float]) -> int:
    moments = sorted(moments)
    return max((bisect_left(moments, start + window) - index for index, start in enumerate(moments)), default=0)


def test_turns_come_singly_and_in_the_order_of_asking() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun, limit = loop.time(), RateLimit(5, Share(1.0))
        admitted: list[tuple[int, float]] = []

        async def ask(number: int) -> None:
            await limit.acquire()
            admitted.append((number, loop.time() - begun))

        await asyncio.gather(*(ask(number) for number in range(10)))
        assert [number for number, _ in admitted] == list(range(10))
        assert [at for _, at in admitted] == pytest.approx([0.2 * turn for turn in range(1, 11)])

    in_virtual_time(main())


def test_the_time_waited_is_told() -> None:
    async def main() -> None:
        limit = RateLimit(0.5, Share(1.0))
        assert await limit.acquire() == pytest.approx(2.0)
        await asyncio.sleep(60)
        assert await limit.acquire() == 0.0

    in_virtual_time(main())


def test_without_a_partition_nobody_has_a_turn_until_there_is_one() -> None:
    async def main() -> None:
        share = Share()
        limit = RateLimit(5, share)
        asked = asyncio.create_task(limit.acquire())
        await asyncio.sleep(3_600)
        assert not asked.done()
        share.set(1, 2)
        assert await asked == pytest.approx(3_600.4)

    in_virtual_time(main())


@pytest.mark.parametrize("how", ["share", "policy"])
def test_who_waits_already_waits_by_the_changed_pace(how: str) -> None:
    async def main() -> None:
        share = Share(1.0)
        limit = RateLimit(10, share)
        await limit.acquire()
        asked = asyncio.create_task(limit.acquire())
        await asyncio.sleep(0.05)
        if how == "share":
            share.set(1, 20)
        else:
            limit.change(0.5)
        assert await asked == pytest.approx(2.05)  # 0.05 s at the old pace count for nothing
        asked = asyncio.create_task(limit.acquire())
        await asyncio.sleep(0.5)
        if how == "share":
            share.set(1, 1)
        else:
            limit.change(10)
        assert await asked == pytest.approx(0.6)

    in_virtual_time(main())


def test_one_who_gives_up_keeps_nobody_from_his_turn() -> None:
    async def main() -> None:
        limit = RateLimit(1, Share(1.0))
        first, second = asyncio.create_task(limit.acquire()), asyncio.create_task(limit.acquire())
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == pytest.approx(1.0)

    in_virtual_time(main())


Moves = st.lists(st.tuples(st.floats(0.05, 10), st.integers(0, 11), st.integers(0, 3)), max_size=12)


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from([0.1, 0.7, 5.0, 40.0]), Moves)
def test_the_sum_over_replicas_stays_within_the_policy_through_every_rebalance(
    rate: float, moves: list[tuple[float, int, int]]
) -> None:
    """Twelve partitions wander between four greedy replicas: first taken away, then given."""
    admitted: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        shares = [Share() for _ in range(4)]
        owner = {partition: partition % 4 for partition in range(12)}

        def settle(replica: int) -> None:
            shares[replica].set(sum(of == replica for of in owner.values()), 12)

        async def consume(share: Share) -> None:
            limit = RateLimit(rate, share)
            while True:
                await limit.acquire()
                admitted.append(loop.time())

        for replica in range(4):
            settle(replica)
        greedy = [asyncio.create_task(consume(share)) for share in shares]
        for pause, partition, to in moves:
            await asyncio.sleep(pause / rate)
            old, owner[partition] = owner[partition], -1
            settle(old)
            await asyncio.sleep(0.01 / rate)
            owner[partition] = to
            settle(to)
        await asyncio.sleep(20 / rate)
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)

    in_virtual_time(main())
    for window in (1 / rate, 5 / rate, 20 / rate):
        assert most_in_any(window, admitted) <= rate * window + 4 + EVER


def test_one_replica_alone_never_bursts() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        limit, moments = RateLimit(100, Share(0.5)), []
        for _ in range(50):
            await limit.acquire()
            moments.append(loop.time())
            if len(moments) % 10 == 0:
                await asyncio.sleep(1)
        assert min(later - earlier for earlier, later in pairwise(moments)) >= 0.02 - EVER

    in_virtual_time(main())


class Receiver:
    """Remembers the share at each call."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.calls: list[tuple[str, float]] = []
        self.wants_more = threading.Event()

    def accept(self, records: list[Record]) -> None:
        self.calls.append(("accept", self.share.fraction))

    def assigned(self, partitions: list[Partition]) -> None:
        self.calls.append(("assigned", self.share.fraction))

    async def release(self, partitions: list[Partition]) -> dict[Partition, int]:
        self.calls.append(("release", self.share.fraction))
        return {partitions[0]: 7}

    def lost(self, partitions: list[Partition]) -> None:
        self.calls.append(("lost", self.share.fraction))


async def test_less_is_taken_before_a_partition_is_released_and_more_only_after_it_has_come() -> None:
    share = Share()
    receiver = Receiver(share)
    keeper = ShareKeeper(receiver, share, lambda topic: 4)
    parts = [Partition("work", number) for number in range(4)]
    keeper.assigned(parts[:3])
    assert share.fraction == 0.75
    assert await keeper.release(parts[:1]) == {parts[0]: 7}
    keeper.lost(parts[1:2])
    keeper.assigned(parts[3:])
    keeper.accept([])
    assert receiver.calls == [
        ("assigned", 0.0),
        ("release", 0.5),
        ("lost", 0.25),
        ("assigned", 0.25),
        ("accept", 0.5),
    ]


def test_a_share_is_never_more_than_the_whole_and_nothing_of_nothing() -> None:
    share = Share()
    share.set(5, 4)
    assert share.fraction == 1.0
    share.set(1, 0)
    assert share.fraction == 0.0
