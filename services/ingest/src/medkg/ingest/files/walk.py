"""From the paths of a selection to the files they mean, in an order that is always the same.

Entries come sorted by the bytes of their names, folder by folder, so that a walk can go on behind any entry without
having seen those before it. A name that begins with a dot is left out unless the pattern says the dot.
"""

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from medkg.contracts.document import RefusedRecord
from medkg.contracts.errors import MedkgError, SourceError, SourceForbiddenError, SourceGoneError
from medkg.ingest.files.roots import Roots, printable

MAX_FOLDER_DEPTH = 64  # a tree nested deeper is a mistake or an attack
_KEPT_LISTINGS = 8  # folders whose sorted names stay in memory between two pages
_MAGIC = re.compile(r"[*?\[]")


class Spot(NamedTuple):
    """A place in the walk: which path of the selection, and the names below it."""

    item: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read. ``path`` is real (no symbolic link in it), ``name`` its identity."""

    spot: Spot
    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """Something that was named or found, but is not read."""

    spot: Spot
    record: RefusedRecord


class _Listed(NamedTuple):
    name: str
    is_folder: bool
    is_link: bool


class Walker:
    """Walks selections under the roots. Safe for concurrent walks."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._listings: OrderedDict[tuple[str, int], tuple[_Listed, ...]] = OrderedDict()

    def entries(self, paths: Sequence[str], start: Spot | None = None) -> Iterator[FoundFile | RefusedEntry]:
        """Everything the paths mean, from ``start`` on (inclusive).

        A path is a file, a folder (all files below it) or a pattern: ``*``, ``?`` and ``[…]`` within a name, ``**`` for
        any number of folders. One that exists as it is written is no pattern.
        """
        first = start.item if start is not None else 0
        for item in range(first, len(paths)):
            names = start.names if start is not None and item == first else ()
            yield from self._item(Spot(item), Path(paths[item]), names)

    def _item(self, spot: Spot, path: Path, start: tuple[str, ...]) -> Iterator[FoundFile | RefusedEntry]:
        try:
            base, pattern = self._resolve(path)
            mode = base.stat().st_mode
            if S_ISREG(mode) and pattern is None:
                yield FoundFile(spot, base, self._roots.name_of(base))
                return
            if not S_ISDIR(mode):
                raise SourceGoneError(f"reading {path}: neither a file nor a folder")
        except (OSError, MedkgError) as error:
            yield RefusedEntry(spot, _refused(str(path), str(path), error))
            return
        parts = pattern if pattern is not None else ("**",)
        is_empty = not start
        for entry in self._folder(Spot(spot.item), base, _closure(frozenset({0}), parts), parts, start):
            is_empty = False
            yield entry
        if is_empty:
            nothing = SourceGoneError(f"reading {path}: there is no file there, or none that it matches")
            yield RefusedEntry(spot, _refused(str(path), str(path), nothing))

    def _resolve(self, path: Path) -> tuple[Path, tuple[str, ...] | None]:
        """The real file or folder, and the pattern below it if there is one."""
        try:
            return self._roots.find(path), None
        except (OSError, SourceForbiddenError):
            at = next((n for n, part in enumerate(path.parts) if _MAGIC.search(part)), None)
            if at is None:
                raise
        pattern = path.parts[at:]
        if ".." in pattern:
            raise SourceForbiddenError(f"reading {path}: a pattern cannot contain '..'; write the folder out")
        # `**` twice in a row says nothing more than once.
        parts = tuple(
            part for part, before in zip(pattern, ("", *pattern), strict=False) if part != "**" or before != "**"
        )
        if len(parts) > MAX_FOLDER_DEPTH:
            raise SourceForbiddenError(f"reading {path}: a pattern of more than {MAX_FOLDER_DEPTH} names")
        return self._roots.find(Path(*path.parts[:at])), parts

    def _folder(
        self, spot: Spot, folder: Path, states: frozenset[int], parts: tuple[str, ...], start: tuple[str, ...]
    ) -> Iterator[FoundFile | RefusedEntry]:
        try:
            if len(spot.names) >= MAX_FOLDER_DEPTH:
                raise SourceForbiddenError(f"reading {folder}: nested deeper than {MAX_FOLDER_DEPTH} folders")
            listing = self._listing(folder)
        except (OSError, MedkgError) as error:
            yield RefusedEntry(spot, _refused(str(folder), str(folder), error))
            return
        floor = os.fsencode(start[0]) if start else b""
        for listed in listing:
            key = os.fsencode(listed.name)
            if key < floor:
                continue
            after = _step(states, parts, listed.name)
            inner = start[1:] if key == floor else ()
            here = Spot(spot.item, (*spot.names, listed.name))
            if listed.is_folder:
                if after:
                    yield from self._folder(here, folder / listed.name, after, parts, inner)
            elif len(parts) in after and not inner:
                yield self._file(here, folder / listed.name, listed.is_link)

    def _file(self, spot: Spot, path: Path, is_link: bool) -> FoundFile | RefusedEntry:
        if not is_link:
            return FoundFile(spot, path, self._roots.name_of(path))
        try:
            real = self._roots.find(path)
            if real.is_dir():
                raise SourceForbiddenError(
                    f"reading {path}: a symbolic link to a folder, which a walk does not follow; name the folder itself"
                )
        except (OSError, MedkgError) as error:
            return RefusedEntry(spot, _refused(self._roots.name_of(path), str(path), error))
        return FoundFile(spot, real, self._roots.name_of(real))

    def _listing(self, folder: Path) -> tuple[_Listed, ...]:
        """The sorted names in a folder; kept until it changes, so that its pages do not read it again and again."""
        key = (str(folder), folder.stat().st_mtime_ns)
        if (known := self._listings.get(key)) is not None:
            return known
        with os.scandir(folder) as found:
            listing = tuple(
                sorted(
                    (_Listed(e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in found),
                    key=lambda listed: os.fsencode(listed.name),
                )
            )
        self._listings[key] = listing
        while len(self._listings) > _KEPT_LISTINGS:
            self._listings.popitem(last=False)
        return listing


def _closure(states: frozenset[int], parts: tuple[str, ...]) -> frozenset[int]:
    """With every place that ``**`` lets be reached without a name."""
    reached = set(states)
    for state in sorted(states):
        at = state
        while at < len(parts) and parts[at] == "**":
            at += 1
            reached.add(at)
    return frozenset(reached)


def _step(states: frozenset[int], parts: tuple[str, ...], name: str) -> frozenset[int]:
    """The places in the pattern after one more name; empty: nothing below can match."""
    after: set[int] = set()
    for state in states:
        if state == len(parts):
            continue
        part = parts[state]
        if name.startswith(".") and not part.startswith("."):
            continue
        if part == "**":
            after.add(state)
        elif _matcher(part).match(name):
            after.add(state + 1)
    return _closure(frozenset(after), parts)


@lru_cache(maxsize=256)
def _matcher(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))


def _refused(source_id: str, uri: str, error: Exception) -> RefusedRecord:
    fault = error if isinstance(error, MedkgError) else _of_system(uri, error)
    return RefusedRecord(printable(source_id), printable(uri), fault.code, printable(fault.message))


def _of_system(uri: str, error: Exception) -> SourceError:
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, PermissionError):
        return SourceForbiddenError(f"reading {uri}: {reason}; let the ingest service's user read it")
    return SourceGoneError(f"reading {uri}: {reason}; check the path, as the ingest service sees it")
