"""The blob store: a folder or an S3 bucket behind the same few calls."""

import asyncio
import errno
import os
import re
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, MemoryStore, S3Store

from medkg.contracts.errors import ConfigurationError, ContractError, ResourceUnavailableError
from medkg.runtime.blob_folder import BlobFolder

if TYPE_CHECKING:
    from obstore.store import ClientConfig

# Why a folder cannot be made, whatever is waited for.
_NEVER = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}
_PART_BYTES = 5 * 1024 * 1024  # the smallest part that S3 takes
_PARTS_AT_ONCE = 2

# A file of a folder is read and written at once, on the event loop, up to this size: it takes 0.1 ms at the most, less
# than a thread costs to be asked. Larger ones have a thread.
_AT_ONCE_BYTES = 524_288

_REFUSALS = (PermissionError, obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)

# Up to eight names, none of which begins with a dot.
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}){0,7}")


class BlobStore:
    """Bytes under relative keys, each written once: a put under an existing key changes nothing.

    A put is atomic: a reader sees all of an object or none of it.
    """

    def __init__(self, store: LocalStore | S3Store | MemoryStore, folder: Path | None = None) -> None:
        """``folder`` is where a :class:`LocalStore` keeps what it is given."""
        self._store = store
        self._folder = folder
        self._files = BlobFolder(folder) if folder is not None else None

    async def reach(self, location: str, *, timeout_seconds: float = 5) -> None:
        """Ask the store for a key that is hardly there, for so long at most; ``location`` says in errors which it is.

        Raises:
            ResourceUnavailableError: it does not answer.
            ConfigurationError: it answers, and does not let us in.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.size("reached")
        except (TimeoutError, ResourceUnavailableError) as error:
            cause = error.__cause__ or f"no answer for {timeout_seconds:g} s"
            reason = str(cause).partition("\n\nDebug source")[0].strip()  # obstore tells all it knows
            if isinstance(cause, _REFUSALS):
                raise ConfigurationError(
                    f"reaching the blob store at {location}: it refuses us: {reason}; mend the AWS_… variables, or "
                    "what they may do there"
                ) from error
            raise ResourceUnavailableError(
                f"reaching the blob store at {location}: {reason}; is it up? (MEDKG_BLOBS_URL, MEDKG_BLOBS_ENDPOINT)"
            ) from error

    async def get(self, key: str) -> bytes | None:
        """The bytes under ``key``, or None.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer.
        """
        _check_key(key)
        try:
            if self._files is not None:
                found = self._files.read(key, _AT_ONCE_BYTES)
                if isinstance(found, int):
                    found = await asyncio.to_thread(self._files.read, key, sys.maxsize)
                return found if not isinstance(found, int) else None
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

    async def put_file(self, key: str, path: Path) -> bool:
        """Write the file at ``path`` under ``key`` unless as many bytes are there; whether it was written.

        For content under its own hash: should two write it at once, both write the same. A few parts of the file are in
        memory at a time, never all of it.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer, or is full.
        """
        size_bytes = (await asyncio.to_thread(path.stat)).st_size
        if await self.size(key) == size_bytes:
            return False
        try:
            await obstore.put_async(
                self._store, key, path, use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )
        except Exception as error:
            raise ResourceUnavailableError(f"writing blob {key} ({size_bytes} bytes): {error}") from error
        return True

    async def fetch_file(self, key: str, path: Path) -> bool:
        """Write the bytes under ``key`` to a file, a part at a time; False where there is nothing.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer. The file may hold a part.
            OSError: the file cannot be written.
        """
        _check_key(key)
        try:
            result = await obstore.get_async(self._store, key)
        except FileNotFoundError:
            return False
        except Exception as error:
            raise ResourceUnavailableError(f"reading blob {key}: {error}") from error
        with path.open("wb") as file:
            parts = aiter(result.stream(_PART_BYTES))
            while True:
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return True
                except Exception as error:
                    raise ResourceUnavailableError(f"reading blob {key}: {error}") from error
                await asyncio.to_thread(file.write, part)

    async def make_durable(self, key: str) -> None:
        """Returns once what was put under ``key`` outlives a power failure. A folder's files do not before.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the disk does not take it, or there is nothing.
        """
        _check_key(key)
        if self._folder is None:
            return
        try:
            await asyncio.to_thread(_settle, self._folder, key)
        except OSError as error:
            raise ResourceUnavailableError(f"writing blob {key} to the disk: {error}") from error

    async def size(self, key: str) -> int | None:
        """How many bytes lie under ``key``, or None.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer.
        """
        _check_key(key)
        try:
            found = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise ResourceUnavailableError(f"looking for blob {key}: {error}") from error
        return int(found["size"])

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, int, datetime]]:
        """Everything under a prefix: key, size in bytes, and when it was written.

        Raises:
            ResourceUnavailableError: the store does not answer.
        """
        try:
            async for batch in obstore.list(self._store, prefix=prefix):
                for found in batch:
                    yield found["path"], int(found["size"]), found["last_modified"]
        except Exception as error:
            raise ResourceUnavailableError(f"listing blobs under {prefix}: {error}") from error

    async def delete(self, key: str) -> None:
        """Remove what lies under ``key``; nothing, if nothing does.

        Raises:
            ContractError: not a key.
            ResourceUnavailableError: the store does not answer.
        """
        _check_key(key)
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except Exception as error:
            raise ResourceUnavailableError(f"removing blob {key}: {error}") from error

    async def _write(self, key: str, data: bytes, mode: Literal["create", "overwrite"]) -> bool:
        _check_key(key)
        try:
            if self._files is not None:
                write = partial(self._files.write, key, data, replace=mode == "overwrite")
                return write() if len(data) <= _AT_ONCE_BYTES else await asyncio.to_thread(write)
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


def _settle(folder: Path, key: str) -> None:
    """A file's bytes, its name, and the names of the folders that it lies in."""
    path = folder / key
    while True:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == folder:
            return
        path = path.parent


def open_blobs(location: str, *, endpoint: str = "") -> BlobStore:
    """The store at ``file:///folder``, ``s3://bucket/prefix`` or ``memory:``.

    S3 credentials come from the usual AWS_ variables.

    Raises:
        ConfigurationError: the location is none of these, or a folder that cannot be.
        ResourceUnavailableError: its disk does not answer, or is full.
    """
    parts = urlsplit(location)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            kind = ConfigurationError if error.errno in _NEVER else ResourceUnavailableError
            raise kind(f"opening the blob store at {location}: {error.strerror or error} (MEDKG_BLOBS_URL)") from error
        return BlobStore(LocalStore(folder, mkdir=True), folder)
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
