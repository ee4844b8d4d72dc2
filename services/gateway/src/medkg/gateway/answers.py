"""What the routes answer, beyond what the ledger and the graph do. The OpenAPI document is made of it."""

from dataclasses import dataclass
from typing import Literal

from medkg.storage.ledger_answers import DeadLetterAnswer, FaultAnswer, Job, JobDocument, Rejection, Waiting
from medkg.storage.operators import Decided
from medkg.storage.waits_reader import WaitEntry


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
class WaitList:
    waits: list[WaitEntry]


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What an operator's decision has touched."""

    action: str
    decided: list[Decided]


@dataclass(frozen=True, slots=True)
class DeadLetterList:
    dead_letters: list[DeadLetterAnswer]


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message as it was: key, header values and value in base64, the headers in their order."""

    id: str
    key: str | None
    headers: list[tuple[str, str]]
    value: str


@dataclass(frozen=True, slots=True)
class LetterOutcome:
    """What became of a dead letter; a redriven one stands in `topic` again, in round `redrive`."""

    id: str
    state: Literal["redriven", "dropped"]
    topic: str = ""
    redrive: int = 0


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
