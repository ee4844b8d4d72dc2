"""Releasing what waits: told by the ledger and the router's own arrivals, by the clock, and by a thorough sweep."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import (
    ContractError,
    GateConditionError,
    MedkgError,
    PipelineConfigError,
    ResourceUnavailableError,
)
from medkg.contracts.messages import REQUEST_DECODER
from medkg.contracts.topology import Topology
from medkg.gate_router.changes import Changed, Changes
from medkg.gate_router.files import Files
from medkg.gate_router.following import Following, Parsed, unread_too_long
from medkg.gate_router.parking import DECODE_ORIGIN, Parker
from medkg.gate_router.pipelines import Pipelines
from medkg.gate_router.rooms import Rooms
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.delivery import Delivers
from medkg.runtime.pace import rest
from medkg.runtime.pinned_topologies import PinnedTopologies, TopologyMissingError
from medkg.storage.notices import Notice
from medkg.storage.transactions import translated
from medkg.storage.waits import Wait, WaitKind, Waits

log = logging.getLogger(__name__)

_BATCH = 500  # documents released in one transaction
_SMALLEST_BATCH = 50  # as many pages as are handed out at once
_FULL_SECONDS = 0.25  # how soon is looked again for room in a topic that was full
_SOONEST_SECONDS = 0.02
_AGAIN_SECONDS = 1.0  # after the database or the broker did not answer
_MOST_OF_THE_TIME = 50  # a sweep that takes a second is followed by 50 s without one: 2 % of the time at most

Left = dict[str, str]  # rows that wait on: id -> why


@dataclass(slots=True)
class Releaser:
    """Publishes what no longer has to wait. Any number of routers may run one."""

    waits: Waits
    pinned: Pipelines | PinnedTopologies
    publisher: Delivers
    settings: RouterSettings
    worker: str
    source: str
    rooms: Rooms = field(default_factory=lambda: Rooms(None, 0))
    files: Files | None = None
    parsed: Callable[[Sequence[tuple[str, str]]], Awaitable[Parsed]] | None = None
    changes: Changes = field(default_factory=Changes)
    _due: float | None = None  # seconds until the next deadline or retry, when it was looked last
    _is_full: bool = False
    _is_held_back: bool = False  # more may be due than a full topic took; looked for once it has room

    def wake(self) -> None:
        """Something has changed that may release something."""
        self.changes.look_everywhere()

    def heard(self, notice: Notice) -> None:
        """The ledger says what has changed."""
        self.changes.heard(notice)

    def parked(self, waits: Sequence[Wait]) -> None:
        """These wait from now on: some may be released at once."""
        self.changes.parked(waits)

    async def run(self) -> None:
        """Release until cancelled. A database or broker that does not answer is waited for."""
        forgotten_at = time.monotonic()
        next_sweep = time.monotonic()
        while True:
            looked_at = time.monotonic()
            pause, changed = min(_AGAIN_SECONDS, self.settings.sweep_seconds), self.changes.take()
            self._is_full = False
            try:
                async with translated("releasing"):
                    if changed.everything or time.monotonic() >= next_sweep or await self._has_room_again():
                        begun = time.monotonic()
                        while await self.release_once() >= _SMALLEST_BATCH:
                            pass  # a batch was full, so there may be more
                        self._is_held_back = self._is_full
                        took = time.monotonic() - begun
                        next_sweep = time.monotonic() + max(self.settings.sweep_seconds, took * _MOST_OF_THE_TIME)
                    await self._react(changed)
                    if time.monotonic() - forgotten_at > self.settings.forget_seconds:
                        forgotten_at = time.monotonic()
                        await self.waits.forget_finished(keep_failed_seconds=self.settings.keep_failed_seconds)
                    pause = self._pause(next_sweep)
            except ResourceUnavailableError as error:
                log.warning("%s; looking again in %s s", error.message, pause)
                self.changes.look_again(changed)
            await rest(len(changed.documents), time.monotonic() - looked_at)
            await self.changes.wait(pause)

    async def release_once(self) -> int:
        """Release what is due now, up to a bounded number of each kind. Returns how many waits ended."""
        counts = [
            await self._release_pages(),
            await self.waits.release_decided(self._publish_decided),
            await self._release_gates(None),
            await self._release_due(),
            await self.waits.release_joins(self._publish_joins),
            await self.waits.end_failed_joins(),
            await self.waits.read_unread(self._read_unread),
        ]
        await self._ask(None)
        return sum(counts)

    async def _react(self, changed: Changed) -> None:
        """Look at what is known to have changed, and at what is due by the clock."""
        waiting = await self.waits.look()
        documents = changed.documents
        if WaitKind.PAGE in waiting.kinds and (changed.pages or changed.jobs_ended):
            while await self._release_pages() >= _SMALLEST_BATCH:
                pass
        if documents and waiting.is_decided:
            await self.waits.release_decided(self._publish_decided)
        if documents and WaitKind.GATE in waiting.kinds:
            while await self._release_gates(documents):
                pass
            self._is_held_back = self._is_held_back or self._is_full
        if documents and WaitKind.JOIN in waiting.kinds:
            while await self.waits.release_joins(self._publish_joins, documents=documents):
                pass
        if changed.signalled and (late := await self.waits.note_late_signals(changed.signalled)):
            log.info("signals came after the deadline of %d documents; `medkg gates list --late`", len(late))
        if changed.arrived and WaitKind.GATE in waiting.kinds:
            await self._ask(changed.arrived)
        if changed.jobs_ended and WaitKind.JOIN in waiting.kinds:
            await self.waits.end_failed_joins()
        self._due = waiting.seconds_until_due
        if self._due is not None and self._due <= 0:
            while await self._release_due():
                pass
            self._due = (await self.waits.look()).seconds_until_due

    def _pause(self, next_sweep: float) -> float:
        """Until the next sweep, or the next deadline or retry."""
        pause = next_sweep - time.monotonic()
        if self._due is not None:
            pause = min(pause, self._due)
        if self._is_held_back:
            return max(min(pause, self.rooms.seconds_until_asked), _FULL_SECONDS)
        return max(pause, _SOONEST_SECONDS)

    async def _has_room_again(self) -> bool:
        return self._is_held_back and await self.rooms.have_grown()

    async def _release_pages(self) -> int:
        bounds = {"tenant_bound": self.settings.tenant_documents, "tenant_parked": self.settings.tenant_parked}
        return await self.waits.release_pages(self._publish_pages, **bounds)

    async def _release_gates(self, documents: set[tuple[str, str]] | None) -> int:
        rooms = await self.rooms.left()
        count = await self.waits.release_gates(self._publish_gates, documents=documents, rooms=rooms, limit=_BATCH)
        self._note_full(rooms)
        return count

    async def _release_due(self) -> int:
        rooms = await self.rooms.left()
        expired = await self.waits.release_expired(self._publish_expired, rooms=rooms, limit=_BATCH)
        retries = await self.waits.release_retries(self._publish_retries, rooms=rooms, limit=_BATCH)
        self._note_full(rooms)
        return expired + retries

    def _note_full(self, rooms: Mapping[str, int] | None) -> None:
        """Whether a topic took all that it may take: then more may be due than was released."""
        self._is_full = self._is_full or (rooms is not None and self.rooms.is_any_full)

    async def _ask(self, documents: set[tuple[str, str]] | None) -> None:
        if self.files is None:
            return
        ask, older = partial(self._publish_questions, self.files), self.settings.ask_again_seconds
        while await self.waits.ask_for_files(ask, documents=documents, older_seconds=older):
            pass

    # What is published for rows that are locked. Each answers with those that wait on.

    async def _publish_pages(self, rows: Sequence[Any]) -> Left:
        following = self._following
        return await self._publish([([row], following.page(row)) for row in rows])

    async def _publish_retries(self, rows: Sequence[Any]) -> Left:
        following = self._following
        return await self._publish([([row], following.retry(row)) for row in rows])

    async def _publish_gates(self, rows: Sequence[Any]) -> Left:
        following, parsed = self._following, await self._parsed_of(rows)

        def decide(group: Sequence[Any], topology: Topology) -> list[Message]:
            end = following.passed if group[0].verdict == "passed" else following.unparsed
            return end(group[0], topology, parsed)

        return await self._publish_each([[row] for row in rows], decide)

    async def _publish_expired(self, rows: Sequence[Any]) -> Left:
        following = self._following
        unread = [([row], following.failed(row, unread_too_long(row))) for row in rows if row.kind == "unread"]
        left = await self._publish(unread)
        gates = [[row] for row in rows if row.kind != "unread"]
        return left | await self._publish_each(gates, lambda group, topology: following.expired(group[0], topology))

    async def _publish_joins(self, rows: Sequence[Any]) -> Left:
        return await self._publish_each(_grouped(rows), self._following.joined)

    async def _publish_decided(self, rows: Sequence[Any]) -> Left:
        following, parsed = self._following, await self._parsed_of(rows)
        return await self._publish_each(
            _grouped(rows), lambda group, topology: following.by_hand(group, topology, parsed)
        )

    async def _publish_questions(self, files: Files, rows: Sequence[Any]) -> Left:
        messages = []
        for row in rows:
            try:
                messages.append(await files.question(row))
            except ContractError as error:  # it cannot be asked for: its gate runs out of patience, and says so
                log.warning("%s", error.message, extra={"job_id": row.job_id, "doc_id": row.doc_id})
        if refused := await self.publisher.publish(messages):
            log.error("asking for parsed files: Kafka refuses %d: %s", len(refused), next(iter(refused.values())))
        return {}

    async def _read_unread(self, rows: Sequence[Any]) -> Left:
        """Arrivals whose pipeline was unknown become what they wait for; the others wait on."""
        left: Left = {}
        parker = Parker(self.waits, self.pinned, self.worker, self.source, self.settings.page_documents, self.files)
        for row in rows:
            request = REQUEST_DECODER.decode(row.request)
            try:
                wait = await parker.wait_of(request, DECODE_ORIGIN(row.origin))
            except TopologyMissingError as error:
                left[row.wait_id] = error.message
            except (PipelineConfigError, ContractError) as error:
                left |= await self._publish([([row], self._following.failed(row, error))])
            else:
                if self.files is not None:
                    await self.files.note([wait])
                await self.waits.park([wait])
                self.changes.parked([wait])
        return left

    async def _publish_each(
        self, groups: Sequence[Sequence[Any]], decide: Callable[[Sequence[Any], Topology], list[Message]]
    ) -> Left:
        """Publish what is decided about each group of rows. A group whose pipeline is nowhere waits on, alone."""
        outcomes: list[tuple[Sequence[Any], list[Message]]] = []
        left: Left = {}
        for group in groups:
            try:
                topology = await self.pinned.get(REQUEST_DECODER.decode(group[0].request).pipeline.digest)
                outcomes.append((group, decide(group, topology)))
            except TopologyMissingError as error:
                left |= {row.wait_id: error.message for row in group}
            except (ContractError, PipelineConfigError, GateConditionError) as error:
                outcomes.append((group, self._following.failed(group[0], error)))
        return left | await self._publish(outcomes)

    async def _publish(self, outcomes: Sequence[tuple[Sequence[Any], list[Message]]]) -> Left:
        """Publish what follows each group; what Kafka refuses for good becomes a dead letter of its first row."""
        messages = [item for _, following in outcomes for item in following]
        if not messages:
            return {}
        refused = await self.publisher.publish(messages)
        letters: list[Message] = []
        index = 0
        for group, following in outcomes:
            reasons = [refused[at] for at in range(index, index + len(following)) if at in refused]
            index += len(following)
            if reasons:
                letters += self._refused(group[0], reasons[0])
            for item in following:
                self.rooms.take(item.topic)
        if letters and (still := await self.publisher.publish(letters)):
            raise ResourceUnavailableError(f"publishing dead letters: Kafka refuses them: {next(iter(still.values()))}")
        return {}

    def _refused(self, row: Any, reason: str) -> list[Message]:
        error: MedkgError = ContractError(f"releasing {row.stage!r}: Kafka refuses it: {reason}")
        return self._following.failed(row, error)

    async def _parsed_of(self, rows: Sequence[Any]) -> Parsed:
        files = [(row.tenant_id, row.file_sha256) for row in rows if row.file_sha256]
        return await self.parsed(files) if files and self.parsed is not None else {}

    @property
    def _following(self) -> Following:
        return Following(self.worker, self.source)


def _grouped(rows: Sequence[Any]) -> list[list[Any]]:
    """Rows by document and stage, branch beside branch."""
    return [list(group) for _, group in groupby(rows, key=lambda row: (row.job_id, row.doc_id, row.stage))]
