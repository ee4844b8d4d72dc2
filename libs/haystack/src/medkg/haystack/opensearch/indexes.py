"""The physical indexes behind a tenant's alias: made at the first write, and what they are known to hold."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import ConflictError, NotFoundError, RequestError

from medkg.contracts.errors import ConfigurationError, PipelineConfigError
from medkg.haystack.opensearch import schema
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.layout import FACTS, FACTS_ID
from medkg.haystack.opensearch.names import IndexNames
from medkg.haystack.writes import DocumentWrite

_KNOWN: Final = 10_000  # tenants whose index is remembered
MAX_KNN_DIMENSION: Final = 16_000
_TEMPLATE = "medkg-passages"


@dataclass(frozen=True, slots=True)
class Shape:
    """How indexes are made. ``knn``: vectors are in OpenSearch, and not beside it."""

    shards: int = 1
    replicas: int = 0
    knn: bool = False
    refresh_seconds: float = 0.5

    def settings(self) -> schema.Json:
        return schema.settings(
            shards=self.shards, replicas=self.replicas, knn=self.knn, refresh_seconds=self.refresh_seconds
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """Whose vectors and term weights an index holds. Written once, never changed."""

    model: str
    dimension: int
    sparse_model: str

    def __str__(self) -> str:
        return f"{self.model} (dimension {self.dimension}, sparse {self.sparse_model or 'none'})"


class Indexes:
    """Makes sure that what a write needs is there. Used on one event loop; any number of processes may do the same."""

    def __init__(self, client: AsyncOpenSearch, names: IndexNames, shape: Shape) -> None:
        self.client = client
        self.names = names
        self.shape = shape
        self._facts: dict[str, Facts | None] = {}
        self._lock = asyncio.Lock()
        self._has_template = False

    async def alias(self, tenant_id: str, index: str) -> str:
        """The alias of a tenant's index, which there is when this returns.

        Raises:
            ConfigurationError: a name that cannot be, or an index that another version of medkg made.
            ResourceUnavailableError: OpenSearch does not answer.
        """
        alias = self.names.alias(tenant_id, index)
        if alias not in self._facts:
            async with self._lock:
                if alias not in self._facts:
                    await self._make(alias)
        return alias

    async def claim(self, alias: str, index: str, write: DocumentWrite) -> PipelineConfigError | None:
        """Makes the index one of the write's model, if it has none yet; the refusal where it has another."""
        wanted = Facts(write.model, write.dimension, write.sparse_model)
        found = self._facts.get(alias) or await self.facts(alias)
        if found is None:
            found = await self._claim(alias, wanted)
        self._facts[alias] = found
        if found == wanted:
            return None
        return PipelineConfigError(
            f"indexing document {write.doc_id} into {index!r}: the index holds vectors of {found}, these are of "
            f"{wanted}, and the two cannot be compared; give the index stage another index (`with: {{index: NAME}}`) "
            "and submit the sources again, or keep the old model",
            doc_id=write.doc_id,
        )

    async def facts(self, alias: str) -> Facts | None:
        """Whose vectors the index holds; None while it has none, or is not there."""
        known = self._facts.get(alias)
        if known is not None:
            return known
        with translated("reading the facts of an index"):
            try:
                answer = await self.client.get(index=alias, id=FACTS_ID, params={"routing": FACTS_ID})
            except NotFoundError:
                return None
        source = answer["_source"]
        found = Facts(source["model"], source["dimension"], source["sparse_model"])
        self._remember(alias, found)
        return found

    def forget(self, alias: str) -> None:
        """The index was taken away, or replaced."""
        self._facts.pop(alias, None)

    @property
    def template(self) -> str:
        """The name of the index template of all indexes with this prefix."""
        return f"{_TEMPLATE}-{self.names.prefix}"

    async def ensure_template(self) -> None:
        """Puts the index template."""
        body = schema.template(self.names.pattern, self.shape.settings())
        with translated("putting the index template"):
            await self.client.indices.put_index_template(name=self.template, body=body)

    async def create(self, alias: str, *, with_alias: bool) -> str:
        """A new physical index for an alias, empty."""
        physical = f"{alias}-{secrets.token_hex(4)}"
        body: dict[str, Any] = {"settings": {"index": self.shape.settings()}, "mappings": schema.mappings()}
        if with_alias:
            body["aliases"] = {alias: {"is_write_index": True}}
        with translated("making an index"):
            await self.client.indices.create(index=physical, body=body)
        return physical

    async def physical(self, alias: str) -> str | None:
        """The index behind an alias."""
        with translated("looking up an index"):
            try:
                answer = await self.client.indices.get_alias(name=alias)
            except NotFoundError:
                return None
        return str(min(answer))

    async def add_vector_field(self, index: str, dimension: int) -> None:
        with translated("adding the field of vectors"):
            await self.client.indices.put_mapping(index=index, body=schema.vector_field(dimension))

    async def _make(self, alias: str) -> None:
        if not self._has_template:
            await self.ensure_template()
            self._has_template = True
        physical = await self.physical(alias)
        if physical is None:
            physical = await self._create_first(alias)
        await self.check(physical)
        await self.wait(physical, seconds=30)
        self._remember(alias, None)

    async def _create_first(self, alias: str) -> str:
        """Two writers may meet here: the name of the first index is the same for both, so that one of them is late."""
        physical = f"{alias}-first"
        body = {
            "settings": {"index": self.shape.settings()},
            "mappings": schema.mappings(),
            "aliases": {alias: {"is_write_index": True}},
        }
        with translated("making an index"):
            try:
                await self.client.indices.create(index=physical, body=body)
            except RequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
        return physical

    async def wait(self, name: str, *, seconds: int) -> None:
        """Until the primary shards answer: right after an index was made, maybe by another process, they do not."""
        with translated("waiting for the shards of an index"), suppress(NotFoundError):
            # a status will not do: an index whose first primary is still being made counts as yellow
            params = {"wait_for_no_initializing_shards": "true", "request_timeout": seconds}
            await self.client.cluster.health(index=name, params=params)

    async def check(self, physical: str) -> None:
        """Raises ConfigurationError for an index that this code does not understand."""
        with translated("reading the mapping of an index"):
            answer = await self.client.indices.get_mapping(index=physical)
        version = answer[physical]["mappings"].get("_meta", {}).get("medkg_schema")
        if version != schema.SCHEMA_VERSION:
            raise ConfigurationError(
                f"opening {physical} in OpenSearch: it has schema {version}, this medkg reads schema "
                f"{schema.SCHEMA_VERSION}; delete it and submit the sources again"
            )

    async def _claim(self, alias: str, wanted: Facts) -> Facts | None:
        body = {
            "kind": FACTS,
            "model": wanted.model,
            "dimension": wanted.dimension,
            "sparse_model": wanted.sparse_model,
        }
        if self.shape.knn and wanted.dimension > MAX_KNN_DIMENSION:
            raise ConfigurationError(
                f"indexing vectors of {wanted}: OpenSearch's k-NN fields hold at most {MAX_KNN_DIMENSION} dimensions"
            )
        with translated("claiming an index for a model"):
            if self.shape.knn:
                physical = await self.physical(alias)
                await self.add_vector_field(physical or alias, wanted.dimension)
            with suppress(ConflictError):  # another writer was first; what it said is read below
                await self.client.create(index=alias, id=FACTS_ID, body=body, params={"routing": FACTS_ID})
        return await self.facts(alias)

    def _remember(self, alias: str, facts: Facts | None) -> None:
        if len(self._facts) >= _KNOWN:
            self._facts.pop(next(iter(self._facts)))
        self._facts[alias] = facts
