"""Whole jobs as the lifecycle events that they leave behind, made from a seed, and what is true of them at the end.

Pure: the same seed gives the same events. What is true is written down while a job is made up, from what is meant to
happen to it, and never derived from the events: it is the other account, against which the ledger is held.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from medkg.contracts.cloudevents import Envelope
from medkg.contracts.context import Metadata
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import (
    EventType,
    Failure,
    Fault,
    IngestedDocument,
    JobAdmitted,
    JobRejected,
    LetterDecision,
    PageReport,
    Position,
    RefusedInput,
    StageEvent,
    encode,
)
from medkg.contracts.routing import Route, route_after, route_into
from medkg.contracts.stages import StageType
from medkg.contracts.topology import GateDefinition, Topology
from medkg.contracts.topology_source import read_policies, read_topology

Event = tuple[Envelope, bytes]

_TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"
_BEGINNING = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
_WITHOUT_WORK = (StageType.INGEST, StageType.VALIDATE, StageType.GATE)
_BRANCHING = """
version: "1.0"
name: branching
description: Two ends, a join and a stage that only articles pass through.
applicable_sources: [files]
stages:
  - {name: ingest, type: IngestStage}
  - {name: parse, type: ParseStage, depends_on: [ingest]}
  - {name: ir_validation, type: ValidateStage, depends_on: [parse], when: {field: kind, equals: article}}
  - {name: chunk, type: ChunkStage, depends_on: [parse]}
  - {name: embed, type: EmbedStage, depends_on: [chunk, ir_validation]}
  - {name: index, type: IndexStage, depends_on: [embed]}
  - {name: extract, type: ExtractStage, depends_on: [parse]}
  - {name: kg, type: KGStage, depends_on: [extract], when: {field: kind, equals: article}}
