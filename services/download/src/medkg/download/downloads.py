"""Files by URL: each fetched once at a time, and a transfer belongs to its URL, not to the attempt that began it.

A run of a stage has little time (its policy's), and a large file from a slow server takes longer. So a transfer goes on
when its attempt has run out of time, and the next attempt joins it; it has its own time, and ends with the service.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace

from medkg.contracts.errors import MedkgError, ResourceUnavailableError, SourceUnavailableError
from medkg.contracts.implementation import FileBlobs
from medkg.download.receipts import Receipt, Receipts, file_path
from medkg.download.staging import Part, Staging
from medkg.download.transfer import Arrived, Transfer
from medkg.http.destination import shown_url, without_secrets

MAX_UNCLAIMED = 256  # transfers that ended while nobody waited for them


@dataclass(frozen=True, slots=True)
class Download:
    """A file in the blob store. ``is_new``: its bytes were fetched now."""

    receipt: Receipt
    key: str
    is_new: bool


class Downloads:
    """Fetches files into the blob store. ``aclose`` ends what is under way; what has come so far is kept."""

    def __init__(
        self,
        transfer: Transfer,
        staging: Staging,
        receipts: Receipts,
        blobs: FileBlobs,
        *,
        total_seconds: float,
        fresh_seconds: float,
    ) -> None:
        self._transfer = transfer
        self._staging = staging
        self._receipts = receipts
        self._blobs = blobs
        self._total_seconds = total_seconds
        self._fresh_seconds = fresh_seconds
        self._running: OrderedDict[tuple[str, str], asyncio.Task[Download]] = OrderedDict()

    async def get(self, tenant_id: str, url: str) -> Download:
        """The file at a URL. When the caller is cancelled the transfer goes on, and the next call joins it.

        Raises:
            SourceError, PayloadTooLargeError: the URL does not give a PDF.
            ResourceUnavailableError: the blob store does not answer.
        """
        identity = (tenant_id, url)
        task = self._running.get(identity)
        if task is None:
            task = self._running[identity] = asyncio.create_task(self._fetch(tenant_id, url))
            self._forget_some()
        try:
            return await asyncio.shield(task)
        finally:
            if task.done() and self._running.get(identity) is task:
                del self._running[identity]

    async def aclose(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    def _forget_some(self) -> None:
        ended = [identity for identity, task in self._running.items() if task.done()]
        for identity in ended[: max(len(ended) - MAX_UNCLAIMED, 0)]:
            task = self._running.pop(identity)
            if not task.cancelled():
                task.exception()  # heard, though nobody waits for it any more

    async def _fetch(self, tenant_id: str, url: str) -> Download:
        try:
            return await self._find_or_bring(tenant_id, url)
        except OSError as error:  # a full disk, mostly; what the network raises has other names by now
            raise ResourceUnavailableError(f"writing a file on its way to the blob store: {error}") from error

    async def _find_or_bring(self, tenant_id: str, url: str) -> Download:
        known = await self._receipts.find(tenant_id, url)
        now = self._receipts.clock()
        if known is not None and 0 <= now - known.confirmed_at < self._fresh_seconds:
            return _stored(tenant_id, known, is_new=False)
        part = await asyncio.to_thread(self._staging.open, tenant_id, url)
        try:
            arrived = await self._bring(url, part, known)
            if arrived.is_unchanged and known is not None:
                receipt = replace(known, confirmed_at=now)
                is_new = False
            else:
                part.close()
                await self._blobs.put_file(file_path(tenant_id, part.sha256), part.path)
                receipt = Receipt(
                    url=url,
                    final_url=without_secrets(arrived.url),
                    sha256=part.sha256,
                    size_bytes=part.size_bytes,
                    etag=arrived.etag,
                    last_modified=arrived.last_modified,
                    confirmed_at=now,
                )
                is_new = known is None or known.sha256 != receipt.sha256
            await self._receipts.keep(tenant_id, receipt)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) or (isinstance(error, MedkgError) and error.retryable):
                self._staging.keep(tenant_id, url, part)
            else:
                self._staging.discard(part)
            raise
        self._staging.discard(part)
        return _stored(tenant_id, receipt, is_new=is_new)

    async def _bring(self, url: str, part: Part, known: Receipt | None) -> Arrived:
        validators = known.validators() if known is not None else {}
        try:
            async with asyncio.timeout(self._total_seconds):
                return await self._transfer.run(url, part, validators)
        except TimeoutError as error:
            raise SourceUnavailableError(
                f"reading {shown_url(url)}: not complete after {self._total_seconds:g} s, {part.size_bytes} bytes came"
            ) from error


def _stored(tenant_id: str, receipt: Receipt, *, is_new: bool) -> Download:
    return Download(receipt, file_path(tenant_id, receipt.sha256), is_new)
