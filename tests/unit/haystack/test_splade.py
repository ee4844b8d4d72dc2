"""Learned sparse expansion, the check for a GPU, and the Haystack component of both kinds of expansion."""

import ctypes
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import respx
from haystack import Document, Pipeline
from tests.servers.models.weights import model_folder

from medkg.contracts.errors import (
    ConfigurationError,
    ContractError,
    GpuNotAvailable,
    GpuOutOfMemory,
    MedkgError,
    ResourceUnavailableError,
)
from medkg.haystack import gpu
from medkg.haystack.expander import HaystackSparseExpander
from medkg.haystack.expansion import ImpactsExpander, expanders_of
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.splade import OnnxSplade, ServedSplade, SpladeSettings, splade_weights, top_terms
from medkg.haystack.splade_words import PassageSplade
from medkg.haystack.stores import TermCounts


class Driver:
    """What `libcuda` says where there are so many devices; with a `code` that is not 0 the driver does not start."""

    def __init__(self, devices: int, code: int = 0) -> None:
        self._devices, self._code = devices, code

    def cuInit(self, flags: int) -> int:
        return self._code

    def cuDeviceGetCount(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = self._devices
        return 0


def no_driver(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_a_gpu_is_there_if_the_driver_says_so() -> None:
    gpu.require_gpu("splade", "use another", lambda name: Driver(2))
    assert gpu.gpu_count(lambda name: Driver(2)) == 2


@pytest.mark.parametrize("load", [no_driver, lambda name: Driver(0), lambda name: Driver(1, code=100)])
def test_without_a_gpu_the_message_says_what_to_name_instead(load: Any) -> None:
    assert gpu.gpu_count(load) == 0
    with pytest.raises(GpuNotAvailable, match=r"no CUDA device is visible.*name the CPU variant"):
        gpu.require_gpu("splade", "name the CPU variant", load)


def test_weights_are_the_peaks_of_the_logits_damped() -> None:
    logits = np.array([[1.0, -5.0, 0.0], [3.0, -1.0, 0.0]])
    weights = splade_weights(logits, "m")
    assert weights.tolist() == pytest.approx([np.log1p(3.0), 0, 0], abs=1e-4)
    vector = top_terms(weights, lambda term: f"t{term}")
    assert (vector.terms, len(vector.weights)) == (("t0",), 1)
    assert not splade_weights(np.empty((0, 3)), "m").any()
    with pytest.raises(ContractError, match="not finite"):
        splade_weights(np.array([[np.nan, 1.0]]), "m")


def test_only_the_heaviest_terms_are_kept_sorted() -> None:
    vector = top_terms(np.linspace(0.1, 1, 1000), lambda term: f"{term:04d}")
    assert len(vector.terms) == 512
    assert list(vector.terms) == sorted(vector.terms)
    assert "0999" in vector.terms
    assert "0000" not in vector.terms


async def test_a_model_of_this_process_expands_passages_and_queries_alike() -> None:
    folder = model_folder("minilm")  # no language model: its states stand for logits over 384 terms
    splade = OnnxSplade(SpladeSettings(folder, 32, on_gpu=False))
    (passage,) = await splade.expand(["Aspirin prevents infarction."], [""])
    query = await splade.expand_query("Aspirin prevents infarction.", TermCounts(10, {}))
    assert dict(zip(passage.terms, passage.weights, strict=True)) == query
    assert query
    assert all(weight > 0 for weight in query.values())
    assert splade.query_terms("aspirin") == []
    assert splade.model.startswith("splade:")
    assert expanders_of([splade])(splade.model) is splade


async def test_where_only_passages_are_expanded_a_question_weighs_its_own_word_pieces_by_rarity() -> None:
    folder = model_folder("minilm")
    both = PassageSplade(folder, 32, OnnxSplade(SpladeSettings(folder, 32, on_gpu=False)))
    assert both.query_terms("Aspirin, aspirin prevents infarction") == ["as", "##pi", "##rin", ",", "prevents", "in",
                                                                        "##far", "##ction"]  # fmt: skip
    weights = await both.expand_query("", TermCounts(10, {"##rin": 1, "in": 9}))
    assert weights["##rin"] > weights["in"] > 0
    assert len(await both.expand(["Aspirin."], ["T"])) == 1
    questions_only = PassageSplade(folder, 32)
    assert questions_only.model == both.model != OnnxSplade(SpladeSettings(folder, 32, on_gpu=False)).model
    with pytest.raises(ConfigurationError, match="only its tokenizer"):
        await questions_only.expand(["Aspirin."], ["T"])


async def test_splade_does_not_fall_back_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "medkg.haystack.splade.require_gpu", lambda what, instead: gpu.require_gpu(what, instead, no_driver)
    )
    with pytest.raises(GpuNotAvailable):
        OnnxSplade(SpladeSettings(tmp_path))
    with pytest.raises(GpuNotAvailable):
        HaystackSparseExpander("splade", str(tmp_path)).warm_up()
    with pytest.raises(ConfigurationError, match="opening the SPLADE model"):
        OnnxSplade(SpladeSettings(tmp_path, on_gpu=False))


async def served(response: httpx.Response) -> Any:
    with respx.mock(base_url="http://splade.test") as server:
        server.post("/embed_sparse").mock(return_value=response)
        async with httpx.AsyncClient(base_url="http://splade.test") as client:
            return await ServedSplade(client, "splade-v3", "r1").expand(["a"], ["T"])


async def test_a_server_gives_weights_by_token() -> None:
    rows = [[{"index": 7, "value": 1.5}, {"index": 3, "value": 0.5}, {"index": 4, "value": 0.0}]]
    (vector,) = await served(httpx.Response(200, json=rows))
    assert (vector.terms, vector.weights) == (("3", "7"), (0.5, 1.5))


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(503), ResourceUnavailableError),
        (httpx.Response(429), ResourceUnavailableError),
        (httpx.Response(500, text="CUDA out of memory"), GpuOutOfMemory),
        (httpx.Response(400), ContractError),
        (httpx.Response(200, json=[]), ContractError),
        (httpx.Response(200, text='[[{"index": 1, "value": NaN}]]'), ContractError),
        (httpx.Response(200, text="<html>"), ContractError),
    ],
)
async def test_each_failure_of_the_server_is_sorted(response: httpx.Response, error: type[MedkgError]) -> None:
    with pytest.raises(error):
        await served(response)


