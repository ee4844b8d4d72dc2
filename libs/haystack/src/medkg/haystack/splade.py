"""Learned sparse expansion: SPLADE (Formal et al. 2021), term weights over a masked language model's vocabulary.

``weight(term) = max over tokens of log(1 + relu(logit(token, term)))``, the tokens that begin and end a text among
them, as published; terms are the vocabulary's tokens.
"""

import asyncio
import hashlib
import importlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from medkg.contracts.document import SparseVector
from medkg.contracts.errors import (
    ConfigurationError,
    ContractError,
    GpuNotAvailable,
    GpuOutOfMemory,
    ResourceUnavailableError,
)
from medkg.contracts.gpu import halving_async
from medkg.haystack.gpu import require_gpu
from medkg.haystack.openai import is_out_of_memory
from medkg.haystack.stores import TermCounts

MAX_TERMS: Final = 512  # of a passage; the heaviest are kept
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_POOLING = b"peaks over all tokens"  # other pooling of the same files makes other weights: another model


class LearnedExpander:
    """What learned expanders share: passages and queries are expanded alike, and no index is asked."""

    model: str

    async def expand(self, texts: Sequence[str], titles: Sequence[str]) -> list[SparseVector]:
        """See :class:`medkg.haystack.expansion.SparseExpander`. The title is read before the passage."""
        joined = [f"{title}\n{text}" if title else text for text, title in zip(texts, titles, strict=True)]
        return await self._weigh(joined)

    def query_terms(self, query: str) -> list[str]:
        return []

    async def expand_query(self, query: str, counts: TermCounts) -> dict[str, float]:
        (vector,) = await self._weigh([query])
        return dict(zip(vector.terms, vector.weights, strict=True))

    async def _weigh(self, texts: Sequence[str]) -> list[SparseVector]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SpladeSettings:
    """``folder`` holds ``model.onnx`` (token logits) and ``tokenizer.json``. ``on_gpu`` False names the CPU variant."""

    folder: Path
    max_tokens: int = 256
    threads: int = 2
    on_gpu: bool = True


