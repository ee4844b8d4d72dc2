"""The embed service: what it offers, and how it is started."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime.service import serve
from medkg.runtime.settings import from_environment


class EmbedOptions(Options):
    """What every embedder can be told."""

    with_title: bool = Field(True, description="the model reads the document's title before the passage")
    sparse: Literal["impacts", "none"] = Field("impacts", description="which sparse vectors go beside the dense ones")


class HashingOptions(EmbedOptions):
    """Settings of ``embed.hashing``."""

    dimension: int = Field(384, ge=32, le=8192)


class OpenAIOptions(EmbedOptions):
    """Settings of ``embed.openai``. Address and key come from the environment, see :class:`EmbedSettings`."""

    served_model: str = Field(min_length=1, max_length=200, description="the model's name at the server")
    revision: str = Field("", max_length=100, description="tells apart weights that are served under one name")
    dimension: int = Field(ge=1, le=65_536)
    request_dimension: bool = Field(False, description="ask the server for this dimension (Matryoshka models)")
    batch_size: int = Field(64, ge=1, le=2048)
    max_characters: int = Field(32_000, ge=100, description="longer texts are cut, and counted as truncated")
    query_prefix: str = ""
    passage_prefix: str = ""


class OnnxOptions(EmbedOptions):
    """Settings of ``embed.onnx``."""

    folder: Path | None = Field(None, description="instead of MEDKG_EMBED_ONNX_FOLDER")
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: int = Field(256, ge=8, le=8192, description="longer texts are cut, and counted as truncated")
    batch_size: int = Field(1, ge=1, le=256)
    query_prefix: str = ""
    passage_prefix: str = ""


@asynccontextmanager
async def _open_hashing(options: HashingOptions, host: Host) -> AsyncIterator[object]:
    from medkg.embed.stage import LocalEmbedding
    from medkg.haystack.hashing import HashingEmbedder

    yield LocalEmbedding(
        HashingEmbedder(options.dimension), with_title=options.with_title, with_impacts=options.sparse == "impacts"
    )


@asynccontextmanager
async def _open_openai(options: OpenAIOptions, host: Host) -> AsyncIterator[object]:
    import httpx

    from medkg.embed.settings import EmbedSettings
    from medkg.embed.stage import RemoteEmbedding
    from medkg.haystack.openai import OpenAIEmbedder, OpenAISettings

    settings = from_environment(EmbedSettings)
    key = settings.openai_api_key.get_secret_value()
    asked = OpenAISettings(**options.model_dump(exclude={"with_title", "sparse"}))
    async with httpx.AsyncClient(
        base_url=str(settings.openai_base_url),
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=settings.openai_timeout_seconds,
    ) as client:
        embedder = OpenAIEmbedder(client, asked)
        await embedder.check()
        yield RemoteEmbedding(embedder, with_title=options.with_title, with_impacts=options.sparse == "impacts")


@asynccontextmanager
async def _open_onnx(options: OnnxOptions, host: Host) -> AsyncIterator[object]:
    from medkg.embed.settings import EmbedSettings
    from medkg.embed.stage import LocalEmbedding
    from medkg.haystack.onnx import OnnxEmbedder, OnnxSettings, Pooling

    settings = from_environment(EmbedSettings)
    folder = options.folder or settings.onnx_folder
    if folder is None:
        raise ConfigurationError(
            "opening embed.onnx: no model folder; set MEDKG_EMBED_ONNX_FOLDER, or `folder` in the topology, to a folder"
            " with model.onnx and tokenizer.json"
        )
    asked = OnnxSettings(
        folder=folder,
        pooling=Pooling(options.pooling),
        max_tokens=options.max_tokens,
        batch_size=options.batch_size,
        threads=settings.onnx_threads,
        query_prefix=options.query_prefix,
        passage_prefix=options.passage_prefix,
    )
    embedder = await asyncio.to_thread(OnnxEmbedder, asked)
    yield LocalEmbedding(embedder, with_title=options.with_title, with_impacts=options.sparse == "impacts")


HASHING = StageImplementation(
    stage_type=StageType.EMBED,
    name="hashing",
    version="1",
    options=HashingOptions,
    open=_open_hashing,
    is_default=True,
)
OPENAI = StageImplementation(
    stage_type=StageType.EMBED,
    name="openai",
    version="1",
    options=OpenAIOptions,
    open=_open_openai,
    needs_gpu=True,
)
ONNX = StageImplementation(stage_type=StageType.EMBED, name="onnx", version="1", options=OnnxOptions, open=_open_onnx)


def main() -> None:
    """Entry point of ``medkg-embed`` and ``python -m medkg.embed``."""
    serve(StageType.EMBED)
