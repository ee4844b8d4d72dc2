"""The embedder behind an OpenAI-compatible server."""

import base64
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import numpy as np
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import (
    ConfigurationError,
    ContractError,
    GpuNotAvailable,
    GpuOutOfMemory,
    MedkgError,
    PayloadTooLargeError,
    PipelineConfigError,
    ResourceUnavailableError,
)
from medkg.haystack.embedding import TextKind
from medkg.haystack.openai import OpenAIEmbedder, OpenAISettings, batches_of

BASE = "http://model.test"
SETTINGS = OpenAISettings(served_model="qwen", dimension=3, revision="r1", batch_size=2, max_characters=100)


@pytest.fixture
def server() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=BASE, assert_all_called=False) as router:
        router.get("/health").respond(200)
        router.get("/v1/models").respond(200, json={"data": [{"id": "qwen"}]})
        yield router


@pytest.fixture
async def embedder() -> AsyncIterator[OpenAIEmbedder]:
    async with httpx.AsyncClient(base_url=BASE) as client:
        yield OpenAIEmbedder(client, SETTINGS)


def answer(request: httpx.Request, *, as_floats: bool = False) -> httpx.Response:
    """As vLLM does: one vector for each text; here its length tells the texts apart. Out of order on purpose."""
    inputs = json.loads(request.content)["input"]
    data = []
    for index, text in enumerate(inputs):
        values = np.array([len(text), 1, 1], dtype="<f4")
        encoded = values.tolist() if as_floats else base64.b64encode(values.tobytes()).decode()
        data.append({"index": index, "object": "embedding", "embedding": encoded})
    return httpx.Response(200, json={"data": data[::-1], "model": "qwen", "usage": {"prompt_tokens": 9}})


@pytest.mark.parametrize("as_floats", [True, False])
async def test_texts_go_in_batches_and_come_back_in_order(
    server: respx.MockRouter, embedder: OpenAIEmbedder, as_floats: bool
) -> None:
    route = server.post("/v1/embeddings").mock(side_effect=lambda request: answer(request, as_floats=as_floats))
    embedded = await embedder.embed(["a", "bbbb", "cc", "", "x" * 500], TextKind.PASSAGE)
    assert route.call_count == 3
    ratios = embedded.vectors[:, 0] / embedded.vectors[:, 1]
    assert ratios == pytest.approx([1, 4, 2, 1, 100])
    assert np.linalg.norm(embedded.vectors, axis=1) == pytest.approx([1] * 5)
    assert embedded.truncated == 1
    assert embedder.model == "openai:qwen@r1/3"


async def test_no_texts_need_no_server(embedder: OpenAIEmbedder) -> None:
    assert (await embedder.embed([], TextKind.PASSAGE)).vectors.shape == (0, 3)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, "no", ConfigurationError),
        (404, "no such model", ConfigurationError),
        (400, "This model's maximum context length is 512 tokens", PayloadTooLargeError),
        (413, "", PayloadTooLargeError),
        (400, "bad", ContractError),
        (429, "slow down", ResourceUnavailableError),
        (503, "loading", ResourceUnavailableError),
    ],
)
async def test_each_refusal_is_sorted(
    server: respx.MockRouter, embedder: OpenAIEmbedder, status: int, body: str, error: type[MedkgError]
) -> None:
    server.post("/v1/embeddings").respond(status, text=body, headers={"retry-after": "7"})
    with pytest.raises(error) as caught:
        await embedder.embed(["a"], TextKind.PASSAGE)
    if error is ResourceUnavailableError:
        assert caught.value.retry_after_seconds == 7


async def test_a_server_that_does_not_answer_is_worth_a_retry(
    server: respx.MockRouter, embedder: OpenAIEmbedder
) -> None:
    server.post("/v1/embeddings").mock(side_effect=httpx.ConnectError("refused"))
    with pytest.raises(ResourceUnavailableError):
        await embedder.embed(["a"], TextKind.PASSAGE)


