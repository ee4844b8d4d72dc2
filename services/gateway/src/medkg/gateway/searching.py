"""How the gateway searches: its settings, and the retriever that they describe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from medkg.haystack.addresses import EmbeddedAddress, OpenSearchAddress, open_index
from medkg.haystack.expansion import ExpanderOf, SparseExpander, expanders_of
from medkg.haystack.legs import LegWeights, Models
from medkg.haystack.models import EmbedderSpec, embedders_of
from medkg.haystack.passage_database import DEFAULT_INDEX
from medkg.haystack.reranking import Reranker
from medkg.haystack.retriever import Retriever, RetrieverSettings

if TYPE_CHECKING:
    import httpx

Store = Annotated[EmbeddedAddress | OpenSearchAddress, Field(discriminator="kind")]


class SearchSettings(BaseSettings):
    """Variables ``MEDKG_SEARCH_…``. Models are described in JSON; what an index was made with must be among them."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_SEARCH_", extra="ignore")

    index: str = Field(DEFAULT_INDEX, description="Which index of a tenant is searched.")
    store: Store | None = Field(
        None, description='Where indexes are, as JSON: {"kind": "opensearch", …}; without it the data folder.'
    )
    embedders: tuple[EmbedderSpec, ...] = Field(
        (),
        description='Embedders of queries, as a JSON list: [{"kind": "onnx", "folder": …}, {"kind": "openai", …}]; '
        "hashing is always there.",
    )
    splade_folder: Path | None = Field(None, description="Folder of the SPLADE model of an index with its weights.")
    splade_on_gpu: bool = Field(False, description="Run that model on a GPU.")
    splade_queries: Literal["expanded", "words"] = Field(
        "expanded", description="As when the index was made; for words only the tokenizer in that folder is loaded."
    )
    splade_max_tokens: int = Field(256, ge=8, le=8192, description="As when the index was made.")
    splade_base_url: HttpUrl | None = Field(None, description="Server of SPLADE weights (POST /embed_sparse).")
    splade_model: str = Field("", description="Its model's name, as when the index was made.")
    splade_revision: str = Field("", description="Its model's revision, as when the index was made.")
    rerank_base_url: HttpUrl | None = Field(None, description="Server of a reranker (POST /v1/rerank).")
    rerank_model: str = Field("", description="The reranker's name at its server.")
    weight_bm25: float = Field(1.0, ge=0, le=100, description="What words have to say in the fusion.")
    weight_dense: float = Field(1.5, ge=0, le=100, description="What vectors have to say in the fusion.")
    weight_sparse: float = Field(0.3, ge=0, le=100, description="What term weights have to say in the fusion.")
    rrf_k: float = Field(5.0, ge=0, le=1000, description="Damps the first ranks in the fusion.")
    depth: int = Field(200, ge=10, le=1000, description="Passages that are taken from each kind of search.")
    deadline_seconds: float = Field(
        5.0, gt=0, le=60, description="After it the answer is made of the kinds of search that are done."
    )


@asynccontextmanager
async def opened_search(settings: SearchSettings, data_dir: Path) -> AsyncIterator[Retriever]:
    """The retriever, with everything that it needs; closed at the end. Models are loaded when an index names them.

    Raises:
        ConfigurationError: a model folder or a secret is missing.
    """
    async with AsyncExitStack() as stack:
        index = open_index(settings.store or EmbeddedAddress(data_dir=data_dir, index=settings.index))
        stack.push_async_callback(index.aclose)
        models = Models(embedders_of(settings.embedders), await _expander_of(settings, stack))
        yield Retriever(
            index,
            models,
            RetrieverSettings(
                weights=LegWeights(settings.weight_bm25, settings.weight_dense, settings.weight_sparse),
                k=settings.rrf_k,
                depth=settings.depth,
                deadline_seconds=settings.deadline_seconds,
            ),
            await _reranker(settings, stack),
        )


async def _expander_of(settings: SearchSettings, stack: AsyncExitStack) -> ExpanderOf:
    """Expanders of questions. A server is not asked before the first one: while it is down, only its leg is missing."""
    opened: list[SparseExpander] = []
    if settings.splade_folder is not None:
        from medkg.haystack.splade import OnnxSplade, SpladeSettings

        asked = SpladeSettings(settings.splade_folder, settings.splade_max_tokens, on_gpu=settings.splade_on_gpu)
        if settings.splade_queries == "words":
            from medkg.haystack.splade_words import PassageSplade

            opened.append(await asyncio.to_thread(PassageSplade, asked.folder, asked.max_tokens))
        else:
            opened.append(await asyncio.to_thread(OnnxSplade, asked))
    if settings.splade_base_url is not None:
        from medkg.haystack.splade import ServedSplade

        client = await _client(settings.splade_base_url, settings, stack)
        opened.append(ServedSplade(client, settings.splade_model, settings.splade_revision))
    return expanders_of(opened)


async def _reranker(settings: SearchSettings, stack: AsyncExitStack) -> Reranker | None:
    if settings.rerank_base_url is None:
        return None
    from medkg.haystack.reranking import ServedReranker

    return ServedReranker(await _client(settings.rerank_base_url, settings, stack), settings.rerank_model)


async def _client(base_url: HttpUrl, settings: SearchSettings, stack: AsyncExitStack) -> "httpx.AsyncClient":
    import httpx

    given: dict[str, Any] = {"base_url": str(base_url), "timeout": settings.deadline_seconds}
    return await stack.enter_async_context(httpx.AsyncClient(**given))
