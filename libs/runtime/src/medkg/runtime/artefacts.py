"""Artefacts between stages: inline while they are small, in the blob store when they are not (claim-check).

What a memoised stage made is stored under its content key whatever its size, so that the same work is found again.
Layout of the blob store: ``artefacts/TENANT/KK/KEY`` (content keys), ``payloads/TENANT/SS/SHA256`` (records as a source
gave them), ``topologies/DIGEST.json``.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from medkg.contracts.context import Metadata
from medkg.contracts.errors import ContractError
from medkg.contracts.ids import content_digest, stable_id
from medkg.contracts.implementation import Blobs
from medkg.contracts.messages import Artefact


class Store(Blobs, Protocol):
    """The blob store, as far as artefacts need more of it than stages do."""

    async def create(self, key: str, data: bytes) -> bool: ...

    async def replace(self, key: str, data: bytes) -> None: ...


class Artefacts:
    """Opens and makes artefacts against one blob store."""

    def __init__(self, blobs: Store, inline_bytes: int) -> None:
        self._blobs = blobs
        self._inline_bytes = inline_bytes

    async def open(self, artefact: Artefact) -> bytes:
        """The bytes of an artefact, checked against its digest where they come from the store.

        Raises:
            ContractError: the artefact is gone, or not what its digest says.
            ResourceUnavailableError: the blob store does not answer.
        """
        if not isinstance(artefact.inline, msgspec.UnsetType):
            return bytes(artefact.inline)
        data = await self._blobs.get(artefact.key)
        if data is None:
            raise ContractError(f"opening {artefact.kind}: nothing is stored under {artefact.key}; was it cleaned up?")
        if content_digest(data) != artefact.sha256:
            raise ContractError(f"opening {artefact.kind}: the bytes under {artefact.key} are not what was stored")
        return data

    async def find(self, kind: str, key: str) -> tuple[Artefact, bytes] | None:
        """What an earlier run stored under ``key``."""
        data = await self._blobs.get(key)
        return None if data is None else (self._describe(kind, data, key), data)

    def inline(self, kind: str, data: bytes) -> Artefact | None:
        """An artefact that travels in the message and is stored nowhere; None where it is too large for that."""
        return self._describe(kind, data, "") if len(data) <= self._inline_bytes else None

    async def make(self, kind: str, data: bytes, key: str, *, is_kept: bool, replaces: bool = False) -> Artefact:
        """An artefact of these bytes; stored under ``key`` when it is to be kept, or too large to travel.

        ``replaces``: what is stored there is broken. Where another run has stored something else meanwhile, both stay:
        a message may refer to either, and this one lies under a key of its own.
        """
        if not is_kept and (inline := self.inline(kind, data)) is not None:
            return inline
        if replaces:
            await self._blobs.replace(key, data)
        elif not await self._blobs.create(key, data) and await self._blobs.get(key) != data:
            key = f"{key}-{content_digest(data)}"
            await self._blobs.put(key, data)
        return self._describe(kind, data, key)

    def _describe(self, kind: str, data: bytes, key: str) -> Artefact:
        is_small = len(data) <= self._inline_bytes
        return Artefact(
            kind=kind,
            sha256=content_digest(data),
            size_bytes=len(data),
            key=key,
            inline=msgspec.Raw(data) if is_small else msgspec.UNSET,
        )


def content_key(
    tenant_id: str,
    doc_id: str,
    implementation: tuple[str, str, str],
    options: str,
    inputs: Mapping[str, str],
    metadata: Metadata,
) -> str:
    """The name of what a run produces: the hash of all that can make a difference to it.

    ``implementation`` is (stage type, name, version), ``options`` canonical JSON, ``inputs`` kind -> SHA-256.
    """
    told = msgspec.json.encode(metadata, order="deterministic").decode()
    given = "".join(f"{kind}={digest};" for kind, digest in sorted(inputs.items()))
    return stable_id("artefact", tenant_id, doc_id, *implementation, options, given, told)


def artefact_path(tenant_id: str, key: str) -> str:
    """Where an artefact with this content key lies."""
    return f"artefacts/{tenant_id}/{key[:2]}/{key}"


def payload_path(tenant_id: str, sha256: str) -> str:
    """Where a record as its source gave it lies."""
    return f"payloads/{tenant_id}/{sha256[:2]}/{sha256}"
