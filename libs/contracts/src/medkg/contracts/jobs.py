"""The door: what a client may submit. Strict, and every fault is named at once with its JSON Pointer."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medkg.contracts.messages import Fault

MAX_JOB_EVENT_BYTES = 262_144  # a job names what to read; it never carries documents
MAX_DEPTH = 16  # nesting of the data of a job event

Name = Annotated[str, Field(pattern=r"^[a-z][a-z-]{0,62}$")]
TenantId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
PathText = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]+$")]


class _Door(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FilesSelection(_Door):
    """Files, folders and glob patterns that the ingest service can read. Folders are walked, in sorted order."""

    paths: Annotated[list[PathText], Field(min_length=1, max_length=10_000)]


class ClinicalTrialsSelection(_Door):
    """Studies of ClinicalTrials.gov (API v2): by NCT number, or by a query in its own syntax."""

    ids: Annotated[list[Annotated[str, Field(pattern=r"^NCT\d{8}$")]], Field(max_length=10_000)] = []
    query: Annotated[str, Field(max_length=2_000)] = ""
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "ClinicalTrialsSelection":
        if bool(self.ids) == bool(self.query):
            raise ValueError("give either ids or query")
        return self


SELECTIONS: dict[str, type[BaseModel]] = {
    "files": FilesSelection,
    "clinicaltrials": ClinicalTrialsSelection,
}


class JobSubmission(_Door):
    """Data of ``org.medicalkg.job.submitted``. Without ``pipeline`` the source decides which one is used."""

    tenant_id: TenantId
    source: Name
    selection: dict[str, Any]
    pipeline: Name | None = None
    pipeline_version: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    kind: Literal["documents"] = "documents"


def check_submission(data: bytes) -> tuple[JobSubmission | None, tuple[Fault, ...]]:
    """Read the data of a job event: the submission, or all that is wrong with it.

    Never raises: whatever the bytes are, the answer is a submission or a list of faults.
    """
    if len(data) > MAX_JOB_EVENT_BYTES:
        return None, (Fault("", f"{len(data)} bytes are over the limit of {MAX_JOB_EVENT_BYTES} for a job event"),)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        return None, (Fault("", f"not JSON: {error}"),)
    if not isinstance(value, dict):
        return None, (Fault("", f"expected a JSON object, found {type(value).__name__}"),)
    if _depth(value) > MAX_DEPTH:
        return None, (Fault("", f"nested deeper than {MAX_DEPTH} levels"),)
    faults = _faults_of(JobSubmission, value, "")
    source = value.get("source")
    if isinstance(source, str) and isinstance(value.get("selection"), dict):
        if source in SELECTIONS:
            faults += _faults_of(SELECTIONS[source], value["selection"], "/selection")
        elif not any(fault.pointer == "/source" for fault in faults):
            faults += (Fault("/source", f"unknown source {source!r}", f"known: {', '.join(sorted(SELECTIONS))}"),)
    if faults:
        return None, faults
    return JobSubmission.model_validate(value), ()


def _faults_of(model: type[BaseModel], value: object, at: str) -> tuple[Fault, ...]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        return tuple(
            Fault(at + "".join(f"/{_escape(part)}" for part in detail["loc"]), detail["msg"])
            for detail in error.errors(include_url=False, include_context=False, include_input=False)
        )
    return ()


def _escape(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")  # RFC 6901, section 3


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level and deepest <= MAX_DEPTH:
        deepest += 1
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return deepest
