"""Finding what is lost, and sending it on its way again.

A message can be gone although its document is not done: its topic expired before it was read, a broker lost its disk,
an operator moved an offset, an embedded broker forgot everything. A document counts as lost when the ledger has it
under way, nothing was heard of it for long, what waits does not lead to the ends it has not reached, and no message
about it is unread on any topic. Doing again what was done has no effect, so a doubt costs work and nothing else.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.messages import REQUEST_DECODER, Position
from medkg.contracts.routing import topic_of
from medkg.contracts.stages import StageType
from medkg.contracts.topology import GateDefinition, Topology
from medkg.ledger.lost import Gap, gaps_of, stages_before, waits_to_repeat
from medkg.runtime.broker import Publisher, TopicReader
from medkg.runtime.records import Record
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine
from medkg.storage.ledger_reader import LedgerReader
from medkg.storage.ledger_suspects import (
    Suspect,
    SuspectPage,
    let_wait_again,
    suspect_pages,
    suspects,
    unended_runs,
)

log = logging.getLogger(__name__)

Lost = dict[tuple[str, str], tuple[Gap, ...]]  # by job and document

MAX_UNREAD = 200_000  # records of one topic that are looked through; a topic that holds more is not being read at all
_SLACK = timedelta(minutes=10)  # between the clocks of two machines
_BATCH = 500  # messages published at once

# Who reads what: every topic on which a message about a document can lie unread.
_READERS = (
    *((stage.topic, f"medkg-{stage.service}") for stage in StageType if stage is not StageType.GATE),
    (topics.GATE, "medkg-gate-router"),
    (topics.LIFECYCLE, "medkg-ledger"),
)


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something lost: what, why it counts as lost, and what is done about it.

    ``repair``: ``wait`` (a gate, join, retry or page is released once more), ``message`` (a request that is still in
    Kafka is published once more), ``page`` (the page of the source is read once more) or ``none``.
    """

    job_id: str
    what: str
    why: str
    repair: str
    how: str
    doc_id: str = ""


class Report(msgspec.Struct, frozen=True):
    """What a run found. ``undecided`` says what could not be looked at, by reason."""

    looked_at: int
    findings: tuple[Finding, ...]
    unended_runs: dict[str, int]
    undecided: dict[str, int]
    is_applied: bool


