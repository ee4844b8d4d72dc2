"""What is remembered of a URL that gave a file: enough to ask whether it has changed, and to find the file if not."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from medkg.contracts.ids import stable_id
from medkg.contracts.implementation import FileBlobs

_MAX_VALIDATOR = 1_000  # characters


@dataclass(frozen=True, slots=True)
class Receipt:
    """A file as a URL gave it. ``etag`` and ``last_modified`` are as the server wrote them, or empty."""

    url: str
    final_url: str
    sha256: str
    size_bytes: int
    etag: str = ""
    last_modified: str = ""
    confirmed_at: float = 0.0  # seconds since 1970: when the server last said that this is its file

    def validators(self) -> dict[str, str]:
        """The headers of a conditional request (RFC 9110, section 13.1)."""
        headers = {"If-None-Match": self.etag} if self.etag else {}
        if self.last_modified:
            headers["If-Modified-Since"] = self.last_modified
        return headers


class Receipts:
    """The receipts of all tenants, in the blob store."""

    def __init__(self, blobs: FileBlobs, clock: Callable[[], float] = time.time) -> None:
        self._blobs = blobs
        self.clock = clock

    async def find(self, tenant_id: str, url: str) -> Receipt | None:
        """The receipt of a URL whose file is still stored."""
        data = await self._blobs.get(_path(tenant_id, url))
        if data is None:
            return None
        try:
            receipt = _DECODE(data)
        except (msgspec.MsgspecError, RecursionError):
            return None  # of another version: the file is fetched again
        if receipt.url != url or await self._blobs.size(file_path(tenant_id, receipt.sha256)) != receipt.size_bytes:
            return None
        return receipt

    async def keep(self, tenant_id: str, receipt: Receipt) -> None:
        """Remember that the server has just said so."""
        await self._blobs.replace(_path(tenant_id, receipt.url), msgspec.json.encode(receipt))


def file_path(tenant_id: str, sha256: str) -> str:
    """Where a file lies in the blob store: the same file of two documents lies there once."""
    return f"files/{tenant_id}/{sha256[:2]}/{sha256}"


def validator(value: str) -> str:
    """A header that may be sent back some day, or nothing."""
    return value if len(value) <= _MAX_VALIDATOR and value.isascii() and value.isprintable() else ""


def _path(tenant_id: str, url: str) -> str:
    identity = stable_id("download", url)
    return f"downloads/{tenant_id}/{identity[:2]}/{identity}.json"


_DECODE = msgspec.json.Decoder(Receipt).decode
