"""Puts together why a document or a job does not go on, from the ledger, the waits and Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from medkg.contracts import topics
from medkg.contracts.topology import Topology
from medkg.gateway import explaining
from medkg.gateway.explaining import Finding
from medkg.gateway.faults import NotFoundError
from medkg.gateway.parts import Ledger
from medkg.gateway.waiting_desk import WaitingDesk
from medkg.storage.ledger_answers import Job, JobDocument, LetterQuery, StageRun
from medkg.storage.waits_reader import DocumentPlace, WaitEntry

_ENDED = frozenset({"completed", "skipped", "failed", "rejected"})


@dataclass(frozen=True, slots=True)
class Why:
    """Why something does not go on: ``findings`` by weight, and what was done ``by_hand``. ``now`` is the gateway's."""

    subject: str
    job_id: str
    doc_id: str
    source_id: str
    state: str
    stage: str
    pipeline: str
    findings: tuple[Finding, ...]
    by_hand: tuple[str, ...]
    now: datetime


@dataclass(frozen=True, slots=True)
class Explainer:
    """Answers ``why`` for one tenant."""

    desk: WaitingDesk
    ledger: Ledger
    tenant_id: str

    async def explain(self, identity: str, job_id: str = "") -> Why:
        """Of a job, or of a document (in this job, or in the newest that has it).

        Raises:
            NotFoundError: the tenant has no such job or document.
            ResourceUnavailableError: the database does not answer.
        """
        job = None if job_id else await self.ledger.job(self.tenant_id, identity)
        if job is not None:
            return await self._job(job)
        places = await self.desk.waits.places(self.tenant_id, identity)
        place = next((each for each in places if job_id in {"", each.job_id}), None)
        if place is None:
            raise NotFoundError(f"tenant {self.tenant_id!r} has neither a job nor a document {identity}")
        return await self._document(place)

    async def _document(self, place: DocumentPlace) -> Why:
        now = datetime.now(UTC)
        found = await self.ledger.document(self.tenant_id, place.job_id, place.doc_id)
        actions = await self.desk.waits.actions(self.tenant_id, place.job_id, place.doc_id)
        job = await self.ledger.job(self.tenant_id, place.job_id)
        return Why(
            subject="document",
            job_id=place.job_id,
            doc_id=place.doc_id,
            source_id=place.source_id,
            state=place.state,
            stage=place.current_stage,
            pipeline=_pipeline(job),
            findings=tuple(await self._findings(place, found, now)),
            by_hand=explaining.by_hand(actions),
            now=now,
        )

    async def _findings(self, place: DocumentPlace, found: JobDocument | None, now: datetime) -> list[Finding]:
        runs = found.timeline if found else ()
        waits = await self.desk.waits.of_document(self.tenant_id, place.job_id, place.doc_id)
        waiting = [entry for entry in waits if entry.state == "waiting"]
        topology = await self._topology(place.pipeline_digest)
        findings = await self._waiting(waiting, runs, topology, now)
        late = [explaining.late(entry) for entry in waits if entry.state == "released" and entry.late_at]
        if place.state in _ENDED:
            return [*late, *findings, *await self._ended(place, runs)]
        if findings:
            return findings
        stage = topology.by_name.get(place.current_stage) if topology else None
        topic = stage.type.topic if stage is not None else ""
        if not topic:
            unknown = f"the ledger has it at {place.current_stage or 'no stage'}, and its pipeline does not know that"
            return [Finding("unknown", unknown, place.current_stage, place.last_event_at)]
        return [await self._under_way(place.current_stage, topology, place.last_event_at, runs, now)]

    async def _waiting(
        self, waiting: Sequence[WaitEntry], runs: Sequence[StageRun], topology: Topology | None, now: datetime
    ) -> list[Finding]:
        findings: list[Finding] = []
        joins: dict[str, list[WaitEntry]] = {}
        for entry in waiting:
            if entry.kind == "join":
                joins.setdefault(entry.stage, []).append(entry)
            else:
                findings.append(await self._one(entry, runs, now))
        for stage, entries in joins.items():
            branches = topology.predecessors.get(stage, ()) if topology else ()
            findings.append(explaining.at_join(entries, branches))
        return findings

    async def _one(self, entry: WaitEntry, runs: Sequence[StageRun], now: datetime) -> Finding:
        if entry.kind == "gate":
            company = await self.desk.waits.company(entry, self.tenant_id)
            return explaining.at_gate(entry, company, await self.desk.flow(topics.MINERU_QUEUE), now)
        if entry.kind == "retry":
            return explaining.for_retry(entry, runs)
        if entry.kind == "page":
            return explaining.for_room(entry, *await self.desk.waits.held_pages(self.tenant_id))
        return explaining.for_pipeline(entry)

    async def _under_way(
        self,
        current: str,
        topology: Topology | None,
        since: datetime | None,
        runs: Sequence[StageRun],
        now: datetime,
    ) -> Finding:
        """Where a document is that waits nowhere: at its stage, or, where that has ended, on the way to the next."""
        stage = _stage_ahead(current, topology, runs)
        definition = topology.by_name.get(stage) if topology else None
        topic = definition.type.topic if definition is not None else topics.GATE
        if topology is not None and stage in topology.joins and stage != current:
            topic = topics.GATE
        return explaining.under_way(stage, since, await self.desk.flow(topic), runs, now)

    async def _ended(self, place: DocumentPlace, runs: Sequence[StageRun]) -> list[Finding]:
        if place.state in {"failed", "rejected"}:
            asked = LetterQuery(job_id=place.job_id, stage=place.failure_stage, state="dead")
            letters = await self.ledger.dead_letters(tenant_id=self.tenant_id, asked=asked, limit=1_000)
            mine = [letter for letter in letters if letter.doc_id == place.doc_id]
            if mine:
                return [explaining.in_dead_letters(mine[0], runs)]
        return [explaining.ended(place)]

    async def _job(self, job: Job) -> Why:
        now = datetime.now(UTC)
        findings: list[Finding] = []
        for entry, count in await self.desk.waits.oldest_of_job(self.tenant_id, job.job_id):
            alone = (await self._waiting([entry], (), await self._topology(_digest(job)), now))[0]
            findings.append(replace(alone, documents=count))
        if job.state in {"admitted", "running"}:
            topology = await self._topology(_digest(job))
            for stuck in await self.desk.waits.under_way(self.tenant_id, job.job_id):
                found = await self.ledger.document(self.tenant_id, job.job_id, stuck.doc_id)
                runs = found.timeline if found else ()
                one = await self._under_way(stuck.stage, topology, stuck.quiet_since, runs, now)
                findings.append(replace(one, documents=stuck.documents))
        findings += _lost_ones(job)
        if not findings:
            findings.append(_quiet(job))
        return Why("job", job.job_id, "", job.source, job.state, "", _pipeline(job), tuple(findings), (), now)

    async def _topology(self, digest: str) -> Topology | None:
        text = await self.ledger.topology(digest) if digest else None
        try:
            return Topology.from_canonical_json(text) if text else None
        except ValueError:  # what is stored is not one: then less can be said
            return None


