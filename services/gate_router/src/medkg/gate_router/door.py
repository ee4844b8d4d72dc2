"""What comes in at the door: any record on the jobs topic becomes a submission or a list of faults, never an exception.

CloudEvents 1.0 for Kafka: binary mode (attributes in headers, data in the value) and structured mode (all in the
value, content type ``application/cloudevents+json``). A fault's pointer leads into the record's value, which is the
submission itself or, in structured mode, the whole event; a faulty header is ``/headers/NAME``.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import BaseModel

from medkg.contracts.cloudevents import Headers
from medkg.contracts.ids import job_id_of, stable_id
from medkg.contracts.jobs import MAX_FAULTS, MAX_JOB_EVENT_BYTES, SELECTIONS, JobSubmission, check_submission
from medkg.contracts.messages import EventType, Fault
from medkg.runtime.records import Record

Selections = Mapping[str, type[BaseModel]]  # what a job may select, by source

STRUCTURED = "application/cloudevents+json"
MAX_ATTRIBUTE_CHARACTERS = 1_024

_REQUIRED = ("specversion", "id", "source", "type")
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHOWN = 100  # characters of a client's text that a fault quotes


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job event, read. Without ``submission`` it is refused for its ``faults``.

    ``event_id`` and ``event_source`` are empty where the event has none that could be written again.
    """

    job_id: str
    event_id: str
    event_source: str
    submission: JobSubmission | None
    faults: tuple[Fault, ...]
    tenant_id: str = ""
    data_at: str = ""  # where the submission stands in the record's value, a JSON Pointer


def read_job_event(record: Record, selections: Selections = SELECTIONS) -> Submitted:
    """A record of the jobs topic as a submission, or as everything that is wrong with it."""
    content_type = _content_type(record.headers)
    if content_type.startswith("application/cloudevents"):
        return _structured(record, content_type, selections)
    attributes = _Attributes("/headers/ce_")
    for name, value in record.headers:
        if name.lower().startswith("ce_") and value is not None:
            attributes.add(name.lower()[3:], _decoded(value))
    submission, faults = check_submission(record.value, selections)
    return _answer(record, attributes, submission, faults, _tenant_of(record.value))


def _structured(record: Record, content_type: str, selections: Selections) -> Submitted:
    if content_type != STRUCTURED:
        return _unreadable(record, "/headers/content-type", f"{content_type[:_SHOWN]!a} is not read; use {STRUCTURED}")
    if len(record.value) > MAX_JOB_EVENT_BYTES:
        size = len(record.value)
        return _unreadable(record, "", f"{size} bytes are over the limit of {MAX_JOB_EVENT_BYTES} for a job event")
    repeated: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        repeated.extend(name for name, count in Counter(name for name, _ in items).items() if count > 1)
        return dict(items)

    try:
        event = json.loads(record.value.decode(), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        return _unreadable(record, "", f"not JSON: {error}")
    if not isinstance(event, dict):
        return _unreadable(record, "", f"expected a JSON object, found {type(event).__name__}")
    attributes = _Attributes("/")
    for name in _REQUIRED:
        if event.get(name) is not None:
            attributes.add(name, event[name])
    faults = [Fault("", f"the field {name[:_SHOWN]!a} is given more than once in one object") for name in repeated]
    try:
        data = _data_of(event)
    except (ValueError, RecursionError) as error:
        faults.append(Fault("/data", f"cannot be read: {error}"))
        return _answer(record, attributes, None, tuple(faults))
    submission, inside = check_submission(data, selections)
    faults += [Fault("/data" + fault.pointer, fault.message, fault.hint) for fault in inside]
    return replace(_answer(record, attributes, submission, tuple(faults), _tenant_of(data)), data_at="/data")


def _data_of(event: dict[str, object]) -> bytes:
    """The data of a structured event, as JSON.

    Raises:
        ValueError: there is none, or it is not base64 where it should be.
        RecursionError: it is nested too deep.
    """
    if "data" in event:
        try:
            return json.dumps(event["data"], ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half of a surrogate pair: the check of the submission names its place
            return json.dumps(event["data"]).encode()
    encoded = event.get("data_base64")
    if not isinstance(encoded, str):
        raise ValueError("missing; a job event carries its submission as data")
    return base64.b64decode(encoded, validate=True)


@dataclass(slots=True)
class _Attributes:
    """The attributes of an event that can be used, and what is wrong with others. ``at`` begins their pointers."""

    at: str
    sound: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: object) -> None:
        """Take an attribute as it came; what is not needed is passed over."""
        if name not in _REQUIRED or value == "":
            return
        if name in self.sound:
            self.wrong[name] = "given more than once"
        elif not isinstance(value, str):
            self.wrong[name] = "expected text in UTF-8"
        elif len(value) > MAX_ATTRIBUTE_CHARACTERS or not value.isprintable():
            self.wrong[name] = f"expected at most {MAX_ATTRIBUTE_CHARACTERS} printable characters"
        else:
            self.sound[name] = value
        if name in self.wrong:
            self.sound.pop(name, None)

    def faults(self) -> tuple[Fault, ...]:
        return tuple(fault for name in _REQUIRED if (fault := self._fault(name)) is not None)

    def _fault(self, name: str) -> Fault | None:
        at, value = self.at + name, self.sound.get(name)
        if name in self.wrong:
            return Fault(at, self.wrong[name])
        if value is None:
            return Fault(at, "missing", "CloudEvents requires it")
        if name == "specversion" and value != "1.0":
            return Fault(at, f"{value[:_SHOWN]!r} is not supported", "use 1.0")
        if name == "type" and value != EventType.JOB_SUBMITTED:
            return Fault(at, f"{value[:_SHOWN]!r} is not a job event", f"use {EventType.JOB_SUBMITTED.value}")
        return None


def _answer(
    record: Record,
    attributes: _Attributes,
    submission: JobSubmission | None,
    faults: tuple[Fault, ...],
    tenant_id: str = "",
) -> Submitted:
    source, event_id = attributes.sound.get("source", ""), attributes.sound.get("id", "")
    identity = job_id_of(source, event_id) if source and event_id else refused_id(record)
    everything = (*attributes.faults(), *faults)[:MAX_FAULTS]
    return Submitted(identity, event_id, source, None if everything else submission, everything, tenant_id)


def _unreadable(record: Record, pointer: str, message: str) -> Submitted:
    return Submitted(refused_id(record), "", "", None, (Fault(pointer, message),))


def refused_id(record: Record) -> str:
    """The identity of an event that has none of its own, or none that it may have: its place."""
    return stable_id("refused", record.topic, record.partition, record.offset)


def _tenant_of(data: bytes) -> str:
    """The tenant that a faulty submission names, so that its owner can find the refusal; only if it is a valid name."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    tenant = value.get("tenant_id") if isinstance(value, dict) else None
    return tenant if isinstance(tenant, str) and _TENANT.fullmatch(tenant) else ""


def _content_type(headers: Headers) -> str:
    for name, value in headers:
        if name.lower() == "content-type" and value is not None:
            return value.decode(errors="replace").partition(";")[0].strip().lower()
    return ""


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
