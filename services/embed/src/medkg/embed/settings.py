"""The embed service's own environment: where models are. What they are asked is in the topology."""

from pathlib import Path

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class EmbedSettings(BaseSettings):
    """Variables ``MEDKG_EMBED_…``."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_EMBED_", extra="ignore")

    openai_base_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:8000"), description="OpenAI-compatible model server, without the /v1"
    )
    openai_api_key: SecretStr = Field(SecretStr(""), description="its key, where it wants one")
    openai_timeout_seconds: float = Field(60.0, gt=0, le=600, description="for one request")
    onnx_folder: Path | None = Field(None, description="folder with model.onnx and tokenizer.json")
    onnx_threads: int = Field(2, ge=1, le=64, description="threads of the ONNX model")
    splade_folder: Path | None = Field(None, description="folder with the SPLADE model.onnx and tokenizer.json")
    splade_base_url: HttpUrl | None = Field(None, description="server of SPLADE weights (POST /embed_sparse)")
