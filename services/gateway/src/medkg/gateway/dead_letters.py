"""Dead letters: listed, shown with their message, sent back, dropped."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from medkg.gateway.answers import DeadLetterList, DeadMessage, LetterOutcome
from medkg.gateway.faults import GoneError, NotFoundError, SettledError
from medkg.gateway.jobs import Limit, Tenant
from medkg.gateway.parts import Parts
from medkg.runtime.outcome import DEAD_LETTER_HEADER
from medkg.storage.ledger_answers import DeadLetterAnswer, LetterQuery

Text = Annotated[str, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
LetterId = Annotated[
    str, Query(min_length=5, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*/[0-9]{1,10}/[0-9]{1,19}(~[0-9a-f]{8})?$")
]
Age = Annotated[float | None, Query(ge=0, le=1e9, description="Seconds since the letter died.")]


class DecisionBody(BaseModel):
    """Which letter, who decides, and why."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=5, max_length=300)
    actor: str = Field("", max_length=200)
    reason: str = Field("", max_length=1_000)


def routes(parts: Parts) -> APIRouter:
    """The routes under ``/v1/dead-letters``."""
    router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"])

    @router.get("", summary="Messages that could not be handled, newest first")
    async def dead_letters(
        tenant_id: Tenant = "default",
        job_id: Text = "",
        stage: Text = "",
        code: Text = "",
        state: Annotated[str, Query(pattern="^(dead|redriven|dropped)?$")] = "",
        id: Text = "",  # noqa: A002  the name of the query parameter
        older_than_seconds: Age = None,
        newer_than_seconds: Age = None,
        after: Text = "",
        limit: Limit = 100,
    ) -> DeadLetterList:
        """Those of a tenant. A message that could not even be read names none: it is shown to the tenant `default`.

        `after` is the id of the last letter of the page before.
        """
        asked = LetterQuery(
            dead_letter_id=id,
            job_id=job_id,
            stage=stage,
            code=code,
            state=state,
            died_before=_ago(older_than_seconds),
            died_after=_ago(newer_than_seconds),
            following=after,
        )
        return DeadLetterList(await parts.ledger.dead_letters(tenant_id=tenant_id, asked=asked, limit=limit))

    @router.get("/message", summary="The message of a dead letter as it was")
    async def message(id: LetterId, tenant_id: Tenant = "default") -> DeadMessage:  # noqa: A002  as above
        """Read back from Kafka: key, headers and value, byte for byte (base64)."""
        letter = await _found(parts, tenant_id, id)
        kept = await parts.letters.message(letter)
        if kept is None:
            raise _gone(letter)
        headers = [(name, _base64(value or b"")) for name, value in kept.headers if name != DEAD_LETTER_HEADER]
        return DeadMessage(letter.id, None if kept.key is None else _base64(kept.key), headers, _base64(kept.value))

    @router.post("/redrive", summary="Send the message of a dead letter back to its topic")
    async def redrive(body: DecisionBody, tenant_id: Tenant = "default") -> LetterOutcome:
        """The document is under way again, as itself; its attempts are counted anew.

        A letter that was redriven or dropped before is left as it is (409), and one that has gone from Kafka too (410).
        """
        letter = await _undecided(parts, tenant_id, body.id)
        topic = await parts.letters.redrive(letter, body.actor, body.reason)
        if topic is None:
            raise _gone(letter)
        return LetterOutcome(letter.id, "redriven", topic, letter.redrive + 1)

    @router.post("/drop", summary="Record that nobody will handle a dead letter")
    async def drop(body: DecisionBody, tenant_id: Tenant = "default") -> LetterOutcome:
        """Nothing is removed from Kafka; the letter is no longer counted, and no longer redriven."""
        letter = await _undecided(parts, tenant_id, body.id)
        await parts.letters.drop(letter, body.actor, body.reason)
        return LetterOutcome(letter.id, "dropped")

    return router


async def _found(parts: Parts, tenant_id: str, letter_id: str) -> DeadLetterAnswer:
    asked = LetterQuery(dead_letter_id=letter_id)
    found = await parts.ledger.dead_letters(tenant_id=tenant_id, asked=asked, limit=1)
    if not found:
        raise NotFoundError(f"tenant {tenant_id!r} has no dead letter {letter_id}")
    return found[0]


async def _undecided(parts: Parts, tenant_id: str, letter_id: str) -> DeadLetterAnswer:
    letter = await _found(parts, tenant_id, letter_id)
    if letter.decided is not None:
        by = f" by {letter.decided.by}" if letter.decided.by else ""
        raise SettledError(f"dead letter {letter.id} was {letter.state} at {letter.decided.at:%Y-%m-%d %H:%M:%S}{by}")
    return letter


def _gone(letter: DeadLetterAnswer) -> GoneError:
    return GoneError(f"the message of dead letter {letter.id} is no longer in Kafka; submit its job again")


def _ago(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) - timedelta(seconds=seconds)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