"""


@cache
def topologies() -> dict[str, Topology]:
    """A chain, one with a gate, and one with branches, a join and stages that may be passed over."""
    policies = read_policies((_TOPOLOGIES / "resilience.yaml").read_text(), "resilience.yaml")
    shipped = {name: (_TOPOLOGIES / f"{name}.yaml").read_text() for name in ("auto", "pdf-two-phase")}
    texts = shipped | {"branching": _BRANCHING}
    return {name: read_topology(text, f"{name}.yaml", policies) for name, text in texts.items()}


@dataclass(slots=True)
class JobAccount:
    """What is true of a job: its state and counts, and the state of each of its documents."""

    job_id: str
    tenant_id: str
    state: str = ""
    documents: dict[str, str] = field(default_factory=dict)
    pages: dict[int, str] = field(default_factory=dict)
    redrives: int = 0

    @property
    def counts(self) -> dict[str, int]:
        by_state = Counter(self.documents.values())
        counted = {name: by_state[name] for name in ("completed", "skipped", "failed", "rejected")}
        return {"documents": len(self.documents)} | counted


@dataclass(frozen=True, slots=True)
class History:
    """Events in the order in which they happened, duplicates included, and the account of every job."""

    events: tuple[Event, ...]
    jobs: tuple[JobAccount, ...]


def history(seed: int, *, jobs: int = 7) -> History:
    """Some jobs of several tenants, among them a rejected one, one that is still open, and one with a failed page."""
    rng = random.Random(seed)
    names = sorted(topologies())
    events: list[Event] = []
    accounts: list[JobAccount] = []
    for number in range(jobs):
        kind = ("ordinary", "rejected", "open", "failed page", "missing page", "all skipped", "open page")[number % 7]
        teller = _Teller(
            rng,
            topologies()[rng.choice(names)],
            JobAccount(stable_id("job", "test", f"{seed}-{number}"), rng.choice(["default", "other", "zeta"])),
        )
        teller.tell(kind)
        events += teller.events
        accounts.append(teller.account)
    return History(tuple(events), tuple(accounts))


def shuffled_batches(events: Sequence[Event], rng: random.Random, *, duplicates: float = 0.2) -> list[list[Event]]:
    """The same set of events in any order, some of them several times, in batches of any size."""
    dealt = [*events, *rng.sample(events, int(len(events) * duplicates))]
    rng.shuffle(dealt)
    batches: list[list[Event]] = []
    while dealt:
        size = rng.choice([1, 7, 60, 250])
        batches.append(dealt[:size])
        dealt = dealt[size:]
    return batches


@dataclass(slots=True)
class _Teller:
    rng: random.Random
    topology: Topology
    account: JobAccount
    events: list[Event] = field(default_factory=list)
    now: datetime = _BEGINNING
    worker: str = "worker-1"

    def tell(self, kind: str) -> None:
        self.now = _BEGINNING + timedelta(milliseconds=self.rng.randrange(1_000))
        if kind == "rejected":
            self._reject()
            return
        self._admit()
        pages = self.rng.randint(2, 3)
        for number in range(pages):
            if kind == "missing page" and number == 0:
                continue
            if kind == "failed page" and number == pages - 1:
                self._page_fails(number)
            elif kind == "open page" and number == pages - 1:
                self._page_fails(number)
                self.redrive("", self.topology.entry.name, 0, page=number)
                self.account.pages[number] = "open"
            else:
                self._page(number, is_last=number == pages - 1, kind=kind)
        states = Counter(self.account.documents.values())
        if states["in_flight"] or kind in ("missing page", "open page"):
            self.account.state = "running"
        else:
            is_marred = states["failed"] or states["rejected"] or "failed" in self.account.pages.values()
            self.account.state = "completed_with_failures" if is_marred else "completed"

    def _admit(self) -> None:
        about = JobAdmitted(
            job_id=self.account.job_id,
            tenant_id=self.account.tenant_id,
            source="files",
            pipeline=self.topology.ref,
            revision=1,
            selection={"paths": ["/data"]},
            topology=self.topology.canonical_json,
        )
        self._say(EventType.JOB_ADMITTED, self.account.job_id, encode(about))

    def _reject(self) -> None:
        faults = (Fault("/pipeline", "there is no such pipeline"),)
        at = Position("medkg.jobs.v1", 0, self.rng.randrange(10_000))
        about = JobRejected(self.account.job_id, faults, self.account.tenant_id, at)
        self._say(EventType.JOB_REJECTED, self.account.job_id, encode(about))
        self.account.state = "rejected"

    def _page(self, number: int, *, is_last: bool, kind: str) -> None:
        documents = [stable_id("document", self.account.job_id, number, n) for n in range(self.rng.randint(2, 5))]
        refused = [stable_id("refused", self.account.job_id, number, n) for n in range(self.rng.choice([0, 0, 2]))]
        if kind == "all skipped":
            refused = []
        report = PageReport(
            number=number,
            documents=tuple(IngestedDocument(doc_id, f"NCT-{doc_id[:6]}", f"file:///{doc_id}") for doc_id in documents),
            refused=tuple(
                RefusedInput(doc_id, f"bad-{doc_id[:6]}", "", Failure("payload_malformed", "not JSON", "rejected"))
                for doc_id in refused
            ),
            is_last=is_last,
            total=self.rng.choice([None, 12]),
        )
        entry = self.topology.entry.name
        self.say_stage(EventType.STAGE_STARTED, "", entry, page=number)
        again = 0
        if self.rng.random() < 0.2:  # a delivery that failed, and one that did not
            failure = Failure("source_unavailable", "no route", retryable=True)
            self.say_stage(EventType.STAGE_FAILED, "", entry, page=number, failure=failure)
            if self.rng.random() < 0.5:
                self.redrive("", entry, 0, page=number)
                again = 1
        self.say_stage(
            EventType.STAGE_COMPLETED, "", entry, page=number, report=report, duration_ms=12.5, redrive=again
        )
        self.account.pages[number] = "done"
        self.account.documents |= dict.fromkeys(refused, "rejected")
        for doc_id in documents:
            fate = self.rng.choice(
                ["completed", "completed", "skipped", "failed", "rejected", "redriven", "failed again"]
            )
            if kind == "open" and doc_id == documents[0]:
                fate = "in_flight"
            if kind == "all skipped":
                fate = "skipped"
            self.account.documents[doc_id] = _Passage(self, doc_id, fate).tell()

    def _page_fails(self, number: int) -> None:
        entry = self.topology.entry.name
        self.say_stage(EventType.STAGE_STARTED, "", entry, page=number)
        failure = Failure("source_gone", "HTTP 410", causes=("HTTPStatusError",))
        self.say_stage(EventType.STAGE_FAILED, "", entry, page=number, failure=failure)
        self.account.pages[number] = "failed"

    def redrive(self, doc_id: str, stage: str, ended: int, *, page: int = 0) -> None:
        """Somebody takes a message out of the dead letters, or (now and then) two do."""
        about = LetterDecision(
            position=Position("medkg.stage.v1", 0, self.account.redrives),
            redrive=ended,
            job_id=self.account.job_id,
            tenant_id=self.account.tenant_id,
            doc_id=doc_id,
            page=page,
            stage=stage,
            actor="somebody",
        )
        for _ in range(self.rng.choice([1, 1, 2])):
            self._say(EventType.LETTER_REDRIVEN, f"{self.account.job_id}/{doc_id or f'page-{page}'}", encode(about))
        self.account.redrives += 1

    def say_stage(
        self,
        kind: EventType,
        doc_id: str,
        stage: str,
        *,
        page: int = 0,
        report: PageReport | None = None,
        attempt: int = 1,
        redrive: int = 0,
        reused: bool = False,
        duration_ms: float = 0.0,
        route: Route | None = None,
        failure: Failure | None = None,
    ) -> None:
        about = StageEvent(
            job_id=self.account.job_id,
            tenant_id=self.account.tenant_id,
            stage=stage,
            stage_type=_type_of(self.topology, stage).value,
            pipeline=self.topology.ref,
            revision=1,
            doc_id=doc_id,
            attempt=attempt,
            redrive=redrive,
            worker=self.worker,
            duration_ms=duration_ms,
            reused=reused,
            skipped=route.skipped if route else (),
            finished_leaves=route.finished_leaves if route else (),
            leaves=len(self.topology.leaves) if route else 0,
            page=report,
            failure=failure,
        )
        self._say(kind, f"{self.account.job_id}/{doc_id or f'page-{page}'}", encode(about))

    def _say(self, kind: EventType, subject: str, data: bytes) -> None:
        # several events fall into one millisecond, as they do at full speed
        self.now += timedelta(milliseconds=self.rng.choice([0, 0, 1, 3]))
        time = self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        identity = stable_id("event", kind, subject, len(self.events))
        self.events.append((Envelope(id=identity, type=kind, source="medkg/test", time=time, subject=subject), data))
        if self.rng.random() < 0.05:  # the broker delivers it once more
            self.events.append(self.events[-1])


@dataclass(slots=True)
class _Passage:
    """The way of one document to its fate."""

    teller: _Teller
    doc_id: str
    fate: str
    arrived: dict[str, int] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    redrive: int = 0

    def tell(self) -> str:
        topology, rng = self.teller.topology, self.teller.rng
        metadata: Metadata = {"kind": rng.choice(["article", "note"])}
        entry = topology.entry.name
        self._go_on(route_after(topology, entry, metadata))
        stages = [stage.name for stage in topology.stages if _type_of(topology, stage.name) not in _WITHOUT_WORK]
        ends_at = stages[-1] if self.fate == "in_flight" else rng.choice(stages)
        has_worked = has_stopped = False  # a note never comes to a stage that only articles pass through
        while self.waiting:
            stage = self.waiting.pop(rng.randrange(len(self.waiting)))
            kind = _type_of(topology, stage)
            if stage == ends_at and self._stops(stage):
                has_stopped = True
                continue
            route = route_after(topology, stage, metadata)
            has_worked |= self._passes(stage, kind, route)
            self._go_on(route)
            for join in [name for name, count in self.arrived.items() if count == len(topology.predecessors[name])]:
                del self.arrived[join]
                self.waiting += [step.stage for step in route_into(topology, join, metadata).steps]
        if has_stopped:
            return "failed" if self.fate == "failed again" else self.fate
        return "completed" if has_worked else "skipped"

    def _stops(self, stage: str) -> bool:
        """Tell what befalls the document at a stage; whether that is its end."""
        if self.fate in ("completed", "skipped"):
            return False
        if self.fate == "in_flight":
            self.teller.say_stage(EventType.STAGE_STARTED, self.doc_id, stage)
            return True
        self._fails(stage)
        if self.fate in ("redriven", "failed again"):
            self.teller.redrive(self.doc_id, stage, self.redrive)
            self.redrive += 1
            if self.fate == "failed again":
                self._fails(stage)
        return self.fate != "redriven"

    def _passes(self, stage: str, kind: StageType, route: Route) -> bool:
        """Tell a run that succeeds; whether it did work that counts."""
        teller, rng = self.teller, self.teller.rng
        # validation runs again with every job, and says so
        reused = kind not in _WITHOUT_WORK and (self.fate == "skipped" or rng.random() < 0.2)
        if kind is not StageType.GATE:
            self._say(EventType.STAGE_STARTED, stage)
            if rng.random() < 0.1:
                failure = Failure("source_unavailable", "HTTP 503", retryable=True)
                self._say(EventType.STAGE_RETRYING, stage, attempt=rng.choice([1, 2]), failure=failure)
            if rng.random() < 0.1:  # the worker was killed; another one takes over
                teller.worker = f"worker-{rng.randint(2, 4)}"
                self._say(EventType.STAGE_STARTED, stage)
        duration = round(rng.uniform(0.1, 900.0), 3)
        self._say(EventType.STAGE_COMPLETED, stage, reused=reused, duration_ms=duration, route=route)
        if rng.random() < 0.05:  # done, but killed before its offset was stored: the next delivery finds the artefact
            self._say(EventType.STAGE_STARTED, stage)
            self._say(EventType.STAGE_COMPLETED, stage, reused=True, duration_ms=0.4, route=route)
        return not reused and kind not in _WITHOUT_WORK

    def _fails(self, stage: str) -> None:
        self._say(EventType.STAGE_STARTED, stage)
        code = "payload_malformed" if self.fate == "rejected" else "stage_crashed"
        failure = Failure(code, "it is broken", disposition="rejected" if self.fate == "rejected" else "failed")
        self._say(EventType.STAGE_FAILED, stage, failure=failure, duration_ms=3.0)

    def _say(self, kind: EventType, stage: str, **fields: Any) -> None:
        self.teller.say_stage(kind, self.doc_id, stage, redrive=self.redrive, **fields)

    def _go_on(self, route: Route) -> None:
        topology = self.teller.topology
        for step in route.steps:
            if step.stage in topology.joins:
                self.arrived[step.stage] = self.arrived.get(step.stage, 0) + 1
            else:
                self.waiting.append(step.stage)


def _type_of(topology: Topology, stage: str) -> StageType:
    definition = topology.by_name[stage]
    return StageType.GATE if isinstance(definition, GateDefinition) else definition.type
