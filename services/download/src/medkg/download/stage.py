"""The download stage: the first location that gives a PDF, and why those before it did not."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from urllib.parse import urlsplit

from medkg.contracts.context import StageContext
from medkg.contracts.document import DeclinedLocation, FileLocation, RawPayload, StoredFile, WriteOutcome
from medkg.contracts.errors import (
    MedkgError,
    PayloadTooLargeError,
    PeerUnavailableError,
    ResourceUnavailableError,
    SourceError,
    SourceForbiddenError,
    SourceGoneError,
    SourceRateLimitedError,
    SourceUnavailableError,
)
from medkg.contracts.media import PDF
from medkg.download.candidates import locations_of
from medkg.download.downloads import Download, Downloads
from medkg.http.destination import shown_url, without_secrets
from medkg.runtime.resilience import peers

MAX_UNFINISHED = 1_024  # documents whose run was cut short and is expected again

_Declined = list[tuple[FileLocation, MedkgError]]


class DownloadFile:
    """Fetches the file of a document."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads
        self._unfinished: OrderedDict[tuple[str, str], _Declined] = OrderedDict()

    async def execute(self, ctx: StageContext, payload: RawPayload) -> StoredFile:
        """The file of the first location that gives one. A run that was cut short goes on where it was.

        Raises:
            SourceError, PayloadTooLargeError: no location gives one; the message names each with its reason. It is
                worth a retry if it was for one of them.
            PayloadUnsupportedError, ContractError: the payload names no location.
            PeerUnavailableError: one of their hosts is left alone for a while, and no other location gives the file.
            ResourceUnavailableError: the blob store does not answer.
        """
        run = (ctx.correlation_id, ctx.doc_id)
        declined = self._unfinished.pop(run, [])
        locations = locations_of(payload)
        try:
            for location in locations[len(declined) :]:
                try:
                    found = await self._guarded(ctx.tenant_id, location.url)
                except (SourceError, PayloadTooLargeError, PeerUnavailableError) as error:
                    declined.append((location, error))
                else:
                    return _stored_file(location, found, declined)
        except asyncio.CancelledError:
            self._remember(run, declined)
            raise
        raise verdict(f"downloading the file of {payload.source} {payload.source_id}", declined)

    async def _guarded(self, tenant_id: str, url: str) -> Download:
        """The file at a URL, under limit and breaker of its host; what our own stores do is not the host's fault."""
        async with peers.guard(_host_of(url)):
            try:
                return await self._downloads.get(tenant_id, url)
            except ResourceUnavailableError as error:
                ours = error
        raise ours

    def _remember(self, run: tuple[str, str], declined: _Declined) -> None:
        self._unfinished[run] = declined
        if len(self._unfinished) > MAX_UNFINISHED:
            self._unfinished.popitem(last=False)


def verdict(at: str, declined: Sequence[tuple[FileLocation, MedkgError]]) -> MedkgError:
    """The error of a document that no location gives the file of: the most hopeful of theirs, with all their reasons.

    Is only left alone for now, can be tried again, is forbidden, is something else, is gone everywhere: in this order.
    """

    def hope(error: MedkgError) -> int:
        kinds = (PeerUnavailableError, SourceRateLimitedError | SourceUnavailableError, SourceForbiddenError)
        places = [place for place, kind in enumerate(kinds) if isinstance(error, kind)]
        return places[0] if places else len(kinds) + isinstance(error, SourceGoneError)

    best = min((error for _, error in declined), key=hope)
    if isinstance(best, PeerUnavailableError):
        return best  # the runtime knows it: no attempt is used up
    reasons = "; ".join(f"{number}. {error.message}" for number, (_, error) in enumerate(declined, 1))
    waits = [error.retry_after_seconds for _, error in declined if error.retryable and error.retry_after_seconds]
    summary = type(best)(
        f"{at}: none of {len(declined)} locations gives it: {reasons}",
        retry_after_seconds=min(waits) if waits else None,
        locations=[shown_url(location.url) for location, _ in declined],
    )
    summary.__cause__ = best
    return summary


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""  # no URL: whoever reads it says so


def _stored_file(location: FileLocation, found: Download, declined: _Declined) -> StoredFile:
    return StoredFile(
        key=found.key,
        sha256=found.receipt.sha256,
        media_type=PDF,
        size_bytes=found.receipt.size_bytes,
        uri=found.receipt.final_url,
        licence=location.licence,
        outcome=WriteOutcome.WRITTEN if found.is_new else WriteOutcome.UNCHANGED,
        declined=tuple(
            DeclinedLocation(without_secrets(tried.url), error.code, error.message) for tried, error in declined
        ),
    )
