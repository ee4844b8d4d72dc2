"""One suite for every search store: embedded, OpenSearch with FAISS beside it, and OpenSearch with its k-NN fields.

With FAISS writers and readers share OpenSearch and the blob store, and nothing else: each has a cache of its own.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.stores_kit import (
    TENANT,
    Stores,
    document,
    embedded_stores,
    opensearch_stores,
    vector_of,
)

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import ConfigurationError, ContractError, PipelineConfigError
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.stores import NO_FILTERS, FieldWeights, Filters, PassageView, TermCounts
from medkg.haystack.writes import Stored

WRITTEN, UNCHANGED, SUPERSEDED = WriteOutcome.WRITTEN, WriteOutcome.UNCHANGED, WriteOutcome.SUPERSEDED
BACKENDS = [
    "embedded",
    pytest.param("opensearch-faiss", marks=pytest.mark.opensearch),
    pytest.param("opensearch-faiss-merging", marks=pytest.mark.opensearch),
    pytest.param("opensearch-knn", marks=pytest.mark.opensearch),
]


@pytest.fixture(params=BACKENDS)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "embedded":
        async with embedded_stores(tmp_path) as opened:
            yield opened
        return
    url, prefix = request.getfixturevalue("opensearch"), request.getfixturevalue("opensearch_prefix")
    folder = None if request.param == "opensearch-knn" else tmp_path
    rows = 4 if request.param == "opensearch-faiss-merging" else 4096
    async with opensearch_stores(url, prefix, folder, segment_rows=rows) as opened:
        yield opened


async def legs(view: PassageView, text: str, k: int = 100, filters: Filters = NO_FILTERS) -> list[list[str]]:
    """Texts that each kind of search finds."""
    found = await asyncio.gather(
        view.lexical(text, k, filters=filters),
        view.sparse(dict.fromkeys(text.split(), 1.0), k, filters=filters),
        view.dense(vector_of(text), k, filters=filters),
    )
    passages = await view.passages([hit.ref for leg in found for hit in leg])
    return [[passages[hit.ref].chunk.text for hit in leg] for leg in found]


async def all_texts(stores: Stores, text: str, tenant: str = TENANT, filters: Filters = NO_FILTERS) -> list[str]:
    """What a question finds, which must be the same set for all three kinds of search."""
    async with stores.index.view(tenant) as view:
        if view is None:
            return []
        lexical, sparse, dense = await legs(view, text, filters=filters)
        assert sorted(lexical) == sorted(sparse) == sorted(dense)
        return sorted(lexical)


async def test_a_document_is_found_by_words_terms_and_vectors_with_everything_it_was_given(stores: Stores) -> None:
    write = document("d1", "budesonide helped in asthma", "nothing else helped", path=("Results", "Main"))
    assert await stores.writer.replace(TENANT, write) is WRITTEN
    async with stores.index.view(TENANT) as view:
        assert view is not None
        assert (view.facts.model, view.facts.dimension) == (write.model, 64)
        alone, shared = (write.rows[0].postings[n][0] for n in (1, 2))
        for leg in (
            await view.lexical("budesonide", 10),
            await view.sparse({alone: 1.0}, 10),
            await view.dense(vector_of("budesonide helped in asthma"), 10),
        ):
            found = (await view.passages([leg[0].ref]))[leg[0].ref]
            assert found.chunk.text == "budesonide helped in asthma"
            assert (found.chunk.title, found.chunk.section_path) == ("Title of d1", ("Results", "Main"))
            assert found.chunk.metadata == {"source": "files", "source_id": "D1"}
            assert found.chunk.provenance is not None
            assert found.generation == write.generation
        assert await view.term_counts([shared, alone, "zebra"]) == TermCounts(2, {shared: 2, alone: 1})


async def test_scores_are_dot_products_of_terms_and_of_vectors(stores: Stores) -> None:
    write = document("d1", "asthma asthma care", "asthma in adults", "sepsis")
    await stores.writer.replace(TENANT, write)
    weights = [dict(row.postings) for row in write.rows]
    vectors = np.array([np.frombuffer(row.vector, "<f4") for row in write.rows])
    async with stores.index.view(TENANT) as view:
        assert view is not None
        sparse = await view.sparse({"asthma": 2.0, "adult": 0.5, "zebra": 9.0, "care": 0.0}, 10)
        expected = [2 * w.get("asthma", 0) + 0.5 * w.get("adult", 0) for w in weights]
        assert [hit.score for hit in sparse] == pytest.approx(sorted(filter(None, expected), reverse=True), rel=0.01)
        query = vector_of("asthma in adults")
        dense = await view.dense(query, 10)
        assert [hit.score for hit in dense] == pytest.approx(sorted((vectors @ query).tolist(), reverse=True), abs=1e-4)
        assert [hit.ref for hit in await view.dense(query, 2)] == [hit.ref for hit in dense[:2]]
        with pytest.raises(ContractError, match="dimension 64"):
            await view.dense(np.ones(32, np.float32), 10)


async def test_the_weight_of_a_field_decides_what_its_words_count(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("asthma", "care of airways"))
    await stores.writer.replace(TENANT, document("d2", "asthma is a disease"))
    async with stores.index.view(TENANT) as view:
        assert view is not None
        for weights, expected in (
            (FieldWeights(title=9, section=0, text=0.1), ["care of airways", "asthma is a disease"]),
            (FieldWeights(title=0.1, section=0, text=9), ["asthma is a disease", "care of airways"]),
            (FieldWeights(title=0, section=0, text=1), ["asthma is a disease"]),
        ):
            found = await view.lexical("asthma", 10, weights=weights)
            passages = await view.passages([hit.ref for hit in found])
            assert [passages[hit.ref].chunk.text for hit in found] == expected


ASKED = {
    "IL-6": "IL-6 falls in sepsis",
    "il-6 levels": "IL-6 falls in sepsis",
    "reducing exacerbation": "Budesonide reduces exacerbations of airways",
    "CAFE": "Un caf\u00e9 le matin",
    "p53": "Mutations of p53 are frequent",
    "COVID-19": "Spread of COVID-19 indoors",
}


async def test_biomedical_words_are_found_as_people_write_them(stores: Stores) -> None:
    for number, known in enumerate({*ASKED.values(), "p54 is another protein, il-7 too"}):
        await stores.writer.replace(TENANT, document(f"d{number}", known))
    async with stores.index.view(TENANT) as view:
        assert view is not None
        for query, text in ASKED.items():
            found = await view.lexical(query, 1)
            assert (await view.passages([found[0].ref]))[found[0].ref].chunk.text == text, query


FILTERED = [
    (Filters(sources=("trials",)), ["b"]),
    (Filters(sources=("trials", "files")), ["a", "b", "c"]),
    (Filters(year_from=2005), ["b", "c"]),
    (Filters(year_to=2005), ["a"]),
    (Filters(year_from=2001, year_to=2010), ["b"]),
    (Filters(sections=("methods",)), ["c"]),
    (Filters(sections=("RESULTS", "Body")), ["a", "b"]),
    (Filters(sections=("meth",)), []),
    (Filters(conditions=("ASTHMA",)), ["b"]),
    (Filters(conditions=("copd ", "none")), ["b"]),
    (Filters(phases=("phase3",)), ["b"]),
    (Filters(retracted=False), ["a", "b", "d", "d"]),
    (Filters(retracted=True), ["c"]),
    (Filters(sources=("files",), retracted=True, year_from=1999), ["c"]),
    (Filters(sources=("') OR 1=1 --",)), []),
    (Filters(year_from=10**30), []),
]


async def test_filters_leave_out_what_does_not_fit_in_every_kind_of_search(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("a", "word a", year=2000))
    trial = document(
        "b", "word b", path=("Results",), source="trials", year=2010, conditions="Asthma|COPD", phase="PHASE2/PHASE3"
    )
    await stores.writer.replace(TENANT, trial)
    await stores.writer.replace(TENANT, document("c", "word c", path=("X", "Methods"), year=2020, retracted=True))
    await stores.writer.replace(TENANT, document("d", "word d", "word d", path=("End",), source="other"))
    for filters, expected in FILTERED:
        assert await all_texts(stores, "word", filters=filters) == [f"word {name}" for name in expected], filters
    assert len(await all_texts(stores, "word")) == 5


async def test_neighbours_are_the_passages_around_one_of_the_same_document(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", *(f"text {n}" for n in range(6))))
    await stores.writer.replace(TENANT, document("d2", *(f"other {n}" for n in range(6))))
    async with stores.index.view(TENANT) as view:
        assert view is not None
        around = await view.neighbours("d1", 2, 1, 2)
        assert [passage.chunk.text for passage in around] == ["text 1", "text 2", "text 3", "text 4"]
        assert [p.chunk.text for p in await view.neighbours("d1", 0, 5, 0)] == ["text 0"]
        assert len(await view.neighbours("d1", 0, 10**9, 10**9)) == 6
        assert await view.neighbours("nothing", 0, 1, 1) == []


async def test_a_redelivery_changes_nothing_and_says_the_same(stores: Stores) -> None:
    write = document("d1", "word one")
    assert await stores.writer.replace(TENANT, write) is WRITTEN
    assert await stores.writer.replace(TENANT, write) is WRITTEN
    assert await all_texts(stores, "word") == ["word one"]
    assert await stores.writer.stored(TENANT, "d1") == Stored(write.generation, 1, "job")


async def test_a_redelivery_returns_when_searches_find_what_another_writer_wrote_a_moment_ago(stores: Stores) -> None:
    again = stores.writer_again()
    for number in range(5):
        write = document(f"d{number}", f"asthma {number}")
        first = asyncio.create_task(stores.writer.replace(TENANT, write))
        while await again.stored(TENANT, write.doc_id) is None:
            pass  # its writer has not made it durable yet, and dies right after it, before searches find it
        assert await again.replace(TENANT, write) is WRITTEN
        assert write.rows[0].text in await all_texts(stores, "asthma")
        await first
    await again.aclose()


async def test_a_later_revision_replaces_every_passage_and_an_older_one_changes_nothing(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", "word a", "word b", "word c"))
    assert await stores.writer.replace(TENANT, document("d1", "word new", revision=3, job="j3")) is WRITTEN
    assert await stores.writer.replace(TENANT, document("d1", "word late", revision=2, job="j2")) is SUPERSEDED
    assert await all_texts(stores, "word") == ["word new"]
    again = document("d1", "word new", revision=9, job="j9")
    assert await stores.writer.replace(TENANT, again) is UNCHANGED
    assert await stores.writer.replace(TENANT, document("d1", "word 5", revision=5, job="j5")) is SUPERSEDED
    back = document("d1", "word a", "word b", "word c", revision=10, job="j10")  # the first content, once more
    assert await stores.writer.replace(TENANT, back) is WRITTEN
    assert await all_texts(stores, "word") == ["word a", "word b", "word c"]


async def test_versions_of_a_document_in_any_order_end_with_the_newest(stores: Stores) -> None:
    versions = [document("d", f"word {n}", revision=n, job=f"j{n}") for n in (1, 2, 3)]
    for number, order in enumerate(itertools.permutations(range(3))):
        tenant = f"t{number}"
        # two replicas, each with a writer of its own, at the same time
        writers = [stores.writer, stores.writer_again()]
        await asyncio.gather(*(writers[at % 2].replace(tenant, versions[n]) for at, n in enumerate(order)))
        assert await all_texts(stores, "word", tenant) == ["word 3"]
        await writers[1].aclose()


async def test_a_document_that_was_deleted_stays_deleted_against_older_writes(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", "word one"))
    assert await stores.writer.delete(TENANT, "d1", revision=5, job="gone") is WRITTEN
    assert await all_texts(stores, "word") == []
    assert await stores.writer.replace(TENANT, document("d1", "word late", revision=4, job="j4")) is SUPERSEDED
    assert await stores.writer.replace(TENANT, document("d1", "word new", revision=6, job="j6")) is WRITTEN
    assert await all_texts(stores, "word") == ["word new"]
    # before anything was ever written
    assert await stores.writer.delete("other", "d1", revision=5, job="gone") is WRITTEN
    assert await stores.writer.replace("other", document("d1", "word late", revision=4)) is SUPERSEDED


async def test_an_emptied_document_is_not_found(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", "word one"))
    await stores.writer.replace(TENANT, document("d1", revision=2, job="j2"))
    assert await all_texts(stores, "word") == []


async def test_vectors_of_another_model_are_refused_and_nothing_is_written(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", "word one"))
    for dimension in (32, 64):
        other = document("d2", "word two", embedder=HashingEmbedder(dimension))
        if dimension == 64:
            other = replace(document("d2", "word two"), model="other/64")
        with pytest.raises(PipelineConfigError, match=r"hashing-64/.*with: \{index: NAME\}"):
            await stores.writer.replace(TENANT, other)
    assert await all_texts(stores, "word") == ["word one"]


async def test_a_moment_stays_as_it_was_while_documents_are_replaced(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", "word old", "word old too"))
    async with stores.index.view(TENANT) as before:
        assert before is not None
        await stores.writer.replace(TENANT, document("d1", "word new", revision=2, job="j2"))
        assert [sorted(leg) for leg in await legs(before, "word")] == [["word old", "word old too"]] * 3
    assert await all_texts(stores, "word") == ["word new"]


@pytest.mark.opensearch
async def test_a_blob_store_that_fails_costs_a_question_its_vectors_and_not_its_words(
    opensearch: str, opensearch_prefix: str, tmp_path: Path
) -> None:
    async with opensearch_stores(opensearch, opensearch_prefix, tmp_path) as stores:
        await stores.writer.replace(TENANT, document("d1", "word one"))
        (delta,) = (tmp_path / "blobs").rglob("deltas/*")
        whole = delta.read_bytes()
        delta.write_bytes(whole[:-1])
        async with stores.index.view(TENANT) as view:
            assert view is not None
            assert len(await view.lexical("word", 10)) == 1
            with pytest.raises(ContractError, match="are not those that were written"):
                await view.dense(vector_of("word"), 10)
        delta.write_bytes(whole)
        assert await all_texts(stores, "word") == ["word one"]


async def test_a_tenant_without_an_index_has_no_view(stores: Stores) -> None:
    async with stores.index.view("nobody") as view:
        assert view is None
    with pytest.raises(ConfigurationError):
        async with stores.index.view(""):
            pass


async def test_nothing_is_found_by_nothing(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", "word one"))
    async with stores.index.view(TENANT) as view:
        assert view is not None
        assert await view.lexical("", 10) == await view.lexical("\u2014 ()", 10) == []
        assert await view.sparse({}, 10) == await view.sparse({"word": -1.0, "": 1.0}, 10) == []
        assert await view.lexical("word", 0) == await view.dense(vector_of("word"), 0) == []
        assert await view.passages([]) == await view.passages(["'; DROP", "999999999999999999999999"]) == {}
        assert await view.term_counts([]) == TermCounts(1, {})


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.sampled_from(list("\"'*()^:-+{}[]/~&|!<>=ANDORNEAR \x00;%_\\?,.")), max_size=60),
    st.sampled_from(['"', "title:x", "a AND", "*", "'; DROP TABLE passages; --", "x" * 9999, "a " * 5000, '{"a": 1}']),
)


async def test_no_query_is_read_as_syntax(stores: Stores) -> None:
    await stores.writer.replace(TENANT, document("d1", "word one"))
    asked: list[str] = []

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(HOSTILE)
    def collect(query: str) -> None:
        asked.append(query)

    collect()
    async with stores.index.view(TENANT) as view:
        assert view is not None
        for query in asked:
            for found in (
                await view.lexical(query, 5),
                await view.sparse({query: 1.0, query[:9]: 2.0}, 5, filters=Filters(sections=(query,))),
                await view.lexical("word", 5, filters=Filters(sources=(query,), phases=(query,))),
            ):
                assert len(found) <= 1
            await view.term_counts([query])


TENANTS = ["a", "A", "a-b", "a_b", "a*", "*", "_all", "-a", "../a", "a/b", "a\x00b", "a,b", "\u00e9", "e\u0301",
           "x" * 900, "<script>", "a b", "%2e%2e", ".", "\ud83d\ude00", "a\x00", "passages", "medkg-"]  # fmt: skip


async def test_no_question_of_one_tenant_finds_a_passage_of_another(stores: Stores) -> None:
    for number, tenant in enumerate(TENANTS):
        await stores.writer.replace(tenant, document(f"d{number}", f"word of {number}"))
    for number, tenant in enumerate(TENANTS):
        assert await all_texts(stores, "word", tenant) == [f"word of {number}"]
        async with stores.index.view(tenant) as view:
            assert view is not None
            # what another tenant's passage is called in any store names nothing here
            mine = {hit.ref for hit in await view.lexical("word", 10)}
            other = TENANTS[number - 1]
            async with stores.index.view(other) as others:
                assert others is not None
                theirs = [hit.ref for hit in await others.lexical("word", 10)]
                assert await view.passages([ref for ref in theirs if ref not in mine]) == {}
                assert await view.neighbours(f"d{TENANTS.index(other)}", 0, 5, 5) == []


async def test_readers_and_writers_at_the_same_time_never_see_half_a_document(stores: Stores) -> None:
    sizes = (3, 1, 5, 2)
    texts = {revision: [f"word {revision} {n}" for n in range(sizes[revision % 4])] for revision in range(40)}
    seen: set[int] = set()

    async def write() -> None:
        for revision in range(40):
            await stores.writer.replace(TENANT, document("d", *texts[revision], revision=revision, job=f"{revision}"))

    async def read(writing: asyncio.Task[None]) -> None:
        while not writing.done():
            async with stores.index.view(TENANT) as view:
                if view is None:
                    continue
                lexical, sparse, dense = map(sorted, await legs(view, "word"))
                assert lexical == sparse == dense
                if lexical:
                    revision = int(lexical[0].split()[1])
                    assert lexical == sorted(texts[revision])
                    seen.add(revision)

    writing = asyncio.create_task(write())
    await asyncio.wait_for(asyncio.gather(writing, read(writing), read(writing)), 60)
    assert len(seen) > 3
