"""The blob store: a folder or an S3 bucket behind the same two calls."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, MemoryStore, S3Store

from medkg.contracts.errors import ConfigurationError, ContractError, ResourceUnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig

# Up to eight names, none of which begins with a dot.
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}){0,7}")


class BlobStore:
    """Bytes under relative keys, each written once: a put under an existing key changes nothing.

    A put is atomic: a reader sees all of an object or none of it.
    """

    def __init__(self, store: LocalStore | S3Store | MemoryStore) -> None:
        self._store = store

    async def get(self, key: str) -> bytes | None:
        """The bytes under ``key``, or None.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer.
        """
        _check_key(key)
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
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer, or is full.
        """
        await self.create(key, data)

    async def create(self, key: str, data: bytes) -> bool:
        """What ``put`` does; and whether it was written, because nothing was there."""
        return await self._write(key, data, "create")

    async def replace(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key`` in the place of what is there: for what has proved to be broken.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer, or is full.
        """
        await self._write(key, data, "overwrite")

    async def _write(self, key: str, data: bytes, mode: Literal["create", "overwrite"]) -> bool:
        _check_key(key)
        try:
            await obstore.put_async(self._store, key, data, mode=mode, use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return False
        except Exception as error:
            raise ResourceUnavailableError(f"writing blob {key} ({len(data)} bytes): {error}") from error
        return True


def _check_key(key: str) -> None:
    # No store takes others, and a store that is waited for would be waited for in vain.
    if not _KEY.fullmatch(key):
        raise ContractError(f"opening a blob: {key[:80]!r} is not a key")


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