@pytest.mark.parametrize(
    "data",
    [
        {"data": []},
        {"data": [{"index": 0, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": [0.0, 0.0, 0.0]}]},
        {"data": [{"index": 1, "embedding": [1.0, 0.0, 0.0]}]},
        {"data": [{"index": 0, "embedding": "!!!"}]},
        {"data": [{"index": 0, "embedding": base64.b64encode(np.array([np.nan, 1, 1], "<f4").tobytes()).decode()}]},
        {"error": "x"},
    ],
)
async def test_an_answer_without_usable_vectors_is_refused(
    server: respx.MockRouter, embedder: OpenAIEmbedder, data: dict[str, object]
) -> None:
    server.post("/v1/embeddings").respond(200, json=data)
    with pytest.raises(ContractError):
        await embedder.embed(["a"], TextKind.PASSAGE)


async def test_a_batch_too_large_for_the_gpu_is_halved_and_then_given_up(
    server: respx.MockRouter, embedder: OpenAIEmbedder
) -> None:
    def one_at_a_time(request: httpx.Request) -> httpx.Response:
        if len(json.loads(request.content)["input"]) > 1:
            return httpx.Response(500, text="torch.OutOfMemoryError: CUDA out of memory")
        return answer(request)

    route = server.post("/v1/embeddings").mock(side_effect=one_at_a_time)
    assert (await embedder.embed(["a", "bb"], TextKind.PASSAGE)).vectors.shape == (2, 3)
    assert route.call_count == 3
    route.mock(side_effect=None, return_value=httpx.Response(500, text="CUDA out of memory"))
    with pytest.raises(GpuOutOfMemory):
        await embedder.embed(["a", "bb"], TextKind.PASSAGE)


async def test_queries_and_passages_get_their_own_prefix(server: respx.MockRouter) -> None:
    route = server.post("/v1/embeddings").mock(side_effect=answer)
    async with httpx.AsyncClient(base_url=BASE) as client:
        settings = OpenAISettings("qwen", 3, query_prefix="query: ", passage_prefix="passage: ", request_dimension=True)
        embedder = OpenAIEmbedder(client, settings)
        await embedder.embed(["a"], TextKind.QUERY)
        await embedder.embed(["a"], TextKind.PASSAGE)
    sent = [json.loads(call.request.content) for call in route.calls]
    assert [body["input"] for body in sent] == [["query: a"], ["passage: a"]]
    assert sent[0]["dimensions"] == 3


async def test_a_server_with_the_model_passes_the_check(server: respx.MockRouter, embedder: OpenAIEmbedder) -> None:
    await embedder.check()
    server.get("/health").respond(404)  # not every server has the path
    await embedder.check()


async def test_an_absent_sick_or_wrong_server_means_no_gpu(server: respx.MockRouter, embedder: OpenAIEmbedder) -> None:
    server.get("/v1/models").respond(200, json={"data": [{"id": "other"}]})
    with pytest.raises(GpuNotAvailable, match="it has other"):
        await embedder.check()
    server.get("/v1/models").respond(401)
    with pytest.raises(ConfigurationError, match="MEDKG_EMBED_OPENAI_API_KEY"):
        await embedder.check()
    server.get("/health").respond(503)
    with pytest.raises(GpuNotAvailable, match="unhealthy"):
        await embedder.check()
    server.get("/health").mock(side_effect=httpx.ConnectError("refused"))
    with pytest.raises(GpuNotAvailable, match="start the model server"):
        await embedder.check()


@pytest.mark.parametrize(
    "said",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 79.1 GiB",
        "RuntimeError: CUDA error: out of memory",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
    ],
)
async def test_a_gpu_without_memory_is_known_by_its_words_and_the_batch_is_halved_once(
    server: respx.MockRouter, said: str
) -> None:
    def two_at_a_time(request: httpx.Request) -> httpx.Response:
        return answer(request) if len(json.loads(request.content)["input"]) <= 2 else httpx.Response(500, text=said)

    route = server.post("/v1/embeddings").mock(side_effect=two_at_a_time)
    async with httpx.AsyncClient(base_url=BASE) as client:
        embedder = OpenAIEmbedder(client, OpenAISettings("qwen", 3, batch_size=8))
        assert (await embedder.embed(["a"] * 4, TextKind.PASSAGE)).vectors.shape == (4, 3)
        assert route.call_count == 3  # whole, and two halves
        with pytest.raises(GpuOutOfMemory, match="halved once, and again"):
            await embedder.embed(["a"] * 8, TextKind.PASSAGE)


async def test_a_model_that_is_swapped_under_way_is_refused(server: respx.MockRouter, embedder: OpenAIEmbedder) -> None:
    vectors = [{"index": 0, "embedding": [1.0, 0.0, 0.0]}]
    server.post("/v1/embeddings").respond(json={"data": vectors, "model": "another"})
    with pytest.raises(PipelineConfigError, match="'another'"):
        await embedder.embed(["a"], TextKind.PASSAGE)


async def test_a_request_is_bounded_in_tokens_and_a_long_text_goes_alone(server: respx.MockRouter) -> None:
    route = server.post("/v1/embeddings").mock(side_effect=answer)
    async with httpx.AsyncClient(base_url=BASE) as client:
        embedder = OpenAIEmbedder(client, OpenAISettings("qwen", 3, batch_size=64, batch_tokens=100))
        await embedder.embed(["x" * 300, "y" * 90, "z" * 900, "w"], TextKind.PASSAGE)
    sent = [[len(text) for text in json.loads(call.request.content)["input"]] for call in route.calls]
    assert sent == [[300, 90], [900], [1]]


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(1, 5), st.integers(1, 40))
def test_batches_hold_every_text_once_in_order_and_keep_their_bounds(
    texts: list[str], most: int, characters: int
) -> None:
    batches = list(batches_of(texts, most, characters))
    assert [text for batch in batches for text in batch] == texts
    for batch in batches:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(map(len, batch)) <= characters
