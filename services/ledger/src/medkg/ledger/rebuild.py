"""Rebuilding the ledger from its topics: to see whether it is right, or to put it right."""

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from medkg.contracts import topics
from medkg.contracts.errors import ContractError
from medkg.ledger.projector import Projector
from medkg.runtime.broker import TopicReader
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine
from medkg.storage.ledger_rebuild import Difference, compare, jobs_only_in_use, second_ledger, swap

_SOURCES = (topics.LIFECYCLE, topics.DEAD_LETTER)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild came to: how many records it read, and how the ledger in use differed."""

    records: int
    differences: tuple[Difference, ...]
    is_swapped: bool


async def rebuild(
    engine: Engine,
    database_url: str,
    kafka: KafkaSettings,
    *,
    is_check: bool,
    allow_loss: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Rebuilt:
    """Make the ledger once more from its topics; compare (``is_check``), or put it in the place of the one in use.

    Raises:
        ContractError: a swap would lose jobs that the topic no longer tells of, and ``allow_loss`` was not said.
        ResourceUnavailableError: Kafka or the database does not answer; the ledger in use is as it was.
    """
    async with second_ledger(engine, database_url) as second, TopicReader(kafka) as reader:
        replay = _Replay(Projector(second, CollectorRegistry()), reader, say)
        await replay.run()
        differences = await compare(engine)
        if is_check:
            return Rebuilt(replay.records, differences, is_swapped=False)
        lost = await jobs_only_in_use(engine)
        if lost and not allow_loss:
            raise ContractError(
                f"rebuilding the ledger: the topic no longer tells of {lost} of its jobs (expired?); "
                "they would be lost: --allow-loss does it all the same"
            )
        await swap(engine, replay.run)
        return Rebuilt(replay.records, differences, is_swapped=True)


@dataclass(slots=True)
class _Replay:
    """Projects what the topics hold; run again, what has come since."""

    projector: Projector
    reader: TopicReader
    say: Callable[[str], None]
    records: int = 0
    _seen: dict[str, dict[int, int]] = field(default_factory=dict)

    async def run(self) -> None:
        for topic in _SOURCES:
            async for batch in self.reader.whole(topic, self._seen.setdefault(topic, {})):
                await self.projector.handle(batch)
                self.records += len(batch)
                self.say(f"{self.records} records read")
