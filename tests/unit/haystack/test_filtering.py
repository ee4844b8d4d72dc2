"""A filtered search finds what is left of an unfiltered one, whichever way it goes about it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch
from medkg.haystack import filtering
from medkg.haystack.filtering import Sieve
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.lexical import search_lexical
from medkg.haystack.passage_reader import PassageReader, Snapshot
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.segments import build_segment
from medkg.haystack.sparse import search_sparse
from medkg.haystack.stores import Filters
from medkg.haystack.writes import DocumentWrite, prepare

DOCUMENTS, DIMENSION = 90, 16
RANDOM = np.random.default_rng(5)
WORDS = ("asthma", "sepsis", "care", "children", "placebo", "dose")
SOURCES, CONDITIONS, SECTIONS = ("files", "trials", "rare"), ("asthma", "copd", "rare"), ("abstract", "results", "rare")
YEARS = range(1999, 2006)
Found = list[tuple[int, float]]


def _one_of(names: tuple[str, ...]) -> str:
    """The first half the time, the last seldom."""
    return str(RANDOM.choice(names, p=(0.55, 0.43, 0.02)))


def _metadata(number: int) -> Metadata:
    known: Metadata = {
        "source": _one_of(SOURCES),
        "source_id": f"{number}",
        "condition": "|".join({_one_of(CONDITIONS), _one_of(CONDITIONS)}),
        "phase": f"PHASE{RANDOM.integers(1, 4)}",
        "retracted": bool(RANDOM.random() < 0.1),
    }
    return known if RANDOM.random() < 0.1 else {**known, "year": int(RANDOM.choice(YEARS))}


def _write(number: int, revision: int) -> DocumentWrite:
    known = _metadata(number)
    chunks = tuple(
        Chunk(
            *(f"{number}-{revision}-{n}", f"d{number}", n, " ".join(RANDOM.choice(WORDS, 12))),
            ("Body", _one_of(SECTIONS).title()),
            *((), 12),
            metadata=known,
        )
        for n in range(RANDOM.integers(1, 6))
    )
    vectors = RANDOM.normal(size=(len(chunks), DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    batch = EmbeddingBatch(
        chunks=chunks,
        model="random",
        dimension=DIMENSION,
        dense=vectors.astype("<f4").tobytes(),
        sparse=tuple(impacts(chunk.text) for chunk in chunks),
        sparse_model=IMPACTS,
    )
    generation = f"{number} {revision}"
    return prepare(StageContext("t", f"d{number}", "job", content_key=generation, revision=revision), batch)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents with every facet, some of them written again: in segments, behind them, and deleted since."""
    path: Path = tmp_path_factory.mktemp("filtering") / "passages.sqlite"
    with closing(PassageStore.open(path)) as writer:
        writer.write([_write(number, 1) for number in range(DOCUMENTS)])
        build_segment(path, 1)
        writer.write([_write(number, 2) for number in range(0, DOCUMENTS, 4)])
    return path


@pytest.fixture
def moment(store: Path) -> Iterator[Snapshot]:
    reader = PassageReader(store)
    with reader.snapshot() as moment:
        yield moment
    reader.close()


def legs(moment: Snapshot, words: list[str], limit: int, sieve: Sieve | None) -> list[Found]:
    vector = np.random.default_rng(len(words)).normal(size=DIMENSION)
    return [
        search_lexical(moment.connection, " ".join(words), limit, sieve),
        search_sparse(moment.connection, dict.fromkeys(words, 1.5), limit, sieve),
        moment.dense(vector / np.linalg.norm(vector), limit, sieve),
    ]


