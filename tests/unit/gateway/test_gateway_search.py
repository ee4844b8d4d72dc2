"""What a search may be asked over HTTP, and the retriever that the gateway's environment describes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.gateway.asking import Gateway

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch
from medkg.contracts.errors import ConfigurationError
from medkg.gateway.passages import search_result
from medkg.gateway.searching import SearchSettings, opened_search
from medkg.haystack.answering import Hit, LegShare, Neighbour, SearchAnswer, SearchRequest
from medkg.haystack.embedding import TextKind
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.passage_database import store_path
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.stores import Filters
from medkg.haystack.writes import prepare
from medkg.runtime.settings import from_environment

HIT = Hit("c1", "d1", "A title", "files", "NCT1", ("Results",), "asthma", None, 0.5, {"bm25": 1})


async def test_every_filter_and_wish_reaches_the_search(gateway: Gateway) -> None:
    query = (
        "/v1/search?q=x&limit=5&offset=10&source=files&source=pmc&section=Results&condition=Asthma&phase=phase%203"
        "&year_from=2010&year_to=2020&retracted=false&leg=bm25&leg=dense&by_document=true&neighbours=2"
        "&explain=true&rerank=true"
    )
    assert (await gateway.get(query)).status_code == 200
    filters = Filters(("files", "pmc"), 2010, 2020, ("Results",), ("Asthma",), ("phase 3",), False)
    assert gateway.search.requests == [
        SearchRequest("x", 5, 10, filters, ("bm25", "dense"), by_document=True, neighbours=2, explain=True, rerank=True)
    ]


async def test_a_plain_question_asks_every_leg_and_filters_nothing(gateway: Gateway) -> None:
    await gateway.get("/v1/search", q="x")
    assert gateway.search.requests == [SearchRequest("x")]


@pytest.mark.parametrize(
    "wrong",
    [
        "offset=-1",
        "offset=1001",
        "leg=smell",
        "neighbours=6",
        "year_from=20000",
        "source=",
        "source=a%00b",
        "section=" + "x" * 201,
        "&".join(["source=a"] * 21),
        "retracted=perhaps",
    ],
)
async def test_what_is_out_of_bounds_is_refused(gateway: Gateway, wrong: str) -> None:
    assert (await gateway.get(f"/v1/search?q=x&{wrong}")).status_code == 422
    assert gateway.search.requests == []


def test_an_answer_shows_everything_that_was_found_out() -> None:
    hit = replace(
        HIT,
        highlights=((0, 6),),
        explanation=(LegShare("bm25", 1, 9.5, 1.0, 0.2),),
        neighbours=(Neighbour("c2", 1, ("Results",), "beside"),),
        rerank_score=0.7,
        also=2,
    )
    shown = search_result("q", SearchAnswer((hit,), ("dense",), 1.0, {"dense": "late"}, more=True), offset=20)
    (first,) = shown.hits
    assert (first.rank, first.highlights, first.also, first.rerank_score) == (21, ((0, 6),), 2, 0.7)
    assert (first.explanation[0].share, first.neighbours[0].text) == (0.2, "beside")
    assert (shown.legs_missing, shown.missing, shown.more) == (("dense",), {"dense": "late"}, True)


def fill(folder: Path, model: str) -> None:
    embedder = HashingEmbedder(64)
    text = "Budesonide reduces exacerbations of asthma."
    batch = EmbeddingBatch(
        chunks=(Chunk("c", "d", 0, text, ("Results",), (), 5, title="Asthma"),),
        model=model,
        dimension=64,
        dense=embedder.vectors([text], TextKind.PASSAGE).vectors.tobytes(),
        sparse=(impacts(text, "Asthma"),),
        sparse_model=IMPACTS,
    )
    store = PassageStore.open(store_path(folder, "acme"))
    store.write([prepare(StageContext("acme", "d", "job", content_key="g", revision=1), batch)])
    store.close()


async def test_the_environment_describes_the_models_of_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "openai:small@r1/64")
    async with opened_search(from_environment(SearchSettings), tmp_path) as search:
        answer = await search.search("acme", "asthma")
    assert answer.legs_missing == ("dense",)
    assert "openai:small@r1/64" in answer.missing["dense"]
    described = {"kind": "openai", "served_model": "small", "revision": "r1", "dimension": 64}
    monkeypatch.setenv("MEDKG_SEARCH_EMBEDDERS", json.dumps([described | {"base_url": "http://127.0.0.1:9"}]))
    async with opened_search(from_environment(SearchSettings), tmp_path) as search:
        answer = await search.search("acme", "asthma")
    assert answer.missing == {"dense": "resource_unavailable"}  # it is known, and down
    assert answer.hits[0].legs == {"bm25": 1, "sparse": 1}


async def test_hashing_needs_no_description(tmp_path: Path) -> None:
    fill(tmp_path, HashingEmbedder(64).model)
    async with opened_search(SearchSettings(), tmp_path) as search:
        assert (await search.search("acme", "asthma")).legs_missing == ()


@pytest.mark.parametrize("wrong", ['[{"kind": "oracle"}]', "[{}]", '[{"kind": "onnx", "folder": "x", "colour": 1}]'])
def test_a_wrong_description_names_the_variable(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("MEDKG_SEARCH_EMBEDDERS", wrong)
    with pytest.raises(ConfigurationError, match="MEDKG_SEARCH_EMBEDDERS"):
        from_environment(SearchSettings)
