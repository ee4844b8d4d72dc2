"""Real SPLADE weights: from the embed stage into every store, and back by the gateway's own expansion of a question."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.stores_kit import INDEX, KEY, TENANT, Stores, embedded_stores, opensearch_stores
from tests.servers.models.sparse_server import sparse_server
from tests.servers.models.splade import splade_folder

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch, WriteOutcome
from medkg.contracts.implementation import Host
from medkg.embed.app import HASHING, HashingOptions
from medkg.gateway.searching import SearchSettings, opened_search
from medkg.haystack.answering import SearchRequest
from medkg.haystack.expander import HaystackSparseExpander
from medkg.haystack.splade import OnnxSplade, SpladeSettings
from medkg.haystack.writes import prepare
from medkg.runtime.blobs import open_blobs
from medkg.runtime.settings import from_environment

TEXTS = [
    "Aspirin lowers the risk of myocardial infarction.",
    "Insulin is given to adults with type 2 diabetes, e.g. after metformin has failed.",
    "Kinase inhibitors slow the growth of lung cancer (n = 211; p < 0.05).",
]
QUESTION = "drug against lung cancer"


@pytest.fixture(scope="module")
def folder() -> Path:
    return splade_folder()


@pytest.fixture(scope="module")
def splade(folder: Path) -> OnnxSplade:
    return OnnxSplade(SpladeSettings(folder, on_gpu=False))


@pytest.fixture(params=["embedded", pytest.param("opensearch", marks=pytest.mark.opensearch)])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stores]:
    """A store, and an environment that tells the gateway of it."""
    if request.param == "embedded":
        async with embedded_stores(tmp_path) as opened:
            yield opened
        return
    url, prefix = request.getfixturevalue("opensearch"), request.getfixturevalue("opensearch_prefix")
    address = {"kind": "opensearch", "url": url, "prefix": prefix, "data_dir": str(tmp_path), "index": INDEX}
    monkeypatch.setenv("MEDKG_SEARCH_STORE", json.dumps(address))
    monkeypatch.setenv("MEDKG_OPENSEARCH_INDEX_KEY", KEY.decode())
    async with opensearch_stores(url, prefix, tmp_path) as opened:
        yield opened


async def embedded(monkeypatch: pytest.MonkeyPatch, **environment: str) -> EmbeddingBatch:
    """What the embed service makes of the texts with the expander of this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    kind: Any = "splade" if "MEDKG_EMBED_SPLADE_BASE_URL" in environment else "splade-cpu"
    options = HashingOptions(dimension=64, sparse=kind, splade_model="tiny", splade_revision="r1")
    chunks = [Chunk(f"c{n}", "d", n, text, ("Results",), (), 9) for n, text in enumerate(TEXTS)]
    async with HASHING.open(options, Host(Path(), open_blobs("memory:"))) as stage:
        batch: EmbeddingBatch = await stage.execute(StageContext(TENANT, "d", "job"), chunks)
    return batch


async def filled(stores: Stores, batch: EmbeddingBatch) -> None:
    write = prepare(StageContext(TENANT, "d", "job", content_key="g", revision=1), batch)
    assert await stores.writer.replace(TENANT, write) is WriteOutcome.WRITTEN


async def answer(tmp_path: Path) -> tuple[list[tuple[str, float]], dict[str, str]]:
    """What a gateway of this environment finds by term weights, and why a leg is missing."""
    async with opened_search(from_environment(SearchSettings), tmp_path) as search:
        found = await search.answer(TENANT, SearchRequest(QUESTION, legs=("bm25", "sparse"), explain=True))
    scores = [(hit.text, share.score) for hit in found.hits for share in hit.explanation if share.leg == "sparse"]
    return sorted(scores, key=lambda pair: -pair[1]), found.missing


