"""How the gateway searches: its settings, and the retriever that they describe."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from medkg.haystack.addresses import EmbeddedAddress, OpenSearchAddress, open_index
from medkg.haystack.expansion import ExpanderOf, SparseExpander, expanders_of
from medkg.haystack.legs import LegWeights, Models
from medkg.haystack.models import EmbedderSpec, embedders_of
from medkg.haystack.passage_store import DEFAULT_INDEX
from medkg.haystack.reranking import Reranker
from medkg.haystack.retriever import Retriever, RetrieverSettings

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
    splade_max_tokens: int = Field(256, ge=8, le=8192, description="As when the index was made.")
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
        models = Models(embedders_of(settings.embedders), _expander_of(settings))
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


def _expander_of(settings: SearchSettings) -> ExpanderOf:
    opened: list[SparseExpander] = []
    if settings.splade_folder is not None:
        from medkg.haystack.splade import OnnxSplade, SpladeSettings

        asked = SpladeSettings(settings.splade_folder, settings.splade_max_tokens, on_gpu=settings.splade_on_gpu)
        opened.append(OnnxSplade(asked))
    return expanders_of(opened)


async def _reranker(settings: SearchSettings, stack: AsyncExitStack) -> Reranker | None:
    if settings.rerank_base_url is None:
        return None
    import httpx

    from medkg.haystack.reranking import ServedReranker

    given: dict[str, Any] = {"base_url": str(settings.rerank_base_url), "timeout": settings.deadline_seconds}
    client = await stack.enter_async_context(httpx.AsyncClient(**given))
    return ServedReranker(client, settings.rerank_model)