@dataclass(slots=True)
class Reconciler:
    """Compares ledger, waits and topics. ``kafka`` None: a broker that has just begun, and holds nothing."""

    engine: Engine
    kafka: KafkaSettings | None
    publisher: Publisher | None = None
    _topologies: dict[str, Topology | None] = field(default_factory=dict)

    async def run(
        self, *, older_than_seconds: float, apply: bool, say: Callable[[Finding], None] = lambda _: None
    ) -> Report:
        """Find what is lost and (``apply``) repair it. Run again at once it finds what it has repaired on its way.

        Raises:
            ResourceUnavailableError: Kafka or the database does not answer; what was repaired by then is.
        """
        asked = await suspects(self.engine, older_than_seconds=older_than_seconds)
        pages = await suspect_pages(self.engine, older_than_seconds=older_than_seconds)
        undecided: dict[str, int] = defaultdict(int)
        lost = await self._lost(asked)
        lost_pages = list(pages)
        if lost or lost_pages:
            unread = await self._unread()
            for topic in unread.full:
                undecided[f"{topic} holds more than {MAX_UNREAD} unread records"] = len(lost) + len(lost_pages)
            if unread.full:
                lost, lost_pages = {}, []
            lost = {key: gaps for key, gaps in lost.items() if not unread.has(key)}
            lost_pages = [page for page in lost_pages if page.job_id.encode() not in unread.keys]
            lost = await self._still_lost(asked, lost, older_than_seconds)
        known = {(one.job_id, one.doc_id): one for one in asked}
        plans = await self._plans([(known[key], gaps) for key, gaps in lost.items()], lost_pages)
        for plan in plans:
            say(plan.finding)
        if apply:
            await self._repair(plans)
        runs = await unended_runs(self.engine, older_than_seconds=older_than_seconds)
        return Report(len(asked), tuple(plan.finding for plan in plans), runs, dict(undecided), apply)

    async def _lost(self, asked: Sequence[Suspect]) -> Lost:
        lost: Lost = {}
        for one in asked:
            if gaps := gaps_of(await self._topology(one.digest), one):
                lost[one.job_id, one.doc_id] = gaps
        return lost

    async def _still_lost(self, asked: Sequence[Suspect], lost: Lost, older_than_seconds: float) -> Lost:
        """Those of which nothing was heard while the topics were looked through."""
        if not lost:
            return lost
        again = await suspects(self.engine, older_than_seconds=older_than_seconds, documents=list(lost))
        seen = {(one.job_id, one.doc_id): one for one in asked}
        still = {(one.job_id, one.doc_id) for one in again if one == seen[one.job_id, one.doc_id]}
        return {key: gaps for key, gaps in lost.items() if key in still}

    async def _topology(self, digest: str) -> Topology | None:
        if digest not in self._topologies:
            found = await LedgerReader(self.engine).topology(digest)
            try:
                self._topologies[digest] = Topology.from_canonical_json(found) if found else None
            except ValueError:  # not a topology of this release
                self._topologies[digest] = None
        return self._topologies[digest]

    async def _unread(self) -> "_Unread":
        unread = _Unread()
        for topic, group in _READERS if self.kafka else ():
            async with TopicReader(self.kafka, group) as reader:  # type: ignore[arg-type]  # there is one, see above
                count = 0
                async for batch in reader.unread(topic):
                    unread.keys.update(record.key for record in batch if record.key)
                    count += len(batch)
                    if count > MAX_UNREAD:
                        unread.full.append(topic)
                        break
        return unread

    async def _plans(
        self, lost: Sequence[tuple[Suspect, tuple[Gap, ...]]], pages: Sequence[SuspectPage]
    ) -> list["_Plan"]:
        plans = [_page_plan(page) for page in pages]
        wanted: dict[str, set[str]] = defaultdict(set)  # stages whose requests are looked for, by document
        left: list[tuple[Suspect, Topology, Gap]] = []
        for one, gaps in lost:
            topology = self._topologies[one.digest]
            for gap in gaps:
                if topology is None:
                    plans.append(_page_of(one, gap))
                    continue
                repeated = [held.wait_id for held in waits_to_repeat(topology, one, gap)]
                if repeated:
                    plans.append(_Plan(_finding(one, gap, "wait", "released once more"), waits=repeated))
                else:
                    wanted[one.doc_id].update(stages_before(topology, gap))
                    left.append((one, topology, gap))
        kept = await self._requests([(one, topology) for one, topology, _ in left], wanted)
        plans += [_plan_of(one, topology, gap, kept) for one, topology, gap in left]
        return plans

    async def _requests(
        self, lost: Sequence[tuple[Suspect, Topology]], wanted: dict[str, set[str]]
    ) -> dict[tuple[str, str, str], Record]:
        """Requests that are still in Kafka, by job, document and stage; the last one of each."""
        found: dict[tuple[str, str, str], Record] = {}
        names = {
            topic_of(topology, stage)
            for one, topology in lost
            for stage in wanted[one.doc_id]
            if not isinstance(topology.by_name[stage], GateDefinition)
        }
        if self.kafka is None or not lost:
            return found
        since = min(one.first_event_at for one, _ in lost) - _SLACK
        async with TopicReader(self.kafka) as reader:
            for topic in sorted(names):
                async for batch in reader.whole(topic, since=since):
                    for record in batch:
                        if record.key and (stages := wanted.get(record.key.decode(errors="replace"))):
                            _keep(found, record, stages)
        return found

    async def _repair(self, plans: Sequence["_Plan"]) -> None:
        messages = {plan.message.position: plan.message for plan in plans if plan.message is not None}
        ready = [Message(one.topic, one.key, one.value, one.headers) for one in messages.values()]
        for start in range(0, len(ready), _BATCH):
            if self.publisher is not None:
                await self.publisher.publish(ready[start : start + _BATCH])
        await let_wait_again(self.engine, [wait for plan in plans for wait in plan.waits])
        if plans:
            log.warning("%d losses were repaired", len(plans))


@dataclass(slots=True)
class _Unread:
    keys: set[bytes] = field(default_factory=set)
    full: list[str] = field(default_factory=list)

    def has(self, key: tuple[str, str]) -> bool:
        """Whether anything about a document, or a page of its job, is yet to be read."""
        return key[1].encode() in self.keys or key[0].encode() in self.keys


@dataclass(frozen=True, slots=True)
class _Plan:
    finding: Finding
    waits: Sequence[str] = ()
    message: Record | None = None


def _plan_of(one: Suspect, topology: Topology, gap: Gap, kept: dict[tuple[str, str, str], Record]) -> _Plan:
    for stage in stages_before(topology, gap):
        record = kept.get((one.job_id, one.doc_id, stage))
        if record is not None:
            how = f"its request for {stage!r} at {_place(record.position)} is published once more"
            return _Plan(_finding(one, gap, "message", how), message=record)
    return _page_of(one, gap)


def _page_of(one: Suspect, gap: Gap) -> _Plan:
    if one.page_wait:
        how = "its page of the source is read once more; what is done finds its results"
        return _Plan(_finding(one, gap, "page", how), waits=(one.page_wait,))
    return _Plan(_finding(one, gap, "none", "nothing is left to go on from: submit its job again"))


def _page_plan(page: SuspectPage) -> _Plan:
    what = f"page {page.number} of the source"
    return _Plan(Finding(page.job_id, what, page.why, "page", "it is asked for once more"), waits=(page.wait_id,))


def _finding(one: Suspect, gap: Gap, repair: str, how: str) -> Finding:
    after = f"after {gap.after!r} " if gap.after else ""
    why = f"nothing was heard since {one.last_event_at:%Y-%m-%d %H:%M:%S}, and nothing about it is unread"
    return Finding(one.job_id, f"the request for {gap.stage!r} {after}".strip(), why, repair, how, one.doc_id)


def _keep(found: dict[tuple[str, str, str], Record], record: Record, stages: set[str]) -> None:
    try:
        request = REQUEST_DECODER.decode(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return  # its worker has made a dead letter of it
    if request.stage in stages:
        found[request.job_id, request.doc_id, request.stage] = record


def _place(position: Position) -> str:
    return f"{position.topic}[{position.partition}] @ {position.offset}"
