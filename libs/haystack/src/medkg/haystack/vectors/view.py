"""Searching vectors: inner products over the segments and the tail that is in none of them yet. Pure, but for FAISS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Matrix
from medkg.haystack.stores import Filters
from medkg.haystack.vectors.cache import LoadedSegment
from medkg.haystack.vectors.manifest import Manifest
from medkg.haystack.vectors.rows import Columns, VectorRows, concatenated

_ID_BYTES = 16


class FoundRow(NamedTuple):
    """A vector that was found: whose it is, and how near."""

    write_id: str
    row: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class TailBlock:
    """Deltas as one matrix. ``delta_of`` is the place in ``names`` of each write's delta."""

    rows: VectorRows
    names: tuple[str, ...]
    delta_of: NDArray[np.int32]

    @property
    def columns(self) -> Columns:
        return self.rows.columns

    def search(
        self, query: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See :meth:`medkg.haystack.vectors.cache.LoadedSegment.search`; exact."""
        vectors = self.rows.vectors if rows is None else self.rows.vectors[rows]
        # not `@`: for one question the threads of a BLAS spin longer than they work
        scores = np.einsum("ij,j->i", vectors, query)
        best = np.argpartition(-scores, k - 1)[:k] if len(scores) > k else np.arange(len(scores))
        return scores[best], best if rows is None else rows[best]

    def without(self, names: frozenset[str]) -> "TailBlock | None":
        """The block without some deltas."""
        gone = np.array([name in names for name in self.names], np.bool_)
        if not gone.any():
            return self
        if gone.all():
            return None
        kept = ~gone[self.delta_of]
        number = np.cumsum(~gone, dtype=np.int32) - 1
        columns = self.rows.columns.take(kept)
        vectors: Matrix = self.rows.vectors[kept[self.rows.columns.owner]]
        names_left = tuple(name for name, left in zip(self.names, gone, strict=True) if not left)
        return TailBlock(VectorRows(columns, vectors), names_left, number[self.delta_of[kept]])


@dataclass(frozen=True, slots=True, eq=False)
class VectorView:
    """What one search looks at; never changed. ``taken_at`` (monotonic) is when its reading began."""

    manifest: Manifest
    segments: tuple[LoadedSegment, ...]
    tail: tuple[TailBlock, ...]
    taken_at: float

    def deltas(self) -> set[str]:
        return {name for block in self.tail for name in block.names}

    def with_what_was_in(self, before: "VectorView") -> "VectorView":
        """This one and, where segments were made since, what the earlier one had beside: rows may be there twice."""
        if before.manifest.number == self.manifest.number:
            return self
        known = {loaded.segment.name for loaded in self.segments}
        gone = tuple(loaded for loaded in before.segments if loaded.segment.name not in known)
        return replace(self, segments=self.segments + gone, tail=self.tail + before.tail)

    def search(self, query: NDArray[np.floating], wanted: int, filters: Filters) -> tuple[list[FoundRow], bool]:
        """Up to ``wanted`` of the nearest, best first and each once, and whether these are all there are.

        Rows of invisible writes are among them. ``query`` has unit length, as the stored vectors do.
        """
        vector = np.ascontiguousarray(query, dtype=np.float32)
        all_scores, all_rows, all_pieces = [], [], []
        searched: list[LoadedSegment | TailBlock] = [*self.segments, *self.tail]
        columns = [piece.columns for piece in searched]
        total = 0
        for number, piece in enumerate(searched):
            rows = columns[number].allowed(filters) if filters else None
            total += columns[number].rows if rows is None else len(rows)
            scores, found = piece.search(vector, wanted, rows)
            all_scores.append(scores)
            all_rows.append(found)
            all_pieces.append(np.full(len(found), number, np.int32))
        if not total:
            return [], True
        scores, rows, pieces = np.concatenate(all_scores), np.concatenate(all_rows), np.concatenate(all_pieces)
        if len(scores) > wanted:
            best = np.argpartition(-scores, wanted - 1)[:wanted]
            scores, rows, pieces = scores[best], rows[best], pieces[best]
        return _named(columns, scores, rows, pieces), wanted >= total


def added(blocks: tuple[TailBlock, ...], name: str, rows: VectorRows) -> tuple[TailBlock, ...]:
    """The tail with one delta more. Lengths of blocks fall geometrically: few are searched, and little is copied."""
    grown = [*blocks, TailBlock(rows, (name,), np.zeros(rows.columns.writes, np.int32))]
    while len(grown) > 1 and grown[-2].rows.columns.rows <= 2 * grown[-1].rows.columns.rows:
        last, other = grown.pop(), grown.pop()
        grown.append(_joined(other, last))
    return tuple(grown)


def _joined(a: TailBlock, b: TailBlock) -> TailBlock:
    columns = concatenated([a.rows.columns, b.rows.columns])
    vectors: Matrix = np.concatenate([a.rows.vectors, b.rows.vectors])
    delta_of = np.concatenate([a.delta_of, b.delta_of + np.int32(len(a.names))])
    return TailBlock(VectorRows(columns, vectors), a.names + b.names, delta_of)


def _named(
    columns: Sequence[Columns], scores: NDArray[np.float32], rows: NDArray[np.int64], pieces: NDArray[np.int32]
) -> list[FoundRow]:
    best: dict[tuple[str, int], float] = {}
    for score, row, piece in zip(scores.tolist(), rows.tolist(), pieces.tolist(), strict=True):
        known = columns[piece]
        write_id = known.write_ids[known.owner[row]].tobytes().hex()
        key = (write_id, int(known.row[row]))
        if score > best.get(key, -np.inf):
            best[key] = score
    found = [FoundRow(write_id, row, score) for (write_id, row), score in best.items()]
    found.sort(key=lambda hit: (-hit.score, hit.write_id, hit.row))
    return found
