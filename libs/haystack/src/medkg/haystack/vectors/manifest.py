"""What there is of an index's vectors, as data, and what a merge should take in. Pure."""

import re
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from medkg.haystack.graphs import SegmentKind

MAX_DELTAS: Final = 256  # a reader that begins fetches them one by one: more are worth a segment, however short
MAX_SEGMENT_BYTES: Final = 512 * 1024 * 1024  # of vectors: bounds the memory of a merge
_DELTA = re.compile(r"([0-9]{13})-([0-9]{1,9})-([0-9a-f]{64})")
_NAME = r"[0-9a-f]{16}"


class HasRows(Protocol):
    """A segment, whoever keeps it."""

    @property
    def rows(self) -> int: ...


S = TypeVar("S", bound=HasRows)


class Segment(msgspec.Struct, frozen=True):
    """Two immutable objects: a FAISS index, and the columns of its rows. Both are known by size and SHA-256.

    ``effort`` is how hard an approximate index is searched, ``recall`` (at 10) what that was measured to find.
    """

    name: str
    index_digest: str
    index_bytes: int
    columns_digest: str
    columns_bytes: int
    rows: int
    kind: SegmentKind = SegmentKind.FLAT
    effort: int = 0
    recall: float = 1.0

    @property
    def size_bytes(self) -> int:
        return self.index_bytes + self.columns_bytes


class Manifest(msgspec.Struct, frozen=True):
    """One state of an index's segments. The next state is another manifest, with the next ``number``.

    ``token`` tells who made it. ``covered`` are deltas that the segments hold and that may still be there.
    ``compacted_at`` is when all segments were last made anew.
    """

    number: int = 0
    token: str = ""
    dimension: int = 0
    segments: tuple[Segment, ...] = ()
    covered: tuple[str, ...] = ()
    compacted_at: float = 0.0

    @property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments)


class DeltaName(NamedTuple):
    """What the name of a delta says: when it was written, how many rows it holds, and the SHA-256 of its bytes."""

    name: str
    written_ms: int
    rows: int
    digest: str


def delta_name(rows: int, digest: str, now: float | None = None) -> str:
    return f"{int((time.time() if now is None else now) * 1000):013d}-{rows}-{digest}"


def read_delta_name(name: str) -> DeltaName | None:
    """None for what no writer of ours has named."""
    found = _DELTA.fullmatch(name)
    return DeltaName(name, int(found[1]), int(found[2]), found[3]) if found else None


def read_manifest(data: bytes) -> Manifest:
    """Raises ValueError for what is none, or names what cannot be."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a manifest: {error}") from error
    for segment in manifest.segments:
        digests = (segment.index_digest, segment.columns_digest)
        if not re.fullmatch(_NAME, segment.name) or not all(re.fullmatch(r"[0-9a-f]{64}", d) for d in digests):
            raise ValueError(f"not a manifest: a segment is called {segment.name[:40]!r}")
        if min(segment.rows, segment.index_bytes, segment.columns_bytes) < 1:
            raise ValueError(f"not a manifest: segment {segment.name} is empty")
    return manifest


def tail(manifest: Manifest, deltas: Iterable[DeltaName]) -> list[DeltaName]:
    """The deltas that are in no segment."""
    covered = set(manifest.covered)
    return [delta for delta in deltas if delta.name not in covered]


def is_due(deltas: Sequence[DeltaName], segment_rows: int) -> bool:
    """Whether a tail is worth a segment."""
    return len(deltas) >= MAX_DELTAS or sum(delta.rows for delta in deltas) >= segment_rows


def plan_merge(segments: tuple[S, ...], tail_rows: int, max_rows: int) -> tuple[S, ...]:
    """Which segments stay as they are when the tail becomes a segment; the others become one with it.

    The last segment is taken in while it is at most twice as long as what follows it: lengths fall geometrically, so
    that there are few of them, and each vector is written again only a logarithmic number of times.
    """
    kept = list(segments)
    merged = tail_rows
    while kept and kept[-1].rows <= 2 * merged and kept[-1].rows + merged <= max_rows:
        merged += kept.pop().rows
    return tuple(kept)


def max_rows_of(dimension: int) -> int:
    """Of one segment."""
    return max(MAX_SEGMENT_BYTES // (4 * dimension), 1)
