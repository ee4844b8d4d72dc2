"""Vectors with what they are known and filtered by, as arrays: a delta, or a segment beside its FAISS index. Pure.

A *write* (one run's passages of one document) is always whole: all its rows are in the same delta or segment. Where
writes are joined, the newest copy of one that was stored twice stays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Matrix
from medkg.haystack.filtering import checked
from medkg.haystack.stores import Filters
from medkg.haystack.writes import DocumentWrite

NO_YEAR: Final = -(2**31)
ID_BYTES: Final = 16

Numbers = NDArray[np.int32]
Labels = dict[str, Numbers]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """``writes`` writes and their rows. Labels map a value to the numbers of the writes that have it, ascending;
    ``headings`` to the numbers of rows. ``owner`` is the write of a row, ``row`` its place in that write."""

    write_ids: NDArray[np.uint8]  # (writes, 16)
    written_at: NDArray[np.float64]  # seconds since 1970
    year: Numbers
    retracted: NDArray[np.bool_]
    sources: Labels
    conditions: Labels
    phases: Labels
    owner: Numbers
    row: Numbers
    headings: Labels

    @property
    def writes(self) -> int:
        return len(self.written_at)

    @property
    def rows(self) -> int:
        return len(self.owner)

    def ids(self) -> list[str]:
        """Ids of the writes."""
        whole = self.write_ids.tobytes().hex()
        return [whole[at : at + 2 * ID_BYTES] for at in range(0, len(whole), 2 * ID_BYTES)]

    def row_counts(self) -> NDArray[np.int64]:
        """How many rows each write has."""
        return np.bincount(self.owner, minlength=self.writes)

    def allowed(self, filters: Filters) -> NDArray[np.int64]:
        """Numbers of the rows that the filters let through, ascending.

        Raises:
            ContractError: more values than anybody types.
        """
        wanted = checked(filters)
        may = np.ones(self.writes, dtype=np.bool_)
        for labels, values in (
            (self.sources, wanted.sources),
            (self.conditions, wanted.conditions),
            (self.phases, wanted.phases),
        ):
            if values:
                may &= _having(labels, values, self.writes)
        if wanted.year_from is not None:
            may &= (self.year != NO_YEAR) & (self.year >= wanted.year_from)
        if wanted.year_to is not None:
            may &= (self.year != NO_YEAR) & (self.year <= wanted.year_to)
        if wanted.retracted is not None:
            may &= self.retracted == wanted.retracted
        rows: NDArray[np.bool_] = may[self.owner]
        if wanted.sections:
            rows &= _having(self.headings, wanted.sections, self.rows)
        return np.flatnonzero(rows)

    def take(self, writes: NDArray[np.bool_]) -> "Columns":
        """The same without the other writes."""
        number = np.cumsum(writes, dtype=np.int32) - 1
        rows = writes[self.owner]
        row_number = np.cumsum(rows, dtype=np.int32) - 1
        return Columns(
            self.write_ids[writes],
            self.written_at[writes],
            self.year[writes],
            self.retracted[writes],
            _renumbered(self.sources, writes, number),
            _renumbered(self.conditions, writes, number),
            _renumbered(self.phases, writes, number),
            number[self.owner[rows]],
            self.row[rows],
            _renumbered(self.headings, rows, row_number),
        )


@dataclass(frozen=True, slots=True, eq=False)
class VectorRows:
    """Rows and their vectors, in the same order."""

    columns: Columns
    vectors: Matrix

    def read(self, rows: NDArray[np.int64]) -> Matrix:
        """The vectors of some rows."""
        found: Matrix = self.vectors[rows]
        return found


class Source(Protocol):
    """Where vectors are read from in a merge: a delta, or a segment."""

    @property
    def columns(self) -> Columns: ...

    def read(self, rows: NDArray[np.int64]) -> Matrix: ...


def rows_of(writes: Sequence[tuple[str, DocumentWrite]], now: float) -> VectorRows:
    """The rows of writes (id, write), stored at ``now``. All have vectors of the same dimension."""
    sources, conditions, phases, headings = (dict[str, list[int]]() for _ in range(4))
    owner, row = list[int](), list[int]()
    for number, (_, write) in enumerate(writes):
        facets = write.facets
        sources.setdefault(facets.source, []).append(number)
        for labels, values in ((conditions, facets.conditions), (phases, facets.phases)):
            for value in values:
                labels.setdefault(value, []).append(number)
        for place, passage in enumerate(write.rows):
            for heading in dict.fromkeys(passage.headings):
                headings.setdefault(heading, []).append(len(owner))
            owner.append(number)
            row.append(place)
    ids = b"".join(bytes.fromhex(write_id) for write_id, _ in writes)
    years = [NO_YEAR if write.facets.year is None else write.facets.year for _, write in writes]
    columns = Columns(
        np.frombuffer(ids, np.uint8).reshape(len(writes), ID_BYTES),
        np.full(len(writes), now, np.float64),
        np.array(years, np.int32),
        np.array([write.facets.retracted for _, write in writes], np.bool_),
        _arrays(sources),
        _arrays(conditions),
        _arrays(phases),
        np.array(owner, np.int32),
        np.array(row, np.int32),
        _arrays(headings),
    )
    dimension = writes[0][1].dimension
    vectors = np.frombuffer(b"".join(r.vector for _, w in writes for r in w.rows), "<f4")
    return VectorRows(columns, vectors.reshape(len(owner), dimension))


def concatenated(parts: Sequence[Columns]) -> Columns:
    """One after the other, as they are."""
    write_at = np.cumsum([0, *(part.writes for part in parts)])
    row_at = np.cumsum([0, *(part.rows for part in parts)])
    return Columns(
        np.concatenate([part.write_ids for part in parts]),
        np.concatenate([part.written_at for part in parts]),
        np.concatenate([part.year for part in parts]),
        np.concatenate([part.retracted for part in parts]),
        _shifted([part.sources for part in parts], write_at),
        _shifted([part.conditions for part in parts], write_at),
        _shifted([part.phases for part in parts], write_at),
        np.concatenate([part.owner + np.int32(at) for part, at in zip(parts, write_at, strict=False)]),
        np.concatenate([part.row for part in parts]),
        _shifted([part.headings for part in parts], row_at),
    )


def joined(sources: Sequence[Source], dropped: set[str], max_rows: int, dimension: int) -> Iterator[VectorRows]:
    """The writes of all sources but the dropped ones, each once, in pieces of at most ``max_rows`` rows (but for a
    write that is longer by itself)."""
    piece: list[tuple[Source, NDArray[np.bool_]]] = []
    rows = 0
    for source, kept in zip(sources, _kept([source.columns for source in sources], dropped), strict=True):
        counts = source.columns.row_counts()
        mask = np.zeros(len(kept), np.bool_)
        for number in np.flatnonzero(kept).tolist():
            count = int(counts[number])
            if rows and rows + count > max_rows:
                yield _gathered([*piece, (source, mask)], dimension)
                piece, rows, mask = [], 0, np.zeros(len(kept), np.bool_)
            mask[number] = True
            rows += count
        piece.append((source, mask))
    if rows:
        yield _gathered(piece, dimension)


def _kept(parts: Sequence[Columns], dropped: set[str]) -> list[NDArray[np.bool_]]:
    """Which writes stay: of each id the newest copy."""
    newest: dict[str, tuple[float, int, int]] = {}
    for number, part in enumerate(parts):
        for place, (write_id, at) in enumerate(zip(part.ids(), part.written_at.tolist(), strict=True)):
            if write_id not in dropped and (write_id not in newest or newest[write_id][0] < at):
                newest[write_id] = (at, number, place)
    masks = [np.zeros(part.writes, np.bool_) for part in parts]
    for _, number, place in newest.values():
        masks[number][place] = True
    return masks


def _gathered(piece: Sequence[tuple[Source, NDArray[np.bool_]]], dimension: int) -> VectorRows:
    columns = concatenated([source.columns.take(mask) for source, mask in piece])
    vectors: Matrix = np.empty((columns.rows, dimension), np.float32)  # filled in turn: one copy in memory, not three
    at = 0
    for source, mask in piece:
        rows = np.flatnonzero(mask[source.columns.owner])
        vectors[at : at + len(rows)] = source.read(rows)
        at += len(rows)
    return VectorRows(columns, vectors)


def _having(labels: Mapping[str, Numbers], values: Iterable[str], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, np.bool_)
    for value in values:
        if (numbers := labels.get(value)) is not None:
            mask[numbers] = True
    return mask


def _renumbered(labels: Labels, kept: NDArray[np.bool_], number: Numbers) -> Labels:
    left = {value: number[numbers[kept[numbers]]] for value, numbers in labels.items()}
    return {value: numbers for value, numbers in left.items() if len(numbers)}


def _shifted(parts: Sequence[Labels], starts: NDArray[np.int64]) -> Labels:
    found: dict[str, list[Numbers]] = {}
    for labels, start in zip(parts, starts, strict=False):
        for value, numbers in labels.items():
            found.setdefault(value, []).append(numbers + np.int32(start))
    return {value: np.concatenate(numbers) for value, numbers in found.items()}


def _arrays(labels: Mapping[str, list[int]]) -> Labels:
    return {value: np.array(numbers, np.int32) for value, numbers in labels.items()}