async def test_a_server_that_is_down_means_no_gpu() -> None:
    with respx.mock(base_url="http://splade.test") as server:
        async with httpx.AsyncClient(base_url="http://splade.test") as client:
            server.get("/health").respond(503)
            with pytest.raises(GpuNotAvailable, match="503"):
                await ServedSplade(client, "m").check()
            server.get("/health").mock(side_effect=httpx.ConnectError("refused"))
            with pytest.raises(GpuNotAvailable, match="no answer"):
                await ServedSplade(client, "m").check()


async def test_a_batch_that_does_not_fit_into_the_gpu_of_the_server_is_halved_once() -> None:
    def two_at_a_time(request: httpx.Request) -> httpx.Response:
        count = len(json.loads(request.content)["inputs"])
        row = [{"index": 7, "value": 1.5}]
        return httpx.Response(200, json=[row] * count) if count <= 2 else httpx.Response(500, text="CUDA out of memory")

    with respx.mock(base_url="http://splade.test") as server:
        route = server.post("/embed_sparse").mock(side_effect=two_at_a_time)
        async with httpx.AsyncClient(base_url="http://splade.test") as client:
            expander = ServedSplade(client, "m", batch_size=8)
            assert len(await expander.expand(["a"] * 4, ["T"] * 4)) == 4
            assert route.call_count == 3  # whole, and two halves
            with pytest.raises(GpuOutOfMemory, match="halved once, and again"):
                await expander.expand(["a"] * 8, ["T"] * 8)


async def test_impacts_weigh_a_rare_term_of_the_query_more() -> None:
    expander = ImpactsExpander()
    assert (expander.model, expander.query_terms("the asthma trials")) == (IMPACTS, ["asthma", "trial"])
    weights = await expander.expand_query("", TermCounts(10, {"asthma": 1, "trial": 9}))
    assert weights["asthma"] > weights["trial"] > 0
    assert await expander.expand(["Asthma."], ["T"]) == [impacts("Asthma.", "T")]


def test_the_component_puts_term_weights_beside_documents_and_survives_serialisation() -> None:
    pipeline = Pipeline()
    pipeline.add_component("expand", HaystackSparseExpander())
    read_back = Pipeline.loads(pipeline.dumps(), allowed_modules=["medkg.haystack.expander"])
    given = {"expand": {"documents": [Document(id="d", content="Asthma in adults", meta={"title": "Asthma"})]}}
    (document,) = read_back.run(given)["expand"]["documents"]
    vector = impacts("Asthma in adults", "Asthma")
    assert document.meta["term_weights"] == dict(zip(vector.terms, vector.weights, strict=True))
    assert document.id == "d"
    with pytest.raises(ValueError, match="kind must be"):
        HaystackSparseExpander("magic")
