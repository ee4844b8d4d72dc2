"""The download service: what it offers, and how it is started."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import FileBlobs, Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.download.downloads import Downloads
from medkg.download.receipts import Receipts
from medkg.download.settings import DownloadSettings
from medkg.download.stage import DownloadFile
from medkg.download.staging import Staging
from medkg.download.transfer import Transfer
from medkg.http.addresses import AddressPolicy
from medkg.http.destination import DestinationPolicy
from medkg.http.fetching import Fetcher
from medkg.http.network import Resolve, resolve
from medkg.http.politeness import Politeness, user_agent
from medkg.http.transport import CheckedTransport
from medkg.runtime.process import serve
from medkg.runtime.settings import from_environment


@asynccontextmanager
async def opened(settings: DownloadSettings, host: Host, *, resolve: Resolve = resolve) -> AsyncIterator[DownloadFile]:
    """The stage with everything that it works with, until the block is left."""
    if not isinstance(host.blobs, FileBlobs):
        raise ConfigurationError("opening the download stage: this blob store takes no files")
    policy = DestinationPolicy(settings.allowed_ports, AddressPolicy(allow_loopback=settings.allow_loopback))
    politeness = Politeness(
        requests_per_second=settings.requests_per_second, connections_per_host=settings.connections_per_host
    )
    staging = Staging(host.data_dir / "downloads")
    await asyncio.to_thread(staging.sweep, time.time())
    async with CheckedTransport(policy.addresses, resolve=resolve) as transport:
        fetcher = Fetcher(
            transport,
            policy,
            politeness,
            agent=user_agent("medkg-download", settings.contact),
            connect_seconds=settings.connect_seconds,
            idle_seconds=settings.idle_seconds,
            max_redirects=settings.max_redirects,
        )
        downloads = Downloads(
            Transfer(fetcher, settings.max_bytes),
            staging,
            Receipts(host.blobs),
            host.blobs,
            total_seconds=settings.total_seconds,
            fresh_seconds=settings.fresh_seconds,
        )
        try:
            yield DownloadFile(downloads)
        finally:
            await downloads.aclose()


@asynccontextmanager
async def _open(options: Options, host: Host) -> AsyncIterator[DownloadFile]:
    async with opened(from_environment(DownloadSettings), host) as stage:
        yield stage


HTTP = StageImplementation(
    stage_type=StageType.DOWNLOAD,
    name="http",
    version="1",
    options=Options,
    open=_open,
    memoised=False,  # whether a file has changed is the server's to say; asking is conditional
    calls_peers=True,  # limit and breaker of the policy hold for each publisher by itself
    is_default=True,
)


def main() -> None:
    """Entry point of ``medkg-download`` and ``python -m medkg.download``."""
    serve(StageType.DOWNLOAD)
