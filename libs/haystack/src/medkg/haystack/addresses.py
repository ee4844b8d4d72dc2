"""Where an index is, as data: what a setting or a serialised pipeline says, and the index that it means."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from medkg.contracts.errors import ConfigurationError
from medkg.haystack.embedded import EmbeddedPassages
from medkg.haystack.passage_store import DEFAULT_INDEX
from medkg.haystack.stores import PassageIndex


class _Address(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str = DEFAULT_INDEX


class EmbeddedAddress(_Address):
    """The embedded stores of a data folder."""

    kind: Literal["embedded"] = "embedded"
    data_dir: Path


class OpenSearchAddress(_Address):
    """Indexes in OpenSearch. Secrets are named by the variables that hold them. Without a ``data_dir`` the vectors are
    in OpenSearch, too; with one they are in the vector log there."""

    kind: Literal["opensearch"] = "opensearch"
    url: str = "http://127.0.0.1:9200"
    user: str = ""
    password_variable: str = "MEDKG_OPENSEARCH_PASSWORD"  # noqa: S105  the name of a variable
    ca_file: str = ""
    key_variable: str = "MEDKG_OPENSEARCH_INDEX_KEY"
    prefix: str = "medkg"
    timeout_seconds: float = Field(30.0, gt=0, le=600)
    data_dir: Path | None = None


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
    from medkg.haystack.opensearch.client import Connection, connect  # an extra: only where it is used
    from medkg.haystack.opensearch.indexes import Indexes, Shape
    from medkg.haystack.opensearch.names import IndexNames
    from medkg.haystack.opensearch.reader import OpenSearchPassages

    password = os.environ.get(address.password_variable, "")
    client = connect(Connection(address.url, address.user, password, address.ca_file, address.timeout_seconds))
    names = IndexNames(os.environ.get(address.key_variable, "").encode(), address.prefix)
    indexes = Indexes(client, names, Shape(knn=address.data_dir is None))
    return OpenSearchPassages(indexes, address.index, address.data_dir, owns_client=True)
