"""The parts of a gateway, in memory: rows belong to tenants, and every part can be told to be away."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from medkg.contracts.document import Provenance
from medkg.contracts.errors import MedkgError, PipelineConfigError, ResourceUnavailableError
from medkg.contracts.ids import job_id_of, stable_id
from medkg.contracts.topology import Topology
from medkg.haystack.answering import Hit, SearchAnswer, SearchRequest
from medkg.runtime.records import Record
from medkg.storage.graph_answers import EntityRef, GraphAnswer, GraphClaim, GraphEntity, GraphEvidence
from medkg.storage.ledger_answers import (
    Counts,
    DeadLetterAnswer,
    FailureAnswer,
    FailureCount,
    FaultAnswer,
    Job,
    JobDocument,
    LetterQuery,
    Overview,
    Pages,
    Pipeline,
    PositionAnswer,
    Rejection,
    StageCount,
    StageRun,
    Waiting,
)
from medkg.storage.ledger_reader import ALL_LETTERS

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NOON_TEXT = "2026-03-01T12:00:00.250000Z"


def id_of(*parts: str | int) -> str:
    return stable_id("fake", *parts)


def job(number: int, tenant_id: str = "default") -> Job:
    return Job(
        job_id=id_of("job", number),
        tenant_id=tenant_id,
        source="files",
        state="running",
        pipeline=Pipeline("auto", "1.0", "d" * 64),
        admitted_at=NOON + timedelta(seconds=number),
        finished_at=None,
        selection={"paths": ["/data"]},
        counts=Counts(documents=3, completed=1, skipped=0, failed=1, rejected=0, in_flight=1),
        pages=Pages(done=1, last_seen=True, total_records=3),
        stages=(StageCount("parse", 3, 2, 1, 0, 0, 1.25),),
        waiting=(Waiting("gate", 1, NOON, "pdf_gate: pdf_ir_ready = true"),),
        failures=(FailureCount("gpu_unavailable", "parse", 1, "run it where a GPU is"),),
    )


def document(number: int) -> JobDocument:
    failure = FailureAnswer("parse", "payload_malformed", "not XML")
    run = StageRun("parse", "failed", 1, NOON, NOON, 1.5, False, "worker-1", failure)
    return JobDocument(id_of("doc", number), f"NCT{number:08}", "file:///a", "failed", "parse", failure, (run,))


def dead_letter(offset: int, tenant_id: str = "default") -> DeadLetterAnswer:
    at = PositionAnswer("medkg.parse.v1", 0, offset)
    identity = f"medkg.parse.v1/0/{offset}"
    return DeadLetterAnswer(
        identity, id_of("job", 1), tenant_id, "", "parse", 1, "c", "m", ("cause",), "failed", "w", at, NOON
    )


@dataclass
class FakeLedger:
    """Everything by tenant. ``words`` are what the gate-router says of jobs, and from which look on it is known."""

    jobs_of: dict[str, list[Job]] = field(default_factory=dict)
    documents_of: dict[str, list[JobDocument]] = field(default_factory=dict)
    letters: list[DeadLetterAnswer] = field(default_factory=list)
    asked: list[LetterQuery] = field(default_factory=list)
    refusals: list[Rejection] = field(default_factory=list)
    topologies: dict[str, str] = field(default_factory=dict)
    word: tuple[str, tuple[FaultAnswer, ...]] | None = ("admitted", ())
    looks_before_word: int = 0
    is_away: bool = False
    failure: Exception | None = None
    looks: int = 0

    def _answer(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.is_away:
            raise ResourceUnavailableError("reading the ledger: the database does not answer")

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        self._answer()
        return next((job for job in self.jobs_of.get(tenant_id, []) if job.job_id == job_id), None)

    async def state_of(self, job_id: str) -> tuple[str, tuple[FaultAnswer, ...]] | None:
        self.looks += 1
        self._answer()
        return self.word if self.looks > self.looks_before_word else None

    async def jobs(self, tenant_id: str, *, limit: int, before: str = "") -> tuple[list[Job], str]:
        self._answer()
        found = self.jobs_of.get(tenant_id, [])
        start = next((place + 1 for place, job in enumerate(found) if job.job_id == before), 0)
        page = found[start : start + limit]
        return page, page[-1].job_id if start + limit < len(found) else ""

    async def documents(
        self, tenant_id: str, job_id: str, *, state: str = "", limit: int, after: str = ""
    ) -> tuple[list[JobDocument], str]:
        self._answer()
        if await self.job(tenant_id, job_id) is None:
            return [], ""
        found = sorted(self.documents_of.get(job_id, []), key=lambda document: document.doc_id)
        found = [item for item in found if item.doc_id > after and state in ("", item.state)]
        page = [replace(item, timeline=()) for item in found[:limit]]
        return page, page[-1].doc_id if len(found) > limit else ""

    async def document(self, tenant_id: str, job_id: str, doc_id: str) -> JobDocument | None:
        self._answer()
        if await self.job(tenant_id, job_id) is None:
            return None
        return next((item for item in self.documents_of.get(job_id, []) if item.doc_id == doc_id), None)

    async def dead_letters(
        self, *, tenant_id: str | None = None, asked: LetterQuery = ALL_LETTERS, limit: int = 100
    ) -> list[DeadLetterAnswer]:
        self._answer()
        self.asked.append(asked)
        found = [item for item in self.letters if item.tenant_id == tenant_id]
        named = ("job_id", "stage", "code", "state")
        found = [item for item in found if all(getattr(asked, n) in ("", getattr(item, n)) for n in named)]
        return [item for item in found if asked.dead_letter_id in ("", item.id)][:limit]

    async def rejections(self, *, tenant_id: str | None = None, limit: int = 100) -> list[Rejection]:
        self._answer()
        return [item for item in self.refusals if item.tenant_id == tenant_id][:limit]

    async def topology(self, digest: str) -> str | None:
        self._answer()
        return self.topologies.get(digest)

    async def overview(self) -> Overview:
        self._answer()
        return Overview({"running": 1}, {"completed": 2, "failed": 0}, (Waiting("page", 1, NOON, "room"),), 3, 4)


@dataclass
class FakeKafka:
    """Takes job events, or is away."""

    taken: list[tuple[bytes, str]] = field(default_factory=list)
    is_away: bool = False

    async def publish(self, submission: bytes, event_id: str) -> str:
        if self.is_away:
            raise ResourceUnavailableError("publishing the job event: no broker answers")
        self.taken.append((submission, event_id))
        return job_id_of("medkg-gateway", event_id)


@dataclass
class FakeDesk:
    """Letters in Kafka by id, and what was decided about them."""

    kept: dict[str, Record] = field(default_factory=dict)
    decided: list[tuple[str, str, str, str]] = field(default_factory=list)
    failure: MedkgError | None = None

    async def message(self, letter: DeadLetterAnswer) -> Record | None:
        if self.failure is not None:
            raise self.failure
        return self.kept.get(letter.id)

    async def redrive(self, letter: DeadLetterAnswer, actor: str, reason: str) -> str | None:
        if await self.message(letter) is None:
            return None
        self.decided.append(("redriven", letter.id, actor, reason))
        return letter.position.topic

    async def drop(self, letter: DeadLetterAnswer, actor: str, reason: str) -> None:
        self.decided.append(("dropped", letter.id, actor, reason))


@dataclass
class FakeSearch:
    """One hit for each tenant."""

    asked: list[tuple[str, str, int]] = field(default_factory=list)
    requests: list[SearchRequest] = field(default_factory=list)
    failure: MedkgError | None = None

    async def answer(self, tenant_id: str, request: SearchRequest) -> SearchAnswer:
        self.asked.append((tenant_id, request.query, request.limit))
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        place = Provenance(record="article.pdf", page=2, box=(1.0, 2.0, 3.0, 4.0))
        hit = Hit("c1", "d1", "A title", tenant_id, "NCT1", ("Results",), "<b>text</b>", place, 0.5, {"bm25": 1})
        return SearchAnswer((hit, replace(hit, chunk_id="c2", provenance=None)), ("dense",), 1.5)


class FakeGraph:
    """One claim for each tenant."""

    async def find(self, tenant_id: str, query: str, limit: int = 50) -> GraphAnswer:
        evidence = GraphEvidence("d1", "A title", tenant_id, "NCT1", ("Results",), "text", "mention", {"page": 2})
        subject = EntityRef("e1", "Condition", "Sciatica")
        claim = GraphClaim("k1", subject, "treated_by", None, "rest", {"phase": "2"}, 0.9, "registry", (evidence,))
        entity = GraphEntity("e1", "Condition", "Sciatica", ("Ischias",), {"mesh": "D012585"}, limit)
        return GraphAnswer(query, (entity,), (claim,))


@dataclass
class FakePipelines:
    """Topologies by name, and what is wrong with others."""

    known: dict[str, Topology] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.known.keys() | self.gone))

    def get(self, name: str, version: str | None = None) -> Topology:
        if name not in self.known:
            raise PipelineConfigError(f"looking for the topology {name!r}: there is no {name}.yaml")
        return self.known[name]

    def problems(self) -> list[object]:
        return list(self.faults)
