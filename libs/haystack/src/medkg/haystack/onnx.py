"""A sentence-embedding model in ONNX form, run here on the CPU. Needs the extra ``onnx`` (onnxruntime, tokenizers)."""

import asyncio
import hashlib
import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import ConfigurationError, ContractError
from medkg.haystack.embedding import Embedded, TextKind, unit_rows

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one: their mean, or that of the first token."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True, slots=True)
class OnnxSettings:
    """``folder`` holds ``model.onnx`` and ``tokenizer.json``. On a few cores a batch of one is the fastest.

    ``revision`` pins the weights: the model's name (:attr:`OnnxEmbedder.model`) must hold it. With it in a topology,
    other weights in the same folder are refused instead of being taken for the pinned ones.
    """

    folder: Path
    pooling: Pooling = Pooling.MEAN
    max_tokens: int = 256
    batch_size: int = 1
    threads: int = 2
    query_prefix: str = ""
    passage_prefix: str = ""
    revision: str = ""


class OnnxEmbedder:
    """The model's name comes from the bytes of its files: other weights are another model, wherever they lie.

    Raises:
        ConfigurationError: the extra is not installed, or the folder does not hold a usable model.
    """

    def __init__(self, settings: OnnxSettings) -> None:
        runtime, tokenizers = _import("onnxruntime"), _import("tokenizers")
        model, tokenizer = _file(settings.folder, "model.onnx"), _file(settings.folder, "tokenizer.json")
        self._settings = settings
        self._lock = threading.Lock()  # a tokenizer's truncation and padding are its state
        options = runtime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        # where others want the CPU, threads that wait by spinning take 1.7 times as much of it and are twice as slow
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise ConfigurationError(f"opening the ONNX model in {settings.folder}: {error}") from error
        self._tokenizer.enable_truncation(settings.max_tokens)
        self._tokenizer.enable_padding()
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        shape = self._session.get_outputs()[0].shape
        if not set(self._inputs) <= set(_INPUTS) or len(shape) != 3 or not isinstance(shape[2], int):
            raise ConfigurationError(
                f"opening the ONNX model in {settings.folder}: takes {self._inputs} and gives {shape}; wanted is "
                f"a BERT encoder that takes {', '.join(_INPUTS)} and gives (batch, tokens, dimension)"
            )
        self.dimension: int = shape[2]
        recipe = f"{settings.pooling}-{settings.max_tokens}-{settings.query_prefix}-{settings.passage_prefix}"
        digest = _digest((model, tokenizer), recipe)
        self.model = f"onnx:{digest}/{self.dimension}"
        if settings.revision and settings.revision != digest:
            raise ConfigurationError(
                f"opening the ONNX model in {settings.folder}: its files and settings make revision {digest}, "
                f"pinned is {settings.revision}; put the pinned weights back, "
                "or pin the new ones and index into another index"
            )

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        """Runs in a thread, one call after another: the model uses its own threads."""
        return await asyncio.to_thread(self.vectors, texts, kind)

    def vectors(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        """One row for each text."""
        settings = self._settings
        prefix = settings.query_prefix if kind is TextKind.QUERY else settings.passage_prefix
        rows: list[NDArray[np.floating]] = []
        truncated = 0
        with self._lock:
            for start in range(0, len(texts), settings.batch_size):
                batch = [prefix + text for text in texts[start : start + settings.batch_size]]
                encodings = self._tokenizer.encode_batch(batch)
                truncated += sum(bool(encoding.overflowing) for encoding in encodings)
                rows.append(self._run(encodings))
        values = np.concatenate(rows) if rows else np.empty((0, self.dimension), dtype=np.float32)
        return Embedded(unit_rows(values, len(texts), self.dimension, self.model), truncated)

    def _run(self, encodings: list[Any]) -> NDArray[np.floating]:
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        available = dict(zip(_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
        try:
            (states, *_) = self._session.run(None, {name: available[name] for name in self._inputs})
        except Exception as error:
            raise ContractError(f"embedding with {self.model}: {error}") from error
        if self._settings.pooling is Pooling.CLS:
            return np.asarray(states[:, 0])
        weights = mask[:, :, None].astype(np.float32)
        return np.asarray((states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0))


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"opening an ONNX embedder: {name} is not installed; install medkg-embed[onnx] (uv sync --all-extras)"
        ) from error


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise ConfigurationError(
            f"opening the ONNX model in {folder}: there is no {name}; set MEDKG_EMBED_ONNX_FOLDER to a folder with "
            "model.onnx and tokenizer.json"
        )
    return path


def _digest(files: tuple[Path, ...], recipe: str) -> str:
    digest = hashlib.sha256(recipe.encode())
    for path in files:
        with path.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]