def let_through(connection: sqlite3.Connection, filters: Filters) -> set[int]:
    """By brute force: the meaning of each filter in Python, on every passage of the store."""
    labels: dict[tuple[str, str], set[str]] = {}
    for doc_id, kind, value in connection.execute("SELECT * FROM labels"):
        labels.setdefault((doc_id, kind), set()).add(value)
    wanted = {"condition": set(filters.conditions), "phase": set(filters.phases)}
    return {
        passage
        for passage, doc_id, headings, source, year, retracted in connection.execute(
            "SELECT id, doc_id, headings, source, year, retracted FROM passages JOIN documents USING (doc_id)"
        )
        if (not filters.sources or source in filters.sources)
        and (filters.year_from is None or (year is not None and year >= filters.year_from))
        and (filters.year_to is None or (year is not None and year <= filters.year_to))
        and (not filters.sections or set(headings.split("\n")) & set(filters.sections))
        and all(not values or values & labels.get((doc_id, kind), set()) for kind, values in wanted.items())
        and (filters.retracted is None or bool(retracted) is filters.retracted)
    }


def _some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.just(()) | st.lists(st.sampled_from(names), unique=True, max_size=2).map(tuple)


FILTERS = st.builds(
    Filters,
    sources=_some(SOURCES),
    year_from=st.none() | st.sampled_from(YEARS),
    year_to=st.none() | st.sampled_from(YEARS),
    sections=_some((*SECTIONS, "body")),
    conditions=_some(CONDITIONS),
    phases=_some(("phase1", "phase2", "phase9")),
    retracted=st.none() | st.booleans(),
).filter(bool)
# looked up or listed as the sample says, always looked up, always listed, and looked up in vain at first
WAYS = [(filtering._BROAD, filtering._SPARE), (1e-9, filtering._SPARE), (2.0, filtering._SPARE), (1e-9, 0.3)]


@pytest.mark.parametrize(("broad", "spare"), WAYS)
def test_a_filtered_search_finds_the_best_that_the_filter_leaves_of_an_unfiltered_one(
    moment: Snapshot, monkeypatch: pytest.MonkeyPatch, broad: float, spare: float
) -> None:
    monkeypatch.setattr(filtering, "_BROAD", broad)
    monkeypatch.setattr(filtering, "_SPARE", spare)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(FILTERS, st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True), st.integers(0, 60))
    def check(filters: Filters, words: list[str], limit: int) -> None:
        passing = let_through(moment.connection, filters)
        everything = legs(moment, words, 10_000, None)
        for found, unfiltered in zip(legs(moment, words, limit, moment.sieve(filters)), everything, strict=True):
            expected = [scored for scored in unfiltered if scored[0] in passing][:limit]
            assert [item for item, _ in found] == [item for item, _ in expected]
            assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)

    check()


def test_what_a_filter_lets_through_is_found_out_once_for_all_searches_of_a_moment(moment: Snapshot) -> None:
    for filters in (Filters(sources=("files",)), Filters(sections=("rare",))):
        asked: list[str] = []
        moment.connection.set_trace_callback(asked.append)
        for _ in range(2):
            legs(moment, ["asthma"], 10, moment.sieve(filters))
        moment.connection.set_trace_callback(None)
        assert sum("max(id)" in statement for statement in asked) == 1
        assert sum(statement.startswith("SELECT p.id FROM passages p WHERE 1") for statement in asked) <= 1


def test_the_share_of_a_filter_is_about_its_part_of_the_passages_there_are(moment: Snapshot) -> None:
    for filters in (Filters(sources=("files",)), Filters(conditions=("copd",)), Filters(sections=("rare",))):
        assert Sieve(moment.connection, filters).share == pytest.approx(
            len(let_through(moment.connection, filters)) / moment.passages, abs=0.12
        )


def test_a_store_of_before_gets_the_index_that_filters_by_section_read(store: Path) -> None:
    def plan() -> str:
        with closing(sqlite3.connect(store)) as connection:
            sql = "EXPLAIN QUERY PLAN SELECT p.id FROM passages p WHERE 1 AND (instr(p.headings, ?))"
            return str(connection.execute(sql, ("rare",)).fetchall())

    with closing(sqlite3.connect(store)) as connection:
        connection.execute("DROP INDEX passages_by_heading")
    assert "INDEX" not in plan()
    PassageStore.open(store).close()
    assert "COVERING INDEX passages_by_heading" in plan()
