"""What the gateway is made of, as its routes see it: each part small enough to be faked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from medkg.contracts.jobs import SELECTIONS
from medkg.contracts.topology import Topology
from medkg.gateway.waiting_desk import WaitingDesk
from medkg.haystack.answering import SearchAnswer, SearchRequest
from medkg.runtime.records import Record
from medkg.storage.graph_answers import GraphAnswer
from medkg.storage.ledger_answers import (
    DeadLetterAnswer,
    FaultAnswer,
    Job,
    JobDocument,
    LetterQuery,
    Overview,
    Rejection,
)
from medkg.storage.ledger_reader import ALL_LETTERS


class JobPublisher(Protocol):
    async def publish(self, submission: bytes, event_id: str) -> str:
        """Publish a job event and return the id of its job.

        Raises:
            ResourceUnavailableError: Kafka did not take it.
        """
        ...


class Ledger(Protocol):
    async def job(self, tenant_id: str, job_id: str) -> Job | None: ...

    async def state_of(self, job_id: str) -> tuple[str, tuple[FaultAnswer, ...]] | None: ...

    async def jobs(self, tenant_id: str, *, limit: int, before: str = "") -> tuple[list[Job], str]: ...

    async def documents(
        self, tenant_id: str, job_id: str, *, state: str = "", limit: int, after: str = ""
    ) -> tuple[list[JobDocument], str]: ...

    async def document(self, tenant_id: str, job_id: str, doc_id: str) -> JobDocument | None: ...

    async def dead_letters(
        self, *, tenant_id: str | None = None, asked: LetterQuery = ALL_LETTERS, limit: int = 100
    ) -> list[DeadLetterAnswer]: ...

    async def rejections(self, *, tenant_id: str | None = None, limit: int = 100) -> list[Rejection]: ...

    async def overview(self) -> Overview: ...

    async def topology(self, digest: str) -> str | None: ...


class LetterDesk(Protocol):
    async def message(self, letter: DeadLetterAnswer) -> Record | None: ...

    async def redrive(self, letter: DeadLetterAnswer, actor: str, reason: str) -> str | None: ...

    async def drop(self, letter: DeadLetterAnswer, actor: str, reason: str) -> None: ...


class Search(Protocol):
    async def answer(self, tenant_id: str, request: SearchRequest) -> SearchAnswer: ...


class Graph(Protocol):
    async def find(self, tenant_id: str, query: str, limit: int = 50) -> GraphAnswer: ...


class Pipelines(Protocol):
    def names(self) -> tuple[str, ...]: ...

    def get(self, name: str, version: str | None = None) -> Topology: ...

    def problems(self) -> Sequence[object]: ...


@dataclass(frozen=True, slots=True)
class About:
    """This process, as ``/v1/status`` describes it: its broker, the services in it, and where they keep things."""

    broker: str = ""
    services: tuple[str, ...] = ()
    stores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the routes use. ``host_names``: how the gateway may be called by its clients; None: anyhow."""

    publisher: JobPublisher
    ledger: Ledger
    letters: LetterDesk
    search: Search
    graph: Graph
    pipelines: Pipelines
    registry: CollectorRegistry
    about: About = About()
    admission_seconds: float = 10.0
    max_body_bytes: int = 1_048_576
    selections: Mapping[str, type[BaseModel]] = field(default_factory=lambda: SELECTIONS)
    host_names: frozenset[str] | None = None
    waiting: WaitingDesk | None = None
