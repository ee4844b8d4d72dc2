"""The retriever over any store: what it does with legs that fail, pages, filters, neighbours and rerankers."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import numpy as np
import pytest
import respx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medkg.contracts.document import Chunk
from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack.answering import SearchAnswer, SearchRequest
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.highlighting import highlights
from medkg.haystack.impacts import IMPACTS
from medkg.haystack.legs import LegWeights
from medkg.haystack.reranking import ServedReranker
from medkg.haystack.retriever import LATE, Retriever, RetrieverSettings
from medkg.haystack.stores import (
    FIELD_WEIGHTS,
    NO_FILTERS,
    FieldWeights,
    Filters,
    IndexFacts,
    Passage,
    PassageView,
    Scored,
    TermCounts,
)

EMBEDDER = HashingEmbedder(64)


def passage(number: int, *, document: int | None = None, text: str = "") -> Passage:
    owner = number // 3 if document is None else document
    chunk = Chunk(f"c{number:03d}", f"d{owner:03d}", number % 3, text or f"Text {number}", ("S",), (), 2, title="T")
    return Passage(str(number), chunk, "g")


@dataclass
class FakeView:
    """Passages 0 to 29, three of each document; each leg ranks them by a rule of its own, or fails as it is told."""

    facts: IndexFacts = field(default_factory=lambda: IndexFacts(EMBEDDER.model, 64, IMPACTS))
    failures: Mapping[str, Exception] = field(default_factory=dict)
    late: frozenset[str] = frozenset()
    asked: list[Filters] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def _ranked(self, leg: str, factor: int, k: int, filters: Filters) -> list[Scored]:
        self.asked.append(filters)
        if leg in self.late:
            await self.held.wait()
        if leg in self.failures:
            raise self.failures[leg]
        order = sorted(range(30), key=lambda n: (n * factor) % 31)
        return [Scored(str(n), 100.0 - rank) for rank, n in enumerate(order)][:k]

    async def lexical(
        self, query: str, k: int, *, filters: Filters = NO_FILTERS, weights: FieldWeights = FIELD_WEIGHTS
    ) -> list[Scored]:
        return await self._ranked("bm25", 1, k, filters)

    async def term_counts(self, terms: Sequence[str]) -> TermCounts:
        return TermCounts(30, dict.fromkeys(terms, 1))

    async def sparse(self, weights: Mapping[str, float], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        return await self._ranked("sparse", 7, k, filters)

    async def dense(self, vector: NDArray[np.floating], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        return await self._ranked("dense", 11, k, filters)

    async def passages(self, refs: Sequence[str]) -> dict[str, Passage]:
        return {ref: passage(int(ref)) for ref in refs}

    async def neighbours(self, doc_id: str, ordinal: int, before: int, after: int) -> list[Passage]:
        first = int(doc_id[1:]) * 3
        return [passage(first + n) for n in range(max(ordinal - before, 0), min(ordinal + after, 2) + 1)]


@dataclass
class FakeIndex:
    held: FakeView = field(default_factory=FakeView)

    @asynccontextmanager
    async def view(self, tenant_id: str) -> AsyncIterator[PassageView | None]:
        yield self.held if tenant_id == "acme" else None

    async def aclose(self) -> None:
        """Nothing is open."""


def retriever(view: FakeView | None = None, **given: object) -> Retriever:
    chosen = RetrieverSettings(weights=LegWeights(1.0, 1.0, 1.0), **given)  # type: ignore[arg-type]  # settings by name
    return Retriever(FakeIndex(view or FakeView()), settings=chosen)


def ids(answer: SearchAnswer) -> list[str]:
    return [hit.chunk_id for hit in answer.hits]


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 12), by_document=st.booleans(), rerank=st.booleans())
def test_pages_put_together_are_the_ranking_without_gap_or_repetition(
    size: int, by_document: bool, rerank: bool
) -> None:
    async def read() -> None:
        search = Retriever(FakeIndex(), settings=RetrieverSettings(rerank_depth=7), reranker=Backwards())
        whole = await search.answer("acme", SearchRequest("q", 200, by_document=by_document, rerank=rerank))
        pages: list[str] = []
        more = True
        while more:
            request = SearchRequest("q", size, len(pages), by_document=by_document, rerank=rerank)
            page = await search.answer("acme", request)
            pages += ids(page)
            more = page.more
        assert pages == ids(whole)
        assert len(set(pages)) == len(pages) == (10 if by_document else 30)
        assert not whole.more

    asyncio.run(read())


async def test_a_leg_that_fails_is_left_out_and_named_by_its_code_alone() -> None:
    secret = ResourceUnavailableError("searching at http://10.0.0.7:9200 as admin: refused")
    answer = await retriever(FakeView(failures={"sparse": secret})).search("acme", "q")
    assert answer.legs_missing == ("sparse",)
    assert answer.missing == {"sparse": "resource_unavailable"}
    assert set(answer.hits[0].legs) == {"bm25", "dense"}


async def test_a_late_leg_is_left_out_at_the_deadline() -> None:
    answer = await retriever(FakeView(late=frozenset({"dense"})), deadline_seconds=0.05).search("acme", "q")
    assert answer.missing == {"dense": LATE}
    assert len(answer.hits) == 10


async def test_no_leg_at_all_is_an_error_and_not_an_empty_answer() -> None:
    down = ResourceUnavailableError("down")
    everything = FakeView(failures={"bm25": down, "sparse": down, "dense": down})
    with pytest.raises(ResourceUnavailableError):
        await retriever(everything).search("acme", "q")
    with pytest.raises(ResourceUnavailableError, match="no leg was done"):
        await retriever(FakeView(late=frozenset({"bm25", "sparse", "dense"})), deadline_seconds=0.02).search(
            "acme", "q"
        )


async def test_a_bug_in_a_leg_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        await retriever(FakeView(failures={"dense": ZeroDivisionError()})).search("acme", "q")


async def test_an_index_of_a_model_that_nobody_here_has_says_which() -> None:
    facts = IndexFacts("openai:qwen3/64", 64, "splade:abc")
    answer = await retriever(FakeView(facts=facts)).search("acme", "q")
    assert answer.legs_missing == ("dense", "sparse")
    assert "openai:qwen3/64" in answer.missing["dense"]
    assert "splade:abc" in answer.missing["sparse"]


async def test_filters_reach_every_leg_and_only_the_legs_asked_for_are_made() -> None:
    view = FakeView()
    filters = Filters(sources=("files",), year_from=2020, retracted=False)
    await retriever(view).answer("acme", SearchRequest("q", filters=filters))
    assert view.asked == [filters] * 3
    answer = await retriever().answer("acme", SearchRequest("q", legs=("bm25",)))
    assert (answer.legs_missing, {leg for hit in answer.hits for leg in hit.legs}) == ((), {"bm25"})
    with pytest.raises(ContractError, match="no leg smell"):
        await retriever().answer("acme", SearchRequest("q", legs=("smell",)))


async def test_an_explanation_adds_up_to_the_score() -> None:
    answer = await retriever().answer("acme", SearchRequest("q", 30, explain=True))
    for hit in answer.hits:
        assert sum(share.share for share in hit.explanation) == pytest.approx(hit.score)
        assert {share.leg: share.rank for share in hit.explanation} == hit.legs
    assert (await retriever().answer("acme", SearchRequest("q"))).hits[0].explanation == ()


async def test_a_document_is_shown_once_by_its_best_passage_with_the_number_of_the_others() -> None:
    plain = await retriever().answer("acme", SearchRequest("q", 30))
    grouped = await retriever().answer("acme", SearchRequest("q", 30, by_document=True))
    best = {hit.doc_id: hit.chunk_id for hit in reversed(plain.hits)}
    assert [(hit.doc_id, hit.chunk_id) for hit in grouped.hits] == sorted(
        best.items(), key=lambda item: ids(plain).index(item[1])
    )
    assert [hit.also for hit in grouped.hits] == [2] * 10


async def test_neighbours_come_in_reading_order_without_the_hit_itself() -> None:
    answer = await retriever().answer("acme", SearchRequest("q", 30, neighbours=1))
    for hit in answer.hits:
        expected = [n for n in (hit.ordinal - 1, hit.ordinal + 1) if 0 <= n <= 2]
        assert [beside.ordinal for beside in hit.neighbours] == expected


class Backwards:
    """Likes best what stands last."""

    name = "backwards"

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return [float(place) for place in range(len(texts))]


async def test_a_reranker_reorders_the_first_and_leaves_the_rest() -> None:
    plain = await retriever().answer("acme", SearchRequest("q", 30))
    search = Retriever(
        FakeIndex(), settings=RetrieverSettings(weights=LegWeights(1.0, 1.0, 1.0), rerank_depth=5), reranker=Backwards()
    )
    answer = await search.answer("acme", SearchRequest("q", 30, rerank=True))
    assert (ids(answer)[:5], ids(answer)[5:]) == (ids(plain)[4::-1], ids(plain)[5:])
    assert [hit.rerank_score for hit in answer.hits[:6]] == [4.0, 3.0, 2.0, 1.0, 0.0, None]
    without = await retriever().answer("acme", SearchRequest("q", 30, rerank=True))
    assert (ids(without), without.missing) == (ids(plain), {"rerank": "no reranker is configured here"})


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"results": [{"index": 0, "relevance_score": 0.5}]}),
        httpx.Response(200, text='{"results": [{"index": 0, "relevance_score": NaN}]}'),
        httpx.Response(503),
        httpx.Response(200, text="<html>"),
    ],
)
async def test_a_reranker_that_does_not_score_every_text_is_left_out(answer: httpx.Response) -> None:
    with respx.mock(base_url="http://rank.test") as server:
        server.post("/v1/rerank").mock(return_value=answer)
        async with httpx.AsyncClient(base_url="http://rank.test") as client:
            search = Retriever(FakeIndex(), reranker=ServedReranker(client, "bge"))
            found = await search.answer("acme", SearchRequest("q", rerank=True))
    assert found.legs_missing == ("rerank",)
    assert len(found.hits) == 10


async def test_a_served_reranker_scores_by_index() -> None:
    results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
    with respx.mock(base_url="http://rank.test") as server:
        server.post("/v1/rerank").respond(json={"results": results})
        async with httpx.AsyncClient(base_url="http://rank.test") as client:
            assert await ServedReranker(client, "bge").scores("q", ["a", "b"]) == [0.1, 0.9]


async def test_another_tenant_and_an_empty_question_get_nothing() -> None:
    assert (await retriever().search("other", "q")).hits == ()
    assert (await retriever().search("acme", "  ")).hits == ()


async def test_the_same_text_twice_in_a_document_is_one_hit() -> None:
    class Doubled(FakeView):
        async def passages(self, refs: Sequence[str]) -> dict[str, Passage]:
            return {ref: passage(int(ref), document=0, text="same") for ref in refs}

    assert len((await retriever(Doubled()).search("acme", "q")).hits) == 1


def test_highlights_are_words_of_the_question_by_their_stem() -> None:
    text = "Trials of metformin: M\u00e9tformin lowered glucose; the trial <b>ended</b>."
    spans = highlights(text, "the metformin trials")
    assert [text[a:b] for a, b in spans] == ["Trials", "metformin", "M\u00e9tformin", "trial"]
    assert highlights("word " * 500, "word") == tuple((5 * n, 5 * n + 4) for n in range(100))
    assert highlights("anything", "") == ()


def test_weights_of_hashed_vectors_count_next_to_nothing() -> None:
    weights = LegWeights()
    assert weights.of_model("hashing-384/1")["dense"] < 0.1 < weights.of_model("onnx:abc/384")["dense"]
    assert replace(weights, sparse=0.0).of_model("x")["sparse"] == 0.0
