"""The retrieval of medkg as a Haystack pipeline: runs, survives YAML, and ranks as `medkg search` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline, default_from_dict
from haystack.core.errors import DeserializationError

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch
from medkg.contracts.errors import ConfigurationError
from medkg.haystack import hybrid_retriever
from medkg.haystack.components import DenseRetriever, LexicalRetriever, RankFusion, SparseRetriever
from medkg.haystack.embedding import TextKind
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.passage_database import store_path
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.retrieval import HybridSearch
from medkg.haystack.splitter import PassageSplitter, SemanticSplitter
from medkg.haystack.writes import prepare

TENANT = "acme"
TRUSTED = ["medkg.haystack.components", "medkg.haystack.splitter"]
EMBEDDER = HashingEmbedder(64)
SUBJECTS = ("asthma", "sepsis", "diabetes", "stroke", "migraine", "psoriasis")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("pipeline")
    store = PassageStore.open(store_path(data_dir, TENANT))
    for number, subject in enumerate(SUBJECTS):
        texts = [
            f"Trial of treatment {number} for {subject}.",
            f"Outcome {number}: fewer attacks of {subject} in adults.",
        ]
        ctx = StageContext(TENANT, f"doc-{subject}", "job", content_key=subject, revision=1)
        store.write([prepare(ctx, batch_of(f"doc-{subject}", subject, texts))])
    store.close()
    return data_dir


def batch_of(doc_id: str, title: str, texts: Sequence[str]) -> EmbeddingBatch:
    chunks = tuple(
        Chunk(f"{doc_id}-{n}", doc_id, n, text, ("Results",), (), 9, title=title, metadata={"source": "files"})
        for n, text in enumerate(texts)
    )
    return EmbeddingBatch(
        chunks=chunks,
        model=EMBEDDER.model,
        dimension=EMBEDDER.dimension,
        dense=EMBEDDER.vectors(texts, TextKind.PASSAGE).vectors.tobytes(),
        sparse=tuple(impacts(text, title) for text in texts),
        sparse_model=IMPACTS,
    )


def address(folder: Path) -> dict[str, Any]:
    return {"kind": "embedded", "data_dir": str(folder)}


def found(answer: dict[str, Any]) -> Any:
    return [(document.id, document.score) for document in answer["fusion"]["documents"]]


@pytest.mark.parametrize("query", ["asthma attacks in adults", "treatment of sepsis", "outcome"])
async def test_its_ranking_is_that_of_the_search_before_and_after_yaml(folder: Path, query: str) -> None:
    search = HybridSearch(folder)
    expected = [(hit.chunk_id, pytest.approx(hit.score)) for hit in (await search.search(TENANT, query)).hits]
    await search.aclose()
    pipeline = hybrid_retriever(address(folder), TENANT)
    read_back = Pipeline.loads(pipeline.dumps(), allowed_modules=TRUSTED)
    assert expected
    assert found(pipeline.run({"query": query})) == expected
    assert found(read_back.run({"query": query})) == expected
    assert found(await read_back.run_async({"query": query})) == expected
    assert read_back.dumps() == pipeline.dumps()


def test_yaml_of_a_stranger_does_not_load_our_components_unasked(folder: Path) -> None:
    with pytest.raises(DeserializationError):
        Pipeline.loads(hybrid_retriever(address(folder), TENANT).dumps())


def test_a_leg_that_cannot_be_made_is_named_and_the_others_answer(folder: Path) -> None:
    pipeline = hybrid_retriever(address(folder), TENANT)
    dense: Any = pipeline.get_component("dense")
    dense.warm_up()
    dense._models = type(dense._models)(embedder_of=lambda model: None)
    answer = pipeline.run({"query": "asthma"})["fusion"]
    assert "no embedder" in answer["legs_missing"]["dense"]
    assert answer["documents"][0].meta["legs"] == {"bm25": 1, "sparse": 1}


def test_filters_reach_every_leg_and_a_wrong_one_is_an_error(folder: Path) -> None:
    pipeline = hybrid_retriever(address(folder), TENANT)
    assert found(pipeline.run({"query": "asthma", "filters": {"sources": ["nowhere"]}})) == []
    assert found(pipeline.run({"query": "asthma", "filters": {"sources": ["files"]}}))
    with pytest.raises(Exception, match="colour"):
        pipeline.run({"query": "asthma", "filters": {"colour": "red"}})


def test_an_unknown_kind_of_store_or_model_is_refused_with_its_name() -> None:
    with pytest.raises(ConfigurationError, match="kind"):
        hybrid_retriever({"kind": "paper"}, TENANT)
    with pytest.raises(ConfigurationError, match="kind"):
        hybrid_retriever({"kind": "embedded", "data_dir": "x"}, TENANT, embedder={"kind": "oracle"})


@pytest.mark.parametrize("component", [LexicalRetriever, SparseRetriever, DenseRetriever])
async def test_each_leg_runs_alone_and_survives_serialisation(component: Any, folder: Path) -> None:
    leg = component(address(folder), TENANT, top_k=3)
    again = default_from_dict(component, leg.to_dict())
    assert again.to_dict() == leg.to_dict()
    answer = again.run(query="asthma")
    assert next(document.id for document in answer["documents"]).startswith("doc-asthma")
    assert len(answer["documents"]) <= 3
    assert await again.run_async(query="asthma") == answer
    assert leg.run(query=" ") == {"documents": [], "missing": {}}
    assert component(address(folder), "nobody").run(query="asthma")["documents"] == []


def test_fusion_knows_its_lists_by_name() -> None:
    def documents(*ids: str) -> list[Document]:
        return [Document(id=i, meta={"doc_id": i}, score=9.0 - n) for n, i in enumerate(ids)]

    fusion = RankFusion({"bm25": 1, "dense": 2}, k=1, top_k=2)
    assert default_from_dict(RankFusion, fusion.to_dict()).to_dict() == fusion.to_dict()
    answer = fusion.run(missing=[{"sparse": "late"}], bm25=documents("a", "b"), dense=documents("b", "c"))
    assert [(d.id, d.score) for d in answer["documents"]] == [
        ("b", pytest.approx(1 + 1 / 3)),
        ("c", pytest.approx(2 / 3)),
    ]
    assert answer["legs_missing"] == {"sparse": "late"}
    with pytest.raises(ValueError, match="no leg smell"):
        RankFusion({"smell": 1})


@pytest.mark.parametrize("splitter", [PassageSplitter(32, 0), SemanticSplitter(max_tokens=32, min_tokens=4)])
def test_splitters_run_in_a_pipeline_and_survive_serialisation(splitter: Any) -> None:
    pipeline = Pipeline()
    pipeline.add_component("split", splitter)
    text = "Heart failure was common. Heart failure was treated. Renal dialysis was rare. Dialysis was renal."
    given = {"split": {"documents": [Document(id="d", content=text)]}}
    read_back = Pipeline.loads(pipeline.dumps(), allowed_modules=TRUSTED)
    assert read_back.run(given) == pipeline.run(given)
    assert "".join("".join(d.content or "" for d in pipeline.run(given)["split"]["documents"]).split()) == "".join(
        text.split()
    )