class OnnxSplade(LearnedExpander):
    """A SPLADE model in this process; its name comes from the bytes of its files.

    Raises:
        GpuNotAvailable: it is to run on a GPU, and there is none that onnxruntime can use.
        ConfigurationError: the extra ``onnx`` is not installed, or the folder holds no usable model.
    """

    def __init__(self, settings: SpladeSettings) -> None:
        if settings.on_gpu:
            require_gpu("splade", "name the CPU variant (`sparse: splade-cpu`)")
        try:
            runtime, tokenizers = importlib.import_module("onnxruntime"), importlib.import_module("tokenizers")
        except ImportError as error:
            raise ConfigurationError(
                f"opening splade: {error.name} is not installed; install medkg-embed[onnx]"
            ) from error
        revision = splade_revision(settings.folder)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        # where others want the CPU, threads that wait by spinning take 1.7 times as much of it and are twice as slow
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if settings.on_gpu and _CUDA not in runtime.get_available_providers():
            raise ConfigurationError(
                "opening splade: there is a GPU, but this onnxruntime cannot use it; install onnxruntime-gpu, or "
                "name the CPU variant (`sparse: splade-cpu`)"
            )
        try:
            providers = [_CUDA if settings.on_gpu else _CPU]
            model = str(settings.folder / "model.onnx")
            self._session: Any = runtime.InferenceSession(model, options, providers=providers)
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(settings.folder / "tokenizer.json"))
        except Exception as error:
            raise ConfigurationError(f"opening the SPLADE model in {settings.folder}: {error}") from error
        self._tokenizer.enable_truncation(settings.max_tokens)
        self._tokenizer.no_padding()
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._lock = threading.Lock()
        self.model = f"splade:{revision}-{settings.max_tokens}"

    def vectors(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector for each text, one text after another: on few cores a batch is no faster."""
        with self._lock:
            return [self._vector(text) for text in texts]

    async def _weigh(self, texts: Sequence[str]) -> list[SparseVector]:
        return await asyncio.to_thread(self.vectors, texts)

    def _vector(self, text: str) -> SparseVector:
        encoding = self._tokenizer.encode(text)
        ids = np.array([encoding.ids], dtype=np.int64)
        available = dict(zip(_INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
        try:
            (logits, *_) = self._session.run(None, {name: available[name] for name in self._inputs})
        except Exception as error:
            if is_out_of_memory(str(error)):
                raise GpuOutOfMemory(
                    f"expanding with {self.model}: one text does not fit into the GPU's memory"
                ) from error
            raise ContractError(f"expanding with {self.model}: {error}") from error
        if np.ndim(logits) != 3:
            raise ContractError(f"expanding with {self.model}: wanted are logits of each token, not {np.shape(logits)}")
        return top_terms(splade_weights(np.asarray(logits[0]), self.model), self._tokenizer.id_to_token)


class ServedSplade(LearnedExpander):
    """A SPLADE model behind ``POST /embed_sparse`` (text-embeddings-inference). The client is the caller's.

    Terms are the token ids in decimal. ``revision`` tells apart weights that are served under one name.
    """

    def __init__(self, client: httpx.AsyncClient, served_model: str, revision: str = "", batch_size: int = 16) -> None:
        self._client = client
        self._batch_size = batch_size
        self.model = f"splade-served:{served_model}{f'@{revision}' if revision else ''}"

    async def check(self) -> None:
        """Is the server up?

        Raises:
            GpuNotAvailable: no answer, or an unhealthy one.
        """
        where = f"opening the SPLADE server at {self._client.base_url}"
        try:
            health = await self._client.get("health")
        except httpx.HTTPError as error:
            raise GpuNotAvailable(
                f"{where}: no answer ({type(error).__name__}); start it, or name another `sparse`"
            ) from error
        if health.status_code != 200:
            raise GpuNotAvailable(f"{where}: it is not healthy, status {health.status_code}")

    async def _weigh(self, texts: Sequence[str]) -> list[SparseVector]:
        found: list[SparseVector] = []
        for start in range(0, len(texts), self._batch_size):
            found.extend(await halving_async(self._batch, texts[start : start + self._batch_size]))
        return found

    async def _batch(self, texts: Sequence[str]) -> list[SparseVector]:
        doing = f"expanding {len(texts)} texts with {self.model}"
        try:
            response = await self._client.post("embed_sparse", json={"inputs": list(texts), "truncate": True})
        except httpx.HTTPError as error:
            raise ResourceUnavailableError(f"{doing}: {type(error).__name__}: {error}") from error
        if response.status_code >= 400 and is_out_of_memory(response.text[:4000]):
            raise GpuOutOfMemory(f"{doing}: the GPU has no memory left; lower the batch size")
        if response.status_code == 429 or response.status_code >= 500:
            raise ResourceUnavailableError(f"{doing}: status {response.status_code}", status=response.status_code)
        if response.status_code != 200 or len(response.content) > _MAX_ANSWER_BYTES:
            raise ContractError(f"{doing}: status {response.status_code}, {len(response.content)} bytes")
        try:
            rows = msgspec.json.decode(response.content, type=list[list[_Weight]])
        except msgspec.DecodeError as error:
            raise ContractError(f"{doing}: the answer cannot be read: {error}") from error
        if len(rows) != len(texts) or not all(math.isfinite(weight.value) for row in rows for weight in row):
            raise ContractError(f"{doing}: {len(rows)} vectors came back, or one with a value that is not finite")
        return [_heaviest([(str(w.index), w.value) for w in row if w.value > 0]) for row in rows]


class _Weight(msgspec.Struct):
    index: int
    value: float


def splade_revision(folder: Path) -> str:
    """Names the model in a folder by the bytes of its files, and by how its logits become weights.

    Raises:
        ConfigurationError: a file is missing or cannot be read.
    """
    digest = hashlib.sha256(_POOLING)
    for name in ("model.onnx", "tokenizer.json"):
        try:
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ConfigurationError(f"opening the SPLADE model in {folder}: {name}: {error.strerror}") from error
    return digest.hexdigest()[:16]


def splade_weights(logits: NDArray[np.floating], model: str) -> NDArray[np.float64]:
    """One weight for each term, from the logits of each token (rows). A text without a token has none.

    Raises:
        ContractError: a logit that is not a number.
    """
    if not len(logits):
        return np.zeros(logits.shape[1])
    peaks = logits.max(axis=0).astype(np.float64)
    if not np.isfinite(peaks).all():
        raise ContractError(f"expanding with {model}: a logit is not finite")
    weights: NDArray[np.float64] = np.log1p(np.maximum(peaks, 0.0)).round(4)
    return weights


def top_terms(weights: NDArray[np.float64], term_of: Any) -> SparseVector:
    """The heaviest terms with a positive weight."""
    positive = np.flatnonzero(weights)
    return _heaviest([(term_of(int(term)), float(weights[term])) for term in positive])


def _heaviest(pairs: list[tuple[str, float]]) -> SparseVector:
    kept = sorted(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:MAX_TERMS])
    return SparseVector(tuple(term for term, _ in kept), tuple(round(weight, 4) for _, weight in kept))
