"""An embedder behind an OpenAI-compatible ``/v1/embeddings`` (vLLM, TEI, llama.cpp, the OpenAI service)."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

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
from medkg.contracts.gpu import halving_async
from medkg.haystack.embedding import Embedded, TextKind, unit_rows

_MAX_ANSWER_BYTES = 256 * 1024 * 1024  # 256 texts of 8192 numbers as JSON come to some 40 MB
_LOOKED_AT = 4000  # characters of a failure that are searched for what it means
_CHARACTERS_PER_TOKEN = 4
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_SAID = 300  # characters of a server's own words that go into a message


class _Item(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Answer(msgspec.Struct):
    data: list[_Item]
    model: str = ""


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """``served_model`` is the name that the server knows; ``revision`` tells apart weights served under one name.

    ``max_characters`` cuts longer texts (counted as truncated): about four times the model's context in tokens. A
    request holds at most ``batch_size`` texts and about ``batch_tokens`` tokens, estimated as four characters each.
    """

    served_model: str
    dimension: int
    revision: str = ""
    batch_size: int = 64
    batch_tokens: int = 65_536
    max_characters: int = 32_000
    query_prefix: str = ""
    passage_prefix: str = ""
    request_dimension: bool = False  # asks the server for this dimension (Matryoshka models)


class OpenAIEmbedder:
    """``client`` belongs to the caller; its ``base_url`` ends before ``/v1``, and the key is in its headers."""

    def __init__(self, client: httpx.AsyncClient, settings: OpenAISettings) -> None:
        self._client = client
        self._settings = settings
        self.dimension = settings.dimension
        revision = f"@{settings.revision}" if settings.revision else ""
        self.model = f"openai:{settings.served_model}{revision}/{settings.dimension}"

    async def check(self) -> None:
        """Is the server up, and does it serve the model?

        Raises:
            GpuNotAvailable: no server, an unhealthy one, or one without the model.
            ConfigurationError: the server does not accept the key.
        """
        where = f"{self._client.base_url} (model {self._settings.served_model})"
        try:
            health = await self._client.get("health")
            models = await self._client.get("v1/models")
        except httpx.HTTPError as error:
            raise GpuNotAvailable(
                f"opening the embedder at {where}: no answer ({type(error).__name__}); start the model server, or set "
                "MEDKG_EMBED_OPENAI_BASE_URL to where it runs"
            ) from error
        if health.status_code >= 500 or models.status_code >= 500:
            status = max(health.status_code, models.status_code)
            raise GpuNotAvailable(f"opening the embedder at {where}: the model server is unhealthy, status {status}")
        if models.status_code in (401, 403):
            raise _refused_key(where, models.status_code)
        served = _served_models(models)
        if self._settings.served_model not in served:
            raise GpuNotAvailable(
                f"opening the embedder at {where}: the server does not serve this model; it has "
                f"{', '.join(sorted(served)[:10]) or 'none'}; set `served_model` to one of them"
            )

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        """As many requests as batches, one after another; a batch that does not fit into the GPU is halved once.

        Raises:
            GpuOutOfMemory: half a batch did not fit either, or one text alone.
            PipelineConfigError: the server answers with another model than it was asked for.
        """
        settings = self._settings
        prefix = settings.query_prefix if kind is TextKind.QUERY else settings.passage_prefix
        shortened = [_shorten(text, settings.max_characters) for text in texts]
        # the service refuses an empty text
        inputs = [prefix + (text if text.strip() else ".") for text in shortened]
        parts: list[NDArray[np.floating]] = []
        for batch in batches_of(inputs, settings.batch_size, _CHARACTERS_PER_TOKEN * settings.batch_tokens):
            parts.extend(await halving_async(self._embed_batch, batch))
        rows = np.stack(parts) if parts else np.empty((0, self.dimension), dtype=np.float32)
        truncated = sum(len(short) < len(text) for short, text in zip(shortened, texts, strict=True))
        return Embedded(unit_rows(rows, len(inputs), self.dimension, self.model), truncated)

    async def _embed_batch(self, inputs: Sequence[str]) -> list[NDArray[np.floating]]:
        response = await self._post(inputs)
        if response.status_code >= 400 and is_out_of_memory(response.text[:_LOOKED_AT]):
            raise GpuOutOfMemory(
                f"embedding with {self.model}: {len(inputs)} texts do not fit into the GPU's memory; lower "
                "`batch_size`, `batch_tokens` or `max_characters`, or give the model server more memory"
            )
        if response.status_code != 200:
            raise _error_of(response, self.model)
        return list(self._decode(response, len(inputs)))

    async def _post(self, inputs: Sequence[str]) -> httpx.Response:
        body: dict[str, Any] = {
            "model": self._settings.served_model,
            "input": list(inputs),
            "encoding_format": "base64",
        }
        if self._settings.request_dimension:
            body["dimensions"] = self.dimension
        try:
            return await self._client.post("v1/embeddings", json=body)
        except httpx.HTTPError as error:
            raise ResourceUnavailableError(
                f"embedding {len(inputs)} texts at {self._client.base_url}: {type(error).__name__}: {error}"
            ) from error

    def _decode(self, response: httpx.Response, expected: int) -> NDArray[np.floating]:
        try:
            if len(response.content) > _MAX_ANSWER_BYTES:
                raise ValueError(f"{len(response.content)} bytes are too many")
            answer = msgspec.json.decode(response.content, type=_Answer)
            self._check_model(answer.model)
            items = sorted(answer.data, key=lambda item: item.index)
            if [item.index for item in items] != list(range(expected)):
                raise ValueError(f"{expected} texts were sent, the answer has {len(items)} vectors")
            return np.stack([_vector(item.embedding) for item in items])
        except (msgspec.DecodeError, ValueError, binascii.Error) as error:
            raise ContractError(f"embedding with {self.model}: the answer cannot be read: {error}") from error

    def _check_model(self, answered: str) -> None:
        """Vectors of two models in one index cannot be compared: a server that changed its model is refused."""
        asked = self._settings.served_model
        if answered not in ("", asked):
            raise PipelineConfigError(
                f"embedding with {self.model}: the server answers with the model {answered!r}; serve {asked!r} again, "
                "or change `served_model` and index into another index"
            )


def is_out_of_memory(said: str) -> bool:
    """Whether a message is that of a GPU without memory left, as torch, CUDA and cuBLAS put it."""
    return _OUT_OF_MEMORY.search(said) is not None


def batches_of(texts: Sequence[str], most: int, characters: int) -> Iterator[list[str]]:
    """The texts in order, in batches of at most ``most`` and ``characters`` in all; a longer text is one alone."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == most or size + len(text) > characters):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _vector(encoded: str | list[float]) -> NDArray[np.floating]:
    if isinstance(encoded, str):
        return np.frombuffer(base64.b64decode(encoded, validate=True), dtype="<f4")
    return np.array(encoded, dtype=np.float64)


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    cut = text.rfind(" ", limit // 2, limit)
    return text[: cut if cut > 0 else limit]


def _served_models(response: httpx.Response) -> set[str]:
    try:
        return {str(item["id"]) for item in response.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return set()


def _refused_key(where: str, status: int) -> ConfigurationError:
    return ConfigurationError(
        f"embedding at {where}: the server refuses the key, status {status}; set MEDKG_EMBED_OPENAI_API_KEY"
    )


def _error_of(response: httpx.Response, model: str) -> MedkgError:
    """Which error an answer stands for: is it worth another try, is the document or the setting at fault?"""
    status, said = response.status_code, " ".join(response.text[:_SAID].split())
    message = f"embedding with {model}: status {status}: {said}"
    if status in (401, 403):
        return _refused_key(str(response.request.url), status)
    if status in (408, 429) or status >= 500:
        return ResourceUnavailableError(message, retry_after_seconds=_retry_after(response), status=status)
    if status == 413 or "context length" in said.lower() or "maximum context" in said.lower():
        return PayloadTooLargeError(f"{message}; lower `max_characters`", status=status)
    if status == 404:
        return ConfigurationError(f"{message}; check `served_model` and MEDKG_EMBED_OPENAI_BASE_URL", status=status)
    return ContractError(message, status=status)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(max(float(response.headers["retry-after"]), 0.0), 3600.0)
    except (KeyError, ValueError):
        return None  # absent, or a date: the policy's own backoff is good enough
