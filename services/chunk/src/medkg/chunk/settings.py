"""The chunk service's own environment: where models are. What is done with them is in the topology."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ChunkSettings(BaseSettings):
    """Variables ``MEDKG_CHUNK_…``."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_CHUNK_", extra="ignore")

    tokenizer_file: Path | None = Field(None, description="tokenizer.json of the embedder, for `tokenizer: model`")
    onnx_folder: Path | None = Field(
        None, description="folder with the model.onnx and tokenizer.json of `semantic` chunking"
    )
    onnx_threads: int = Field(1, ge=1, le=64, description="threads of that model")
