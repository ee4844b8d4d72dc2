"""Dead letters, decided about: the message that goes back to its topic, and the event that says so. Pure."""

from typing import NamedTuple

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Headers, Message, message, now, now_header, schema_uri, trace_parent
from medkg.contracts.errors import ContractError
from medkg.contracts.ids import letter_id, stable_id
from medkg.contracts.messages import (
    REQUEST_DECODER,
    EventType,
    LetterDecision,
    Position,
    StageRequest,
    encode,
)
from medkg.runtime.outcome import DEAD_LETTER_HEADER, request_id
from medkg.runtime.records import Record

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SCHEMA = schema_uri("letter-decision")


class Decided(NamedTuple):
    """What the ledger holds of a letter that is decided about, and who decides why.

    ``stage`` is empty for a message that is no stage request, or could not be read.
    """

    position: Position
    redrive: int
    job_id: str
    tenant_id: str
    doc_id: str
    stage: str
    actor: str
    reason: str

    @property
    def is_request(self) -> bool:
        return self.job_id != "" and self.stage != ""


class Redrive(NamedTuple):
    """A message on its way back, and the event that says so, to be published after it."""

    message: Message
    event: Message


def redriven(letter: Record, about: Decided, source: str) -> Redrive:
    """The message of a dead letter for its topic, in the next round; doing it again gives the same ids.

    A stage request keeps all it says, fields of a newer release included; its attempts are counted anew. Any other
    message goes back byte for byte.

    Raises:
        ContractError: the letter does not say where its message came from, or holds another one than the ledger says.
    """
    headers = [header for header in letter.headers if header[0] != DEAD_LETTER_HEADER]
    topic, value, page = about.position.topic, letter.value, 0
    if about.is_request:
        request, value = _next_round(letter, about)
        headers = _renamed(headers, request)
        page = request.page
        if topic == topics.DEAD_LETTER and not request.doc_id:
            topic = topics.GATE  # the first page of a job, which the router made itself
    if topic in {"", topics.DEAD_LETTER}:
        raise ContractError("redriving a dead letter: it does not say where its message came from; save it, or drop it")
    event = _event(EventType.LETTER_REDRIVEN, about, page, source)
    return Redrive(Message(topic, letter.key, value, headers), event)


def dropped(about: Decided, source: str) -> Message:
    """The event that nobody will handle a dead letter. The letter itself stays in its topic."""
    return _event(EventType.LETTER_DROPPED, about, 0, source)


def _next_round(letter: Record, about: Decided) -> tuple[StageRequest, bytes]:
    try:
        fields = _FIELDS.decode(letter.value)
        fields.pop("attempt", None)
        fields["redrive"] = msgspec.Raw(encode(about.redrive + 1))
        value = encode(fields)
        request = REQUEST_DECODER.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(
            f"redriving a dead letter: its message is not the one of {about.stage!r}: {error}"
        ) from error
    if (request.job_id, request.tenant_id, request.doc_id) != (about.job_id, about.tenant_id, about.doc_id):
        raise ContractError("redriving a dead letter: it holds the message of another document than the ledger says")
    return request, value


def _renamed(headers: Headers, request: StageRequest) -> Headers:
    """The envelope of the same request in another round: caused by the event that died."""
    given = dict(headers)
    replaced = {"ce_id", "ce_time", "ce_causationid"}
    kept = [header for header in headers if header[0] not in replaced]
    return [*kept, ("ce_id", request_id(request).encode()), now_header(), ("ce_causationid", given.get("ce_id", b""))]


def _event(kind: EventType, about: Decided, page: int, source: str) -> Message:
    decision = LetterDecision(
        position=about.position,
        redrive=about.redrive,
        job_id=about.job_id,
        tenant_id=about.tenant_id,
        doc_id=about.doc_id,
        page=page,
        stage=about.stage,
        actor=about.actor,
        reason=about.reason,
    )
    at = about.position
    letter = letter_id(at.topic, at.partition, at.offset, about.job_id, about.doc_id, about.redrive)
    key = about.doc_id or about.job_id or letter
    identity = stable_id("event", kind, letter)
    envelope = Envelope(
        id=identity,
        type=kind,
        source=source,
        time=now(),
        subject=f"{about.job_id}/{about.doc_id or f'page-{page}'}" if about.job_id else letter,
        dataschema=_SCHEMA,
        partitionkey=key,
        correlationid=about.job_id,
        traceparent=trace_parent(stable_id("trace", about.job_id, key), identity),
    )
    return message(topics.LIFECYCLE, envelope, encode(decision))
