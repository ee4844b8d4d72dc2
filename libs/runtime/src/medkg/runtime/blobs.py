"""The blob store: a folder or an S3 bucket behind the same two calls."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, MemoryStore, S3Store

from medkg.contracts.errors import ConfigurationError, ResourceUnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig


class BlobStore:
    """Bytes under relative keys, each written once: a put under an existing key changes nothing.

    A put is atomic: a reader sees all of an object or none of it.
    """

    def __init__(self, store: LocalStore | S3Store | MemoryStore) -> None:
        self._store = store

    async def get(self, key: str) -> bytes | None:
        """The bytes under ``key``, or None.

        Raises:
            ResourceUnavailableError: the store does not answer.
        """
        try:
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise ResourceUnavailableError(f"reading blob {key}: {error}") from error

    async def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key`` unless something is there.

        Raises:
            ResourceUnavailableError: the store does not answer, or is full.
        """
        try:
            await obstore.put_async(self._store, key, data, mode="create", use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return
        except Exception as error:
            raise ResourceUnavailableError(f"writing blob {key} ({len(data)} bytes): {error}") from error


def open_blobs(location: str, *, endpoint: str = "") -> BlobStore:
    """The store at ``file:///folder``, ``s3://bucket/prefix`` or ``memory:``.

    S3 credentials come from the usual AWS_ variables.

    Raises:
        ConfigurationError: the location is none of these.
    """
    parts = urlsplit(location)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(parents=True, exist_ok=True)
        return BlobStore(LocalStore(folder, mkdir=True))
    if parts.scheme == "s3":
        options: ClientConfig = {"allow_http": endpoint.startswith("http://")}
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            endpoint=endpoint or None,
            virtual_hosted_style_request=not endpoint,
            client_options=options,
        )
        return BlobStore(store)
    if parts.scheme == "memory":
        return BlobStore(MemoryStore())
    raise ConfigurationError(
        f"opening the blob store: {location!r} is not a location (MEDKG_BLOBS_URL); "
        "use file:///folder, s3://bucket/prefix or memory:"
    )