def _stage_ahead(current: str, topology: Topology | None, runs: Sequence[StageRun]) -> str:
    """The stage that a document is at: the one that it is named with, or where that has completed, the next."""
    done = {run.stage for run in runs if run.state == "completed"}
    if topology is None or current not in done:
        return current
    following = [name for name in topology.successors.get(current, ()) if name not in done]
    return following[0] if following else current


def _quiet(job: Job) -> Finding:
    if job.state in {"admitted", "running"}:
        said = "is admitted, and its source is being read" if job.state == "admitted" else "is under way"
        return Finding("working", said, since=job.admitted_at)
    if job.state == "rejected":
        reasons = "; ".join(f"{fault.pointer} {fault.message}" for fault in job.faults[:3])
        return Finding("ended", f"was rejected: {reasons}", command="medkg rejections")
    return Finding("ended", f"waits for nothing: it is {job.state.replace('_', ' ')}", since=job.finished_at)


def _digest(job: Job) -> str:
    return job.pipeline.digest if job.pipeline else ""


def _pipeline(job: Job | None) -> str:
    return f"{job.pipeline.name} {job.pipeline.version}" if job and job.pipeline else ""


def _lost_ones(job: Job) -> list[Finding]:
    """What of a job did not make it, and whether anything can be done about it."""
    found = []
    if failed := job.counts.failed:
        said = f"{failed} {'document' if failed == 1 else 'documents'} failed"
        command = f"medkg dead-letters redrive --job {job.job_id[:12]} --dry-run"
        found.append(Finding("dead_letter", said, freed_by="a redrive", command=command, documents=failed))
    if rejected := job.counts.rejected:
        said = f"{rejected} {'document was' if rejected == 1 else 'documents were'} refused for what is in them"
        command = f"medkg watch {job.job_id[:12]}"
        freed = "nothing: the same content is refused again"
        found.append(Finding("refused", said, freed_by=freed, command=command, documents=rejected))
    return found
