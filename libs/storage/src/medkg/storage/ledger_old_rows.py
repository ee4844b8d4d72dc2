"""Rows of another ledger, as the events that would have made them. Pure.

A row is an object with at least a document's id. What it lacks is inferred; what it has too much is left aside.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from medkg.contracts.cloudevents import Envelope
from medkg.contracts.ids import content_digest, stable_id
from medkg.contracts.messages import (
    EventType,
    Failure,
    IngestedDocument,
    JobAdmitted,
    PageReport,
    PipelineRef,
    StageEvent,
    encode,
)
from medkg.contracts.stages import StageType

Event = tuple[Envelope, bytes]

PDF_SOURCES = frozenset({"pmc-fulltext", "unpaywall", "core"})
UNFINISHED = "imported_unfinished"
SOURCE = "import"

_VERSION = "1.0"
_UNKNOWN_TIME = "1970-01-01T00:00:00.000Z"
_BEFORE = "1969-12-31T23:59:59.000Z"  # of all that came before the last thing that a row tells of
_NAME = re.compile(r"[^\x00-\x20\x7f/\\]{1,200}")
_STATES = {
    **dict.fromkeys(("completed", "complete", "done", "success", "succeeded", "indexed", "finished"), "completed"),
    **dict.fromkeys(("skipped", "unchanged"), "skipped"),
    **dict.fromkeys(("failed", "failure", "error", "dead"), "failed"),
    **dict.fromkeys(("rejected", "invalid"), "rejected"),
}
_IDS = ("doc_id", "document_id", "id")
_FLAGS = ("pdf_downloaded", "pdf_ir_ready", "pdf_ir_failed", "post_pdf_started")


@dataclass(frozen=True, slots=True)
class OldRow:
    """What is known of a document, checked. ``flags`` are the gate fields that are set."""

    doc_id: str
    tenant_id: str
    pipeline_name: str
    pipeline_version: str
    source_id: str
    uri: str
    state: str
    current_stage: str
    at: str
    retries: Mapping[str, int] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    reason: str = ""

    @property
    def pipeline(self) -> PipelineRef:
        name, version = self.pipeline_name, self.pipeline_version
        return PipelineRef(name, version, content_digest(f"{SOURCE} {name} {version}".encode()))


def pipeline_of(source: str, pdf_url: str, uri: str = "") -> str:
    """The pipeline of a document of which only its source and its PDF are known."""
    is_pdf = source in PDF_SOURCES or pdf_url != "" or uri.lower().partition("?")[0].endswith(".pdf")
    return "pdf-two-phase" if is_pdf else "auto"


def read_row(row: object) -> OldRow:
    """A row of another ledger.

    Raises:
        ValueError: it is no object, names no document, or a field holds what it cannot mean.
    """
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {type(row).__name__}")
    about = row.get("metadata")
    merged: dict[str, Any] = {**(about if isinstance(about, dict) else {}), **row}
    doc_id = next((_text(merged, name) for name in _IDS if merged.get(name) not in (None, "")), "")
    if not doc_id:
        raise ValueError("it names no document: doc_id, document_id or id")
    source, pdf_url, uri = _text(merged, "source"), _text(merged, "pdf_url"), _text(merged, "uri", "url")
    stage, pipeline = _text(merged, "current_stage", "stage"), _text(merged, "pipeline_name", "pipeline")
    return OldRow(
        doc_id=_name("doc_id", doc_id),
        tenant_id=_name("tenant_id", _text(merged, "tenant_id", "tenant") or "default"),
        pipeline_name=_name("pipeline_name", pipeline or pipeline_of(source, pdf_url)),
        pipeline_version=_name("pipeline_version", _text(merged, "pipeline_version") or _VERSION),
        source_id=_text(merged, "source_id", "external_id"),
        uri=uri or pdf_url,
        state=_STATES.get(_text(merged, "state", "status").lower(), ""),
        current_stage=_name("current_stage", stage) if stage else "",
        at=_time(_text(merged, "updated_at", "finished_at", "created_at")),
        retries=_retries(merged, stage),
        flags=frozenset(name for name in _FLAGS if _flag(merged, name)),
        reason=_text(merged, "error", "failure", "reason"),
    )


def job_of(origin: str, tenant_id: str, pipeline: PipelineRef) -> str:
    """The job under which documents of one origin, tenant and pipeline are imported: always the same."""
    return stable_id("job", SOURCE, origin, tenant_id, pipeline.name, pipeline.version)


def events_of(row: OldRow, origin: str) -> Iterator[Event]:
    """What would have made this row, in the order in which it would have happened. The same for the same row."""
    job_id = job_of(origin, row.tenant_id, row.pipeline)
    say = _Teller(row, job_id)
    yield say.admitted(origin)
    yield say.page()
    for stage, retries in sorted(row.retries.items()):
        yield say.stage(EventType.STAGE_RETRYING, stage, at=_BEFORE, attempt=retries + 1)
    if "pdf_downloaded" in row.flags:
        yield say.stage(EventType.STAGE_COMPLETED, "download_pdf", StageType.DOWNLOAD, at=_BEFORE, reused=True)
    if "post_pdf_started" in row.flags:
        yield say.stage(EventType.STAGE_COMPLETED, "pdf_gate", StageType.GATE, at=_BEFORE)
    last = row.current_stage or "import"
    if row.state in ("completed", "skipped"):
        is_skipped = row.state == "skipped"
        yield say.stage(EventType.STAGE_COMPLETED, last, reused=is_skipped, finished_leaves=(last,), leaves=1)
    elif row.state:
        yield say.stage(EventType.STAGE_FAILED, last, failure=Failure("imported", row.reason, row.state))
    else:
        reason = f"it was at {last!r} when it was imported, and nobody works on it here: submit its source again"
        yield say.stage(EventType.STAGE_FAILED, last, failure=Failure(UNFINISHED, reason))


@dataclass(frozen=True, slots=True)
class _Teller:
    row: OldRow
    job_id: str

    def admitted(self, origin: str) -> Event:
        about = JobAdmitted(
            job_id=self.job_id,
            tenant_id=self.row.tenant_id,
            source=SOURCE,
            pipeline=self.row.pipeline,
            revision=0,
            selection={"origin": origin},
        )
        return self._event(EventType.JOB_ADMITTED, encode(about), _BEFORE)

    def page(self) -> Event:
        document = IngestedDocument(self.row.doc_id, self.row.source_id, self.row.uri)
        report = PageReport(number=0, documents=(document,), is_last=True)  # all on one page: it has no end of its own
        return self.stage(EventType.STAGE_COMPLETED, "ingest", StageType.INGEST, at=_BEFORE, doc_id="", page=report)

    def stage(self, kind: EventType, stage: str, stage_type: str = "", *, at: str = "", **fields: Any) -> Event:
        given: dict[str, Any] = {
            "job_id": self.job_id,
            "tenant_id": self.row.tenant_id,
            "doc_id": self.row.doc_id,
            "stage": stage,
            "stage_type": str(stage_type),
            "pipeline": self.row.pipeline,
            "revision": 0,
            "worker": SOURCE,
        }
        return self._event(kind, encode(StageEvent(**(given | fields))), at or self.row.at)

    def _event(self, kind: EventType, data: bytes, at: str) -> Event:
        return Envelope(id=stable_id(SOURCE, data.hex()), type=kind, source="medkg/import", time=at), data


def _text(row: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = row.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{name} is {type(value).__name__}, not text")
        return str(value)
    return ""


def _name(what: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{what} {value[:80]!a} is not a name: 1 to 200 characters, no spaces, no slashes")
    return value


def _flag(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    if value in (0, 1):
        return bool(value)
    raise ValueError(f"{name} is neither true nor false")


def _retries(row: Mapping[str, Any], stage: str) -> dict[str, int]:
    counts = row.get("retry_count_per_stage")
    if counts is None:
        single = row.get("retry_count") or 0
        counts = {stage: single} if stage and single else {}
    if not isinstance(counts, dict):
        raise ValueError("retry_count_per_stage is no object")
    for name, number in counts.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
            raise ValueError(f"retry_count_per_stage: the count of {str(name)[:80]!a} is not a number of retries")
    return {_name("stage", str(name)): number for name, number in counts.items() if number}


def _time(value: str) -> str:
    if not value:
        return _UNKNOWN_TIME
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value[:80]!a} is not an RFC 3339 time") from None
    if not 1900 <= moment.year <= 9998:
        raise ValueError(f"{value[:80]!a} is out of range")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
