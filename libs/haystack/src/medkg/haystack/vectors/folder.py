"""The objects of one index in the blob store, and the order in which they are written, read and removed.

Under ``index/ALIAS/MODEL/`` lie ``deltas/``, ``segments/``, ``manifests/`` and ``leases/``; no object is ever changed,
but for a lease. The newest manifest is the one with the highest number, and it is made by being created under a number
that was free: of two who want to follow the same manifest one is told that it came too late. That needs nothing but
create-if-absent and listings that show what was written, which folders and S3 both have.

* Who reads lists the deltas first and reads the newest manifest then: a delta that was removed before the listing is
  in the segments of that manifest. One that is removed between the listing and the reading of it sends the reader back
  to the beginning.
* A manifest is removed :data:`GRACE_SECONDS` after another took its place, and a segment when no manifest names it and
  it is so old that nobody can still be about to.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import msgspec

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack.vectors.manifest import (
    DeltaName,
    Manifest,
    Segment,
    delta_name,
    read_delta_name,
    read_manifest,
    tail,
)

GRACE_SECONDS: Final = 600.0
UNNAMED_SECONDS: Final = 86_400.0  # a segment that no manifest names and that is older than this is garbage
PUBLISH_SECONDS: Final = UNNAMED_SECONDS / 4  # from a merge's first segment to its manifest
LEASE_SECONDS: Final = 60.0
_ATTEMPTS = 20
_ROOT = "index"


class SegmentBlobs(Protocol):
    """What is asked of a blob store; :class:`medkg.runtime.blobs.BlobStore` is one."""

    async def get(self, key: str) -> bytes | None: ...
    async def create(self, key: str, data: bytes) -> bool: ...
    async def replace(self, key: str, data: bytes) -> None: ...
    async def put_file(self, key: str, path: Path) -> bool: ...
    async def fetch_file(self, key: str, path: Path) -> bool: ...
    async def make_durable(self, key: str) -> None: ...
    def list(self, prefix: str) -> AsyncIterator[tuple[str, int, datetime]]: ...
    async def delete(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class State:
    """A manifest, and the deltas that none of its segments holds."""

    manifest: Manifest
    tail: tuple[DeltaName, ...]
    covered: tuple[str, ...]  # those that are still there although a segment holds them


class VectorFolder:
    """See the module. ``alias`` is the keyed name of a tenant's index; vectors of another model lie elsewhere."""

    def __init__(self, blobs: SegmentBlobs, alias: str, model: str, dimension: int) -> None:
        digest = hashlib.blake2b(f"{dimension}\n{model}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        self.root = f"{_ROOT}/{alias}/{digest}"
        self.dimension = dimension
        self._blobs = blobs

    async def state(self) -> State:
        """What there is now: everything that was put before this was called is in it."""
        deltas = [delta async for key, _, _ in self._list("deltas") if (delta := read_delta_name(_last(key)))]
        manifest = await self.manifest()
        left = tail(manifest, deltas)
        covered = {delta.name for delta in deltas} - {delta.name for delta in left}
        return State(manifest, tuple(left), tuple(sorted(covered)))

    async def manifest(self) -> Manifest:
        """The newest manifest; number 0 where there is none yet.

        Raises:
            ContractError: there is one that cannot be read, or of vectors of another dimension.
        """
        for _ in range(_ATTEMPTS):
            numbers = sorted((await self._manifests()).keys())
            if not numbers:
                return Manifest(dimension=self.dimension)
            data = await self._blobs.get(self._manifest_key(numbers[-1]))
            if data is None:
                continue  # it was replaced long ago, and removed since it was listed
            try:
                manifest = read_manifest(data)
                if (manifest.number, manifest.dimension) != (numbers[-1], self.dimension):
                    raise ValueError(f"it says number {manifest.number}, dimension {manifest.dimension}")
            except ValueError as error:
                raise ContractError(
                    f"reading {self._manifest_key(numbers[-1])} in the blob store: {error}; restore the "
                    "object from a copy, or submit the sources again to another index"
                ) from error
            return manifest
        raise ResourceUnavailableError(f"reading the manifest of {self.root}: it is replaced all the time")

    async def put_delta(self, data: bytes, rows: int) -> str:
        """Stores rows for every reader, durably; the name."""
        name = delta_name(rows, hashlib.sha256(data).hexdigest())
        await self._blobs.create(f"{self.root}/deltas/{name}", data)
        await self._blobs.make_durable(f"{self.root}/deltas/{name}")
        return name

    async def delta(self, name: DeltaName) -> bytes | None:
        """The bytes of a delta; None where it was merged since.

        Raises:
            ContractError: they are not those that were written.
        """
        data = await self._blobs.get(f"{self.root}/deltas/{name.name}")
        if data is not None and hashlib.sha256(data).hexdigest() != name.digest:
            raise ContractError(
                f"reading {self.root}/deltas/{name.name} in the blob store: its {len(data)} bytes are not those that "
                "were written; restore the object, or submit the documents again to another index"
            )
        return data

    def segment_keys(self, segment: Segment) -> tuple[str, str]:
        """Where its FAISS index and its columns lie."""
        return f"{self.root}/segments/{segment.name}.faiss", f"{self.root}/segments/{segment.name}.rows"

    async def put_segment(self, segment: Segment, index: Path, columns: Path) -> None:
        """Stores the files of a segment, durably; nobody reads it before a manifest names it."""
        for key, path in zip(self.segment_keys(segment), (index, columns), strict=True):
            await self._blobs.put_file(key, path)
            await self._blobs.make_durable(key)

    async def fetch(self, key: str, path: Path) -> bool:
        """Writes an object to a file; False where there is none."""
        return await self._blobs.fetch_file(key, path)

    async def publish(self, manifest: Manifest) -> bool:
        """Makes a manifest the newest, in one step; False where another one has its number or a later one."""
        key, data = self._manifest_key(manifest.number), msgspec.json.encode(manifest)
        if not await self._blobs.create(key, data) and await self._blobs.get(key) != data:
            return False  # equal bytes, token and all: ours, whose answer was lost on the way
        await self._blobs.make_durable(key)
        if max(await self._manifests(), default=0) > manifest.number:
            # the number had been free because its manifest was removed: whoever made this one was asleep for long
            await self._blobs.delete(key)
            return False
        return True

    async def tidy(self, state: State) -> None:
        """Removes what the newest manifest, that of ``state``, has made superfluous."""
        for name in state.covered:
            await self._blobs.delete(f"{self.root}/deltas/{name}")
        now = time.time()
        manifests = await self._manifests()
        numbers = sorted(manifests)
        kept = numbers[-1:]
        for number, following in pairwise(numbers):
            if manifests[following] < now - GRACE_SECONDS:
                await self._blobs.delete(self._manifest_key(number))
            else:
                kept.append(number)
        async for key, _, _ in self._list("leases"):
            if _last(key).isdecimal() and int(_last(key)) <= state.manifest.number:
                await self._blobs.delete(key)
        wanted = await self._named(kept)
        if wanted is None:
            return
        async for key, _, written_at in self._list("segments"):
            if _last(key).split(".")[0] not in wanted and written_at.timestamp() < now - UNNAMED_SECONDS:
                await self._blobs.delete(key)

    async def lease(self, number: int, token: str) -> bool:
        """Takes the right to make manifest ``number``: a courtesy that saves work, and not what keeps it right.

        It is had by whoever created it, or finds it :data:`LEASE_SECONDS` old: holders renew it.
        """
        key = f"{self.root}/leases/{number:012d}"
        if await self._blobs.create(key, token.encode()):
            return True
        ages = [
            time.time() - written_at.timestamp() async for found, _, written_at in self._list("leases") if found == key
        ]
        if ages and ages[0] < LEASE_SECONDS:
            return await self._blobs.get(key) == token.encode()
        await self._blobs.replace(key, token.encode())
        return await self._blobs.get(key) == token.encode()

    async def renew(self, number: int, token: str) -> None:
        await self._blobs.replace(f"{self.root}/leases/{number:012d}", token.encode())

    async def release(self, number: int) -> None:
        await self._blobs.delete(f"{self.root}/leases/{number:012d}")

    async def _named(self, numbers: Sequence[int]) -> set[str] | None:
        """Names of the segments that these manifests name; None where one of them cannot be read."""
        found = await asyncio.gather(*(self._blobs.get(self._manifest_key(number)) for number in numbers))
        try:
            return {segment.name for data in found for segment in read_manifest(data or b"").segments}
        except ValueError:
            return None

    async def _manifests(self) -> dict[int, float]:
        """Their numbers, and when they were made."""
        return {
            int(name): written_at.timestamp()
            async for key, _, written_at in self._list("manifests")
            if (name := _last(key).removesuffix(".json")).isdecimal() and len(name) == 12
        }

    def _list(self, kind: str) -> AsyncIterator[tuple[str, int, datetime]]:
        return self._blobs.list(f"{self.root}/{kind}")

    def _manifest_key(self, number: int) -> str:
        return f"{self.root}/manifests/{number:012d}.json"


def new_token() -> str:
    return secrets.token_hex(8)


def _last(key: str) -> str:
    return key.rsplit("/", 1)[-1]
