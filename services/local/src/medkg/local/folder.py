"""The data folder of a local fleet: one fleet at a time, and a note of where it can be reached."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medkg.contracts.errors import ConfigurationError


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder is ours while the block lasts; the lock goes with the process, however it ends.

    Raises:
        ConfigurationError: another fleet runs on it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "fleet.lock").open("a+")
    except OSError as error:
        raise ConfigurationError(
            f"starting a fleet on {folder}: {error.strerror or error}; name a folder that can be written to with --data"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            note = read_note(folder)
            who = f" (pid {note['pid']}, gateway {note['gateway_url']})" if note else ""
            raise ConfigurationError(
                f"starting a fleet on {folder}: another one is running there{who}; "
                "stop it first, or name another folder with --data"
            ) from error
        remove_note(folder)  # of one that was killed
        yield


def is_claimed(folder: Path) -> bool:
    """Whether a fleet runs on the folder now. Claims nothing, and makes nothing."""
    try:
        lock = (folder / "fleet.lock").open()
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_note(
    folder: Path,
    *,
    gateway_url: str,
    broker: str,
    services: list[str],
    database_url: str = "",
    blobs_url: str = "",
    is_in_process: bool = False,
) -> None:
    """Say where the fleet and its stores can be reached; whole or not at all.

    ``database_url`` is that of the embedded PostgreSQL, and empty where another was given: there may be a password in
    it, and whoever gave it knows it. ``is_in_process``: the broker is.
    """
    note = {
        "pid": os.getpid(),
        "gateway_url": gateway_url,
        "broker": broker,
        "services": services,
        "database_url": database_url,
        "blobs_url": blobs_url,
        "is_in_process": is_in_process,
    }
    fresh = folder / "fleet.json.new"
    fresh.write_text(json.dumps(note, indent=2))
    fresh.replace(folder / "fleet.json")


def remove_note(folder: Path) -> None:
    """The fleet can no longer be reached."""
    with suppress(FileNotFoundError):
        (folder / "fleet.json").unlink()


def read_note(folder: Path) -> dict[str, object]:
    """What the last fleet on this folder said; empty when nothing (readable) is there."""
    try:
        note = json.loads((folder / "fleet.json").read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and {"pid", "gateway_url"} <= note.keys() else {}
