"""The environment of everything that speaks to OpenSearch: variables with the prefix ``MEDKG_OPENSEARCH_``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from medkg.haystack.opensearch.client import Connection, connect
from medkg.haystack.opensearch.indexes import Indexes, Shape
from medkg.haystack.opensearch.names import IndexNames
from medkg.haystack.opensearch.reader import OpenSearchPassages
from medkg.haystack.vectors.store import VectorStore


class OpenSearchSettings(BaseSettings):
    """Where OpenSearch is, and how its indexes are named and made. All services of a fleet have the same."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_OPENSEARCH_", extra="ignore")

    url: str = Field("http://127.0.0.1:9200", description="Of one node, or of several with commas between.")
    user: str = Field("", description="Whom to log in as; empty for no login.")
    password: SecretStr = Field(SecretStr(""), description="Of the user.")
    ca_file: str = Field("", description="Certificates to trust, where the system's do not do.")
    index_key: SecretStr = Field(
        SecretStr(""), description="Secret from which index names are made, 16 bytes or more; keep it with the indexes."
    )
    prefix: str = Field("medkg", description="What the names of all indexes begin with.")
    timeout_seconds: float = Field(30.0, gt=0, le=600, description="For one request.")
    shards: int = Field(1, ge=1, le=64, description="Primary shards of an index that is made.")
    replicas: int = Field(0, ge=0, le=8, description="Copies of each shard.")
    refresh_seconds: float = Field(0.5, ge=0.05, le=60, description="How long a write stays unseen at most.")

    def names(self) -> IndexNames:
        """Raises ConfigurationError where the key is too short."""
        return IndexNames(self.index_key.get_secret_value().encode(), self.prefix)

    def shape(self, *, knn: bool) -> Shape:
        return Shape(self.shards, self.replicas, knn, self.refresh_seconds)

    def connection(self) -> Connection:
        return Connection(self.url, self.user, self.password.get_secret_value(), self.ca_file, self.timeout_seconds)


@asynccontextmanager
async def open_indexes(settings: OpenSearchSettings, *, knn: bool) -> AsyncIterator[Indexes]:
    """The indexes behind a client that is closed at the end; nothing is asked yet.

    Raises:
        ConfigurationError: the settings cannot work.
    """
    names = settings.names()
    client = connect(settings.connection())
    try:
        yield Indexes(client, names, settings.shape(knn=knn))
    finally:
        await client.close()


@asynccontextmanager
async def open_passages(
    settings: OpenSearchSettings, index: str, vectors: VectorStore | None
) -> AsyncIterator[OpenSearchPassages]:
    """The read side of an index. ``vectors`` is where vectors are; without it they are in OpenSearch."""
    async with open_indexes(settings, knn=vectors is None) as indexes:
        passages = OpenSearchPassages(indexes, index, vectors)
        try:
            yield passages
        finally:
            await passages.aclose()
