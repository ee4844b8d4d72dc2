"""Where an index is, as data: what a setting or a serialised pipeline says, and the index that it means."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from medkg.contracts.errors import ConfigurationError
from medkg.haystack.embedded import EmbeddedPassages
from medkg.haystack.passage_database import DEFAULT_INDEX
from medkg.haystack.stores import PassageIndex
from medkg.haystack.vectors.cache import DEFAULT_CACHE_BYTES
from medkg.haystack.vectors.store import VectorStore, vector_store

if TYPE_CHECKING:
    from medkg.haystack.opensearch.settings import OpenSearchSettings

_NAMED: Final = {"url", "user", "ca_file", "prefix", "timeout_seconds"}


class _Address(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str = DEFAULT_INDEX


class EmbeddedAddress(_Address):
    """The embedded stores of a data folder."""

    kind: Literal["embedded"] = "embedded"
    data_dir: Path


class OpenSearchAddress(_Address):
    """Indexes in OpenSearch. What is not named is as the environment says (``MEDKG_OPENSEARCH_…``, see
    :class:`medkg.haystack.opensearch.settings.OpenSearchSettings`), so that a fleet says it once; but who names another
    ``url`` names its ``user``, too. Secrets are named by the variables that hold them.

    With ``blobs`` or a ``data_dir`` vectors are FAISS segments in the blob store that the index service writes to: at
    ``blobs`` (``s3://bucket/prefix`` or ``file:///folder``, and the ``endpoint`` of a server that is not Amazon's), or
    where the environment says (``MEDKG_BLOBS_URL``, else the folder ``blobs`` of the ``data_dir``). They are cached in
    ``data_dir``, by default the user's cache folder. With neither the vectors are in OpenSearch.
    """

    kind: Literal["opensearch"] = "opensearch"
    url: str | None = None
    user: str | None = None
    password_variable: str = "MEDKG_OPENSEARCH_PASSWORD"  # noqa: S105  the name of a variable
    ca_file: str | None = None
    key_variable: str = "MEDKG_OPENSEARCH_INDEX_KEY"
    prefix: str | None = None
    timeout_seconds: float | None = Field(None, gt=0, le=600)
    data_dir: Path | None = None
    blobs: str = ""
    endpoint: str = ""
    cache_bytes: int = Field(DEFAULT_CACHE_BYTES, ge=0)


Address = Annotated[EmbeddedAddress | OpenSearchAddress, Field(discriminator="kind")]
_ADDRESS: TypeAdapter[EmbeddedAddress | OpenSearchAddress] = TypeAdapter(Address)


def read_address(given: Mapping[str, Any]) -> EmbeddedAddress | OpenSearchAddress:
    """An address as data, checked.

    Raises:
        ConfigurationError: an unknown kind or key, or a value out of bounds; every fault is named.
    """
    try:
        return _ADDRESS.validate_python(dict(given))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'kind'}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"reading the address of an index: {faults}") from error


def open_index(address: EmbeddedAddress | OpenSearchAddress) -> PassageIndex:
    """The index at an address; nothing is read yet.

    Raises:
        ConfigurationError: a secret that is needed is not in the environment.
    """
    if isinstance(address, EmbeddedAddress):
        return EmbeddedPassages(address.data_dir, address.index)
    from medkg.haystack.opensearch.client import connect  # an extra: only where it is used
    from medkg.haystack.opensearch.indexes import Indexes
    from medkg.haystack.opensearch.reader import OpenSearchPassages

    settings = _settings_of(address)
    names = settings.names()
    vectors = vectors_of(address)
    indexes = Indexes(connect(settings.connection()), names, settings.shape(knn=vectors is None))
    return OpenSearchPassages(indexes, address.index, vectors, owns_client=True)


def _settings_of(address: OpenSearchAddress) -> "OpenSearchSettings":
    from medkg.haystack.opensearch.settings import OpenSearchSettings  # the extra again
    from medkg.runtime.settings import from_environment

    named = address.model_dump(include=_NAMED, exclude_none=True)
    if address.url is not None:  # the login of the environment is for the server of the environment
        named = {"user": "", "ca_file": "", **named}
    secrets = {
        "password": SecretStr(os.environ.get(address.password_variable, "")),
        "index_key": SecretStr(os.environ.get(address.key_variable, "")),
    }
    return from_environment(OpenSearchSettings).model_copy(update={**named, **secrets})


def vectors_of(address: OpenSearchAddress) -> VectorStore | None:
    """Where the vectors beside OpenSearch are; None where they are in it.

    Raises:
        ConfigurationError: ``blobs`` is no blob store.
    """
    if address.data_dir is None and not address.blobs:
        return None
    from medkg.runtime.blobs import open_blobs  # the extra again
    from medkg.runtime.settings import RuntimeSettings, from_environment

    data_dir = address.data_dir or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medkg"
    known = from_environment(RuntimeSettings).model_copy(update={"data_dir": data_dir})
    if address.blobs:
        known = known.model_copy(update={"blobs_url": address.blobs, "blobs_endpoint": address.endpoint})
    blobs = open_blobs(known.blob_location, endpoint=known.blobs_endpoint)
    return vector_store(blobs, data_dir, address.cache_bytes)
