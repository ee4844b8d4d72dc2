"""Hybrid search over the embedded store."""

import asyncio
import sys
import textwrap
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch, Provenance
from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.embedding import Embedded, TextKind
from medkg.haystack.fusion import fuse
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.lexical import match_expression
from medkg.haystack.passage_database import store_path
from medkg.haystack.passage_reader import PassageReader
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.retrieval import HybridSearch
from medkg.haystack.segments import Segment, build_segment, read_manifest, segment_folder
from medkg.haystack.vectors.manifest import plan_merge
from medkg.haystack.writes import prepare

EMBEDDER = HashingEmbedder(64)
TENANT = "acme"
TEXTS = {
    "asthma": "Budesonide reduces exacerbations of asthma in adults.",
    "diabetes": "Metformin lowers blood glucose in type 2 diabetes.",
    "sepsis": "Early antibiotics improve survival in sepsis. IL-6 falls.",
    "caf\u00e9": "Un caf\u00e9 le matin n'est pas un traitement.",
}


def write(folder: Path, doc_id: str, *texts: str, revision: int = 1, sparse: bool = True, model: str = "") -> None:
    chunks = tuple(
        Chunk(
            f"{doc_id}-{number}",
            doc_id,
            number,
            text,
            ("Results", "Main"),
            (),
            9,
            title=f"About {doc_id}",
            provenance=Provenance("r", f"/{number}"),
            metadata={"source": "files", "source_id": doc_id},
        )
        for number, text in enumerate(texts)
    )
    batch = EmbeddingBatch(
        chunks=chunks,
        model=model or EMBEDDER.model,
        dimension=EMBEDDER.dimension,
        dense=EMBEDDER.vectors(texts, TextKind.PASSAGE).vectors.tobytes(),
        sparse=tuple(map(impacts, texts)) if sparse else (),
        sparse_model=IMPACTS if sparse else "",
    )
    ctx = StageContext(TENANT, doc_id, f"job-{revision}", content_key=f"g{revision}", revision=revision)
    store = PassageStore.open(store_path(folder, TENANT))
    try:
        assert store.write([prepare(ctx, batch)]) == ["written"]
    finally:
        store.close()


@pytest.fixture
async def search(tmp_path: Path) -> AsyncIterator[HybridSearch]:
    reader = HybridSearch(tmp_path)
    yield reader
    await reader.aclose()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    for doc_id, text in TEXTS.items():
        write(folder, doc_id, text)
    return folder


async def test_a_hit_says_what_it_is_and_how_it_was_found(filled: Path) -> None:
    search = HybridSearch(filled)
    answer = await search.search(TENANT, "metformin glucose", 2)
    await search.aclose()
    assert len(answer.hits) == 2
    hit = answer.hits[0]
    assert (hit.doc_id, hit.title, hit.source, hit.source_id) == ("diabetes", "About diabetes", "files", "diabetes")
    assert (hit.section_path, hit.text) == (("Results", "Main"), TEXTS["diabetes"])
    assert hit.provenance == Provenance("r", "/0")
    assert hit.legs == {"bm25": 1, "dense": 1, "sparse": 1}
    assert hit.score == pytest.approx((1 + 0.01 + 0.3) / 6)
    assert answer.legs_missing == ()


