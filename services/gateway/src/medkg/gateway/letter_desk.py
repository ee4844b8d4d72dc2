"""What is done with dead letters: looked at, sent back, dropped. Each decision is published, then known at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medkg.contracts.cloudevents import Message, read_envelope
from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.contracts.messages import Position
from medkg.runtime.records import Record
from medkg.runtime.redrive import Decided, dropped, redriven
from medkg.storage.engine import Engine
from medkg.storage.ledger_answers import DeadLetterAnswer
from medkg.storage.ledger_projection import project

SOURCE = "medkg/gateway"


class Reads(Protocol):
    async def one(self, position: Position) -> Record | None: ...


class Delivers(Protocol):
    async def publish(self, messages: Sequence[Message]) -> dict[int, str]: ...


@dataclass(slots=True)
class KafkaLetterDesk:
    """Letters as they stand in Kafka.

    A decision is an event on the lifecycle topic, so that a ledger rebuilt from it says the same; it is projected here
    too, so that whoever looks next sees it. Deciding the same again has the same ids, and no further effect.
    """

    reader: Reads
    publisher: Delivers
    engine: Engine
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # the reader does one thing at a time

    async def message(self, letter: DeadLetterAnswer) -> Record | None:
        """The letter as it stands in Kafka; None when it has gone from there.

        Raises:
            ResourceUnavailableError: Kafka does not answer.
        """
        if letter.letter is None:
            return None
        at = Position(letter.letter.topic, letter.letter.partition, letter.letter.offset)
        async with self._turn:
            return await self.reader.one(at)

    async def redrive(self, letter: DeadLetterAnswer, actor: str, reason: str) -> str | None:
        """Send the message back to its topic, and say so. The topic; None when the letter has gone from Kafka.

        Raises:
            ContractError: it cannot be sent back.
            ResourceUnavailableError: Kafka or the database does not answer.
        """
        kept = await self.message(letter)
        if kept is None:
            return None
        back = redriven(kept, _decided(letter, actor, reason), SOURCE)
        await self._publish(back.message)  # first: a decision without its message would lose the document
        await self._say(back.event)
        return back.message.topic

    async def drop(self, letter: DeadLetterAnswer, actor: str, reason: str) -> None:
        """Say that nobody will handle this message.

        Raises:
            ResourceUnavailableError: Kafka or the database does not answer.
        """
        await self._say(dropped(_decided(letter, actor, reason), SOURCE))

    async def _say(self, event: Message) -> None:
        await self._publish(event)
        await project(self.engine, [(read_envelope(event.headers), event.value)])

    async def _publish(self, item: Message) -> None:
        try:
            refused = await self.publisher.publish([item])
        except ResourceUnavailableError as error:
            raise ResourceUnavailableError(f"deciding about a dead letter: {error.message}") from error
        if refused:
            raise ContractError(f"deciding about a dead letter: Kafka refuses its message: {refused[0]}")


def _decided(letter: DeadLetterAnswer, actor: str, reason: str) -> Decided:
    at = letter.position
    return Decided(
        position=Position(at.topic, at.partition, at.offset),
        redrive=letter.redrive,
        job_id=letter.job_id,
        tenant_id=letter.tenant_id,
        doc_id=letter.doc_id,
        stage=letter.stage,
        actor=actor,
        reason=reason,
    )
