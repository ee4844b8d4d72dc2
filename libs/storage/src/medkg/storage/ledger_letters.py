"""Dead letters into the ledger: what could not be handled, where it stood, and why."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.contracts.cloudevents import Headers
from medkg.contracts.errors import ContractError, Disposition
from medkg.contracts.ids import letter_id
from medkg.contracts.messages import DeadLetter, Failure, Position, encode
from medkg.storage.ledger_facts import MAX_MESSAGE, MAX_TOPIC
from medkg.storage.ledger_merge import Row
from medkg.storage.ledger_rows import DEAD_LETTERS
from medkg.storage.ledger_said import clean
from medkg.storage.transactions import in_transaction

HEADER = "medkg_dead_letter"
MAX_CAUSES = 20
_DECODER = msgspec.json.Decoder(DeadLetter)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_370_764_800_000  # the year 9999: whoever produces a record may choose its timestamp
_LARGEST = {"attempt": 2**53, "redrive": 2**53, "partition": 2**31 - 1, "offset": 2**63 - 1}


class DeadRecord(Protocol):
    """A record of the dead-letter topic. ``timestamp_ms`` is Kafka's, milliseconds since 1970."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def timestamp_ms(self) -> int: ...


async def project_dead_letters(engine: AsyncEngine, records: Sequence[DeadRecord]) -> None:
    """Record dead letters, one row for each message that could not be handled, however often it died.

    Idempotent and independent of order. The row's id is made of the position of that message and what it was about. A
    record that does not say what it was (no header, or an unreadable one) is listed under its own position.

    Raises:
        ResourceUnavailableError: the database does not answer; the same records may be given again.
    """
    rows: dict[str, Row] = {}
    for record in records:
        row = _row(record)
        DEAD_LETTERS.add_to(rows, row[0], row)
    if rows:
        parameters = DEAD_LETTERS.parameters(rows.values())
        await in_transaction(engine, "recording dead letters", lambda c: c.execute(_MERGE, parameters))


def _row(record: DeadRecord) -> Row:
    letter = _letter(record)
    failure = letter.failure
    position = letter.position
    if not position.topic:  # the router's own request for the first page of a job stood nowhere
        position = Position(record.topic, record.partition, record.offset)
    place = (clean(position.topic, MAX_TOPIC), position.partition, position.offset)
    job_id, doc_id = clean(letter.job_id, 200), clean(letter.doc_id, 200)
    return [
        letter_id(*place, job_id, doc_id, letter.redrive),
        job_id,
        clean(letter.tenant_id, 200),
        doc_id,
        clean(letter.stage, 200),
        letter.redrive,
        *place,
        _EPOCH + timedelta(milliseconds=min(max(record.timestamp_ms, 0), _LATEST_MS)),
        record.partition,
        record.offset,
        letter.attempt,
        clean(failure.code, 200),
        clean(failure.message, MAX_MESSAGE),
        encode([clean(cause, MAX_MESSAGE) for cause in failure.causes[:MAX_CAUSES]]).decode(),
        clean(failure.disposition, 200),
        clean(letter.worker, 200),
        clean(letter.worker_version, 200),
    ]


def _letter(record: DeadRecord) -> DeadLetter:
    header = next((value for name, value in reversed(record.headers) if name == HEADER), None)
    try:
        letter = _DECODER.decode(header or b"")
        position = letter.position
        numbers = {
            "attempt": letter.attempt,
            "redrive": letter.redrive,
            "partition": position.partition,
            "offset": position.offset,
        }
        for name, value in numbers.items():
            if not 0 <= value <= _LARGEST[name]:
                raise ValueError(f"{name} {value} is out of range")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = f"reading a dead letter: its header {HEADER} cannot be read: {error}"
        failure = Failure(ContractError.code, reason, Disposition.FAILED.value)
        return DeadLetter(failure=failure, position=Position(record.topic, record.partition, record.offset), worker="")
    return letter


_MERGE = text(DEAD_LETTERS.upsert())
