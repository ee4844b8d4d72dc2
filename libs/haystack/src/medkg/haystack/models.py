"""Models by description: what a setting, a topology or a serialised pipeline says, and the embedder it means."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from medkg.contracts.errors import ConfigurationError
from medkg.haystack.embedding import LocalEmbedder, TextEmbedder
from medkg.haystack.hashing import HashingEmbedder

EmbedderOf = Callable[[str], TextEmbedder | None]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HashingSpec(_Spec):
    """The hashing embedder: no model at all."""

    kind: Literal["hashing"] = "hashing"
    dimension: int = Field(384, ge=32, le=8192)


class OnnxSpec(_Spec):
    """A model in a local folder; fields as :class:`medkg.haystack.onnx.OnnxSettings`."""

    kind: Literal["onnx"] = "onnx"
    folder: Path
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: int = Field(256, ge=8, le=8192)
    batch_size: int = Field(1, ge=1, le=256)
    threads: int = Field(2, ge=1, le=64)
    query_prefix: str = ""
    passage_prefix: str = ""
    revision: str = ""


class OpenAISpec(_Spec):
    """A model server; fields as :class:`medkg.haystack.openai.OpenAISettings`. The key comes from the environment."""

    kind: Literal["openai"] = "openai"
    base_url: str = Field(min_length=1)
    api_key_variable: str = Field("MEDKG_EMBED_OPENAI_API_KEY", description="the variable that holds the key")
    timeout_seconds: float = Field(10.0, gt=0, le=600)
    served_model: str = Field(min_length=1, max_length=200)
    revision: str = Field("", max_length=100)
    dimension: int = Field(ge=1, le=65_536)
    request_dimension: bool = False
    batch_size: int = Field(64, ge=1, le=2048)
    batch_tokens: int = Field(65_536, ge=64)
    max_characters: int = Field(32_000, ge=100)
    query_prefix: str = ""
    passage_prefix: str = ""


EmbedderSpec = Annotated[HashingSpec | OnnxSpec | OpenAISpec, Field(discriminator="kind")]
_SPEC: TypeAdapter[HashingSpec | OnnxSpec | OpenAISpec] = TypeAdapter(EmbedderSpec)


def read_spec(given: Mapping[str, Any]) -> HashingSpec | OnnxSpec | OpenAISpec:
    """A description as data, checked.

    Raises:
        ConfigurationError: an unknown kind or key, or a value out of bounds; every fault is named.
    """
    try:
        return _SPEC.validate_python(dict(given))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'kind'}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"reading the description of an embedder: {faults}") from error


def open_embedder(spec: HashingSpec | OnnxSpec | OpenAISpec) -> TextEmbedder:
    """The embedder that is described; a local model is loaded. A server is not asked before the first text.

    Raises:
        ConfigurationError: there is no usable model in the folder.
    """
    if isinstance(spec, HashingSpec):
        return HashingEmbedder(spec.dimension)
    if isinstance(spec, OnnxSpec):
        from medkg.haystack.onnx import OnnxEmbedder, OnnxSettings, Pooling  # 40 MB: only where one is used

        fields = spec.model_dump(exclude={"kind", "pooling"})
        return OnnxEmbedder(OnnxSettings(pooling=Pooling(spec.pooling), **fields))
    import httpx

    from medkg.haystack.openai import OpenAIEmbedder, OpenAISettings

    key = os.environ.get(spec.api_key_variable, "")
    client = httpx.AsyncClient(
        base_url=spec.base_url,
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=spec.timeout_seconds,
    )
    fields = spec.model_dump(exclude={"kind", "base_url", "api_key_variable", "timeout_seconds"})
    return OpenAIEmbedder(client, OpenAISettings(**fields))


def open_local_embedder(given: Mapping[str, Any]) -> LocalEmbedder:
    """As :func:`open_embedder`, for a description of a model that runs in this process.

    Raises:
        ConfigurationError: it is a server's.
    """
    spec = read_spec(given)
    if isinstance(spec, OpenAISpec):
        raise ConfigurationError("opening a local embedder: kind must be hashing or onnx, not openai")
    opened = open_embedder(spec)
    assert isinstance(opened, HashingEmbedder) or hasattr(opened, "vectors")  # noqa: S101  both local kinds have it
    return opened  # type: ignore[return-value]  # checked above


def embedders_of(specs: Sequence[HashingSpec | OnnxSpec | OpenAISpec]) -> EmbedderOf:
    """Finds among described embedders the one of the model that an index names; hashing needs no description.

    Models are opened once, when the first index asks for one that hashing is not.
    """
    opened: dict[str, TextEmbedder] = {}
    waiting = list(specs)

    def embedder_of(model: str) -> TextEmbedder | None:
        while model not in opened and waiting:
            embedder = open_embedder(waiting[0])
            opened[embedder.model] = embedder
            waiting.pop(0)
        return opened.get(model) or HashingEmbedder.of_model(model)

    return embedder_of
