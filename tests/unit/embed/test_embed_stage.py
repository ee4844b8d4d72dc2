"""Passages become an embedding batch."""

from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
import respx

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch
from medkg.contracts.errors import ConfigurationError, ContractError, GpuNotAvailable
from medkg.contracts.implementation import Host
from medkg.contracts.stages import encode_artefact
from medkg.embed.app import HASHING, ONNX, OPENAI, HashingOptions, OnnxOptions, OpenAIOptions
from medkg.embed.stage import LocalEmbedding, RemoteEmbedding
from medkg.haystack.embedding import Embedded, TextKind, unit_rows
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.impacts import IMPACTS, impacts

CONTEXT = StageContext(tenant_id="acme", doc_id="d", correlation_id="job")


class NoBlobs:
    async def get(self, key: str) -> bytes | None:
        raise AssertionError("an embedder reads no blobs")

    async def put(self, key: str, data: bytes) -> None:
        raise AssertionError("an embedder writes no blobs")


HOST = Host(data_dir=Path(), blobs=NoBlobs())


def chunk(number: int, text: str) -> Chunk:
    return Chunk(f"c{number}", "d", number, text, ("Results",), (), 3, title="Asthma in adults")


CHUNKS = [chunk(0, "Budesonide helped."), chunk(1, "\u2014")]


class BadModel:
    """A model whose vectors are whatever it was given."""

    model = "bad"
    dimension = 2

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def vectors(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        return Embedded(unit_rows(np.array(self.rows), len(texts), 2, self.model))

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        return self.vectors(texts, kind)


async def test_the_default_embeds_title_and_text_and_weighs_their_terms() -> None:
    async with HASHING.open(HashingOptions(), HOST) as stage:
        batch = stage.execute(CONTEXT, CHUNKS)
    assert isinstance(batch, EmbeddingBatch)
    assert (batch.model, batch.dimension, len(batch.dense)) == ("hashing-384/1", 384, 2 * 384 * 4)
    expected = HashingEmbedder().vectors(["Asthma in adults\nBudesonide helped."], TextKind.PASSAGE).vectors[0]
    assert np.array_equal(np.frombuffer(batch.dense, "<f4")[:384], expected)
    assert batch.sparse[0] == impacts("Budesonide helped.", "Asthma in adults")
    assert batch.sparse_model == IMPACTS
    assert batch.chunks == tuple(CHUNKS)


async def test_title_and_term_weights_can_be_left_out() -> None:
    options = HashingOptions(with_title=False, sparse="none", dimension=64)
    async with HASHING.open(options, HOST) as stage:
        batch = stage.execute(CONTEXT, CHUNKS)
    expected = HashingEmbedder(64).vectors(["Budesonide helped."], TextKind.PASSAGE).vectors[0]
    assert np.array_equal(np.frombuffer(batch.dense, "<f4")[:64], expected)
    assert (batch.sparse, batch.sparse_model) == ((), "")


def test_the_same_passages_always_give_the_same_bytes() -> None:
    first, second = (encode_artefact(LocalEmbedding(HashingEmbedder()).execute(CONTEXT, CHUNKS)) for _ in range(2))
    assert first == second


def test_a_document_without_passages_gives_an_empty_batch() -> None:
    batch = LocalEmbedding(HashingEmbedder()).execute(CONTEXT, [])
    assert (batch.chunks, batch.dense, batch.sparse) == ((), b"", ())


@pytest.mark.parametrize("rows", [[[1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]], [[1.0, np.nan], [1.0, 0.0]]])
async def test_unusable_vectors_go_no_further(rows: list[list[float]]) -> None:
    with pytest.raises(ContractError):
        LocalEmbedding(BadModel(rows)).execute(CONTEXT, CHUNKS)
    with pytest.raises(ContractError):
        await RemoteEmbedding(BadModel(rows)).execute(CONTEXT, CHUNKS)


async def test_without_a_model_server_the_gpu_stage_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDKG_EMBED_OPENAI_BASE_URL", "http://model.test:9")
    assert OPENAI.needs_gpu
    with respx.mock, pytest.raises(GpuNotAvailable, match="no answer"):
        respx.get("http://model.test:9/health").mock(side_effect=httpx.ConnectError("refused"))
        async with OPENAI.open(OpenAIOptions(served_model="qwen", dimension=4), HOST):
            pass


async def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDKG_EMBED_OPENAI_BASE_URL", "http://model.test/proxy")
    monkeypatch.setenv("MEDKG_EMBED_OPENAI_API_KEY", "secret")
    with respx.mock(base_url="http://model.test/proxy") as server:
        server.get("/health").respond(200)
        models = server.get("/v1/models").respond(200, json={"data": [{"id": "qwen"}]})
        vectors = [{"index": i, "embedding": [1.0, float(i)]} for i in range(2)]
        server.post("/v1/embeddings").respond(200, json={"data": vectors})
        async with OPENAI.open(OpenAIOptions(served_model="qwen", dimension=2), HOST) as stage:
            batch = await stage.execute(CONTEXT, CHUNKS)
    assert models.calls.last.request.headers["authorization"] == "Bearer secret"
    assert np.frombuffer(batch.dense, "<f4").tolist() == pytest.approx([1, 0, 0.5**0.5, 0.5**0.5])


async def test_a_local_model_needs_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MEDKG_EMBED_ONNX_FOLDER", raising=False)
    with pytest.raises(ConfigurationError, match="MEDKG_EMBED_ONNX_FOLDER"):
        async with ONNX.open(OnnxOptions(), HOST):
            pass
    with pytest.raises(ConfigurationError, match=r"not installed|there is no model\.onnx"):
        async with ONNX.open(OnnxOptions(folder=tmp_path), HOST):
            pass
