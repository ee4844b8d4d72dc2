"""The embed service: what it offers, and how it is started."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime.process import serve
from medkg.runtime.settings import from_environment

if TYPE_CHECKING:
    from medkg.haystack.expansion import SparseExpander
    from medkg.haystack.hashing import HashingEmbedder
    from medkg.haystack.onnx import OnnxEmbedder


class EmbedOptions(Options):
    """What every embedder can be told."""

    with_title: bool = Field(True, description="the model reads the document's title before the passage")
    sparse: Literal["impacts", "splade", "splade-cpu", "none"] = Field(
        "impacts",
        description="the term weights beside the vectors; `splade` needs a GPU or MEDKG_EMBED_SPLADE_BASE_URL, "
        "`splade-cpu` runs the model of MEDKG_EMBED_SPLADE_FOLDER on the CPU",
    )
    splade_queries: Literal["expanded", "words"] = Field(
        "expanded",
        description="`words`: only passages are expanded, questions are their own word pieces (a model of the "
        "inference-free kind); searches then need the model's tokenizer, and run no model",
    )
    splade_max_tokens: int = Field(256, ge=8, le=8192, description="longer texts are cut before their expansion")
    splade_model: str = Field("", max_length=200, description="the SPLADE model's name at its server")
    splade_revision: str = Field("", max_length=100, description="tells apart weights that are served under one name")


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
    batch_tokens: int = Field(65_536, ge=64, description="most tokens in a request, at four characters each")
    max_characters: int = Field(32_000, ge=100, description="longer texts are cut, and counted as truncated")
    query_prefix: str = ""
    passage_prefix: str = ""


class OnnxOptions(EmbedOptions):
    """Settings of ``embed.onnx``."""

    folder: Path | None = Field(None, description="instead of MEDKG_EMBED_ONNX_FOLDER")
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: int = Field(256, ge=8, le=8192, description="longer texts are cut, and counted as truncated")
    batch_size: int = Field(1, ge=1, le=256)
    revision: str = Field("", max_length=100, description="pins the model; other weights in the folder are refused")
    query_prefix: str = ""
    passage_prefix: str = ""


@asynccontextmanager
async def _open_hashing(options: HashingOptions, host: Host) -> AsyncIterator[object]:
    from medkg.haystack.hashing import HashingEmbedder

    async with _opened_local(HashingEmbedder(options.dimension), options) as stage:
        yield stage


@asynccontextmanager
async def _open_openai(options: OpenAIOptions, host: Host) -> AsyncIterator[object]:
    import httpx

    from medkg.embed.settings import EmbedSettings
    from medkg.embed.stage import ExpandedEmbedding
    from medkg.haystack.openai import OpenAIEmbedder, OpenAISettings

    settings = from_environment(EmbedSettings)
    key = settings.openai_api_key.get_secret_value()
    asked = OpenAISettings(**options.model_dump(exclude=set(EmbedOptions.model_fields)))
    async with httpx.AsyncClient(
        base_url=str(settings.openai_base_url),
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=settings.openai_timeout_seconds,
    ) as client:
        embedder = OpenAIEmbedder(client, asked)
        await embedder.check()
        async with _expander(options) as expander:
            yield ExpandedEmbedding(embedder, expander, with_title=options.with_title)


@asynccontextmanager
async def _open_onnx(options: OnnxOptions, host: Host) -> AsyncIterator[object]:
    from medkg.embed.settings import EmbedSettings
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
        revision=options.revision,
    )
    async with _opened_local(await asyncio.to_thread(OnnxEmbedder, asked), options) as stage:
        yield stage


@asynccontextmanager
async def _opened_local(embedder: "HashingEmbedder | OnnxEmbedder", options: EmbedOptions) -> AsyncIterator[object]:
    """A local model with impacts runs whole in one thread; with a SPLADE model the two take turns."""
    from medkg.embed.stage import ExpandedEmbedding, LocalEmbedding

    if options.sparse in ("impacts", "none"):
        yield LocalEmbedding(embedder, with_title=options.with_title, with_impacts=options.sparse == "impacts")
        return
    async with _expander(options) as expander:
        yield ExpandedEmbedding(embedder, expander, with_title=options.with_title)


@asynccontextmanager
async def _expander(options: EmbedOptions) -> "AsyncIterator[SparseExpander | None]":
    """The expander that the options name. `splade` is a server's where one is set, else this process needs a GPU."""
    from medkg.embed.settings import EmbedSettings
    from medkg.haystack.expansion import ImpactsExpander
    from medkg.haystack.splade import OnnxSplade, ServedSplade, SpladeSettings
    from medkg.haystack.splade_words import PassageSplade

    if options.sparse in ("impacts", "none"):
        yield ImpactsExpander() if options.sparse == "impacts" else None
        return
    settings = from_environment(EmbedSettings)
    is_by_words = options.splade_queries == "words"
    if options.sparse == "splade" and settings.splade_base_url is not None and not is_by_words:
        import httpx

        timeout = settings.openai_timeout_seconds
        async with httpx.AsyncClient(base_url=str(settings.splade_base_url), timeout=timeout) as client:
            served = ServedSplade(client, options.splade_model, options.splade_revision)
            await served.check()
            yield served
        return
    if settings.splade_folder is None:
        raise ConfigurationError(
            f"opening `sparse: {options.sparse}`: no model; set MEDKG_EMBED_SPLADE_FOLDER to a folder with model.onnx "
            "and tokenizer.json, or MEDKG_EMBED_SPLADE_BASE_URL to a model server (not with `splade_queries: words`)"
        )
    asked = SpladeSettings(
        settings.splade_folder, options.splade_max_tokens, settings.onnx_threads, on_gpu=options.sparse == "splade"
    )
    splade = await asyncio.to_thread(OnnxSplade, asked)
    yield PassageSplade(asked.folder, asked.max_tokens, splade) if is_by_words else splade


HASHING = StageImplementation(
    stage_type=StageType.EMBED,
    name="hashing",
    version="3",
    options=HashingOptions,
    open=_open_hashing,
    is_default=True,
    in_python=True,
)
OPENAI = StageImplementation(
    stage_type=StageType.EMBED,
    name="openai",
    version="3",
    options=OpenAIOptions,
    open=_open_openai,
    needs_gpu=True,
    gpu_is_remote=True,
)
ONNX = StageImplementation(stage_type=StageType.EMBED, name="onnx", version="3", options=OnnxOptions, open=_open_onnx)


def main() -> None:
    """Entry point of ``medkg-embed`` and ``python -m medkg.embed``."""
    serve(StageType.EMBED)