def expected(splade: OnnxSplade) -> list[tuple[str, float]]:
    """The dot products of the question's weights and the texts'."""
    question, *texts = (dict(zip(v.terms, v.weights, strict=True)) for v in splade.vectors([QUESTION, *TEXTS]))
    scores = [sum(weight * text.get(term, 0.0) for term, weight in question.items()) for text in texts]
    return sorted(((t, s) for t, s in zip(TEXTS, scores, strict=True) if s), key=lambda pair: -pair[1])


def test_weights_are_those_of_the_model_as_its_formula_says(splade: OnnxSplade) -> None:
    """Reference: the same weights through the formulas of BERT and SPLADE in plain numpy, once, by hand."""
    (vector,) = splade.vectors(["heart attack drug"])
    weights = dict(zip(vector.terms, vector.weights, strict=True))
    reference = {"heart": 2.4886, "attack": 2.3104, "drugs": 1.7253, "drug": 1.6579, "pulse": 1.1114, "cancer": 0.4964}
    assert {term: weights[term] for term in reference} == pytest.approx(reference, abs=2e-3)
    assert len(weights) == 18


def test_the_component_takes_the_same_model(folder: Path, splade: OnnxSplade) -> None:
    from haystack import Document

    expander = HaystackSparseExpander("splade-cpu", str(folder))
    (document,) = expander.run([Document(content=TEXTS[0])])["documents"]
    (vector,) = splade.vectors([TEXTS[0]])
    assert document.meta["term_weights"] == dict(zip(vector.terms, vector.weights, strict=True))


async def test_a_question_is_expanded_by_the_model_of_the_index_and_scores_are_dot_products(
    stores: Stores, folder: Path, splade: OnnxSplade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await embedded(monkeypatch, MEDKG_EMBED_SPLADE_FOLDER=str(folder))
    assert batch.sparse_model == splade.model
    assert all(len(vector.terms) > 10 for vector in batch.sparse)
    assert any(term.startswith("##") for vector in batch.sparse for term in vector.terms)
    await filled(stores, batch)
    monkeypatch.setenv("MEDKG_SEARCH_SPLADE_FOLDER", str(folder))
    found, missing = await answer(tmp_path)
    assert missing == {}
    wanted = expected(splade)
    assert [text for text, _ in found] == [text for text, _ in wanted]
    # OpenSearch keeps weights in nine bits of precision
    assert np.array([score for _, score in found]) == pytest.approx([score for _, score in wanted], rel=0.01)


async def test_a_server_expands_passages_and_questions_and_while_it_is_down_its_leg_is_missing(
    stores: Stores, folder: Path, splade: OnnxSplade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sparse_server(folder) as url:
        await filled(stores, await embedded(monkeypatch, MEDKG_EMBED_SPLADE_BASE_URL=url))
        named = {"BASE_URL": url, "MODEL": "tiny", "REVISION": "r1"}
        for name, value in named.items():
            monkeypatch.setenv(f"MEDKG_SEARCH_SPLADE_{name}", value)
        found, missing = await answer(tmp_path)
        assert missing == {}
        assert [text for text, _ in found] == [text for text, _ in expected(splade)]
    found, missing = await answer(tmp_path)
    assert (found, missing) == ([], {"sparse": "resource_unavailable"})


async def test_without_the_expander_of_the_index_the_leg_is_missing_and_the_answer_says_which_it_would_need(
    stores: Stores, folder: Path, splade: OnnxSplade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(stores, await embedded(monkeypatch, MEDKG_EMBED_SPLADE_FOLDER=str(folder)))
    found, missing = await answer(tmp_path)
    assert found == []
    assert splade.model in missing["sparse"]
    monkeypatch.setenv("MEDKG_SEARCH_SPLADE_FOLDER", str(folder))
    monkeypatch.setenv("MEDKG_SEARCH_SPLADE_MAX_TOKENS", "64")  # other weights: another model
    found, missing = await answer(tmp_path)
    assert found == []
    assert splade.model in missing["sparse"]
