"""The pipelines that jobs are pinned to, as the router finds them: in the blob store, else in the ledger."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from medkg.contracts.ids import content_digest
from medkg.contracts.messages import PipelineRef
from medkg.contracts.topology import Topology
from medkg.runtime.pinned_topologies import TopologyMissingError


class Pinned(Protocol):
    async def get(self, digest: str) -> Topology: ...

    async def pin(self, topology: Topology) -> PipelineRef: ...


@dataclass(frozen=True, slots=True)
class Pipelines:
    """Pinned topologies by digest. One that the blob store has lost is put back from the ledger's copy."""

    pinned: Pinned
    in_ledger: Callable[[str], Awaitable[str | None]]  # digest -> canonical JSON

    async def get(self, digest: str) -> Topology:
        """The topology with this digest.

        Raises:
            ContractError: what is stored under it is something else.
            TopologyMissingError: neither has it (yet).
            ResourceUnavailableError: the blob store or the database does not answer.
        """
        try:
            return await self.pinned.get(digest)
        except TopologyMissingError:
            kept = await self.in_ledger(digest)
            if kept is None or content_digest(kept.encode()) != digest:
                raise
        topology = Topology.from_canonical_json(kept)
        await self.pinned.pin(topology)
        return topology

    async def pin(self, topology: Topology) -> PipelineRef:
        """Store a topology so that every worker finds it."""
        return await self.pinned.pin(topology)
