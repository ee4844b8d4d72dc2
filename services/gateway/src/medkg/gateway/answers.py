"""What the routes answer, beyond what the ledger and the graph do. The OpenAPI document is made of it."""

from dataclasses import dataclass
from typing import Literal

from medkg.contracts.document import Provenance
from medkg.haystack.retrieval import SearchAnswer
from medkg.storage.ledger_answers import DeadLetterAnswer, FaultAnswer, Job, JobDocument, Rejection, Waiting


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was taken. `submitted`: the gate-router has not said yet whether it lets the job in."""

    job_id: str
    state: Literal["admitted", "submitted"]


@dataclass(frozen=True, slots=True)
class JobPage:
    """`next` is the `before` of the following page."""

    jobs: list[Job]
    next: str | None


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """`next` is the `after` of the following page."""

    documents: list[JobDocument]
    next: str | None


@dataclass(frozen=True, slots=True)
class PassagePlace:
    """Where a passage stands in its source record: by path, or in a PDF by page (from 1) and box (in points)."""

    record: str
    path: str = ""
    page: int | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A passage. `legs` says at which rank (from 1) which kind of search found it."""

    rank: int
    score: float
    chunk_id: str
    doc_id: str
    title: str
    source: str
    source_id: str
    section_path: tuple[str, ...]
    text: str
    provenance: PassagePlace | None
    legs: dict[str, int]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first. `legs_missing` names the kinds of search that could not be made."""

    query: str
    hits: list[SearchHit]
    legs_missing: tuple[str, ...]
    took_ms: float


@dataclass(frozen=True, slots=True)
class PipelineSummary:
    """A pipeline in force, with its stages in their order."""

    name: str
    version: str
    digest: str
    description: str
    applicable_sources: tuple[str, ...]
    stages: list[str]


@dataclass(frozen=True, slots=True)
class PipelineList:
    """`faults` are the files that are not in force, and why."""

    pipelines: list[PipelineSummary]
    faults: list[str]


@dataclass(frozen=True, slots=True)
class DeadLetterList:
    dead_letters: list[DeadLetterAnswer]


@dataclass(frozen=True, slots=True)
class RejectionList:
    rejections: list[Rejection]


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """Everything at a glance: this process, and counts over all tenants."""

    broker: str
    services: tuple[str, ...]
    stores: dict[str, str]
    jobs: dict[str, int]
    documents: dict[str, int]
    waiting: tuple[Waiting, ...]
    rejections: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Health:
    status: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What went wrong. `job_id` is that of a rejected job."""

    code: str
    message: str
    hint: str = ""
    job_id: str = ""
    faults: tuple[FaultAnswer, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The one form of everything that goes wrong; fields that say nothing are left out."""

    error: ErrorBody


def search_result(query: str, found: SearchAnswer) -> SearchResult:
    """What was found, as it is shown."""
    hits = [
        SearchHit(
            rank=rank,
            score=hit.score,
            chunk_id=hit.chunk_id,
            doc_id=hit.doc_id,
            title=hit.title,
            source=hit.source,
            source_id=hit.source_id,
            section_path=hit.section_path,
            text=hit.text,
            provenance=_place(hit.provenance),
            legs=hit.legs,
        )
        for rank, hit in enumerate(found.hits, start=1)
    ]
    return SearchResult(query, hits, found.legs_missing, found.took_ms)


def _place(found: Provenance | None) -> PassagePlace | None:
    return PassagePlace(found.record, found.path, found.page, found.box) if found else None
