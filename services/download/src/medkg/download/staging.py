"""Files on their way: where a transfer writes, and from where a broken one goes on.

A part that may go on is kept under the name of its URL with a note of what it holds. Whoever wants to go on claims it
by renaming it, which one process can do; so no two ever write into one file.
"""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from medkg.contracts.ids import stable_id

MAX_KEPT = 64  # parts in the folder; the oldest go first
_STALE_SECONDS = 24 * 3_600
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Note:
    validator: str
    size_bytes: int
    sha256: str


_DECODE = msgspec.json.Decoder(_Note).decode


class Part:
    """One file on its way: its bytes so far and their hash. ``validator`` is empty where it cannot be gone on with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.validator = ""
        self._hash = hashlib.sha256()
        self._file = path.open("ab")

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)

    def reset(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.size_bytes, self.validator = hashlib.sha256(), 0, ""

    def tail(self, most_bytes: int) -> bytes:
        """The last bytes so far."""
        self._file.flush()
        with self.path.open("rb") as file:
            file.seek(max(self.size_bytes - most_bytes, 0))
            return file.read()

    def close(self) -> None:
        self._file.close()

    def take_up(self, note: _Note) -> bool:
        """Go on with what the file holds; whether it is what the note says."""
        with self.path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                self._hash.update(data)
                self.size_bytes += len(data)
        self.validator = note.validator
        return (self.size_bytes, self.sha256) == (note.size_bytes, note.sha256)


class Staging:
    """A folder for files on their way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, tenant_id: str, url: str) -> Part:
        """A part to write to: the kept one of this URL, or an empty one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="moving-", dir=self._folder)
        os.close(descriptor)
        path = Path(name)
        note = self._claim(tenant_id, url, path)
        part = Part(path)
        if note is not None and not part.take_up(note):
            part.reset()
        return part

    def keep(self, tenant_id: str, url: str, part: Part) -> None:
        """Leave a part for the next transfer of this URL, if one can go on with it."""
        part.close()
        if not part.validator or not part.size_bytes:
            self.discard(part)
            return
        file, noted = self._names(tenant_id, url)
        note = msgspec.json.encode(_Note(part.validator, part.size_bytes, part.sha256))
        fresh = part.path.with_suffix(".note")
        fresh.write_bytes(note)
        part.path.replace(file)
        fresh.replace(noted)
        self._tidy()

    def discard(self, part: Part) -> None:
        part.close()
        part.path.unlink(missing_ok=True)

    def sweep(self, now: float) -> None:
        """Remove what dead processes left behind."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if now - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink()

    def _claim(self, tenant_id: str, url: str, path: Path) -> _Note | None:
        file, noted = self._names(tenant_id, url)
        mine = path.with_suffix(".note")
        try:
            noted.rename(mine)
            note = _DECODE(mine.read_bytes())
            file.rename(path)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None  # there is none, somebody else has it, or it cannot be read
        finally:
            mine.unlink(missing_ok=True)
        return note

    def _names(self, tenant_id: str, url: str) -> tuple[Path, Path]:
        identity = stable_id("part", tenant_id, url)
        return self._folder / f"{identity}.part", self._folder / f"{identity}.json"

    def _tidy(self) -> None:
        aged: list[tuple[float, Path]] = []
        for path in self._folder.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                aged.append((path.stat().st_mtime, path))
        for _, path in sorted(aged)[:-MAX_KEPT]:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
