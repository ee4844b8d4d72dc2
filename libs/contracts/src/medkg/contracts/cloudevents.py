"""CloudEvents 1.0 on Kafka: the envelope of every message.

Source: CloudEvents 1.0.2 specification, Kafka protocol binding 1.0.2, partitioning and distributed tracing extensions.
Events between medkg's services are always in binary mode (attributes in ``ce_`` headers, data in the value). The
mapping is written here by hand because it runs several times per document and hop; ``tests/unit/contracts`` holds it
against the ``cloudevents`` package, which reads what comes in at the door.
"""

import re
import time
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from medkg.contracts.errors import ContractError

SPEC_VERSION = "1.0"
JSON = "application/json"
Headers = list[tuple[str, bytes]]

FIXED_HEADERS: Headers = [("ce_specversion", b"1.0"), ("content-type", b"application/json")]
_ATTRIBUTES = (
    "id",
    "type",
    "source",
    "subject",
    "time",
    "dataschema",
    "partitionkey",
    "tenantid",
    "correlationid",
    "causationid",
    "traceparent",
    "dataref",
    "expirytime",
)
_ATTRIBUTE_HEADERS = tuple((name, f"ce_{name}") for name in _ATTRIBUTES)
_ATTRIBUTE_OF = {header: name for name, header in _ATTRIBUTE_HEADERS} | {"ce_specversion": "specversion"}
_USUAL_BYTES = 200  # of a type and a source together: what is remembered stays small
# CloudEvents 1.0.2, "Type System", String: no control characters. (Half surrogates cannot come out of UTF-8.)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """Everything about an event but its data.

    ``correlationid`` is the job, ``causationid`` the event that led to this one; ``tenantid`` (an extension of our own)
    lets a worker give tenants their turns without reading the data.
    """

    id: str
    type: str
    source: str
    time: str = ""
    subject: str = ""
    dataschema: str = ""
    partitionkey: str = ""
    correlationid: str = ""
    causationid: str = ""
    traceparent: str = ""
    dataref: str = ""
    expirytime: str = ""
    tenantid: str = ""

    def headers(self) -> Headers:
        """The attributes as Kafka headers; empty ones are left out."""
        return FIXED_HEADERS + [
            (header, value.encode()) for name, header in _ATTRIBUTE_HEADERS if (value := getattr(self, name))
        ]


class Cause(msgspec.Struct, frozen=True, gc=False):
    """Of an event that leads to others, what they say about it."""

    id: str
    traceparent: str = ""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record to be published. A key that is passed on is kept as it came: bytes, or none."""

    topic: str
    key: str | bytes | None
    value: bytes
    headers: Headers


def message(topic: str, envelope: Envelope, data: bytes) -> Message:
    """An event in binary mode; the partition key is the record's key."""
    return Message(topic=topic, key=envelope.partitionkey, value=data, headers=envelope.headers())


def read_envelope(headers: Headers | None) -> Envelope:
    """The envelope of a binary-mode record. Unknown attributes are ignored.

    Raises:
        ContractError: a required attribute (specversion, id, type, source) is missing, the specversion is not 1.x, or a
            value is not UTF-8 or holds control characters.
    """
    found: dict[str, str] = {}
    for name, value in headers or ():
        attribute = _ATTRIBUTE_OF.get(name)
        if attribute is not None and value is not None:
            try:
                found[attribute] = text = value.decode()
            except UnicodeDecodeError as error:
                raise ContractError(f"reading CloudEvents headers: the value of {name!r} is not UTF-8") from error
            if not text.isprintable() and _CONTROL.search(text):
                raise ContractError(f"reading CloudEvents headers: the value of {name!r} holds control characters")
    version = found.pop("specversion", "")
    if not (version.startswith("1.") and found.get("id") and found.get("type") and found.get("source")):
        raise _incomplete(version, found)
    return Envelope(**found)


def read_cause(headers: Headers | None) -> Cause:
    """The part of :func:`read_envelope` that a stage needs, at a fifth of its cost.

    Raises:
        ContractError: as there; of the attributes that are not read, only their presence is checked.
    """
    found = dict(headers or ())
    identity, trace = found.get("ce_id"), found.get("ce_traceparent") or b""
    is_1x = (found.get("ce_specversion") or b"").startswith(b"1.")
    if is_1x and identity and found.get("ce_type") and found.get("ce_source") and (identity + trace).isascii():
        cause = Cause(identity.decode(), trace.decode())
        if cause.id.isprintable() and cause.traceparent.isprintable():
            return cause
    envelope = read_envelope(headers)  # something is unusual: this one knows what
    return Cause(envelope.id, envelope.traceparent)


def read_brief(headers: Headers | None) -> Envelope:
    """As much of an envelope as an account of many events needs: id, type, source, time and subject.

    Raises:
        ContractError: as :func:`read_envelope`; of the attributes that are not read, only the headers are looked at.
    """
    found = dict(headers or ())
    try:
        kind, source = found["ce_type"], found["ce_source"]
        said = _kind_and_source(kind, source) if len(kind) + len(source) <= _USUAL_BYTES else None
        identity, subject = found["ce_id"].decode("ascii"), found["ce_subject"].decode("ascii")
        at, version = found["ce_time"].decode("ascii"), found["ce_specversion"]
    except (KeyError, AttributeError, TypeError, UnicodeDecodeError):  # missing or unusual: this one knows what
        return read_envelope(headers)
    if said is None or not identity or version != b"1.0" or not (identity + subject + at).isprintable():
        return read_envelope(headers)
    return Envelope(identity, said[0], said[1], at, subject)


@lru_cache(maxsize=256)  # there are a few of each in all the events
def _kind_and_source(kind: bytes, source: bytes) -> tuple[str, str] | None:
    """Decoded, or None where one is unusual."""
    try:
        words = kind.decode("ascii"), source.decode("ascii")
    except UnicodeDecodeError:
        return None
    return words if all(word and word.isprintable() for word in words) else None


def _incomplete(version: str, found: dict[str, str]) -> ContractError:
    missing = [name for name in ("id", "type", "source") if not found.get(name)]
    if version and not missing:
        return ContractError(f"reading CloudEvents headers: ce_specversion is {version[:20]!r}; 1.0 is spoken here")
    names = ", ".join(f"ce_{name}" for name in ([] if version else ["specversion"]) + missing)
    return ContractError(f"reading CloudEvents headers: {names} missing; is this a CloudEvent in binary mode?")


def now() -> str:
    """The current time as CloudEvents wants it: RFC 3339, UTC, to the millisecond."""
    return _rfc3339(time.time_ns() // 1_000_000)


def now_header() -> tuple[str, bytes]:
    """The header that says so."""
    return _time_header(time.time_ns() // 1_000_000)


def time_header(at: float) -> tuple[str, bytes]:
    """The header that says another time, in seconds since 1970."""
    return _time_header(int(at * 1_000))


@lru_cache(maxsize=4)  # the events of one hop mostly share their millisecond
def _rfc3339(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=4)
def _time_header(milliseconds: int) -> tuple[str, bytes]:
    return "ce_time", _rfc3339(milliseconds).encode()


def schema_uri(name: str, major: int = 1) -> str:
    """The ``dataschema`` of a message: a name with its major version, see docs/reference/schemas."""
    return f"urn:medkg:schema:{name}:v{major}"


def trace_parent(trace_seed: str, span_seed: str) -> str:
    """A W3C ``traceparent`` from two 32-digit ids: one trace for a document's run, one span for a message of it."""
    return f"00-{trace_seed[:32]}-{span_seed[:16]}-01"
