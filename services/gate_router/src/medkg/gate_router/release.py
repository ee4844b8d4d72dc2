"""Releasing what waits: woken by the ledger and the router's own arrivals, and by a sweep that misses nothing."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from medkg.contracts.cloudevents import Message, read_envelope
from medkg.contracts.errors import GateConditionError, MedkgError, ResourceUnavailableError
from medkg.contracts.messages import REQUEST_DECODER, StageRequest
from medkg.contracts.routing import Route, artefacts_for, route_into
from medkg.contracts.stages import StageType
from medkg.contracts.topology import GateDefinition, OnTimeout
from medkg.gate_router.parking import DECODE_ORIGIN
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.outcome import Done, Narrator, failure_of, request_message
from medkg.runtime.records import Record
from medkg.runtime.topologies import PinnedTopologies
from medkg.runtime.worker import Delivers
from medkg.storage.transactions import translated
from medkg.storage.waits import Waits

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Releaser:
    """Publishes what no longer has to wait. Any number of routers may run one."""

    waits: Waits
    pinned: PinnedTopologies
    publisher: Delivers
    settings: RouterSettings
    worker: str
    source: str
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Something has changed that may release something."""
        self._wake.set()

    async def run(self) -> None:
        """Release until cancelled. A database or broker that does not answer is waited for."""
        forgotten_at = time.monotonic()
        while True:
            self._wake.clear()
            try:
                async with translated("releasing"):
                    while await self.release_once():
                        pass
                    if time.monotonic() - forgotten_at > self.settings.forget_seconds:
                        forgotten_at = time.monotonic()
                        await self.waits.forget_finished()
            except ResourceUnavailableError as error:
                log.warning("%s; looking again in %s s", error.message, self.settings.sweep_seconds)
            try:
                async with asyncio.timeout(self.settings.sweep_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def release_once(self) -> int:
        """Release what is due now, up to a bounded number of each kind. Returns how many waits ended."""
        pages = await self.waits.release_pages(self._publish_pages, tenant_bound=self.settings.tenant_documents)
        gates = await self.waits.release_gates(self._publish_gates)
        expired = await self.waits.release_expired(self._publish_expired)
        joins = await self.waits.release_joins(self._publish_joins)
        return pages + gates + expired + joins

    async def _publish_pages(self, rows: Sequence[Any]) -> None:
        messages = []
        for row in rows:
            request = REQUEST_DECODER.decode(row.request)
            messages.append(request_message(StageType.INGEST.topic, request, self.source))
        await self.publisher.publish(messages)

    async def _publish_gates(self, rows: Sequence[Any]) -> None:
        messages: list[Message] = []
        for row in rows:
            narrator = self._narrator(row)
            topology = await self.pinned.get(narrator.request.pipeline.digest)
            messages += narrator.completed(topology, Done(reused=True))
        await self.publisher.publish(messages)

    async def _publish_expired(self, rows: Sequence[Any]) -> None:
        messages: list[Message] = []
        for row in rows:
            narrator = self._narrator(row)
            topology = await self.pinned.get(narrator.request.pipeline.digest)
            gate = topology.by_name[row.stage]
            if isinstance(gate, GateDefinition) and gate.on_timeout is OnTimeout.RELEASE:
                messages += narrator.completed(topology, Done(reused=True))
            elif isinstance(gate, GateDefinition) and gate.on_timeout is OnTimeout.SKIP:
                messages += narrator.ended(topology)
            else:
                messages += narrator.failed(failure_of(_too_late(row)), self._record(row), 0.0)
        await self.publisher.publish(messages)

    async def _publish_joins(self, rows: Sequence[Any]) -> None:
        messages: list[Message] = []
        for _, group in groupby(rows, key=lambda row: (row.job_id, row.doc_id, row.stage)):
            messages += await self._joined(list(group))
        await self.publisher.publish(messages)

    async def _joined(self, rows: list[Any]) -> list[Message]:
        """One request with the outputs of all branches; branches are merged in the order of their names."""
        branches = [REQUEST_DECODER.decode(row.request) for row in rows]
        artefacts = {kind: artefact for branch in branches for kind, artefact in branch.artefacts.items()}
        metadata = {name: value for branch in branches for name, value in branch.metadata.items()}
        first = self._narrator(rows[0])
        topology = await self.pinned.get(first.request.pipeline.digest)
        route: Route = route_into(topology, rows[0].stage, metadata)
        messages = []
        for stage, topic, arrived_from in route.steps:
            request = StageRequest(
                job_id=first.request.job_id,
                tenant_id=first.request.tenant_id,
                doc_id=first.request.doc_id,
                stage=stage,
                pipeline=first.request.pipeline,
                revision=first.request.revision,
                arrived_from=arrived_from,
                artefacts=artefacts_for(topology, stage, artefacts),
                metadata=metadata,
            )
            messages.append(first.follow(topic, request))
        if route.finished_leaves:
            messages.append(first.passed(route, topology))
        return messages

    def _narrator(self, row: Any) -> Narrator:
        record = self._record(row)
        return Narrator(
            self.worker,
            self.source,
            StageType.GATE.value,
            read_envelope(record.headers),
            REQUEST_DECODER.decode(row.request),
        )

    def _record(self, row: Any) -> Record:
        return DECODE_ORIGIN(row.origin).record(row.request)


def _too_late(row: Any) -> MedkgError:
    return GateConditionError(
        f"waiting at gate {row.stage!r}: {row.ledger_field} was not {row.equals!r} by {row.due_at:%Y-%m-%d %H:%M:%S %Z}"
    )
