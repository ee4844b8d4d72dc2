"""Blobs that lie in a folder, read and written without a detour.

obstore hands every call to a thread of its own, and the answer back: for a file that the system has in memory that
costs five times the call itself, and a stage reads or writes a blob six times a document. Here the calls are made where
they are wanted; see :mod:`medkg.runtime.blobs` for who waits.

The layout is obstore's own, so that both work on one folder: a file is written beside its place under a name that ends
in ``#`` and digits, which obstore leaves out of its lists, and then linked or moved there.
"""

import os
import secrets
from pathlib import Path

_STAGES = 10**15  # names to choose from: two writers hardly meet at one, and are told when they do


class BlobFolder:
    """Files under a folder, by keys that have been checked. Each call blocks; safe in many threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str, at_most_bytes: int) -> bytes | int | None:
        """The bytes under ``key``, None where there are none; of more than ``at_most_bytes``, how many.

        Raises:
            OSError: the disk does not give them.
        """
        try:
            descriptor = os.open(self._folder / key, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            size_bytes = os.fstat(descriptor).st_size
            return size_bytes if size_bytes > at_most_bytes else _read(descriptor, size_bytes)
        except IsADirectoryError:
            return None
        finally:
            os.close(descriptor)

    def write(self, key: str, data: bytes, *, replace: bool) -> bool:
        """Write ``data`` under ``key``, whole or not at all; whether it was written.

        Where something is there, nothing is written unless it is to be replaced.

        Raises:
            OSError: the disk does not take it; what was there is there still.
        """
        path = self._folder / key
        if not replace and path.exists():
            return False
        staged, descriptor = _stage(path)
        try:
            try:
                _write(descriptor, data)
            finally:
                os.close(descriptor)
            if replace:
                staged.replace(path)
            else:
                path.hardlink_to(staged)
        except FileExistsError:  # somebody else was first
            return False
        finally:
            staged.unlink(missing_ok=True)
        return True


def _stage(path: Path) -> tuple[Path, int]:
    """A new file beside ``path``, in a folder that is made if need be."""
    while True:
        staged = path.with_name(f"{path.name}#{secrets.randbelow(_STAGES)}")
        try:
            return staged, os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            continue


def _read(descriptor: int, size_bytes: int) -> bytes:
    data = os.read(descriptor, size_bytes)  # what is stored never changes: it is all there at once
    if len(data) == size_bytes:
        return data
    parts = [data]  # a call gives 2 GiB at most
    while part := os.read(descriptor, size_bytes):
        parts.append(part)
    return b"".join(parts)


def _write(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
