"""What comes in at the door: any record on the jobs topic becomes a submission or a list of faults, never an exception.

CloudEvents in binary mode (attributes in headers, data in the value) and structured mode (all in the value, content
type ``application/cloudevents+json``) are read with the ``cloudevents`` package's rules for Kafka.
"""

import json
from dataclasses import dataclass

from medkg.contracts.cloudevents import Headers
from medkg.contracts.ids import job_id_of, stable_id
from medkg.contracts.jobs import MAX_JOB_EVENT_BYTES, JobSubmission, check_submission
from medkg.contracts.messages import EventType, Fault
from medkg.runtime.records import Record

STRUCTURED = "application/cloudevents+json"
MAX_ATTRIBUTE_CHARACTERS = 1_024


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job event, read. Without ``submission`` it is refused for its ``faults``."""

    job_id: str
    event_id: str
    event_source: str
    submission: JobSubmission | None
    faults: tuple[Fault, ...]
    tenant_id: str = ""


def read_job_event(record: Record) -> Submitted:
    """A record of the jobs topic as a submission, or as everything that is wrong with it."""
    if len(record.value) > MAX_JOB_EVENT_BYTES:
        over = Fault("", f"{len(record.value)} bytes are over the limit of {MAX_JOB_EVENT_BYTES} for a job event")
        return _refused(record, {}, (over,))
    content_type = _header(record.headers, "content-type").partition(";")[0].strip().lower()
    if content_type.startswith("application/cloudevents"):
        return _structured(record, content_type)
    attributes = {
        name.lower()[3:]: value.decode(errors="replace")
        for name, value in record.headers
        if name.lower().startswith("ce_") and value is not None
    }
    return _checked(record, attributes, record.value, "/headers/ce_")


def _structured(record: Record, content_type: str) -> Submitted:
    if content_type != STRUCTURED:
        return _refused(record, {}, (Fault("/headers/content-type", f"{content_type}: only {STRUCTURED} is read"),))
    try:
        event = json.loads(record.value)
    except (ValueError, RecursionError) as error:
        return _refused(record, {}, (Fault("", f"not JSON: {error}"),))
    if not isinstance(event, dict):
        return _refused(record, {}, (Fault("", f"expected a JSON object, found {type(event).__name__}"),))
    attributes = {name: value for name, value in event.items() if isinstance(value, str)}
    if "data" not in event:
        return _refused(record, attributes, (Fault("/data", "missing", "a job event carries its submission as data"),))
    try:
        data = json.dumps(event["data"]).encode()
    except (ValueError, RecursionError) as error:
        return _refused(record, attributes, (Fault("/data", f"cannot be read: {error}"),))
    return _checked(record, attributes, data, "/")


def _checked(record: Record, attributes: dict[str, str], data: bytes, at: str) -> Submitted:
    faults = _attribute_faults(attributes, at)
    submission, more = check_submission(data)
    faults += more
    if faults or submission is None:
        return _refused(record, attributes, faults, _tenant_of(data))
    identity = job_id_of(attributes["source"], attributes["id"])
    return Submitted(identity, attributes["id"], attributes["source"], submission, (), submission.tenant_id)


def _attribute_faults(attributes: dict[str, str], at: str) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    for name in ("specversion", "id", "source", "type"):
        value = attributes.get(name, "")
        if not value:
            faults.append(Fault(at + name, "missing", "CloudEvents requires it"))
        elif len(value) > MAX_ATTRIBUTE_CHARACTERS or not value.isprintable():
            faults.append(Fault(at + name, f"expected at most {MAX_ATTRIBUTE_CHARACTERS} printable characters"))
    version = attributes.get("specversion", "")
    if version and version != "1.0":
        faults.append(Fault(at + "specversion", f"{version!r} is not supported", "use 1.0"))
    kind = attributes.get("type", "")
    if kind and kind != EventType.JOB_SUBMITTED:
        faults.append(Fault(at + "type", f"{kind[:200]!r} is not a job event", f"use {EventType.JOB_SUBMITTED.value}"))
    return tuple(faults)


def _refused(record: Record, attributes: dict[str, str], faults: tuple[Fault, ...], tenant_id: str = "") -> Submitted:
    source, event_id = attributes.get("source", ""), attributes.get("id", "")
    if source and event_id:
        identity = job_id_of(source, event_id)
    else:
        identity = stable_id("refused", record.topic, record.partition, record.offset)
    return Submitted(identity, event_id, source, None, faults, tenant_id)


def _tenant_of(data: bytes) -> str:
    """The tenant that a faulty submission names, so that its owner can find the refusal; only if it is a valid name."""
    try:
        value = json.loads(data)
        tenant = value.get("tenant_id") if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return ""
    is_named = (
        isinstance(tenant, str) and 0 < len(tenant) <= 63 and tenant.replace("-", "a").replace("_", "a").isalnum()
    )
    return tenant if is_named and isinstance(tenant, str) and tenant.isascii() else ""


def _header(headers: Headers, name: str) -> str:
    for key, value in headers:
        if key.lower() == name and value is not None:
            return value.decode(errors="replace")
    return ""
