"""Vectors in the blob store: rows and filters, merges, the cache, and bytes that are not what they should be."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.haystack.vectors_kit import DIMENSION, Clock, KnownHeads, MemoryBlobs, write_of

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack import graphs
from medkg.haystack.graphs import SegmentKind
from medkg.haystack.stores import NO_FILTERS, Filters
from medkg.haystack.vectors import folder as folder_module
from medkg.haystack.vectors.cache import SegmentCache
from medkg.haystack.vectors.checking import read_contents
from medkg.haystack.vectors.encoding import decode, encode
from medkg.haystack.vectors.folder import SegmentBlobs, VectorFolder
from medkg.haystack.vectors.log import VectorLog
from medkg.haystack.vectors.manifest import Manifest, Segment, delta_name, plan_merge, read_delta_name, read_manifest
from medkg.haystack.vectors.merging import Merger, NothingIsVisible
from medkg.haystack.vectors.reader import VectorReader
from medkg.haystack.vectors.rows import VectorRows, concatenated, joined, rows_of
from medkg.haystack.vectors.store import vector_store
from medkg.haystack.vectors.view import TailBlock, VectorView, added
from medkg.haystack.writes import DocumentWrite, Facets, label, phases_in
from medkg.runtime.blobs import open_blobs

ALIAS = "medkg-0123"
QUERY = np.array([1, 0, 0, 0], np.float32)


def write_id(number: int) -> str:
    return f"{number:032x}"


def rows_for(*writes: DocumentWrite, now: float = 1.0, start: int = 0) -> VectorRows:
    return rows_of([(write_id(start + number), write) for number, write in enumerate(writes)], now)


class Machine:
    """A process on a machine of its own: it shares the blob store with others, and nothing else."""

    def __init__(self, blobs: SegmentBlobs, folder: Path, heads: KnownHeads | None = None) -> None:
        store = vector_store(blobs, folder)
        self.folder = store.folder(ALIAS, "model", DIMENSION)
        self.cache = store.cache
        self.heads = heads or NothingIsVisible()
        self.log = VectorLog(self.folder, self.cache, self.heads, segment_rows=1)
        self.reader = VectorReader(self.folder, self.cache)

    def merger(self, leftover_seconds: float = -1.0) -> Merger:
        return Merger(self.folder, self.cache, self.heads, leftover_seconds=leftover_seconds)

    async def put(self, number: int, rows: int = 2) -> None:
        await self.log.put([(write_id(number), write_of(f"d{number}", rows))])

    async def found(self) -> set[tuple[str, int]]:
        return rows_in(await self.reader.view())


def rows_in(view: VectorView) -> set[tuple[str, int]]:
    found, is_all = view.search(QUERY, 1_000, NO_FILTERS)
    assert is_all
    return {(hit.write_id, hit.row) for hit in found}


def rows_named(*numbers: int, rows: int = 2) -> set[tuple[str, int]]:
    return {(write_id(number), row) for number in numbers for row in range(rows)}


@pytest.fixture(params=["fake", "memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> SegmentBlobs:
    if request.param == "fake":
        return MemoryBlobs(Clock())
    return open_blobs("memory:" if request.param == "memory" else (tmp_path / "blobs").as_uri())


# what a blob store must do


async def test_of_two_who_create_an_object_one_is_told_that_it_is_there(blobs: SegmentBlobs) -> None:
    told = await asyncio.gather(*(blobs.create("index/a/1", bytes([n])) for n in range(8)))
    assert sorted(told) == [False] * 7 + [True]
    assert await blobs.get("index/a/1") == bytes([told.index(True)])
    await blobs.replace("index/a/1", b"new")
    assert await blobs.get("index/a/1") == b"new"


async def test_a_listing_has_what_was_put_and_not_what_was_removed(blobs: SegmentBlobs, tmp_path: Path) -> None:
    for key in ("index/a/1", "index/a/2", "index/ab/3", "index/b/4"):
        await blobs.create(key, b"xy")
    await blobs.delete("index/a/1")
    await blobs.delete("index/a/1")
    assert [(key, size) async for key, size, _ in blobs.list("index/a")] == [("index/a/2", 2)]
    assert [key async for key, _, _ in blobs.list("index/none")] == []
    assert await blobs.fetch_file("index/a/2", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == b"xy"
    assert not await blobs.fetch_file("index/a/1", tmp_path / "one")
    await blobs.make_durable("index/a/2")


# rows and filters

FACETS = st.builds(
    Facets,
    source=st.sampled_from(["", "a", "b"]),
    year=st.none() | st.integers(1990, 1995),
    conditions=st.lists(st.sampled_from(["asthma", "copd"]), unique=True).map(tuple),
    phases=st.lists(st.sampled_from(["phase1", "phase2"]), unique=True).map(tuple),
    retracted=st.booleans(),
)
WRITES = st.lists(
    st.builds(write_of, st.just("d"), st.integers(0, 3), FACETS, st.sampled_from([(), ("results",), ("results", "x")])),
    min_size=1,
    max_size=8,
)
FILTERS = st.builds(
    Filters,
    sources=st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=2).map(tuple),
    year_from=st.none() | st.integers(1989, 1996) | st.just(10**30),
    year_to=st.none() | st.integers(1989, 1996) | st.just(-(10**30)),
    sections=st.lists(st.sampled_from(["Results", "x", "y"]), max_size=2).map(tuple),
    conditions=st.lists(st.sampled_from(["ASTHMA", "copd", "z"]), max_size=2).map(tuple),
    phases=st.lists(st.sampled_from(["Phase 1", "phase2"]), max_size=2).map(tuple),
    retracted=st.none() | st.booleans(),
)


def kept_by(write: DocumentWrite, filters: Filters) -> bool:
    """What :class:`Filters` says, in plain words."""
    facets, headings = write.facets, write.rows[0].headings
    year = facets.year
    return (
        (not filters.sources or facets.source in filters.sources)
        and (filters.year_from is None or (year is not None and year >= filters.year_from))
        and (filters.year_to is None or (year is not None and year <= filters.year_to))
        and (not filters.sections or any(label(s) in headings for s in filters.sections))
        and (not filters.conditions or any(label(c) in facets.conditions for c in filters.conditions))
        and (not filters.phases or any(p in facets.phases for given in filters.phases for p in phases_in(given)))
        and (filters.retracted is None or facets.retracted == filters.retracted)
    )


@settings(max_examples=60, deadline=None)
@given(WRITES, FILTERS, st.integers(0, 255))
def test_filters_let_through_what_they_say_however_rows_were_stored_and_joined(
    writes: list[DocumentWrite], filters: Filters, dropped: int
) -> None:
    half = len(writes) // 2 or 1
    parts = [rows_for(*part, start=at) for at, part in ((0, writes[:half]), (half, writes[half:])) if part]
    restored = [VectorRows(*decode(encode(p.columns, p.vectors, DIMENSION), DIMENSION)) for p in parts]
    gone = {write_id(n) for n in range(len(writes)) if dropped >> n & 1}
    left = [(n, w) for n, w in enumerate(writes) if write_id(n) not in gone]
    pieces = list(joined(restored, gone, 4, DIMENSION))
    assert all(piece.columns.rows <= 4 for piece in pieces)
    for whole in [concatenated([piece.columns for piece in pieces])] if pieces else []:
        ids = whole.ids()
        allowed = [(ids[whole.owner[row]], int(whole.row[row])) for row in whole.allowed(filters)]
        wanted = [(write_id(n), row) for n, w in left for row in range(len(w.rows)) if w.rows and kept_by(w, filters)]
        assert sorted(allowed) == sorted(wanted)
    vectors = b"".join(piece.vectors.tobytes() for piece in pieces)
    assert vectors == b"".join(row.vector for _, w in left for row in w.rows)


def test_of_a_write_that_was_stored_twice_the_newest_copy_stays_whole() -> None:
    old, new = rows_for(write_of("d", 3), now=1.0), rows_for(write_of("e", 2), now=2.0)
    for order in itertools.permutations((old, new)):
        (piece,) = joined(order, set(), 100, DIMENSION)
        assert piece.columns.ids() == [write_id(0)]
        assert np.array_equal(piece.vectors, new.vectors)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_bytes_that_are_no_rows_are_refused(cut: bytes | int, other: bytes) -> None:
    rows = rows_for(write_of("d", 2, Facets("a", 1990, ("asthma",)), ("results",)))
    data = encode(rows.columns, rows.vectors, DIMENSION)
    if isinstance(cut, bytes):
        hostile = cut
    else:
        at = cut % len(data)
        hostile = data[:at] + other + data[at + len(other) :]
    try:
        columns, vectors = decode(hostile, DIMENSION)
    except ValueError:
        return
    # whatever was read can be searched without reaching outside of it
    assert len(columns.ids()) == columns.writes
    assert len(vectors) in (0, columns.rows)
    columns.allowed(Filters(sources=("a",), sections=("results",), conditions=("asthma",)))


def test_rows_of_another_dimension_are_refused() -> None:
    rows = rows_for(write_of("d", 2))
    with pytest.raises(ValueError, match="dimension 4"):
        decode(encode(rows.columns, rows.vectors, DIMENSION), 8)


# names and manifests


def segment(rows: int) -> Segment:
    return Segment("0" * 16, "a" * 64, 1, "b" * 64, 1, rows)


def test_only_names_that_a_writer_gives_are_read_as_deltas() -> None:
    name = delta_name(3, "a" * 64, 1.5)
    read = read_delta_name(name)
    assert read is not None
    assert (read.rows, read.written_ms, read.digest) == (3, 1500, "a" * 64)
    for other in ("", name + ".tmp", name.upper(), "../" + name, name.replace("-3-", "--3-")):
        assert read_delta_name(other) is None


@pytest.mark.parametrize(
    "wrong",
    [b"", b"{", b"[]", b'{"segments": 3}'],
)
def test_a_manifest_that_cannot_be_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="not a manifest"):
        read_manifest(wrong)


@pytest.mark.parametrize("field", [{"name": "../../../etc/passwd"}, {"index_digest": "../x"}, {"rows": 0}])
def test_a_manifest_with_a_hostile_segment_is_refused(field: dict[str, str | int]) -> None:
    hostile = Manifest(1, segments=(msgspec.structs.replace(segment(1), **field),))
    with pytest.raises(ValueError, match="not a manifest"):
        read_manifest(msgspec.json.encode(hostile))


def test_lengths_of_segments_fall_geometrically() -> None:
    segments: tuple[Segment, ...] = ()
    written = 0
    for _ in range(1_000):
        kept = plan_merge(segments, 10, 10**9)
        merged = 10 + sum(s.rows for s in segments[len(kept) :])
        written += merged
        segments = (*kept, segment(merged))
    assert sum(s.rows for s in segments) == 10_000
    assert len(segments) < 12
    assert written < 10_000 * 12


# writers, readers and merges on machines of their own


async def test_a_reader_that_shares_only_the_blob_store_finds_what_was_written_before_it_asked(
    blobs: SegmentBlobs, tmp_path: Path
) -> None:
    writer, reader = Machine(blobs, tmp_path / "w"), Machine(blobs, tmp_path / "r")
    assert await reader.found() == set()
    for number in range(1, 8):
        await writer.put(number)
        assert await reader.found() == rows_named(*range(1, number + 1))
        if number % 3 == 0:
            assert await writer.log.merge()
            assert await reader.found() == rows_named(*range(1, number + 1))
    assert list((tmp_path / "r" / "index-cache").iterdir())
    contents = await read_contents(reader.folder, reader.cache, lambda _: None)
    assert (contents.rows, contents.problems) == ({write_id(n): 2 for n in range(1, 8)}, ())


async def test_merged_deltas_are_removed_and_few_segments_are_left(tmp_path: Path) -> None:
    blobs = MemoryBlobs(Clock())
    writer = Machine(blobs, tmp_path)
    for number in range(64):
        await writer.put(number)
        await writer.log.merge()
    state = await writer.folder.state()
    assert (state.tail, state.covered) == ((), ())
    assert state.manifest.rows == 128
    assert len(state.manifest.segments) < 8
    assert not [key for key in blobs.objects if "/deltas/" in key or "/leases/" in key]


async def test_two_writers_at_once_lose_nothing_and_one_manifest_follows_another(
    blobs: SegmentBlobs, tmp_path: Path
) -> None:
    writers = [Machine(blobs, tmp_path / str(n)) for n in range(2)]

    async def work(machine: Machine, numbers: range) -> None:
        for number in numbers:
            await machine.put(number)
            await machine.log.merge()

    await asyncio.gather(work(writers[0], range(20)), work(writers[1], range(20, 40)))
    assert await Machine(blobs, tmp_path / "r").found() == rows_named(*range(40))


async def test_a_merge_that_slept_while_others_went_on_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "GRACE_SECONDS", -1.0)
    blobs = MemoryBlobs(Clock())
    machine = Machine(blobs, tmp_path)
    await machine.put(1)
    asleep = await machine.folder.manifest()
    for number in range(2, 6):
        await machine.put(number)
        assert await machine.log.merge()
    numbers = [int(key[-17:-5]) for key in blobs.objects if "/manifests/" in key]
    assert 1 not in numbers  # the number that the sleeper wants is free again
    late = msgspec.structs.replace(asleep, number=1, token="late")
    assert not await machine.folder.publish(late)
    assert await Machine(blobs, tmp_path / "r").found() == rows_named(*range(1, 6))


async def test_an_answer_that_was_lost_on_the_way_does_not_make_a_merge_fail(tmp_path: Path) -> None:
    blobs = MemoryBlobs(Clock())
    folder = Machine(blobs, tmp_path).folder
    manifest = Manifest(1, "me", DIMENSION)
    assert await folder.publish(manifest)
    assert await folder.publish(manifest)  # sent again
    assert not await folder.publish(msgspec.structs.replace(manifest, token="another"))


async def test_a_merge_leaves_out_what_no_document_names_and_an_earlier_moment_still_finds_it(tmp_path: Path) -> None:
    heads = KnownHeads({"d": (write_id(1), 2)})
    blobs = MemoryBlobs(Clock())
    writer, reader = Machine(blobs, tmp_path / "w", heads), Machine(blobs, tmp_path / "r", heads)
    await writer.put(1)
    before = await reader.reader.view()
    # here a reader reads what documents name: write 1
    heads.heads["d"] = (write_id(2), 2)
    await writer.put(2)
    await writer.merger().compact()
    after = await reader.reader.view()
    assert rows_in(after) == rows_named(2)
    assert rows_in(after.with_what_was_in(before)) == rows_named(1, 2)


async def test_a_merge_keeps_writes_that_may_still_become_visible(tmp_path: Path) -> None:
    writer = Machine(MemoryBlobs(Clock()), tmp_path, KnownHeads())
    await writer.put(1)
    await writer.merger(leftover_seconds=600.0).compact()
    assert await writer.found() == rows_named(1)
    await writer.merger(leftover_seconds=-1.0).compact()
    assert await writer.found() == set()


async def test_when_most_vectors_are_invisible_a_merge_makes_all_segments_anew(tmp_path: Path) -> None:
    heads = KnownHeads()
    writer = Machine(MemoryBlobs(Clock()), tmp_path, heads)
    for number in range(1, 4):
        await writer.put(number, rows=40 // number)
        heads.heads["d"] = (write_id(number), 40 // number)
        await writer.merger().merge(1)
    state = await writer.folder.state()
    assert state.manifest.rows == 13
    assert state.manifest.compacted_at > 0


async def test_a_merge_begins_when_the_lease_of_one_that_died_has_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(0.0)
    machine = Machine(MemoryBlobs(clock), tmp_path)
    await machine.put(1)
    import time

    clock.now = time.time()
    assert await machine.folder.lease(1, "dead")
    assert not await machine.merger().merge(1)
    monkeypatch.setattr(folder_module, "LEASE_SECONDS", -1.0)
    assert await machine.merger().merge(1)


async def test_garbage_is_removed_when_nobody_can_need_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    clock = Clock(time.time())
    blobs = MemoryBlobs(clock)
    machine = Machine(blobs, tmp_path)
    await machine.put(1)
    await machine.merger().compact()
    young = {key for key in blobs.objects if "/segments/" in key}
    await machine.merger().compact()
    assert young < set(blobs.objects)  # a reader may be fetching it, or a merge be about to name it
    monkeypatch.setattr(folder_module, "GRACE_SECONDS", -1.0)
    monkeypatch.setattr(folder_module, "UNNAMED_SECONDS", -1.0)
    await machine.merger().compact()
    assert len([key for key in blobs.objects if "/segments/" in key]) == 2
    assert await Machine(blobs, tmp_path / "r").found() == rows_named(1)


@pytest.mark.parametrize("kind", [SegmentKind.FLAT, SegmentKind.HNSW, SegmentKind.IVF])
async def test_segments_of_every_kind_are_merged_again_without_a_change_in_any_vector(
    kind: SegmentKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "kind_for", lambda rows: kind)
    machine = Machine(MemoryBlobs(Clock()), tmp_path)
    write = write_of("d", 1_000)
    await machine.log.put([(write_id(1), write)])
    for _ in range(2):
        await machine.merger().compact()
        (loaded,) = (await machine.reader.view()).segments
        assert loaded.read(np.arange(1_000)).tobytes() == b"".join(row.vector for row in write.rows)
    vector = np.frombuffer(write.rows[7].vector, "<f4")
    view = await machine.reader.view()
    assert view.search(vector, 1, NO_FILTERS)[0][0][:2] == (write_id(1), 7)
    assert view.search(vector, 5, Filters(sources=("elsewhere",))) == ([], True)


# the tail in memory


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.sets(st.integers(0, 39)))
def test_the_tail_is_few_blocks_and_deltas_can_be_taken_out_of_it(sizes: list[int], gone: set[int]) -> None:
    tail: tuple[TailBlock, ...] = ()
    for number, rows in enumerate(sizes):
        tail = added(tail, str(number), rows_for(write_of(f"d{number}", rows), start=number))
    assert len(tail) < 8
    left = tuple(b for block in tail if (b := block.without(frozenset(map(str, gone)))) is not None)
    view = VectorView(Manifest(), (), left, 0.0)
    wanted = {(write_id(n), row) for n, rows in enumerate(sizes) if n not in gone for row in range(rows)}
    assert rows_in(view) == wanted
    assert view.deltas() == {str(n) for n in range(len(sizes)) if n not in gone}


# the cache, and bytes that are not those that were written


@pytest.fixture
async def merged(tmp_path: Path) -> AsyncIterator[tuple[MemoryBlobs, Machine]]:
    blobs = MemoryBlobs(Clock())
    writer = Machine(blobs, tmp_path / "w")
    await writer.put(1, rows=50)
    await writer.merger().compact()
    yield blobs, writer


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "longer", "removed"])
@pytest.mark.parametrize("which", [0, 1])
async def test_a_cached_segment_that_was_damaged_is_refused_and_fetched_again(
    merged: tuple[MemoryBlobs, Machine],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
    which: int,
) -> None:
    blobs, _ = merged
    reader = Machine(blobs, tmp_path / "r")
    expected = await reader.found()
    path = sorted(reader.cache.folder.iterdir(), key=lambda p: p.stat().st_size)[which]
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = {
        "truncated": whole[:middle],
        "changed": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "empty": b"",
        "longer": whole + b"x",
    }
    path.unlink()
    if damage in changed:
        path.write_bytes(changed[damage])
    assert await Machine(blobs, tmp_path / "r").found() == expected
    assert ("is refused: it" in caplog.text) == (damage != "removed")
    assert path.read_bytes() == whole


async def test_a_segment_that_is_damaged_in_the_blob_store_is_refused_and_named(
    merged: tuple[MemoryBlobs, Machine], tmp_path: Path
) -> None:
    blobs, _ = merged
    key = next(key for key in blobs.objects if key.endswith(".faiss"))
    data, at = blobs.objects[key]
    reader = Machine(blobs, tmp_path / "r")
    for hostile in (data[:-1], data[:-1] + b"\x00\x01", b"IxFI" + b"\xff" * (len(data) - 4)):
        blobs.objects[key] = (hostile, at)
        with pytest.raises(ContractError, match="in the blob store: it"):
            await reader.found()
        assert not list(reader.cache.folder.iterdir())
    contents = await read_contents(reader.folder, reader.cache, lambda _: None)
    assert key in contents.problems[0]
    del blobs.objects[key]
    with pytest.raises(ContractError, match="is not in the blob store"):
        await reader.found()
    contents = await read_contents(reader.folder, reader.cache, lambda _: None)
    assert "is missing" in contents.problems[0]


async def test_a_delta_or_manifest_that_is_damaged_is_refused_and_named(tmp_path: Path) -> None:
    blobs = MemoryBlobs(Clock())
    machine = Machine(blobs, tmp_path)
    await machine.put(1)
    (key,) = blobs.objects
    good = blobs.objects[key]
    blobs.objects[key] = (good[0][:-1], good[1])
    with pytest.raises(ContractError, match=key):
        await machine.found()
    contents = await read_contents(machine.folder, machine.cache, lambda _: None)
    assert key in contents.problems[0]
    blobs.objects[key] = good
    await machine.merger().compact()
    manifest = next(key for key in blobs.objects if "/manifests/" in key)
    blobs.objects[manifest] = (b"{}", 0.0)
    with pytest.raises(ContractError, match=manifest):
        await machine.found()
    assert manifest in (await read_contents(machine.folder, machine.cache, lambda _: None)).problems[0]


async def test_the_cache_stays_within_its_bound_and_what_was_removed_is_fetched_again(tmp_path: Path) -> None:
    blobs = MemoryBlobs(Clock())
    names = [f"tenant-{n}" for n in range(6)]
    writer = SegmentCache(tmp_path / "w")
    for number, name in enumerate(names):
        folder = VectorFolder(blobs, name, "model", DIMENSION)
        await VectorLog(folder, writer, NothingIsVisible(), 1).put([(write_id(1), write_of(f"d{number}", 200))])
        await Merger(folder, writer, NothingIsVisible()).compact()
    one = sum(path.stat().st_size for path in writer.folder.iterdir()) // len(names)
    small = SegmentCache(tmp_path / "r", max_bytes=3 * one)
    views = []
    for name in names + names:
        views.append(await VectorReader(VectorFolder(blobs, name, "model", DIMENSION), small).view())
        assert sum(path.stat().st_size for path in small.folder.iterdir()) <= 3 * one
    for view in views:  # mapped, although most of the files are gone
        assert rows_in(view) == rows_named(1, rows=200)
    none = SegmentCache(tmp_path / "n", max_bytes=0)
    assert rows_in(await VectorReader(VectorFolder(blobs, names[0], "model", DIMENSION), none).view())


async def test_files_that_a_killed_process_left_half_fetched_are_removed(
    merged: tuple[MemoryBlobs, Machine], tmp_path: Path
) -> None:
    reader = Machine(merged[0], tmp_path / "r")
    left, fresh = reader.cache.temporary(), reader.cache.temporary()
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    await reader.found()
    assert (left.exists(), fresh.exists()) == (False, True)


async def test_a_disk_that_is_full_is_a_failure_that_a_retry_may_mend(
    merged: tuple[MemoryBlobs, Machine], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    reader = Machine(merged[0], tmp_path / "file" / "below")
    with pytest.raises(ResourceUnavailableError, match="keeping"):
        await reader.found()


def test_tenants_and_models_have_folders_of_their_own() -> None:
    blobs = MemoryBlobs(Clock())
    roots = [
        VectorFolder(blobs, alias, model, dimension).root
        for alias, model, dimension in itertools.product(("a", "b"), ("m", "n", "\ud800"), (4, 8))
    ]
    assert len(set(roots)) == 12
