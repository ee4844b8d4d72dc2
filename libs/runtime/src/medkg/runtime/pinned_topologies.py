"""The topologies that jobs are pinned to: by digest, in the blob store, for every worker and after every reload."""

import re
from collections import OrderedDict

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.contracts.ids import content_digest
from medkg.contracts.implementation import Blobs
from medkg.contracts.messages import PipelineRef
from medkg.contracts.topology import Topology


class TopologyMissingError(ResourceUnavailableError):
    """The blob store answers, and does not hold a topology (yet)."""


_DIGEST = re.compile(r"[0-9a-f]{64}")


class PinnedTopologies:
    """Keeps topologies under ``topologies/DIGEST.json``, and the ``keep`` most recently used ones in memory."""

    def __init__(self, blobs: Blobs, *, keep: int = 128) -> None:
        self._blobs = blobs
        self._keep = keep
        self._recent: OrderedDict[str, Topology] = OrderedDict()

    async def pin(self, topology: Topology) -> PipelineRef:
        """Store a topology so that every worker finds it. Doing it again changes nothing.

        Raises:
            ResourceUnavailableError: the blob store does not answer.
        """
        if topology.digest not in self._recent:
            await self._blobs.put(_key(topology.digest), topology.canonical_json.encode())
            self._remember(topology.digest, topology)
        return topology.ref

    async def get(self, digest: str) -> Topology:
        """The topology with this digest; the same instance as long as it is remembered.

        Raises:
            ContractError: not a digest, or what is stored under it is something else.
            TopologyMissingError: the blob store does not hold it (yet).
            ResourceUnavailableError: the blob store does not answer.
        """
        found = self._recent.get(digest)
        if found is not None:
            self._recent.move_to_end(digest)
            return found
        if not _DIGEST.fullmatch(digest):
            raise ContractError(f"reading a pinned topology: {digest[:80]!r} is not a SHA-256 digest")
        data = await self._blobs.get(_key(digest))
        if data is None:
            raise TopologyMissingError(
                f"reading a pinned topology: the blob store has no {_key(digest)}; "
                "do this worker and the gate-router use the same blob store?"
            )
        topology = _read(digest, data)
        self._remember(digest, topology)
        return topology

    def remembered(self, digest: str) -> Topology | None:
        """The topology with this digest, if it was asked for lately."""
        return self._recent.get(digest)

    def _remember(self, digest: str, topology: Topology) -> None:
        self._recent[digest] = topology
        self._recent.move_to_end(digest)
        while len(self._recent) > self._keep:
            self._recent.popitem(last=False)


def _key(digest: str) -> str:
    return f"topologies/{digest}.json"


def _read(digest: str, data: bytes) -> Topology:
    actual = content_digest(data)
    if actual != digest:
        raise ContractError(f"reading a pinned topology: {_key(digest)} holds something else, with digest {actual}")
    try:
        return Topology.from_canonical_json(data.decode())
    except ValueError as error:  # not UTF-8, or pydantic's ValidationError
        raise ContractError(f"reading a pinned topology: {_key(digest)} is not a topology: {error}") from error