@pytest.mark.parametrize(
    ("query", "doc_id"),
    [
        ("reducing exacerbation", "asthma"),  # other endings
        ("il-6", "sepsis"),  # a compound
        ("CAFE", "caf\u00e9"),  # case and accents
        ("about diabetes", "diabetes"),  # the title
        ("what is the survival of the", "sepsis"),  # stop words beside a telling one
    ],
)
async def test_passages_are_found_by_the_words_people_use(filled: Path, query: str, doc_id: str) -> None:
    search = HybridSearch(filled)
    assert (await search.search(TENANT, query)).hits[0].doc_id == doc_id
    await search.aclose()


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.sampled_from(list("\"'*()^:-+{}ANDORNEAR \x00;%_\\?,.asthma")), max_size=60),
    st.sampled_from(
        ['"', '""', "NEAR(a b)", "title:x", "a AND", "*", "'; DROP TABLE passages; --", "x" * 9999, "a " * 5000]
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(HOSTILE)
def test_no_query_is_read_as_syntax(filled: Path, query: str) -> None:
    async def ask() -> None:
        search = HybridSearch(filled, threads=1)
        answer = await search.search(TENANT, query)
        assert len(answer.hits) <= 10
        await search.aclose()

    asyncio.run(ask())


def test_an_expression_is_bounded_and_every_word_quoted() -> None:
    assert match_expression('asthma" OR "x') == '"asthma" OR "or" OR "x"'.replace('"or" OR ', "")
    assert match_expression("the of") == '"the" OR "of"'
    assert match_expression("\u2014 ()") == ""
    assert match_expression(" ".join(f"w{n}" for n in range(500))).count(" OR ") == 63


async def test_a_tenant_without_an_index_and_an_empty_question_get_an_empty_answer(
    search: HybridSearch, tmp_path: Path
) -> None:
    assert (await search.search("nobody", "asthma")).hits == ()
    unmade = store_path(tmp_path, "just-begun")
    unmade.parent.mkdir(parents=True)
    unmade.touch()
    assert (await search.search("just-begun", "asthma")).hits == ()
    write(tmp_path, "asthma", TEXTS["asthma"])
    for query, limit in (("", 10), ("  ", 10), ("asthma", 0)):
        assert (await search.search(TENANT, query, limit)).hits == ()


async def test_what_another_process_commits_is_found_and_what_it_has_not_is_not(
    search: HybridSearch, tmp_path: Path
) -> None:
    write(tmp_path, "asthma", TEXTS["asthma"])
    assert len((await search.search(TENANT, "sepsis")).hits) == 1
    program = """
        import importlib.util, sys
        from pathlib import Path
        spec = importlib.util.spec_from_file_location("this_module", sys.argv[2])
        this_module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(this_module)
        this_module.write(Path(sys.argv[1]), "sepsis", this_module.TEXTS["sepsis"])
        store = this_module.PassageStore.open(this_module.store_path(Path(sys.argv[1]), this_module.TENANT))
        store._connection.execute("BEGIN IMMEDIATE")
        store._connection.execute("DELETE FROM passages")
        print("the deletion is not committed", flush=True)
        sys.stdin.read()
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), str(tmp_path), __file__, stdin=PIPE, stdout=PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"the deletion is not committed\n"
    assert (await search.search(TENANT, "sepsis survival")).hits[0].doc_id == "sepsis"
    await asyncio.wait_for(child.communicate(b""), timeout=30)


async def test_without_an_embedder_for_its_model_an_index_is_searched_by_words(tmp_path: Path) -> None:
    write(tmp_path, "asthma", TEXTS["asthma"], model="openai:qwen/64", sparse=False)
    search = HybridSearch(tmp_path)
    answer = await search.search(TENANT, "asthma")
    assert answer.legs_missing == ("dense", "sparse")
    assert answer.hits[0].legs == {"bm25": 1}
    await search.aclose()


async def test_a_model_server_that_is_down_costs_the_dense_leg_only(tmp_path: Path) -> None:
    class Down:
        model, dimension = "openai:qwen/64", 64

        async def embed(self, texts: Sequence[str], kind: TextKind) -> Embedded:
            raise ResourceUnavailableError("down")

    write(tmp_path, "asthma", TEXTS["asthma"], model=Down.model)
    search = HybridSearch(tmp_path, embedder_of=lambda model: Down() if model == Down.model else None)
    answer = await search.search(TENANT, "asthma")
    assert (answer.legs_missing, len(answer.hits)) == (("dense",), 1)
    await search.aclose()


async def test_the_same_text_twice_in_a_document_is_shown_once(search: HybridSearch, tmp_path: Path) -> None:
    write(tmp_path, "asthma", TEXTS["asthma"], TEXTS["asthma"], TEXTS["sepsis"])
    assert len((await search.search(TENANT, "asthma")).hits) == 2


async def test_the_order_does_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    answers = []
    for number, names in enumerate((range(30), reversed(range(30)))):
        folder = tmp_path / str(number)
        for name in names:
            write(folder, f"d{name}", "Equal words about asthma.")
        search = HybridSearch(folder)
        answers.append([(hit.chunk_id, hit.score) for hit in (await search.search(TENANT, "asthma", 20)).hits])
        await search.aclose()
    assert len(answers[0]) == 20
    assert answers[0] == answers[1]


async def test_segments_and_tail_together_find_what_an_exact_search_finds(search: HybridSearch, tmp_path: Path) -> None:
    path = store_path(tmp_path, TENANT)
    for number in range(60):
        write(tmp_path, f"d{number}", f"alpha{number} beta{number % 7} gamma{number % 3}")
        if number in (20, 40, 50):
            assert build_segment(path, 8)
            await search.search(TENANT, "alpha")  # a reader that saw older segments
    for number in range(0, 60, 2):
        write(tmp_path, f"d{number}", f"changed{number} beta{number % 7}", revision=2)
    manifest = read_manifest(segment_folder(path), facts(path)["store_id"])
    assert manifest is not None
    assert 0 < manifest.last_id < 90
    stored = HybridSearch(tmp_path).export_passages(TENANT)
    for query in ("alpha3 beta2 gamma0", "changed4 beta4", "beta1"):
        vector = EMBEDDER.vectors([query], TextKind.QUERY).vectors[0]
        exact = EMBEDDER.vectors([p.chunk.text for p in stored], TextKind.PASSAGE).vectors @ vector
        best = sorted((-float(score), p.chunk.text) for score, p in zip(exact, stored, strict=True))[:5]
        for reader in (search, HybridSearch(tmp_path)):
            hits = (await reader.search(TENANT, query, 100)).hits
            found = sorted((hit for hit in hits if "dense" in hit.legs), key=lambda hit: hit.legs["dense"])
            by_text = {p.chunk.text: float(s) for p, s in zip(stored, exact, strict=True)}
            assert [by_text[hit.text] for hit in found[:5]] == pytest.approx([-score for score, _ in best], abs=1e-5)
            assert len(hits) == 60
    assert search.verify(TENANT) == []


async def test_damaged_or_foreign_segments_are_not_believed(tmp_path: Path) -> None:
    path = store_path(tmp_path, TENANT)
    for doc_id, text in TEXTS.items():
        write(tmp_path, doc_id, text)
    assert build_segment(path, 1)
    (segment,) = segment_folder(path).glob("*.faiss")
    segment.write_bytes(b"damaged")
    search = HybridSearch(tmp_path)
    assert (await search.search(TENANT, "asthma")).hits[0].legs["dense"] == 1
    assert any("cannot be read" in problem for problem in search.verify(TENANT))
    await search.aclose()
    # a new database under the name of one that was deleted
    for old in path.parent.glob("passages.sqlite*"):
        old.unlink()
    write(tmp_path, "asthma", TEXTS["asthma"])
    assert read_manifest(segment_folder(path), facts(path)["store_id"]) is None
    assert len((await HybridSearch(tmp_path).search(TENANT, "sepsis")).hits) == 1


async def test_a_deleted_store_is_noticed(search: HybridSearch, tmp_path: Path) -> None:
    write(tmp_path, "asthma", TEXTS["asthma"])
    assert (await search.search(TENANT, "asthma")).hits
    for file in store_path(tmp_path, TENANT).parent.glob("passages.sqlite*"):
        file.unlink()
    assert (await search.search(TENANT, "asthma")).hits == ()
    write(tmp_path, "sepsis", TEXTS["sepsis"])
    assert [hit.doc_id for hit in (await search.search(TENANT, "asthma")).hits] == ["sepsis"]


async def test_searches_beside_a_writer_see_whole_documents(search: HybridSearch, tmp_path: Path) -> None:
    write(tmp_path, "d", *(f"asthma revision 1 part {n}" for n in range(4)))
    stop = threading.Event()

    def rewrite() -> None:
        revision = 2
        while not stop.is_set():
            write(tmp_path, "d", *(f"asthma revision {revision} part {n}" for n in range(4)), revision=revision)
            if revision % 5 == 0:
                build_segment(store_path(tmp_path, TENANT), 2)
            revision += 1

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(40):
            answers = await asyncio.gather(*(search.search(TENANT, "asthma revision") for _ in range(4)))
            for answer in answers:
                assert len(answer.hits) == 4
                assert len({hit.text.split()[2] for hit in answer.hits}) == 1
    finally:
        stop.set()
        writer.join(timeout=30)
    assert search.verify(TENANT) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM vectors WHERE id = 1", "1 passages without a vector"),
        ("DELETE FROM postings WHERE id = 1", "postings where the passages have"),
        ("DELETE FROM documents", "passages without a document"),
        ("UPDATE documents SET passages = 7", "another number of passages"),
        ("UPDATE passages SET text = 'other words'", "full-text index"),
        ("UPDATE vectors SET vector = zeroblob(256)", "holds another vector of passage 1"),
    ],
)
def test_a_store_that_contradicts_itself_is_found_out(tmp_path: Path, damage: str, said: str) -> None:
    path = store_path(tmp_path, TENANT)
    write(tmp_path, "asthma", TEXTS["asthma"])
    build_segment(path, 1)
    assert HybridSearch(tmp_path).verify(TENANT) == []
    store = PassageStore.open(path)
    store._connection.execute(damage)
    store.close()
    assert any(said in problem for problem in HybridSearch(tmp_path).verify(TENANT))


@given(st.lists(st.integers(1, 5000), max_size=8), st.integers(1, 5000))
def test_a_merge_keeps_a_prefix_of_segments_that_are_much_longer_than_what_follows(
    lengths: list[int], tail: int
) -> None:
    segments = tuple(Segment(f"{n}", n, n + 1, rows) for n, rows in enumerate(lengths))
    kept = plan_merge(segments, tail, 8000)
    assert kept == segments[: len(kept)]
    merged = tail + sum(segment.rows for segment in segments[len(kept) :])
    assert merged <= max(8000, tail)
    assert not kept or kept[-1].rows > 2 * merged or kept[-1].rows + merged > 8000


def test_segments_grow_in_number_by_the_logarithm_of_what_comes() -> None:
    segments: tuple[Segment, ...] = ()
    written = 0
    for number in range(1000):
        kept = plan_merge(segments, 10, 10**9)
        rows = 10 + sum(segment.rows for segment in segments[len(kept) :])
        written += rows
        segments = (*kept, Segment(f"{number}", number, number + 1, rows))
    assert len(segments) <= 10
    assert written < 10 * 1000 * 12


def test_only_one_process_builds_segments_at_a_time(tmp_path: Path) -> None:
    import fcntl

    path = store_path(tmp_path, TENANT)
    write(tmp_path, "asthma", TEXTS["asthma"])
    assert not build_segment(path, 100)
    folder = segment_folder(path)
    with (folder / "merge.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not build_segment(path, 1)
    assert build_segment(path, 1)


def test_fusion_is_reciprocal_rank_and_equal_scores_share_a_rank() -> None:
    fused = fuse({"a": [(1, 9.0), (2, 8.0), (3, 8.0), (4, 1.0)], "b": [(3, 0.5), (1, 0.4)]}, {"b": 0.5})
    assert [entry.item for entry in fused] == [1, 3, 2, 4]
    assert fused[0].score == pytest.approx(1 / 61 + 0.5 / 62)
    assert fused[0].ranks == {"a": 1, "b": 2}
    assert [entry.ranks.get("a") for entry in fused] == [1, 2, 2, 4]


def facts(path: Path) -> dict[str, str]:
    store = PassageStore.open(path)
    found = dict(store._connection.execute("SELECT key, value FROM store"))
    store.close()
    return found


def test_a_moment_counts_the_passages_that_it_sees_whoever_wrote_them(tmp_path: Path) -> None:
    write(tmp_path, "asthma", TEXTS["asthma"])
    reader = PassageReader(store_path(tmp_path, TENANT))
    with reader.snapshot() as before:
        write(tmp_path, "sepsis", TEXTS["sepsis"], TEXTS["diabetes"])
        with reader.snapshot() as after:
            assert (before.passages, after.passages) == (1, 3)
    with reader.snapshot() as first, reader.snapshot() as second:  # both connections, again
        assert (first.passages, second.passages) == (3, 3)
    reader.close()
