"""How much a topic may take, and what the router looks at when something has changed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from medkg.contracts.errors import ResourceUnavailableError
from medkg.gate_router.changes import MAX_NAMED, Changes
from medkg.gate_router.rooms import Rooms
from medkg.storage.notices import Notice
from medkg.storage.waits import Wait, WaitKind

CHUNK = "medkg.chunk.v1"


@dataclass
class Kafka:
    """Says how many messages are unread; counts how often it is asked."""

    unread: dict[str, int] = field(default_factory=dict)
    is_away: bool = False
    asked: int = 0

    async def lags(self, _: Sequence[str]) -> dict[str, int]:
        self.asked += 1
        if self.is_away:
            raise ResourceUnavailableError("looking at consumer groups: no broker")
        return self.unread


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def test_room_is_the_bound_less_what_is_unread_and_what_was_released_since() -> None:
    kafka, clock = Kafka({CHUNK: 7}), Clock()
    rooms = Rooms(kafka.lags, 10, clock=clock)
    left = await rooms.left()
    assert left is not None
    assert (left[CHUNK], left["medkg.kg.v1"]) == (3, 10)
    assert not rooms.is_any_full
    for _ in range(4):
        rooms.take(CHUNK)
    rooms.take("orchestration.events.v1")  # has no bound
    left = await rooms.left()
    assert left is not None
    assert left[CHUNK] == 0
    assert rooms.is_any_full
    assert kafka.asked == 1

    clock.now += 1.5
    kafka.unread = {CHUNK: 2}
    left = await rooms.left()
    assert left is not None
    assert left[CHUNK] == 8
    assert not rooms.is_any_full


async def test_a_topic_that_was_filled_is_looked_at_until_it_has_had_room() -> None:
    """Its consumers may need longer than an answer of Kafka holds; whoever filled it is still there then."""
    kafka, clock = Kafka(), Clock()
    rooms = Rooms(kafka.lags, 2, clock=clock)
    await rooms.left()
    rooms.take(CHUNK)
    assert not rooms.is_any_full
    rooms.take(CHUNK)
    kafka.unread = {CHUNK: 2}
    for _ in range(3):
        assert rooms.seconds_until_asked == 1.0
        clock.now += 1.0
        assert rooms.seconds_until_asked == 0.0
        assert not await rooms.have_grown()
        assert rooms.is_any_full
    kafka.unread = {CHUNK: 1}
    clock.now += 1.0
    assert await rooms.have_grown()
    assert not rooms.is_any_full


async def test_a_topic_that_others_have_filled_has_no_room_and_is_no_reason_to_hurry() -> None:
    rooms = Rooms(Kafka({CHUNK: 50}).lags, 10, clock=Clock())
    left = await rooms.left()
    assert left is not None
    assert left[CHUNK] == 0
    assert not rooms.is_any_full


async def test_where_kafka_does_not_say_the_bound_is_a_rate(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    rooms = Rooms(Kafka(is_away=True).lags, 2, clock=clock)
    for _ in range(3):
        left = await rooms.left()
        assert left is not None
        assert left[CHUNK] == 2
        rooms.take(CHUNK)
        rooms.take(CHUNK)
        assert rooms.is_any_full
        clock.now += 1.0
    assert len(caplog.records) == 1


async def test_without_anybody_to_ask_there_is_room_for_ever() -> None:
    assert await Rooms(None, 0).left() is None


def wait(kind: WaitKind, doc: str = "doc") -> Wait:
    return Wait("w", kind, "t", "job", doc, "s", 0, "", 1, "{}", "{}")


async def test_a_notice_and_an_arrival_name_what_is_looked_at() -> None:
    changes = Changes()
    assert not changes.take()
    changes.heard(Notice(jobs=("j",), documents=(("j", "a"),)))
    changes.parked([wait(WaitKind.GATE, "b"), wait(WaitKind.PAGE, "")])
    changed = changes.take()
    assert (changed.documents, changed.arrived) == ({("j", "a"), ("job", "b")}, {("job", "b")})
    assert (changed.pages, changed.jobs_ended, changed.everything) == (True, True, False)
    assert not changes.take()


@pytest.mark.parametrize(
    "notice", [Notice(truncated=True), Notice(documents=tuple(("j", str(n)) for n in range(MAX_NAMED + 1)))]
)
async def test_what_cannot_be_named_is_looked_for_everywhere(notice: Notice) -> None:
    changes = Changes()
    changes.heard(notice)
    assert changes.take().everything


async def test_a_change_ends_the_wait_and_what_is_left_for_later_does_not() -> None:
    changes = Changes()
    changes.heard(Notice(documents=(("j", "a"),)))
    taken = changes.take()
    changes.look_again(taken)
    begun = asyncio.get_running_loop().time()
    await changes.wait(0.05)
    assert asyncio.get_running_loop().time() - begun >= 0.04
    assert changes.take().documents == {("j", "a")}
    changes.look_everywhere()
    async with asyncio.timeout(1):
        await changes.wait(60)
